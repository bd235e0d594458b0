"""The join between this process's terminal and the container's: bytes both ways, size, raw mode."""

from __future__ import annotations

import os
import select

from corten import output
from corten.linux import terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from select import poll as Poll  # noqa: N812 - a class under its lower-case name
    from typing import Any

_CHUNK = 1 << 16


class Relay:
    """Copies stdin to the container's terminal and its output to stdout.

    While it lives, our own terminal, if stdin is one, is in raw mode: Ctrl-C is a byte that the container's terminal
    turns into a signal. `close` sets it back.
    """

    def __init__(self, master: int, interactive: bool, poll: Poll) -> None:
        self.master = master
        self.poll = poll
        self.stdin_open = interactive
        self.hung_up = False
        self.waiting = b""
        self.before: list[Any] | None = None
        os.set_blocking(master, False)
        self.resize()
        if interactive and os.isatty(0):
            self.before = terminal.make_raw(0)
        poll.register(master, select.POLLIN)
        if interactive:
            poll.register(0, select.POLLIN)

    def resize(self) -> None:
        """Give the container's terminal the size of ours."""
        for fd in (0, 1):
            if os.isatty(fd):
                terminal.set_size(self.master, *terminal.size(fd))
                return

    def serve(self, ready: list[int]) -> None:
        """Copy what is there to be copied. ready: the descriptors that poll has named."""
        if self.master in ready and not self.hung_up:
            self._write_waiting()
            self._show()
        if self.stdin_open and 0 in ready:
            try:
                data = os.read(0, _CHUNK)
            except BlockingIOError:  # whoever shares it with us has made it so, and was faster
                return
            except OSError:  # closed, or a terminal that has gone
                data = b""
            if not data:
                self.stdin_open = False
                self.poll.unregister(0)
                data = b"\x04"  # the end of file of a terminal is a key
            self.waiting += data
            if not self.hung_up:
                self._write_waiting()

    def _write_waiting(self) -> None:
        if self.waiting:
            try:
                self.waiting = self.waiting[os.write(self.master, self.waiting) :]
            except BlockingIOError:
                pass
            except OSError:  # EIO: nobody has the other end open
                self.waiting = b""
        self.poll.modify(self.master, select.POLLIN | (select.POLLOUT if self.waiting else 0))

    def _show(self) -> bool:
        try:
            data = os.read(self.master, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # EIO: all have let go of the other end, the init last
            if not self.hung_up:
                self.hung_up = True
                self.poll.unregister(self.master)
            return False
        output.write(data)
        return True

    def drain(self) -> None:
        """Show what the container has written before its end."""
        while self._show():
            pass

    def close(self) -> None:
        """Set our terminal back and let go of the container's."""
        if self.before is not None:
            terminal.restore(0, self.before)
            self.before = None
        os.close(self.master)
