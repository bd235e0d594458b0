"""Locks that say "in use": a flock on a directory or file, of which the kernel lets go when its holder dies.

Rule 1: whoever uses a thing holds it alone (`claim`) or with others; whoever only looks for what was left behind holds
        it shared, for a moment, so that two who look do not take each other for its user.
Rule 2: a lock counts only on what still lies at its path: it may have been removed between opening and locking.
"""

from __future__ import annotations

import fcntl
import os


def claim(path: str, directory: bool) -> int | None:
    """Lock a directory or file, made if missing; its descriptor, or None if another process holds it.

    A sweeper (`claim_left`) is waited for: it may remove what it holds, hence the second look.
    """
    while True:
        os.makedirs(path if directory else os.path.dirname(path), 0o700, exist_ok=True)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECTORY if directory else os.O_CREAT), 0o600)
        except FileNotFoundError:
            continue
        if lock(fd, fcntl.LOCK_EX):
            if is_at(fd, path):
                return fd
        elif not lock(fd, fcntl.LOCK_SH):
            os.close(fd)
            return None
        os.close(fd)
        os.sched_yield()


def claim_left(path: str) -> int | None:
    """Lock, shared, what a process that was killed has left; its descriptor, or None if it is in use, or gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    if lock(fd, fcntl.LOCK_SH) and is_at(fd, path):
        return fd
    os.close(fd)
    return None


def share(fd: int, path: str) -> bool:
    """Hold what is behind a descriptor together with others; False if it does not lie at its path any more.

    Who looks whether it is in use locks it alone for a moment; who removes it takes it away from its path first.
    """
    while is_at(fd, path):
        if lock(fd, fcntl.LOCK_SH):
            return is_at(fd, path)
        os.sched_yield()
    return False


def held(path: str) -> bool | None:
    """Whether somebody holds what lies at a path, alone or with others; None where nothing is."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return not lock(fd, fcntl.LOCK_EX)
    finally:
        os.close(fd)


def lock(fd: int, kind: int) -> bool:
    """Lock what is behind a descriptor, fcntl.LOCK_EX or LOCK_SH, without waiting; whether that could be done."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_at(fd: int, path: str) -> bool:
    """Whether what is behind a descriptor lies at a path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False
