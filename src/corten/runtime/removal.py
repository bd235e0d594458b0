"""Removing what a container has left, whoever it belongs to.

An ordinary user's container may hold files of subordinate ids (/etc/subuid), which the user itself may not remove, nor
even list. Rule: plain removal first; where that is refused, a helper does it as root of a user namespace in which all
ids of this user are mapped. Which maps the container had need not be known: they came out of the same ranges.
"""

from __future__ import annotations

import os
import sys

from corten.errors import Error, errno_words
from corten.linux import clone, idmap

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 100


def remove_all(path: str) -> None:
    """Remove a directory and what is below it; a missing one is fine. OSError or Error if something must stay."""
    try:
        remove_tree(path)
    except PermissionError:
        uid_maps, gid_maps = idmap.rootless_maps(os.geteuid(), os.getegid())
        if os.geteuid() == 0 or len(uid_maps) == 1:
            raise
        _remove_inside(path, uid_maps, gid_maps)


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


def _remove_inside(
    path: str, uid_maps: tuple[idmap.IdMapping, ...], gid_maps: tuple[idmap.IdMapping, ...]
) -> None:
    """Have a helper remove it: a new program, not a clone, for a sweeper's process may have many threads."""
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = f"import sys;sys.path.insert(0,{source!r});from corten.runtime.removal import _helper;_helper({path!r})"
    go_there, go_here = os.pipe2(os.O_CLOEXEC)
    said_here, said_there = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", "-c", code],
            {"LC_ALL": "C.UTF-8"},
            file_actions=[(os.POSIX_SPAWN_DUP2, go_there, 0), (os.POSIX_SPAWN_DUP2, said_there, 1)],
        )
    except BaseException:
        os.close(go_here)
        os.close(said_here)
        raise
    finally:
        os.close(go_there)
        os.close(said_there)
    try:
        said = os.read(said_here, 4096)
        if said == b"ready":
            idmap.write_maps(pid, uid_maps, gid_maps, setgroups_deny=False)
            os.write(go_here, b"go")
            said = os.read(said_here, 4096)
    finally:
        os.close(go_here)
        os.close(said_here)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        why = said.decode(errors="replace") or f"the helper ended with {status}"
        raise Error(f"remove {path} in a user namespace: {why}")


def _helper(path: str) -> None:
    """The helper's side: stdin is the word to go, stdout what there is to say."""
    try:
        clone.unshare("user")
        os.write(1, b"ready")
        if not os.read(0, 16):  # our parent has ended, or could not write the maps
            os._exit(1)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        remove_tree(path)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        os.write(1, f"{where}{errno_words(error.errno or 0)}".encode(errors="replace"))
        os._exit(1)
    os._exit(0)
