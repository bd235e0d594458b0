"""The init of a container as a program of its own: pid 1 starts the program, reaps, forwards signals, and reports.

It is some 800 bytes of machine code, made here: its container has nothing that could run it, and a copy of the
interpreter that waits would cost more than all the rest of the container. What it does is what `init._be_init` does,
which stays for containers that cannot be made in borrowed memory (`init.may_borrow`).

It is called by its name alone, which everybody may see; its environment, which nobody may, are `words_to_execute`. All
signals are blocked. It says on its channel `Started`, as all do, and the rest as numbers, see `heard`.
Sources: rt_sigtimedwait(2), waitid(2), prctl(2); siginfo of the kernel's asm-generic/siginfo.h.
"""

from __future__ import annotations

import os

from corten.linux.machine_code import Address, Program, Text, Word, sealed
from corten.linux.syscalls import MACHINE
from corten.runtime import channel

# The frame: what is told (a word that says what, then siginfo, then a name), and words of our own.
_TOLD, _INFO, _NAME, _NAME_SIZE = 0, 8, 136, 16
_KEPT, _TROUBLE = 152, 160
_SI_CODE, _SI_PID, _SI_STATUS = 8, 16, 24  # offsets in siginfo
_REFUSED, _ENDED = 1, 2
_PROGRAM = 2
"""The pid inside of pid 1's first child."""

_SIGCHLD, _SIGTTIN, _SIGTTOU = 17, 21, 22
_SIG_SETMASK, _SI_KERNEL, _CLD_EXITED, _CLD_DUMPED = 2, 0x80, 1, 3
_WNOHANG, _WEXITED, _WNOWAIT = 1, 4, 0x1000000
_CLONE_VM, _CLONE_VFORK, _AT_FDCWD, _TCGETS = 0x100, 0x4000, -100, 0x5401
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME, _SIGKILL = 1, 4, 15, 9
_NAME_OF_PROGRAM = f"/proc/{_PROGRAM}/comm\0".encode()
_MOST_CODES = 32


def prepare(count: int, channel_fd: int, mask: int) -> int:
    """A descriptor of it, to be executed and then closed.

    count: of the program's arguments with its name, 0 where there is no program to start; channel_fd: its end of the
    socket, which it closes before the program starts; mask: of the signals that are blocked for the program, bit N-1
    for signal N.
    """
    key = count, channel_fd, mask
    if key not in _codes:
        if len(_codes) == _MOST_CODES:
            _codes.clear()
        _codes[key] = code(*key)
    return sealed("corten:init", _codes[key])


_codes: dict[tuple[int, int, int], bytes] = {}


def code(count: int, channel_fd: int, mask: int, machine: str = MACHINE) -> bytes:
    """The program as an executable file; the arguments are those of `prepare`."""
    does = Program(machine)
    does.call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)  # nobody inside may trace it
    does.call("prctl", _PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    does.call("prctl", _PR_SET_NAME, Text(b"corten:init\0"), 0, 0, 0)
    if count:
        _start(does, count, channel_fd, mask)
    # So that the end of the program is the end of its streams; a terminal stays open for who opens it again.
    for fd in range(3):
        does.call("ioctl", fd, _TCGETS, Address(_INFO))
        does.jump_if("==", 0, f"keep {fd}")
        does.call("close", fd)
        does.label(f"keep {fd}")
    started = channel.encode(channel.Started(_PROGRAM if count else 0))
    does.call("write", channel_fd, Text(started), len(started))
    does.jump_if("<", 0, "alone")  # the launcher has ended before we asked to be told
    _serve(does, program=count > 0)
    if count:
        _report(does, channel_fd)
    does.label("alone")
    does.call("exit_group", 125)
    return does.executable()


def _start(does: Program, count: int, channel_fd: int, mask: int) -> None:
    """Start the program; where that fails, say so and end."""
    does.end_arguments(count)
    does.store(_TROUBLE)
    # As vfork(2): the child has our memory, and we stand still until it has executed the program.
    does.call("clone", _CLONE_VM | _CLONE_VFORK | _SIGCHLD, 0, 0, 0, 0)
    does.jump_if("!=", 0, "cloned")
    does.call("close", channel_fd)
    does.call("rt_sigprocmask", _SIG_SETMASK, Text(mask.to_bytes(8, "little")), 0, 8)
    does.execute(count)
    does.store(_TROUBLE)
    does.call("exit_group", 127)
    does.label("cloned")
    does.jump_if("<", 0, "refused")
    does.load(_TROUBLE)
    does.jump_if("==", 0, "running")
    does.label("refused")
    does.store(_INFO)
    does.set(_REFUSED)
    does.store(_TOLD)
    does.call("write", channel_fd, Address(_TOLD), 16)
    does.call("exit_group", 126)
    does.label("running")


def _serve(does: Program, program: bool) -> None:
    """Forward signals and reap, until the program has ended."""
    does.label("wait")
    does.call("rt_sigtimedwait", Text(b"\xff" * 8), Address(_INFO), 0, 8)
    does.jump_if("<=", 0, "wait")
    if program:
        for number in (_SIGTTIN, _SIGTTOU):  # between the terminal and the program
            does.jump_if("==", number, "wait")
        does.jump_if("==", _SIGCHLD, "reap")
        does.store(_KEPT)
        does.load(_INFO + _SI_CODE)
        does.jump_if("==", _SI_KERNEL, "reap")  # Ctrl-C on the container's own terminal has reached the program already
        does.call("kill", _PROGRAM, Word(_KEPT))
    does.label("reap")
    does.call("waitid", 0, 0, Address(_INFO), _WEXITED | _WNOHANG | _WNOWAIT, 0)  # P_ALL
    does.jump_if("<", 0, "wait")
    does.load(_INFO + _SI_PID)
    does.jump_if("==", 0, "wait")
    if program:
        does.jump_if("==", _PROGRAM, "ended")
    does.store(_KEPT)
    does.call("wait4", Word(_KEPT), 0, 0, 0)
    does.jump("reap")


def _report(does: Program, channel_fd: int) -> None:
    """Say how the program ended, and end alike."""
    does.label("ended")
    does.set(0)
    does.store(_NAME)
    does.store(_NAME + 8)
    does.load(_INFO + _SI_CODE)
    does.jump_if("==", _CLD_EXITED, "tell")
    # Of interest only to say who was killed; gone once the process has been reaped.
    does.call("openat", _AT_FDCWD, Text(_NAME_OF_PROGRAM), os.O_RDONLY | os.O_CLOEXEC, 0)
    does.store(_KEPT)
    does.call("read", Word(_KEPT), Address(_NAME), _NAME_SIZE)
    does.label("tell")
    does.set(_ENDED)
    does.store(_TOLD)
    does.call("write", channel_fd, Address(_TOLD), _NAME + _NAME_SIZE)
    does.call("wait4", _PROGRAM, 0, 0, 0)  # what it used is then counted as ours
    does.load(_INFO + _SI_CODE)
    does.jump_if("==", _CLD_EXITED, "exited")
    does.load(_INFO + _SI_STATUS)
    does.add(128)
    does.jump("end")
    does.label("exited")
    does.load(_INFO + _SI_STATUS)
    does.label("end")
    does.store(_KEPT)
    does.call("exit_group", Word(_KEPT))


def heard(data: bytes) -> channel.Ended | int | None:
    """What it said in numbers: the program's end, or the errno with which that could not be started; None: neither."""
    what, rest = int.from_bytes(data[:8], "little"), data[8:]
    if what == _REFUSED and len(data) == 16:
        return -int.from_bytes(rest, "little", signed=True)
    if what != _ENDED or len(data) != _NAME + _NAME_SIZE:
        return None
    reason, status = (int.from_bytes(rest[at : at + 4], "little") for at in (_SI_CODE, _SI_STATUS))
    raw = (status & 0xFF) << 8 if reason == _CLD_EXITED else status & 0x7F | (0x80 if reason == _CLD_DUMPED else 0)
    name = data[_NAME:].partition(b"\0")[0].decode(errors="replace").strip()
    return channel.Ended(_PROGRAM, raw, name)
