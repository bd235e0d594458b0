"""Who looks on while images are fetched, sent and unpacked."""

from __future__ import annotations


class Watcher:
    """Is told what happens, from any thread; by default does not care. Sizes in bytes."""

    def say(self, line: str) -> None:
        """Something that people should know."""

    def begin(self, digest: str, size: int, done: int = 0) -> None:
        """A blob is to be moved; `done` bytes of it are there from before."""

    def advance(self, digest: str, count: int) -> None:
        """More of it has been moved."""

    def phase(self, digest: str, word: str) -> None:
        """What happens to it now: `unpacking`, `there`, `done`, `waiting`."""

    def end(self) -> None:
        """It is over, well or not."""


SILENT = Watcher()
