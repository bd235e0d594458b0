"""`corten system df`: what Corten keeps on disk."""

from __future__ import annotations

import os
import sys

from corten.cli.columns import lines
from corten.cli.parser import Command, Group, Option, UsageError, parse
from corten.engine.quantities import show_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

DF = Command(
    "corten system df", "[--json]",
    "Show what images and containers take on disk, and what 'corten image prune' and 'prune --all' would free.",
    (Group("Options", (Option(("--json",), help="Print JSON"),)),),
    maximum=0,
)  # fmt: skip


def run(words: Sequence[str]) -> int:
    """Run a sub-command; its exit code."""
    if not words or words[0] in ("--help", "-h", "help"):
        sys.stdout.write("Usage: corten system COMMAND\n\nCommands:\n  df         Show what is kept on disk\n")
        return 0
    if words[0] != "df":
        raise UsageError(f"system: unknown command {words[0]}: there is df")
    values, _ = parse(DF, words[1:])
    from corten.cli.image.listing import complain
    from corten.engine.home import directory
    from corten.images.store.usage import usage

    damaged: list[str] = []
    found = usage(directory(), damaged.append)
    if values.get("json"):
        import json

        json.dump({row.what: row.__dict__ for row in found}, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return complain(damaged)
    rows = [("WHAT", "COUNT", "IN USE", "SIZE", "UNUSED")]
    rows += [(row.what, str(row.count), str(row.used), show_size(row.size), show_size(row.unused)) for row in found]
    sys.stdout.write(lines(rows))
    sys.stdout.write(f"in {os.path.abspath(directory())}\n")
    return complain(damaged)
