"""`corten-oci kill`."""

from __future__ import annotations

from corten.cli.parser import Option
from corten.engine import lifecycle, signalling
from corten.linux import signals
from corten.oci.table import command, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from corten.oci.main import Settings

# What follows the id is the signal, which may look like an option (`-9`).
COMMAND = command(
    "kill",
    "[OPTIONS] ID [SIGNAL]",
    "Send a signal (default: SIGTERM) to the first process of a container.",
    Option(("-a", "--all"), "", "Send it to all processes of the container"),
    maximum=2,
    interspersed=False,
)


def run(settings: Settings, words: Sequence[str]) -> int:
    """Send it; 0."""
    parsed = parse(COMMAND, words)
    if parsed is None:
        return 0
    values, (identity, *rest) = parsed
    number = signals.parse(rest[0].lstrip("-")) if rest else signals.TERM
    signalling.kill(lifecycle.find(settings.root, identity), number, everyone=bool(values.get("all")))
    return 0
