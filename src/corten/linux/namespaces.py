"""Which namespaces a process is in, and how namespaces nest and who owns them.

Rule 1: a namespace is named by its inode number on nsfs, as /proc/PID/ns/KIND shows it: unique as long as it lives.
Rule 2: what may not be read is None; a process that is gone, or is a zombie, is in no namespace.
Sources: namespaces(7), ioctl_ns(2), proc(5), the kernel's fs/proc/namespaces.c.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
"""As the files below /proc/PID/ns are called."""
NESTING = ("pid", "user")
"""The kinds that have parents."""

_NS_GET_USERNS, _NS_GET_PARENT, _NS_GET_OWNER_UID = 0xB701, 0xB702, 0xB704
# A zombie keeps its credentials and its ids, and has lost the rest: what it says of these alone proves no life.
_KEPT_BY_ZOMBIES = frozenset(("pid", "user"))


def identities(pid: int, kinds: Sequence[str] = KINDS) -> dict[str, int | None] | None:
    """The namespace of each kind that a process is in, None for one that may not be read; None: it does not live.

    Namespaces belong to threads; a process is judged by its first, and where that has ended before the others, by
    another that lives.
    """
    found = _of_task(f"/proc/{pid}/ns", kinds)
    if found is not None:
        return found
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return None
    for task in sorted(map(int, tasks)):
        if task != pid and (found := _of_task(f"/proc/{pid}/task/{task}/ns", kinds)) is not None:
            return found
    return None


def _of_task(path: str, kinds: Sequence[str]) -> dict[str, int | None] | None:
    # By the directory's descriptor: it stands for this process even when another gets its number.
    readlink = os.readlink
    found: dict[str, int | None] = {}
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return dict.fromkeys(kinds) if _lives(path) else None
    except OSError:
        return None
    try:
        for kind in kinds:
            found[kind] = int(readlink(kind, dir_fd=directory)[len(kind) + 2 : -1])
        if _KEPT_BY_ZOMBIES.issuperset(kinds):
            readlink("mnt", dir_fd=directory)
    except PermissionError:
        return {kind: found.get(kind) for kind in kinds} if _lives(path) else None
    except OSError:
        return None
    finally:
        os.close(directory)
    return found


def _lives(path: str) -> bool:
    """Whether the task whose `ns` directory this is has not ended: its state is readable for everybody."""
    try:
        with open(f"{path[:-3]}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X", b"x")
    except OSError:
        return False


def hold(pid: int, kind: str, identity: int) -> int | None:
    """A descriptor of a process's namespace, if it is in this one; None: no longer, or not allowed."""
    try:
        fd = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    if os.fstat(fd).st_ino == identity:
        return fd
    os.close(fd)
    return None


def parent(fd: int) -> int | None:
    """A descriptor of the parent of a PID or user namespace; None: it is the first, or lies outside our own."""
    return _related(fd, _NS_GET_PARENT)


def owner(fd: int) -> int | None:
    """A descriptor of the user namespace that owns a namespace; None: it lies outside our own."""
    return _related(fd, _NS_GET_USERNS)


def creator(fd: int) -> int:
    """The user id, as we see it, of whoever made a user namespace."""
    import fcntl

    return int.from_bytes(fcntl.ioctl(fd, _NS_GET_OWNER_UID, bytes(4)), "little")


def identity(fd: int) -> int:
    """The number of the namespace behind a descriptor."""
    return os.fstat(fd).st_ino


def _related(fd: int, request: int) -> int | None:
    import fcntl

    try:
        return fcntl.ioctl(fd, request)
    except PermissionError:  # ioctl_ns(2): outside the scope of the caller, or there is none
        return None
