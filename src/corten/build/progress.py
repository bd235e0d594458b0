"""What a build says while it runs: one line for each step, and what the steps print, as it comes.

Rule: a line is written whole; lines of stages that are built at the same time begin with the stage's name.
"""

from __future__ import annotations

import os
import threading

from corten.images.registry.watching import SILENT, Watcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.build.instructions import Instruction


class Progress:
    """Writes to a descriptor; -1: says nothing."""

    def __init__(self, fd: int, parallel: bool = False) -> None:
        self._fd, self._parallel = fd, parallel
        self._lock = threading.Lock()
        self.beside: Watcher = SILENT
        """Who may be drawing on the same terminal: it is asked to write first."""

    @property
    def silent(self) -> bool:
        """Whether nobody sees what steps print."""
        return self._fd < 0

    def step(self, stage: str, number: int, count: int, one: Instruction, how: str = "") -> None:
        """A step begins, or is found `how`: `cached`."""
        text = " ".join(one.text.split())
        text = text if len(text) <= 160 else f"{text[:159]}…"
        self._write(f"[{stage} {number}/{count}] {text}{f'  ({how})' if how else ''}\n".encode())

    def output(self, stage: str, line: bytes) -> None:
        """A line that a step has printed, with its end."""
        self._write(f"[{stage}] ".encode() + line if self._parallel else line)

    def say(self, text: str) -> None:
        """A line of our own."""
        self._write(f"{text}\n".encode())

    def _write(self, data: bytes) -> None:
        if self._fd < 0:
            return
        with self._lock:
            if self.beside.above(data):
                return
            view = memoryview(data)
            while view:
                try:
                    view = view[os.write(self._fd, view) :]
                except BrokenPipeError:  # nobody reads it; the exit code still says how it ended
                    return
