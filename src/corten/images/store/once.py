"""Directories that are made once, by whoever comes first, and then only read.

    DIR/NAME         complete: it got its name by a rename
    DIR/.NAME.new    being made, by the holder of the lock
    DIR/.NAME.lock   locked (flock) while NAME is made or removed; gone otherwise

Rule: half made means `.new` without a holder of its lock, since a lock dies with its holder. Anybody may sweep those.
"""

from __future__ import annotations

import fcntl
import os

from corten.errors import Error
from corten.images.store.failures import complaint
from corten.linux import locks
from corten.runtime.removal import remove_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def make(directory: str, name: str, fill: Callable[[str], None], what: str, mode: int = 0o755) -> str:
    """The path of `directory/name`, which `fill(path)` fills if it does not exist yet.

    Several processes at once: one fills, the others wait. Whatever `fill` raises leaves nothing behind; an OSError
    becomes an Error of one line about `what`. mode: of `directory`, if it is made here.
    """
    target = f"{directory}/{name}"
    if os.path.isdir(target):
        return target
    try:
        if not os.path.isdir(directory):
            os.makedirs(os.path.dirname(directory), exist_ok=True)
            os.makedirs(directory, mode, exist_ok=True)
        sweep(directory)
        lock = _lock(f"{directory}/.{name}.lock", wait=True)
        try:
            if not os.path.isdir(target):
                _fill(target, f"{directory}/.{name}.new", fill)
        finally:
            os.unlink(f"{directory}/.{name}.lock")
            os.close(lock)
    except OSError as error:
        raise Error(complaint(error, what, directory)) from None
    return target


def _fill(target: str, draft: str, fill: Callable[[str], None]) -> None:
    remove_all(draft)
    os.mkdir(draft, 0o700)
    # In a set-group-id directory all of it would get a group that the user's namespace may not have: an overlay
    # then refuses to copy it up (EOVERFLOW).
    os.chown(draft, -1, os.getegid())
    os.chmod(draft, 0o700)
    try:
        fill(draft)
        os.chmod(draft, 0o755)  # noqa: S103 - what is in it is for the container's users
        os.rename(draft, target)
    except BaseException:
        remove_all(draft)
        raise


def _lock(path: str, wait: bool) -> int:
    """Lock a file, made if missing; its descriptor, or -1 if somebody else holds it and `wait` is off."""
    while True:
        fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # The holder before us removes the file: then our lock is on something nobody else will find.
            if os.path.samestat(os.stat(path), os.fstat(fd)):
                return fd
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(fd)
            return -1
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def sweep(directory: str) -> int:
    """Remove what was left half made in a directory; how many. A missing directory has nothing."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return 0
    swept = 0
    for name in {entry[1:].rpartition(".")[0] for entry in names if entry[0] == "." and entry.endswith(_MARKS)}:
        lock = _lock(f"{directory}/.{name}.lock", wait=False)
        if lock < 0:
            continue
        try:
            if os.path.isdir(f"{directory}/.{name}.new"):
                remove_all(f"{directory}/.{name}.new")
                swept += 1
        finally:
            os.unlink(f"{directory}/.{name}.lock")
            os.close(lock)
    return swept


_MARKS = (".new", ".lock")


def hold(path: str) -> int:
    """Share-lock a complete directory against `remove`; its descriptor, or -1 if it is missing or being removed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    if locks.share(fd, path):
        return fd
    os.close(fd)
    return -1


def remove(directory: str, name: str) -> bool:
    """Remove a complete directory unless somebody holds it; whether it is gone."""
    lock = _lock(f"{directory}/.{name}.lock", wait=False)
    if lock < 0:
        return False
    path, doomed = f"{directory}/{name}", f"{directory}/.{name}.new"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(path, doomed)  # killed from here on, it is half made
            remove_all(doomed)
        finally:
            os.close(fd)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True
    finally:
        os.unlink(f"{directory}/.{name}.lock")
        os.close(lock)
    return True
