"""`corten-oci list`."""

from __future__ import annotations

import os
import sys

from corten.cli.parser import Option, UsageError
from corten.engine import oci_state
from corten.errors import InvalidInput, NotFound
from corten.json_text import dumps
from corten.oci.table import command, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from corten.oci.main import Settings

COMMAND = command(
    "list",
    "[OPTIONS]",
    "List the containers below the root directory.",
    Option(("-f", "--format"), "table|json", "How (default: table)"),
    Option(("-q", "--quiet"), "", "The ids only"),
    minimum=0,
    maximum=0,
)
_COLUMNS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")


def run(settings: Settings, words: Sequence[str]) -> int:
    """Print them; 0."""
    parsed = parse(COMMAND, words)
    if parsed is None:
        return 0
    values = parsed[0]
    form = values.get("format", "table")
    if form not in ("table", "json"):
        raise UsageError(f"--format: unknown format {form!r}: table or json")
    found = _found(settings)
    if values.get("quiet"):
        sys.stdout.write("".join(f"{one['id']}\n" for one in found))
    elif form == "json":
        sys.stdout.write((dumps(found) if found else "null") + "\n")
    else:
        rows = [_COLUMNS, *(tuple(str(one[name.lower()]) for name in _COLUMNS) for one in found)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
        for row in rows:
            line = "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            sys.stdout.write(line.rstrip() + "\n")
    return 0


def _found(settings: Settings) -> list[dict[str, Any]]:
    out = []
    for name in oci_state.containers(settings.root):
        path = f"{settings.root}/{name}"
        try:
            shown = oci_state.shown(path, oci_state.read(path))
            owner = os.stat(path).st_uid
        except (NotFound, FileNotFoundError):
            continue  # it was deleted meanwhile
        except InvalidInput as error:
            settings.warn(str(error))
            continue
        out.append({**shown, "owner": _name(owner)})
    return out


def _name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"
