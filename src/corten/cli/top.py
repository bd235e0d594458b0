"""`corten top`: a live view of containers."""

from __future__ import annotations

import os

from corten.cli.parser import Command, Group, Option, UsageError, parse
from corten.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND = Command(
    "corten top",
    "[--interval SECONDS]",
    "Show containers, their processes, limits and pressure, live on the whole screen.",
    (Group("Options", (Option(("--interval",), "SECONDS", "Time between two looks (default: 2)"),)),),
    """
Keys: arrows choose a container, c m t w n order, / filter, f freeze, k send a
signal, r new limits, space hold, h help, q leave. Near a limit: red.""",
    maximum=0,
)


def run(words: Sequence[str]) -> int:
    """Show it until somebody leaves; 0."""
    values, _ = parse(COMMAND, words)
    text = values.get("interval", "2")
    try:
        interval = float(text)
    except ValueError:
        interval = 0.0
    if not 0.5 <= interval <= 60:
        raise UsageError(f"--interval: {text!r} is not a number of seconds from 0.5 to 60")
    if not (os.isatty(0) and os.isatty(1)):
        raise UsageError("top needs a terminal: for scripts there is 'corten stats --json'")
    from importlib.util import find_spec

    if find_spec("_curses") is None:
        raise Unsupported("top needs the module curses: this Python was built without it; use another Python 3.11+")
    from corten.views.top.guard import guarded

    def draw() -> None:
        from corten.views.top.screen import show

        show(interval)

    return guarded(draw)
