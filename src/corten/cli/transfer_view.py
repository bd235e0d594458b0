"""What people see while images are moved: bars with rates on a terminal, a few lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

from corten.images.registry.watching import Watcher
from corten.linux.signals import Unwinding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rich.progress import TaskID

    from corten.cli.transfer_bars import Bars as Drawn


FETCHING, SENDING = ("fetching", "fetched"), ("sending", "sent")


def watching(quiet: bool = False, words: tuple[str, str] = FETCHING) -> Lines | Bars:
    """Who looks on, by what stderr is. words: for what is being done and has been done to blobs."""
    terminal = not quiet and os.isatty(2) and os.environ.get("TERM", "dumb") != "dumb"
    return Bars(words[0]) if terminal else Lines(quiet, words[1])


class Lines(Watcher):
    """A line for what people should know, and one at the end for what was moved."""

    def __init__(self, quiet: bool = False, done: str = FETCHING[1]) -> None:
        self._quiet, self._done = quiet, done
        self._moved: dict[str, int] = {}
        self._began = time.monotonic()

    def say(self, line: str) -> None:
        """Write it to stderr."""
        if not self._quiet:
            sys.stderr.write(f"corten: {line}\n")
            sys.stderr.flush()

    def begin(self, digest: str, size: int, done: int = 0, word: str = "") -> None:  # noqa: ARG002 - for bars
        """What has begun is counted, each blob by one thread."""
        self._moved.setdefault(digest, 0)

    def advance(self, digest: str, count: int) -> None:
        """It is counted."""
        if digest in self._moved:
            self._moved[digest] += count

    def end(self) -> None:
        """Say how much it was."""
        moved = [count for count in self._moved.values() if count]
        if moved:
            from corten.engine.quantities import show_size

            size, seconds = sum(moved), max(time.monotonic() - self._began, 0.001)
            blobs = f"{len(moved)} blob{'' if len(moved) == 1 else 's'}"
            self.say(f"{self._done} {blobs}, {show_size(size)} in {seconds:.1f} s, {show_size(int(size / seconds))}/s")


class Bars(Watcher):
    """A bar for each blob, and one for all. What draws them is loaded with the first: often there is nothing to move.

    Rule: whatever ends this, the terminal is left as it was; so SIGTERM and SIGHUP end it as Ctrl-C does.
    """

    def __init__(self, doing: str = FETCHING[0]) -> None:
        self._doing = doing
        self._drawn: Drawn | None = None
        self._tasks: dict[str, TaskID] = {}
        self._left: dict[str, int] = {}
        self._moved = 0
        self._unwinding = contextlib.ExitStack()
        self._lock = threading.Lock()

    def say(self, line: str) -> None:
        """Write it above the bars."""
        if not self.above(f"corten: {line}\n".encode()):
            sys.stderr.write(f"corten: {line}\n")
            sys.stderr.flush()

    def above(self, data: bytes) -> bool:
        """Text above the bars, if there are any."""
        with self._lock:
            if self._drawn is None:
                return False
            self._drawn.write(data)
            return True

    def begin(self, digest: str, size: int, done: int = 0, word: str = "") -> None:
        """A bar more, or one that begins anew."""
        with self._lock:
            drawn = self._drawn or self._start()
            if digest in self._tasks:
                drawn.reset(self._tasks[digest], total=size, completed=done, phase=word or self._doing)
            else:
                name = digest.partition(":")[2][:12]
                self._tasks[digest] = drawn.add_task(name, total=size, completed=done, phase=word or self._doing)
            self._left[digest] = size - done  # what was there from before does not count
            self._count(drawn)

    def _count(self, drawn: Drawn) -> None:
        """The bar for all is shown if there are several."""
        drawn.update(drawn.all, total=self._moved + sum(self._left.values()), visible=len(self._tasks) > 1)

    def _start(self) -> Drawn:
        from corten.cli.transfer_bars import Bars as Drawn

        if threading.current_thread() is threading.main_thread():
            self._unwinding.enter_context(Unwinding())
        self._drawn = Drawn()
        self._drawn.start()
        return self._drawn

    def advance(self, digest: str, count: int) -> None:
        """The bar grows, and that for all."""
        with self._lock:
            if self._drawn is not None and digest in self._tasks:
                self._left[digest] -= count
                self._moved += count
                self._drawn.advance(self._tasks[digest], count)
                self._drawn.advance(self._drawn.all, count)

    def phase(self, digest: str, word: str) -> None:
        """Its word changes."""
        with self._lock:
            if self._drawn is not None and digest in self._tasks:
                self._drawn.update(self._tasks[digest], phase=word)

    def end(self) -> None:
        """The bars stay as they are."""
        with self._lock:
            drawn, self._drawn = self._drawn, None
        if drawn is not None:
            drawn.stop()
        self._unwinding.close()
