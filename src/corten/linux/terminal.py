"""Terminals: new ones, their size, raw mode. Source: pty(7), tty_ioctl(4), ioctl_tty(2)."""

from __future__ import annotations

import fcntl
import os
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TIOCGPTN, _TIOCSPTLCK, _TIOCGPTPEER = 0x80045430, 0x40045431, 0x5441


def open_peer(master: int) -> tuple[int, int]:
    """The other end of a new terminal, opened without a path, and its number below /dev/pts."""
    fcntl.ioctl(master, _TIOCSPTLCK, (0).to_bytes(4, "little"))
    number = int.from_bytes(fcntl.ioctl(master, _TIOCGPTN, bytes(4)), "little")
    return fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC), number


def take(fd: int) -> None:
    """Make the terminal this session's own: Ctrl-C, hang-up and job control come from it."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)


def size(fd: int) -> tuple[int, int]:
    """(rows, columns)."""
    data = fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8))
    return int.from_bytes(data[0:2], "little"), int.from_bytes(data[2:4], "little")


def set_size(fd: int, rows: int, columns: int) -> None:
    """Resize; the foreground programs get SIGWINCH."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, rows.to_bytes(2, "little") + columns.to_bytes(2, "little") + bytes(4))


def make_raw(fd: int) -> list[Any]:
    """Pass every byte through unchanged; the settings as they were, for `restore`."""
    before = termios.tcgetattr(fd)
    raw = termios.tcgetattr(fd)
    raw[0] &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
        | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
    )  # fmt: skip
    raw[1] &= ~termios.OPOST
    raw[2] = raw[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    raw[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSADRAIN, raw)
    return before


def restore(fd: int, settings: list[Any]) -> None:
    """Set the terminal back to what `make_raw` found."""
    termios.tcsetattr(fd, termios.TCSADRAIN, settings)
