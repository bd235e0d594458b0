"""Processes and namespaces: clone3, unshare, setns.

Rule 1: only a process with one thread clones. The child is a copy of the interpreter in mid-call: it runs on, but no
        fork handler of libc or Python has run, so it must end by exec or `os._exit`.
Rule 2: whoever joins a namespace opens it first and keeps the descriptor: paths vanish, descriptors do not.
"""

from __future__ import annotations

import ctypes
import os

from corten.linux import signals, syscalls
from corten.records import Record

# kind as OCI names it: (clone flag, file below /proc/PID/ns), in the order in which they can be joined: the user
# namespace first, for it gives the right to join what it owns; mount last, for paths change with it.
NAMESPACES = {
    "user": (0x10000000, "user"),
    "cgroup": (0x02000000, "cgroup"),
    "ipc": (0x08000000, "ipc"),
    "uts": (0x04000000, "uts"),
    "network": (0x40000000, "net"),
    "pid": (0x20000000, "pid"),
    "time": (0x00000080, "time"),
    "mount": (0x00020000, "mnt"),
}
CLONE_NEWUSER = NAMESPACES["user"][0]

_CLONE_PIDFD = 0x00001000
_CLONE_PARENT = 0x00008000
_CLONE_CLEAR_SIGHAND = 0x100000000
_CLONE_INTO_CGROUP = 0x200000000
_SIGCHLD = 17


class Clone(Record):
    """What clone3 gave: in the parent the child's pid and a pidfd for it, in the child 0 and -1."""

    pid: int
    pidfd: int


def clone3(flags: int, cgroup_fd: int | None = None) -> Clone:
    """Copy this process into the new namespaces named by `flags` and, on cgroup v2, into a group.

    Handlers are reset to their defaults in the child; ignored signals stay ignored. The pidfd is close-on-exec.
    """
    pidfd = ctypes.c_int(-1)
    args = arguments(flags, pidfd, cgroup_fd)
    pid = syscalls.call("clone3", args, ctypes.sizeof(args))
    return Clone(pid, pidfd.value)


def arguments(flags: int, pidfd: ctypes.c_int, cgroup_fd: int | None) -> ctypes.Array[ctypes.c_uint64]:
    """`struct clone_args`. pidfd: where the kernel puts it."""
    if signals.CHLD in signals.ignored():
        # Whoever started us has it so (`trap '' CHLD`, some daemons): the kernel would then throw away how it ended.
        signals.heed_children()
    flags |= _CLONE_PIDFD | _CLONE_CLEAR_SIGHAND
    if cgroup_fd is not None:
        flags |= _CLONE_INTO_CGROUP
    # With CLONE_PARENT the child has the signal of the process between, and none may be named (clone(2), EINVAL).
    exit_signal = 0 if flags & _CLONE_PARENT else _SIGCHLD
    return syscalls.words(flags, ctypes.addressof(pidfd), 0, 0, exit_signal, 0, 0, 0, 0, 0, cgroup_fd or 0)


def unshare(kind: str) -> None:
    """Move this thread into a new namespace of that kind (pid and time: only its later children)."""
    syscalls.call("unshare", NAMESPACES[kind][0])


def open_namespace(pid: int | str, kind: str) -> int:
    """A descriptor of a process's namespace; `pid` may be `self`."""
    return os.open(f"/proc/{pid}/ns/{NAMESPACES[kind][1]}", os.O_RDONLY | os.O_CLOEXEC)


def join(fd: int, kind: str) -> None:
    """Move this thread into the namespace behind `fd`; EINVAL if it is of another kind."""
    syscalls.call("setns", fd, NAMESPACES[kind][0])


def flags_of(kinds: tuple[str, ...]) -> int:
    """The clone flags of several kinds of namespaces."""
    flags = 0
    for kind in kinds:
        flags |= NAMESPACES[kind][0]
    return flags
