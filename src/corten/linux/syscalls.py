"""System calls that the standard library lacks, by number, for x86_64 and aarch64.

Rule 1: a failed call raises `OSError` with the number; the caller adds what it was about.
Rule 2: calls keep the interpreter's lock (`PyDLL`): after a clone the child is in the state it was cloned in.
        What may block for long is not called from here.
Source of the numbers: the kernel's arch/x86/entry/syscalls/syscall_64.tbl and scripts/syscall.tbl.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

# name: (x86_64, aarch64)
_NUMBERS = {
    "add_key": (248, 217),
    "bpf": (321, 280),
    "capget": (125, 90),
    "capset": (126, 91),
    "clone": (56, 220),
    "clone3": (435, 435),
    "close": (3, 57),
    "close_range": (436, 436),
    "execve": (59, 221),
    "execveat": (322, 281),
    "exit_group": (231, 94),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "getcwd": (79, 17),
    "inotify_add_watch": (254, 27),
    "inotify_init1": (294, 26),
    "ioctl": (16, 29),
    "ioprio_set": (251, 30),
    "keyctl": (250, 219),
    "kill": (62, 129),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "openat": (257, 56),
    "openat2": (437, 437),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "read": (0, 63),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigtimedwait": (128, 137),
    "sched_setattr": (314, 274),
    "seccomp": (317, 277),
    "set_mempolicy": (238, 237),
    "setdomainname": (171, 162),
    "setgroups": (116, 159),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "setresgid": (119, 149),
    "setresuid": (117, 147),
    "setsid": (112, 157),
    "signalfd4": (289, 74),
    "syncfs": (306, 267),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "wait4": (61, 260),
    "waitid": (247, 95),
    "write": (1, 64),
}

MACHINE = os.uname().machine
if MACHINE not in ("x86_64", "aarch64"):
    raise ImportError(f"corten runs on x86_64 and aarch64, not on {MACHINE}")

def numbers(machine: str) -> dict[str, int]:
    """The numbers on a machine, `x86_64` or `aarch64`."""
    return {name: pair[machine == "aarch64"] for name, pair in _NUMBERS.items()}


NUMBERS = numbers(MACHINE)

_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


def call(name: str, *args: int | bytes | ctypes.Array[Any] | None) -> int:
    """Make a system call; its result, or `OSError`.

    Numbers must fit into 32 bits, signed or not (wider ones stand in arrays, see `words`); bytes and arrays are passed
    by address. ctypes extends a number by its sign, and the kernel looks only at the half that it knows.
    """
    result: int = _syscall(NUMBERS[name], *args)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return result


def words(*values: int) -> ctypes.Array[ctypes.c_uint64]:
    """Values as an array of 64-bit words: the shape of clone_args, open_how, mount_attr."""
    return (ctypes.c_uint64 * len(values))(*values)


def strings(words: Sequence[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    """Texts as exec takes them: an array of pointers that ends with a null."""
    return (ctypes.c_char_p * (len(words) + 1))(*words)
