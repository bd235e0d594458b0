"""The state of the live view and its page. Pure: keys in, lines out.

Rule 1: a page has exactly as many lines as fit, none longer than the terminal is wide, in plain ASCII: what a container
        calls itself cannot move the cursor, and no locale is needed.
Rule 2: what is chosen stays chosen when the order changes; if it goes, its neighbour is.
"""

from __future__ import annotations

import time

from corten.records import Record
from corten.views.tables import bytes_text
from corten.views.top.reading import ProcessRow, Row, total

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# key: (name of the order, whether the largest comes first)
ORDERS = {
    "c": ("cpu", True),
    "m": ("memory", True),
    "t": ("tasks", True),
    "w": ("waits", True),
    "n": ("name", False),
}
PLAIN, TITLE, CHOSEN, BAR, ALARM, DIM = "plain", "title", "chosen", "bar", "alarm", "dim"
_NEAR = 0.9
"""The part of a limit from which on a container is marked."""
_KEYS = "q leave  arrows choose  c m t w n order  / filter  f freeze  k kill  r resize  space hold  h help"
_FEW_KEYS = "q leave  / filter  f freeze  k kill  r resize  h help"
HELP = (
    "Up Down PgUp PgDn  choose a container; its processes are shown below",
    "c m t w n          order by CPU, memory, tasks, waits, name; the same key again turns it round",
    "/                  show only containers whose name, id or status has these letters; Esc shows all",
    "f                  freeze the chosen container, or let it go on",
    "k                  send it a signal (KILL ends all of it)",
    "r                  give it new limits: memory=256m cpus=1.5 pids=100",
    "space              hold the picture, or go on",
    "+ -                look more often, less often",
    "q                  leave",
)


class State(Record):
    """What the view is doing. order, reverse: how it sorts; filter: letters; chosen: an id; held: the picture stands;
    prompt: what is asked, empty for nothing; typed: the answer so far; note: what the last key did; help: shown;
    interval: seconds between two looks.
    """

    order: str = "c"
    reverse: bool = False
    filter: str = ""
    chosen: str = ""
    held: bool = False
    prompt: str = ""
    typed: str = ""
    note: str = ""
    help: bool = False
    interval: float = 2.0


class Line(Record):
    """One line of the page and how it looks."""

    text: str
    look: str = PLAIN


def visible(state: State, rows: Sequence[Row]) -> tuple[Row, ...]:
    """The containers that are shown, in order."""
    letters = state.filter.lower()
    shown = [row for row in rows if letters in f"{row.live.name} {row.live.id} {row.status}".lower()]
    name, largest = ORDERS[state.order]
    shown.sort(key=lambda row: (row.live.label, row.live.id))
    shown.sort(key=lambda row: _key(name, row), reverse=largest != state.reverse)
    return tuple(shown)


def _key(name: str, row: Row) -> tuple[float, str]:
    reading = row.reading
    if name == "name":
        return 0.0, row.live.label
    value = {
        "cpu": row.cpus,
        "memory": reading.memory,
        "tasks": reading.pids,
        "waits": max(reading.pressure.values(), default=0.0),
    }[name]
    return float(value or 0.0), ""


def settle(state: State, rows: Sequence[Row], before: Sequence[str] = ()) -> State:
    """The state with a choice that is there. before: the ids in the order in which they were last shown."""
    ids = [row.live.id for row in rows]
    if state.chosen in ids:
        return state
    place = list(before).index(state.chosen) if state.chosen in before else 0
    return state.replace(chosen=ids[min(place, len(ids) - 1)] if ids else "")


def move(state: State, rows: Sequence[Row], steps: int) -> State:
    """Choose another container."""
    ids = [row.live.id for row in rows]
    if not ids:
        return state
    place = ids.index(state.chosen) if state.chosen in ids else 0
    return state.replace(chosen=ids[max(0, min(len(ids) - 1, place + steps))])


def sort(state: State, key: str) -> State:
    """Another order, or the same one turned round."""
    return state.replace(order=key, reverse=not state.reverse if key == state.order else False)


def page(
    state: State, rows: Sequence[Row], processes: Sequence[ProcessRow], width: int, height: int
) -> tuple[Line, ...]:
    """The whole screen. rows: as `visible` gives them."""
    if height < 6 or width < 40:
        return (Line("corten top: the terminal is too small"[:width], ALARM),)[:height]
    head = _head(state, rows, width)
    room = height - len(head) - 2
    below = _processes(processes, min(max(3, room // 3), 2 + len(processes))) if state.chosen else []
    if state.help:
        middle = [Line(""), *(Line(f"  {line}") for line in _help(width))][:room]
        below = []
    else:
        middle = _containers(state, rows, width, room - len(below))
    middle += [Line("")] * (room - len(below) - len(middle))
    note = Line(state.note, ALARM if state.note else PLAIN)
    lines = [*head, *middle[: room - len(below)], *below, note, _foot(state, width)]
    return tuple(Line(_plain(line.text)[:width].ljust(width), line.look) for line in lines)


def _help(width: int) -> list[str]:
    import textwrap

    return [line for words in HELP for line in textwrap.wrap(words, width - 3, subsequent_indent=" " * 19)]


def _plain(text: str) -> str:
    return "".join(char if " " <= char <= "~" else "?" for char in text)


def _head(state: State, rows: Sequence[Row], width: int) -> list[Line]:
    cpus, memory, pids = total(rows)
    words = f"corten top  {len(rows)} containers  {cpus * 100:.0f} % CPU  {bytes_text(memory)}  {pids} tasks"
    if state.filter:
        words += f"  only: {state.filter}"
    if state.held:
        words += "  (held: space goes on)"
    return [Line(f"{words}  {time.strftime('%H:%M:%S')}", BAR), Line(_columns(TITLES, width, state), TITLE)]


TITLES = ("NAME", "ID", "STATUS", "CPU %", "OF", "MEMORY", "OF", "TASKS", "OF", "WAIT cpu", "mem", "io %")
_SORTED = {"c": 3, "m": 5, "t": 7, "w": 9, "n": 0}
_WIDTHS = (-15, -12, -8, 6, 4, 8, 8, 5, 5, 8, 5, 5)
_ID = 1
_WIDE = 100
"""Columns from which on the id is shown too; what is left over is for the name."""
_NAME = 40


def _columns(cells: Sequence[str], width: int, state: State | None = None) -> str:
    shown = list(cells)
    if state is not None:
        shown[_SORTED[state.order]] += "^" if state.reverse else "v"
    parts: list[str] = []
    left = width
    for number, (cell, size) in enumerate(zip(shown, (-_name_width(width), *_WIDTHS[1:]), strict=True)):
        if number == _ID and width < _WIDE:
            continue
        left -= abs(size) + bool(parts)
        if left < 0:  # half a figure would be another one
            break
        text = cell[: abs(size)]
        parts.append(text.ljust(-size) if size < 0 else text.rjust(size))
    return " ".join(parts)


def _name_width(width: int) -> int:
    """What is left of a wide screen beside the other columns."""
    usual = -_WIDTHS[0]
    return max(usual, min(_NAME, usual + width - sum(map(abs, _WIDTHS)) - len(_WIDTHS) + 1))


def _containers(state: State, rows: Sequence[Row], width: int, room: int) -> list[Line]:
    if not rows:
        return [Line("  no containers" + (f" with {state.filter!r}: Esc shows all" if state.filter else ""), DIM)]
    ids = [row.live.id for row in rows]
    place = ids.index(state.chosen) if state.chosen in ids else 0
    first = max(0, min(place - room // 2, len(rows) - room))
    return [_container(row, row.live.id == state.chosen, width) for row in rows[first : first + room]]


def _container(row: Row, chosen: bool, width: int) -> Line:
    reading = row.reading
    cells = (
        row.live.name or ("-" if width >= _WIDE else row.live.id),
        row.live.id,
        row.status,
        "-" if row.cpus is None else f"{row.cpus * 100:.1f}",
        "-" if reading.cpu_limit is None else f"{reading.cpu_limit * 100:.0f}",
        bytes_text(reading.memory) or "?",
        bytes_text(reading.memory_limit) or "-",
        "?" if reading.pids is None else str(reading.pids),
        "-" if reading.pids_limit is None else f"{reading.pids_limit:.0f}",
        *(f"{reading.pressure[name]:.1f}" if name in reading.pressure else "?" for name in ("cpu", "memory", "io")),
    )
    return Line(_columns(cells, width), CHOSEN if chosen else ALARM if near_a_limit(row) else PLAIN)


def near_a_limit(row: Row) -> bool:
    """Whether it uses nearly all of a limit, or processes were killed for memory."""
    reading = row.reading
    pairs = ((reading.memory, reading.memory_limit), (reading.pids, reading.pids_limit), (row.cpus, reading.cpu_limit))
    return bool(reading.oom_kills) or any(
        used is not None and limit is not None and used >= _NEAR * limit for used, limit in pairs
    )


def _processes(processes: Sequence[ProcessRow], room: int) -> list[Line]:
    lines = [Line(f"{'PID':>9} {'CPU %':>7} {'MEMORY':>10}  PROCESS", TITLE)]
    for row in processes[: room - 1]:
        used = "-" if row.cpus is None else f"{row.cpus * 100:.1f}"
        lines.append(Line(f"{row.pid:>9} {used:>7} {bytes_text(row.memory):>10}  {row.name}"))
    return lines


def _foot(state: State, width: int) -> Line:
    if state.prompt:
        return Line(f"{state.prompt} {state.typed}_", BAR)
    return Line(_KEYS if width >= _WIDE else _FEW_KEYS, BAR)
