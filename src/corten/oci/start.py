"""`corten-oci start`."""

from __future__ import annotations

from corten.engine import starting
from corten.oci.table import command, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from corten.oci.main import Settings

COMMAND = command("start", "ID", "Start the program of a created container.")


def run(settings: Settings, words: Sequence[str]) -> int:
    """Start it; 0."""
    parsed = parse(COMMAND, words)
    if parsed is not None:
        starting.start(settings.root, parsed[1][0], settings.warn)
    return 0
