"""Plain columns, and times as people say them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def lines(rows: Sequence[Sequence[str]]) -> str:
    """Rows as lines with columns as wide as needed; the last column is not filled up."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )


def printable(text: str) -> str:
    """The text on one line, without what a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))


def age(created: str, now: float | None = None) -> str:
    """How long ago a time as RFC 3339 has it was: `3 days ago`; "" for none, the text itself if it cannot be read."""
    if not created:
        return ""
    import datetime
    import time

    try:
        then = datetime.datetime.fromisoformat(created[:19] + "+00:00").timestamp()
    except ValueError:
        return printable(created)
    seconds = int((time.time() if now is None else now) - then)
    for size, word in ((31_536_000, "year"), (2_592_000, "month"), (86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {word}{'s' if count > 1 else ''} ago"
    return f"{max(seconds, 0)} seconds ago"
