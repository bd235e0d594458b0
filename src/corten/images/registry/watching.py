"""Who looks on while images are fetched, sent and unpacked."""

from __future__ import annotations


class Watcher:
    """Is told what happens, from any thread; by default does not care. Sizes in bytes."""

    def say(self, line: str) -> None:
        """Something that people should know."""

    def above(self, data: bytes) -> bool:  # noqa: ARG002 - one that draws does use it
        """Whether this has written a text of somebody else, so that it does not break what is drawn here."""
        return False

    def begin(self, digest: str, size: int, done: int = 0, word: str = "") -> None:
        """A blob is to be moved, perhaps anew; `done` bytes of it are there from before. word: as of `phase`."""

    def advance(self, digest: str, count: int) -> None:
        """More of it has been moved."""

    def phase(self, digest: str, word: str) -> None:
        """What happens to it now: `waiting`, `unpacking`, `there`, `mounted`, `done`."""

    def end(self) -> None:
        """It is over, well or not."""


SILENT = Watcher()
