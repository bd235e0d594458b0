"""Removing what a container has left, whoever it belongs to.

An ordinary user's container may hold files of subordinate ids (/etc/subuid), which the user itself may not remove, nor
even list. Rule: plain removal first; where that is refused, a helper does it as root of a user namespace in which all
ids of this user are mapped. Which maps the container had need not be known: they came out of the same ranges.
"""

from __future__ import annotations

import os

from corten.errors import Error, errno_words

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 100


def remove_all(path: str) -> None:
    """Remove a directory and what is below it; a missing one is fine. OSError or Error if something must stay."""
    try:
        remove_tree(path)
    except PermissionError:
        from corten.runtime import helper

        maps = helper.own_maps()
        if maps is None:
            raise
        try:
            helper.call("corten.runtime.removal:remove_tree", (os.path.abspath(path),), maps=maps)
        except OSError as error:
            raise Error(f"remove {path} in a user namespace: {errno_words(error.errno or 0)}") from None


def remove_tree(path: str) -> None:
    """Remove a directory and what is below it with this process's own rights; a missing one is fine.

    By descriptors: a link in it is removed, never followed. `shutil.rmtree` does the same for 15 ms of imports, and
    gives up on directories without permission to read, or nested deeper than its stack.
    """
    try:
        top = _open(path)
    except FileNotFoundError:
        return
    try:
        while _empty(top, top, 0):
            pass
    finally:
        os.close(top)
    os.rmdir(path)


def _open(path: str, at: int | None = None) -> int:
    try:
        return os.open(path, _FLAGS, dir_fd=at)
    except PermissionError:
        os.chmod(path, 0o700, dir_fd=at)
        return os.open(path, _FLAGS, dir_fd=at)


def _empty(fd: int, top: int, depth: int) -> bool:
    """Empty a directory; whether something was moved up to `top`, because it lay too deep, and is still there."""
    moved = False
    with os.scandir(fd) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    if found and os.geteuid():
        os.fchmod(fd, 0o700)
    for name, is_directory in found:
        if not is_directory:
            os.unlink(name, dir_fd=fd)
        elif depth == _DEEPEST:
            if os.geteuid():
                os.chmod(name, 0o700, dir_fd=fd)  # a directory that changes its parent is written to
            os.rename(name, f"deep-{os.urandom(8).hex()}", src_dir_fd=fd, dst_dir_fd=top)
            moved = True
        else:
            below = _open(name, fd)
            try:
                moved |= _empty(below, top, depth + 1)
            finally:
                os.close(below)
            os.rmdir(name, dir_fd=fd)
    return moved
