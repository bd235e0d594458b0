"""`corten-oci delete`."""

from __future__ import annotations

from corten.cli.parser import Option
from corten.engine import deleting
from corten.oci.table import command, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from corten.oci.main import Settings

COMMAND = command(
    "delete",
    "[OPTIONS] ID",
    "Remove a stopped container, or a created one.",
    Option(("-f", "--force"), "", "Also a running one, which is killed; none is no error"),
)


def run(settings: Settings, words: Sequence[str]) -> int:
    """Remove it; 0."""
    parsed = parse(COMMAND, words)
    if parsed is not None:
        deleting.delete(settings.root, parsed[1][0], bool(parsed[0].get("force")), settings.warn)
    return 0
