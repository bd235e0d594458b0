"""Signals without handlers: blocked, and read from a descriptor that poll understands.

Why not the module `signal`: importing it costs 5 ms (enum), and Python's handlers run late and only in the main
thread; a blocked signal read from a signalfd can neither be lost nor race.
Source: signalfd(2); the numbers are those of x86_64 and aarch64 (asm-generic/signal.h).
"""

from __future__ import annotations

import ctypes
import os

from corten.errors import InvalidInput
from corten.linux import syscalls
from corten.records import Record

HUP, INT, QUIT, KILL, TERM, CHLD, CONT, STOP, TSTP, TTIN, TTOU, WINCH = 1, 2, 3, 9, 15, 17, 18, 19, 20, 21, 22, 28
PIPE, XFSZ = 13, 25
_NAMES = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU "
    "URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
).split()
ALL = (*range(1, 32), *range(34, 65))  # 32 and 33 belong to libc
_FAULTS = (4, 5, 6, 7, 8, 11, 31)  # a blocked fault would only kill without a message
_SIG_BLOCK, _SIG_SETMASK = 0, 2
_SIG_DFL, _SIG_IGN = 0, 1
_SI_KERNEL = 0x80
_RTMIN, _RTMAX = 34, 64


def name(number: int) -> str:
    """`SIGTERM` for 15."""
    return f"SIG{_NAMES[number - 1]}" if 1 <= number <= len(_NAMES) else f"signal {number}"


def parse(text: str) -> int:
    """The number of a signal given as `15`, `TERM`, `SIGTERM` (any case), or `RTMIN+3`."""
    if text.isdecimal() and 0 <= int(text) <= _RTMAX:
        return int(text)
    bare = text.upper().removeprefix("SIG")
    if bare in _NAMES:
        return _NAMES.index(bare) + 1
    for start, base in (("RTMIN+", _RTMIN), ("RTMAX-", _RTMAX)):
        if bare.startswith(start) and bare[6:].isdecimal():
            number = base + int(bare[6:]) * (1 if base == _RTMIN else -1)
            if _RTMIN <= number <= _RTMAX:
                return number
    raise InvalidInput(f"{text!r} is not a signal: use a name like TERM or a number from 1 to {_RTMAX}")


class Mask(Record):
    """A set of blocked signals, as the kernel keeps it: bit N-1 for signal N."""

    bits: int


class Signal(Record):
    """One signal that arrived. from_terminal: the kernel sent it to a whole foreground group (Ctrl-C)."""

    number: int
    from_terminal: bool


def block_all() -> Mask:
    """Block every signal that can be blocked, but for faults; the mask as it was."""
    bits = (1 << 64) - 1
    for fault in _FAULTS:
        bits &= ~(1 << (fault - 1))
    return _set_mask(_SIG_BLOCK, bits)


def restore(mask: Mask) -> None:
    """Set the mask of blocked signals."""
    _set_mask(_SIG_SETMASK, mask.bits)


def _set_mask(how: int, bits: int) -> Mask:
    new, old = syscalls.words(bits), syscalls.words(0)
    syscalls.call("rt_sigprocmask", how, new, old, ctypes.sizeof(new))
    return Mask(old[0])


def descriptor() -> int:
    """A non-blocking, close-on-exec signalfd for all signals."""
    everything = syscalls.words((1 << 64) - 1)
    return syscalls.call("signalfd4", -1, everything, ctypes.sizeof(everything), os.O_NONBLOCK | os.O_CLOEXEC)


def pending(fd: int) -> list[Signal]:
    """The signals that arrived since the last call. Layout: struct signalfd_siginfo, 128 bytes each."""
    try:
        data = os.read(fd, 128 * 32)
    except BlockingIOError:
        return []
    found = []
    for start in range(0, len(data), 128):
        number = int.from_bytes(data[start : start + 4], "little")
        code = int.from_bytes(data[start + 8 : start + 12], "little", signed=True)
        found.append(Signal(number, code == _SI_KERNEL))
    return found


def ignored() -> tuple[int, ...]:
    """What this process ignores: SIGPIPE and SIGXFSZ, which the interpreter does, and what it was started with (nohup;
    the background jobs of a script)."""
    global _ignored  # noqa: PLW0603 - it is so from the start of the process on
    if not _ignored:
        import _signal  # the C half of `signal`; it has looked at the start

        _ignored = tuple(number for number in ALL if _signal.getsignal(number) == _SIG_IGN)
    return _ignored


_ignored: tuple[int, ...] = ()


class Unwinding:
    """While it lasts SIGTERM and SIGHUP end this process by a `SystemExit`, so that what is half done is taken back.

    Only where they would have ended it anyway, and only in a main thread.
    """

    def __enter__(self) -> None:
        import _signal  # the C half of `signal`, see above

        self._numbers = [number for number in (HUP, TERM) if _signal.getsignal(number) == _SIG_DFL]
        for number in self._numbers:
            _signal.signal(number, _unwind)

    def __exit__(self, *_: object) -> None:
        import _signal

        for number in self._numbers:
            _signal.signal(number, _SIG_DFL)


def _unwind(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def heed_children() -> None:
    """Stop ignoring SIGCHLD, so that the end of a child is told and can be waited for."""
    global _ignored  # noqa: PLW0603 - what is no longer so
    syscalls.call("rt_sigaction", CHLD, syscalls.words(0, 0, 0, 0), None, 8)
    _ignored = tuple(number for number in ignored() if number != CHLD)


def reset_ignored() -> None:
    """Undo what is ignored: programs of a container expect the defaults."""
    default = syscalls.words(0, 0, 0, 0)
    for number in ignored():
        syscalls.call("rt_sigaction", number, default, None, 8)
