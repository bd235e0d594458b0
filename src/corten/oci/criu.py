"""`corten-oci checkpoint` and `restore`: by criu, where it is installed."""

from __future__ import annotations

from corten.cli.parser import Option
from corten.errors import Unsupported
from corten.linux.idmap import find_program
from corten.oci.table import BUNDLE, CONSOLE_SOCKET, PID_FILE, command, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from corten.oci.main import Settings

_BOTH = (
    Option(("--image-path",), "DIR", "Where the image is"),
    Option(("--work-path",), "DIR", "Where logs go"),
    Option(("--tcp-established",), "", "Open TCP connections too"),
    Option(("--ext-unix-sk",), "", "External unix sockets too"),
    Option(("--shell-job",), "", "A session of a shell too"),
    Option(("--file-locks",), "", "File locks too"),
    Option(("--lazy-pages",), "", "Memory on demand"),
    Option(("--manage-cgroups-mode",), "MODE", "soft, full, strict or ignore"),
    Option(("--empty-ns",), "NS", "Namespaces without their content", repeat=True),
    Option(("--auto-dedup",), "", "Remove pages that are in later images"),
)
COMMANDS = {
    "checkpoint": command(
        "checkpoint", "[OPTIONS] ID", "Save a running container to files.", *_BOTH,
        Option(("--parent-path",), "DIR", "The image before this one"),
        Option(("--leave-running",), "", "Do not end it"),
        Option(("--pre-dump",), "", "Save the memory only, and go on"),
        Option(("--tcp-skip-in-flight",), "", "Leave out connections that are being made"),
        Option(("--link-remap",), "", "Files that have been removed too"),
        Option(("--status-fd",), "N", "Write there when ready"),
        Option(("--page-server",), "ADDRESS:PORT", "Send the pages there"),
    ),
    "restore": command(
        "restore", "[OPTIONS] ID", "Bring a saved container back.", *_BOTH, BUNDLE, CONSOLE_SOCKET, PID_FILE,
        Option(("-d", "--detach"), "", "Leave it running"),
        Option(("--no-subreaper",), "", hidden=True),
        Option(("--no-pivot",), "", "Move the root instead of pivoting into it"),
        Option(("--lsm-profile",), "TYPE:LABEL", "Another security label"),
        Option(("--lsm-mount-context",), "CONTEXT", "Another label of mounts"),
        Option(("--tcp-close",), "", "Close TCP connections"),
        Option(("--network-lock",), "METHOD", "How criu holds the network"),
    ),
}  # fmt: skip


def run(settings: Settings, words: Sequence[str]) -> int:
    """Say what is missing."""
    if parse(COMMANDS[settings.command], words) is None:
        return 0
    if find_program("criu") is None:
        raise Unsupported(f"{settings.command}: `criu` is not installed: install the package criu")
    raise Unsupported(f"{settings.command}: not done by this version")
