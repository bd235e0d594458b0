"""`corten-oci pause` and `corten-oci resume`."""

from __future__ import annotations

from corten.engine import lifecycle, oci_state
from corten.errors import Unsupported
from corten.oci.table import command, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from corten.oci.main import Settings

COMMANDS = {
    "pause": command("pause", "ID", "Stop all processes of a container until 'resume'."),
    "resume": command("resume", "ID", "Let the processes of a paused container go on."),
}


def run(settings: Settings, words: Sequence[str]) -> int:
    """Do it; 0."""
    parsed = parse(COMMANDS[settings.command], words)
    if parsed is None:
        return 0
    identity = parsed[1][0]
    lock = lifecycle.lock(oci_state.directory(settings.root, identity))
    assert lock is not None  # it goes with this process
    found = lifecycle.find(settings.root, identity).allow(settings.command)
    if found.group is None:
        raise Unsupported(f"{settings.command}: container {identity} has no control group")
    if settings.command == "pause":
        found.group.freeze()
    else:
        found.group.thaw()
    return 0
