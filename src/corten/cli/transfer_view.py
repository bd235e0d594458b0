"""What people see while images are moved: bars with rates on a terminal, a few lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading

from corten.images.registry.watching import Watcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def watching(quiet: bool = False) -> Lines | Bars:
    """Who looks on, by what stderr is."""
    terminal = not quiet and os.isatty(2) and os.environ.get("TERM", "dumb") != "dumb"
    return Bars() if terminal else Lines(quiet)


class Lines(Watcher):
    """A line for what people should know."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet

    def say(self, line: str) -> None:
        """Write it to stderr."""
        if not self._quiet:
            sys.stderr.write(f"corten: {line}\n")
            sys.stderr.flush()


class Bars(Lines):
    """A bar for each blob. What draws them is loaded when the first one begins: often there is nothing to move."""

    def __init__(self) -> None:
        super().__init__()
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def _drawn(self) -> Progress:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            self._progress = Progress(
                TextColumn("{task.description}"), TextColumn("{task.fields[phase]:<10}"), BarColumn(30),
                DownloadColumn(binary_units=True), TransferSpeedColumn(), console=Console(stderr=True),
            )  # fmt: skip
            self._progress.start()
        return self._progress

    def say(self, line: str) -> None:
        """Write it above the bars."""
        with self._lock:
            if self._progress is None:
                super().say(line)
            else:
                self._progress.console.print(f"corten: {line}", markup=False, highlight=False)

    def begin(self, digest: str, size: int, done: int = 0) -> None:
        """A bar more."""
        with self._lock:
            progress = self._drawn()
            short = digest.partition(":")[2][:12]
            self._tasks[digest] = progress.add_task(short, total=size, completed=done, phase="moving")

    def advance(self, digest: str, count: int) -> None:
        """The bar grows."""
        if self._progress is not None and digest in self._tasks:
            self._progress.advance(self._tasks[digest], count)

    def phase(self, digest: str, word: str) -> None:
        """Its word changes."""
        if self._progress is not None and digest in self._tasks:
            self._progress.update(self._tasks[digest], phase=word)

    def end(self) -> None:
        """The bars stay as they are."""
        if self._progress is not None:
            self._progress.stop()
