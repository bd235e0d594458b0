"""The terminal of the live view: drawing by curses, keys, and the loop."""

from __future__ import annotations

import curses
import os
import time

from corten.errors import Error, Unsupported
from corten.views.top import acting, model
from corten.views.top.model import State
from corten.views.top.reading import ProcessRow, Reader, Row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_INTERVALS = (0.5, 60.0)
_ESCAPE, _ENTER, _BACKSPACE = (27,), (10, 13, curses.KEY_ENTER), (8, 127, curses.KEY_BACKSPACE)


def show(interval: float) -> None:
    """Show the live view until `q`. `Unsupported`: the terminal is not known."""
    os.environ.setdefault("ESCDELAY", "25")  # milliseconds: a lone Esc is not the beginning of an arrow key
    for name in ("COLUMNS", "LINES"):  # curses would believe them; the terminal knows better, also when it changes
        os.environ.pop(name, None)
    try:
        window = curses.initscr()
    except curses.error as error:
        raise Unsupported(f"top: terminal type {os.environ.get('TERM', '')!r}: {error}: set TERM") from None
    try:
        curses.noecho()
        curses.cbreak()
        window.keypad(True)
        _Screen(window, interval).run()
    finally:
        try:
            curses.endwin()
        except curses.error:
            pass  # the terminal has gone, and with it what there was to put back


class _Screen:
    def __init__(self, window: curses.window, interval: float) -> None:
        self.window = window
        self.looks = _looks()
        self.reader = Reader()
        self.state = State(interval=interval)
        self.all: tuple[Row, ...] = ()
        self.rows: tuple[Row, ...] = ()
        self.processes: tuple[ProcessRow, ...] = ()
        self.running = True
        self.answer: Callable[[str], None] | None = None

    def run(self) -> None:
        self.look()
        following = time.monotonic() + min(1.0, self.state.interval)  # the second look soon: it has the first rates
        while self.running:
            self.draw()
            self.window.timeout(max(0, int((following - time.monotonic()) * 1000)))
            key = self.window.getch()
            if key == -1 or time.monotonic() >= following:
                if not self.state.held:
                    self.look()
                following = time.monotonic() + self.state.interval
            if key != -1:
                self.press(key)

    def look(self) -> None:
        """Read everything anew."""
        self.all = self.reader.rows()
        self.arrange()
        chosen = self.chosen()
        self.processes = self.reader.processes(chosen.live) if chosen else ()

    def arrange(self) -> None:
        before = [row.live.id for row in self.rows]
        self.rows = model.visible(self.state, self.all)
        self.state = model.settle(self.state, self.rows, before)

    def chosen(self) -> Row | None:
        return next((row for row in self.rows if row.live.id == self.state.chosen), None)

    def draw(self) -> None:
        height, width = self.window.getmaxyx()
        self.window.erase()
        for number, line in enumerate(model.page(self.state, self.rows, self.processes, width, height)):
            try:
                self.window.addnstr(number, 0, line.text, width, self.looks[line.look])
            except curses.error:  # the cursor cannot go behind the last cell: the text is there all the same
                continue
        self.window.refresh()

    # --- keys

    def press(self, key: int) -> None:
        if key == curses.KEY_RESIZE:
            self.window.clear()  # the terminal has moved its lines about: draw all of them anew
            return
        if self.state.prompt:
            self.type(key)
            return
        self.state = self.state.replace(note="")
        move = {
            curses.KEY_UP: -1, curses.KEY_DOWN: 1, curses.KEY_PPAGE: -10, curses.KEY_NPAGE: 10,
            curses.KEY_HOME: -(10**6), curses.KEY_END: 10**6,
        }.get(key)  # fmt: skip
        if move is not None:
            self.state = model.move(self.state, self.rows, move)
            self.processes = self.reader.processes(chosen.live) if (chosen := self.chosen()) else ()
            return
        letter = chr(key) if 0 <= key < 128 else ""
        if letter in model.ORDERS:
            self.state = model.sort(self.state, letter)
            self.arrange()
        elif key in _ESCAPE:
            self.state = self.state.replace(filter="", help=False)
            self.arrange()
        elif letter in self.commands:
            self.commands[letter](self)

    def type(self, key: int) -> None:
        """A key while something is asked."""
        state = self.state
        if key in _ESCAPE:
            self.state = state.replace(prompt="", typed="", filter="" if state.prompt == "filter:" else state.filter)
        elif key in _ENTER:
            self.state = state.replace(prompt="", typed="")
            if self.answer is not None:
                self.answer(state.typed)
        elif key in _BACKSPACE:
            self.state = state.replace(typed=state.typed[:-1])
        elif 32 <= key < 127:
            self.state = state.replace(typed=state.typed + chr(key))
        if self.state.prompt == "filter:":
            self.state = self.state.replace(filter=self.state.typed)
        self.arrange()

    def ask(self, prompt: str, typed: str, answer: Callable[[str], None]) -> None:
        self.state = self.state.replace(prompt=prompt, typed=typed)
        self.answer = answer

    def leave(self) -> None:
        self.running = False

    def hold(self) -> None:
        self.state = self.state.replace(held=not self.state.held)

    def explain(self) -> None:
        self.state = self.state.replace(help=not self.state.help)

    def more_often(self) -> None:
        self.pace(0.5)

    def less_often(self) -> None:
        self.pace(2.0)

    def pace(self, times: float) -> None:
        interval = max(_INTERVALS[0], min(_INTERVALS[1], self.state.interval * times))
        self.state = self.state.replace(interval=interval, note=f"every {interval:g} s")

    def ask_filter(self) -> None:
        self.ask("filter:", self.state.filter, lambda _: None)

    def freeze(self) -> None:
        if row := self.chosen():
            self.act(lambda: acting.freeze(row.live, row.status != "running"))

    def kill(self) -> None:
        if row := self.chosen():
            self.ask(f"signal for {row.live.label}:", "TERM",
                     lambda text: self.act(lambda: acting.send(row.live, text)))  # fmt: skip

    def resize(self) -> None:
        if row := self.chosen():
            self.ask(f"limits for {row.live.label}:", "memory=",
                     lambda text: self.act(lambda: acting.limit(row.live, text)))  # fmt: skip

    def act(self, do: Callable[[], str]) -> None:
        try:
            note = do()
        except Error as error:
            note = str(error)
        self.state = self.state.replace(note=note)
        self.look()

    commands: dict[str, Callable[[_Screen], None]] = {
        "q": leave, " ": hold, "h": explain, "?": explain, "/": ask_filter, "f": freeze, "k": kill, "r": resize,
        "+": more_often, "-": less_often,
    }  # fmt: skip


def _looks() -> dict[str, int]:
    """Attributes, with colours where the terminal has them."""
    looks = {
        model.PLAIN: curses.A_NORMAL, model.TITLE: curses.A_BOLD, model.CHOSEN: curses.A_REVERSE,
        model.BAR: curses.A_REVERSE, model.ALARM: curses.A_BOLD, model.DIM: curses.A_DIM,
    }  # fmt: skip
    try:
        curses.curs_set(0)
        curses.start_color()
        curses.use_default_colors()
        curses.init_pair(1, curses.COLOR_RED, -1)
        curses.init_pair(2, curses.COLOR_BLACK, curses.COLOR_CYAN)
        looks[model.ALARM] |= curses.color_pair(1)
        looks[model.CHOSEN] = curses.color_pair(2)
    except curses.error:
        pass
    return looks
