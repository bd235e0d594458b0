"""`--help` drawn from the table of options. Imported only when someone asks."""

from __future__ import annotations

import os
import textwrap

from corten.cli.examples import EXAMPLES
from corten.cli.parser import Command, Option

_COLUMN = 30
"""Where the descriptions begin."""


def width() -> int:
    """Columns to use: those of the terminal, between 60 and 100; 80 when there is none."""
    try:
        return max(60, min(100, os.get_terminal_size(1).columns))
    except OSError:
        return 80


def render(command: Command, columns: int = 80) -> str:
    """The help text of a command, no line longer than `columns`."""
    lines = [f"Usage: {command.name} {command.usage}", "", *textwrap.wrap(command.summary, columns)]
    for group in command.groups:
        shown = [option for option in group.options if not option.hidden and not option.refuse]
        if shown:
            lines += ["", f"{group.title}:"]
            for option in shown:
                lines += _option(option, columns)
    if command.notes:
        lines += ["", *command.notes.strip("\n").splitlines()]
    if command.name in EXAMPLES:
        lines += ["", "Examples:", *(f"  {line}" for line in EXAMPLES[command.name])]
    return "\n".join(lines) + "\n"


def _option(option: Option, columns: int) -> list[str]:
    names = ", ".join(option.names)
    head = f"  {names}" if len(option.names[0]) == 2 else f"      {names}"
    if option.metavar:
        head += f" {option.metavar}"
    text = textwrap.wrap(option.help, columns - _COLUMN, break_on_hyphens=False)
    if len(head) > _COLUMN - 2 or not text:
        return [head, *(" " * _COLUMN + line for line in text)]
    return [head.ljust(_COLUMN) + text[0], *(" " * _COLUMN + line for line in text[1:])]
