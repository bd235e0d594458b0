"""Terminals as people have them, with a command in the foreground."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time

from small_root import CORTEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self


class Screen:
    """A terminal with `corten run` or another command of ours in its foreground, as a shell would start it."""

    def __init__(
        self, *words: str, command: str = "run", rows: int = 24, columns: int = 80, **options: Any
    ) -> None:
        self.master, slave = pty.openpty()
        self.size(rows, columns)
        self.slave = slave
        self.before = termios.tcgetattr(slave)
        streams = {"stdin": slave, "stdout": slave, "stderr": slave, **options}
        # A session of its own, whose controlling terminal it is.
        session = ["setsid", "--ctty"] if streams["stdin"] == slave else ["setsid"]
        self.process = subprocess.Popen([*session, CORTEN, command, *words], **streams)
        self.seen = b""

    def size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, text: str, seconds: float = 20) -> str:
        """What is shown up to and with `text`, which is then taken off."""
        deadline = time.monotonic() + seconds
        wanted = text.encode()
        while wanted not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not come, but: {self.seen!r}"
            self.seen += os.read(self.master, 1 << 16)
        at = self.seen.index(wanted) + len(wanted)
        shown, self.seen = self.seen[:at], self.seen[at:]
        return shown.decode(errors="replace")

    def end(self) -> int:
        """The exit code; what is shown meanwhile is kept in `seen`."""
        while self.process.poll() is None:
            if select.select([self.master], [], [], 0.02)[0]:
                self.seen += os.read(self.master, 1 << 16)
        while select.select([self.master], [], [], 0)[0]:
            self.seen += os.read(self.master, 1 << 16)
        return self.process.wait()

    def restored(self) -> bool:
        """Whether the terminal is set as it was."""
        return termios.tcgetattr(self.slave) == self.before

    def until_raw(self) -> None:
        """Keys are passed on; that may come a moment after the program's start."""
        deadline = time.monotonic() + 20
        while termios.tcgetattr(self.slave)[3] & termios.ICANON:
            assert time.monotonic() < deadline

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.end()
        os.close(self.slave)
        os.close(self.master)
