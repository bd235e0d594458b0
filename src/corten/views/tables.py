"""Plain tables for terminals and pipes.

Why not `rich`: importing it costs more than the whole of `corten namespaces` takes (measured: 60 ms against 45 for
1,000 processes), and these tables need neither colour nor wrapping.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NUMBERS = ">"
"""In `align`: this column holds numbers, which end at the same place."""


def render(titles: Sequence[str], rows: Sequence[Sequence[str]], align: str, width: int | None = None) -> str:
    """Rows under their titles, one line each. align: `<` or `>` for each column; width: columns to use, the last one
    is cut to fit; None: nothing is cut. A column in which no row has anything is left out.
    """
    used = [at for at in range(len(titles)) if any(row[at] for row in rows)] if rows else list(range(len(titles)))
    table = [[row[at] for at in used] for row in (titles, *rows)]
    sizes = [max(len(row[at]) for row in table) for at in range(len(used))]
    lines = []
    for row in table:
        cells = [
            cell.rjust(size) if align[at] == NUMBERS else cell.ljust(size)
            for cell, size, at in zip(row, sizes, used, strict=True)
        ]
        lines.append(cut("  ".join(cells).rstrip(), width))
    return "".join(f"{line}\n" for line in lines)


def cut(line: str, width: int | None) -> str:
    """A line no longer than `width`, with an ellipsis where something is missing."""
    return line if width is None or len(line) <= width else line[: max(width - 1, 0)] + "…"


def terminal_width(fd: int = 1) -> int | None:
    """The columns of the terminal behind a descriptor; None where there is no terminal."""
    try:
        return os.get_terminal_size(fd).columns
    except OSError:
        return None


def bytes_text(value: float | None) -> str:
    """Bytes in the largest binary unit that leaves at least 1: `1.5 GiB`; empty for None."""
    if value is None:
        return ""
    number = float(value)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1024 or unit == "TiB":
            break
        number /= 1024
    return f"{number:.0f} {unit}" if number >= 100 or unit == "B" or number == int(number) else f"{number:.1f} {unit}"
