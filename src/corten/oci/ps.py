"""`corten-oci ps`: the processes of a container, by its control group."""

from __future__ import annotations

import os
import sys

from corten.cli.parser import Option, UsageError
from corten.engine import lifecycle
from corten.errors import Error, Unsupported
from corten.json_text import dumps
from corten.oci.table import command, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from corten.oci.main import Settings

COMMAND = command(
    "ps",
    "[OPTIONS] ID [PS OPTIONS]",
    "Show the processes of a container, as the host sees them.",
    Option(("-f", "--format"), "table|json", "How (default: table)"),
    maximum=None,
    interspersed=False,
)


def run(settings: Settings, words: Sequence[str]) -> int:
    """Print them; 0."""
    parsed = parse(COMMAND, words)
    if parsed is None:
        return 0
    values, (identity, *options) = parsed
    form = values.get("format", "table")
    if form not in ("table", "json"):
        raise UsageError(f"--format: unknown format {form!r}: table or json")
    found = lifecycle.find(settings.root, identity).allow("ps")
    if found.group is None:
        raise Unsupported(f"ps: container {identity} has no control group to find its processes by")
    pids = found.group.procs()
    if form == "json":
        sys.stdout.write(dumps(list(pids)) + "\n")
        return 0
    sys.stdout.write(_table(pids, options or ["-ef"]))
    return 0


def _table(pids: tuple[int, ...], options: list[str]) -> str:
    reader, writer = os.pipe()
    try:
        child = os.posix_spawnp("ps", ["ps", *options], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)])
    except FileNotFoundError:
        raise Unsupported("ps: the program `ps` is not installed: use --format json, or install procps") from None
    finally:
        os.close(writer)
    with open(reader, encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or not lines:
        raise Error(f"ps {' '.join(options)}: failed")
    titles = lines[0].split()
    if "PID" not in titles:
        raise UsageError(f"ps {' '.join(options)}: shows no column PID to choose by")
    column = titles.index("PID")
    wanted = {str(pid) for pid in pids}
    shown = [line for line in lines[1:] if len(line.split()) > column and line.split()[column] in wanted]
    return "".join(f"{line}\n" for line in (lines[0], *shown))
