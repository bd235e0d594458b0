"""What ends a build."""

from __future__ import annotations

from corten.errors import Error


class BuildFailed(Error):
    """A step could not be carried out: `FILE:LINE: INSTRUCTION: what, on what, why`."""

    def __init__(self, file: str, line: int, instruction: str, why: str) -> None:
        self.file, self.line, self.instruction = file, line, instruction
        super().__init__(f"{file}:{line}: {instruction}: " + " ".join(why.split()))


class Cancelled(Exception):
    """Another step has failed, so this one stops; never shown to anybody."""
