"""What ends a build."""

from __future__ import annotations

from corten.errors import Error


class BuildFailed(Error):
    """A step could not be carried out: `FILE:LINE: INSTRUCTION: what, on what, why`.

    output: the last lines that a command has printed.
    """

    def __init__(self, file: str, line: int, instruction: str, why: str, output: str = "") -> None:
        self.file, self.line, self.instruction, self.output = file, line, instruction, output
        super().__init__(f"{file}:{line}: {instruction}: " + " ".join(why.split()))


class Cancelled(Exception):
    """Another step has failed, so this one stops; never shown to anybody."""
