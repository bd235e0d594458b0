"""Paths below a root that somebody else has filled: resolved by the kernel (openat2), never by string.

Rule: whatever lies below the root, symlinks included, cannot lead out of it. Source: openat2(2), RESOLVE_IN_ROOT.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat

from corten.linux import syscalls

_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10


_hows: dict[tuple[int, int], ctypes.Array[ctypes.c_uint64]] = {}


def open_in_root(root: int, path: str, flags: int, mode: int = 0) -> int:
    """Open `path` as if the directory `root` were `/`. The descriptor is close-on-exec."""
    how = _hows.get((flags, mode))
    if how is None:
        how = syscalls.words(flags | os.O_CLOEXEC, mode, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
        _hows[flags, mode] = how
    while True:
        try:
            return syscalls.call("openat2", root, os.fsencode(path), how, ctypes.sizeof(how))
        except OSError as error:
            # EAGAIN: the kernel saw a rename or mount while it walked, and cannot vouch for `..`.
            if error.errno != errno.EAGAIN:
                raise


def leads_astray(path: str) -> bool:
    """Whether a path leads over a link of /proc such as /proc/self/exe, so perhaps to a file outside of the root.

    OSError if that cannot be told.
    """
    how = syscalls.words(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_NO_MAGICLINKS)
    try:
        os.close(syscalls.call("openat2", -100, os.fsencode(path), how, ctypes.sizeof(how)))  # AT_FDCWD
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOSYS):
            raise
        return error.errno == errno.ELOOP
    return False


def directory_in_root(root: int, path: str, mode: int = 0o755) -> int:
    """An O_PATH descriptor of a directory below the root; it and its parents are made where they are missing."""
    flags = os.O_PATH | os.O_DIRECTORY
    try:
        return open_in_root(root, path, flags)
    except FileNotFoundError:
        parent, name = os.path.split(path.rstrip("/"))
        above = directory_in_root(root, parent or "/")
        try:
            os.mkdir(name, mode, dir_fd=above)
        except FileExistsError:
            pass  # somebody made it meanwhile; a dangling link fails at the open below
        finally:
            os.close(above)
        return open_in_root(root, path, flags)


def file_in_root(root: int, path: str) -> int:
    """An O_PATH descriptor of a file below the root, made empty where it is missing: a place to mount a file on."""
    try:
        return open_in_root(root, path, os.O_PATH)
    except FileNotFoundError:
        parent, name = os.path.split(path)
        above = directory_in_root(root, parent)
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(name, flags, 0o644, dir_fd=above))
        except FileExistsError:
            pass
        finally:
            os.close(above)
        return open_in_root(root, path, os.O_PATH)


def flat(path: str) -> str:
    """One file name for an absolute, normalised path; different paths have different ones: `usr-local` for
    `/usr/local`, `usr%2dlocal` for `/usr-local`."""
    return path.strip("/").replace("%", "%25").replace("-", "%2d").replace("/", "-")


def is_directory(fd: int) -> bool:
    """Whether a descriptor, O_PATH or not, is of a directory."""
    return stat.S_ISDIR(os.fstat(fd).st_mode)
