"""`corten-oci checkpoint` and `restore`: by criu, where it is installed."""

from __future__ import annotations

import os

from corten.cli.parser import Option
from corten.oci.table import BUNDLE, CONSOLE_SOCKET, PID_FILE, absolute, command, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

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
    """Save it or bring it back; 0, or the exit code of what was restored in the foreground."""
    parsed = parse(COMMANDS[settings.command], words)
    if parsed is None:
        return 0
    values, (identity,) = parsed
    if settings.command == "checkpoint":
        return _checkpoint(settings, identity, values)
    return _restore(settings, identity, values)


def _checkpoint(settings: Settings, identity: str, values: dict[str, Any]) -> int:
    from corten.engine import checkpointing, deleting, lifecycle, oci_state

    lock = lifecycle.lock(oci_state.directory(settings.root, identity))
    assert lock is not None
    try:
        checkpointing.checkpoint(lifecycle.find(settings.root, identity).allow("checkpoint"), values)
    finally:
        os.close(lock)
    if not values.get("leave_running") and not values.get("pre_dump"):
        deleting.delete(settings.root, identity, True, settings.warn)
    return 0


def _restore(settings: Settings, identity: str, values: dict[str, Any]) -> int:
    from corten.engine import restoring
    from corten.engine.foreground import attend
    from corten.linux import signals
    from corten.oci.making import request
    from corten.oci.run import finish

    for key in ("image_path", "work_path"):
        if values.get(key):
            values[key] = absolute(values[key])  # the working directory becomes the bundle
    options, outlets, _ = request(settings, values)
    mask = signals.block_all() if not values.get("detach") else None
    created = restoring.restore(settings.root, identity, options, outlets, values)
    try:
        for warning in created.bundle.warnings:
            settings.warn(warning)
        if mask is None:
            os.close(created.lock)
            return 0
        assert created.child is not None
        code = attend(created.child, mask, lambda: os.close(created.lock))
    except BaseException:
        created.destroy()
        raise
    finish(settings, created)
    return code
