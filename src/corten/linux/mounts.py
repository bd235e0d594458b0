"""The mount interface by descriptors (Linux 5.2 to 5.12): fsopen, fsmount, open_tree, move_mount, mount_setattr.

Rule 1: every target is a descriptor; no path of a container is ever given to mount(2). (`mount_here` takes a name in a
        directory that nobody else can reach yet.)
Rule 2: every descriptor is close-on-exec.
Rule 3: a refused mount carries the kernel's own words (`MountError.said`), read from the fsopen descriptor.
Sources: fsopen(2), open_tree(2), move_mount(2), mount_setattr(2); include/uapi/linux/mount.h.
"""

from __future__ import annotations

import ctypes
import errno
import os

from corten.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

RDONLY, NOSUID, NODEV, NOEXEC, NODIRATIME = 0x01, 0x02, 0x04, 0x08, 0x80
NOATIME, STRICTATIME, ATIME_MASK = 0x10, 0x20, 0x70
IDMAP, NOSYMFOLLOW = 0x100000, 0x200000

UNBINDABLE, PRIVATE, SLAVE, SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20

_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_CLOEXEC = 1
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_FROM_EMPTY, _TO_EMPTY = 0x04, 0x40
_SET_FLAG, _SET_STRING, _SET_FD, _CREATE, _RECONFIGURE = 0, 1, 5, 6, 7
_PICK_CLOEXEC, _PICK_EMPTY_PATH = 0x1, 0x8
_MNT_DETACH = 2


class MountError(OSError):
    """A mount that the kernel refused; `said` are its own words, or empty."""

    said = ""


def _complaint(fs: int) -> str:
    """What the kernel logged on an fsopen descriptor; each line has a level letter and a space before it."""
    try:
        lines = os.read(fs, 8192).decode(errors="replace").splitlines()
    except OSError:  # ENODATA: nothing logged
        return ""
    return "; ".join(line[2:] for line in lines)


def new(kind: str, options: Iterable[str | tuple[str, int]] = (), attributes: int = 0, source: str = "") -> int:
    """Make a file system and a detached mount of it; its descriptor.

    options: `key=value` or `flag` as in mount(8), or (key, descriptor); attributes: RDONLY and its kin, of the mount.
    """
    try:
        fs = syscalls.call("fsopen", kind.encode(), _CLOEXEC)
    except OSError as error:
        raise _told(error, f"the kernel has no file system {kind!r}" if error.errno == 19 else "") from None
    try:
        syscalls.call("fsconfig", fs, _SET_STRING, b"source", os.fsencode(source or kind), 0)
        for option in options:
            if isinstance(option, tuple):
                syscalls.call("fsconfig", fs, _SET_FD, option[0].encode(), None, option[1])
                continue
            key, has_value, value = option.partition("=")
            if has_value:
                syscalls.call("fsconfig", fs, _SET_STRING, key.encode(), os.fsencode(value), 0)
            else:
                syscalls.call("fsconfig", fs, _SET_FLAG, key.encode(), None, 0)
        syscalls.call("fsconfig", fs, _CREATE, None, None, 0)
        return syscalls.call("fsmount", fs, _CLOEXEC, attributes)
    except OSError as error:
        raise _told(error, _complaint(fs)) from None
    finally:
        os.close(fs)


def new_by_page(kind: str, options: Iterable[str]) -> int:
    """The same for options longer than fsconfig(2) takes (255 bytes each): by mount(2), with a page of them at most.

    It has to be mounted somewhere: for a moment on /proc of this mount namespace, which must be private to us.
    """
    data = ",".join(options)
    try:
        syscalls.call("mount", kind.encode(), b"/proc", kind.encode(), 0, os.fsencode(data))
        try:
            return open_tree("/proc")
        finally:
            syscalls.call("umount2", b"/proc", _MNT_DETACH)
    except OSError as error:
        raise _told(error, "") from None


def mount_here(kind: str, name: str, attributes: int, data: str) -> None:
    """Mount a file system on an entry of the working directory, by one call instead of ten.

    Only where that is a file system of our own making. attributes: of RDONLY, NOSUID, NODEV and NOEXEC, which mount(2)
    calls by the same numbers; data: options with commas between.
    """
    known = RDONLY | NOSUID | NODEV | NOEXEC
    syscalls.call("mount", kind.encode(), name.encode(), kind.encode(), attributes & known, data.encode() or None)


def _told(error: OSError, said: str) -> MountError:
    told = MountError(error.errno, error.strerror)
    told.said = said
    return told


def make_read_only(mount: int, read_only: bool = True) -> None:
    """Make the file system of a mount read-only, for everybody. EBUSY: a file of it is open, or mapped, to write.
    read_only: False: make it writable again."""
    fs = syscalls.call("fspick", mount, b"", _PICK_CLOEXEC | _PICK_EMPTY_PATH)
    try:
        syscalls.call("fsconfig", fs, _SET_FLAG, b"ro" if read_only else b"rw", None, 0)
        syscalls.call("fsconfig", fs, _RECONFIGURE, None, None, 0)
    finally:
        os.close(fs)


def open_tree(path: str, at: int = _AT_FDCWD, recursive: bool = False) -> int:
    """A detached copy of what is mounted at `path` (empty: at the descriptor `at`): the source of a bind mount."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    flags |= 0 if path else _AT_EMPTY_PATH
    return syscalls.call("open_tree", at, os.fsencode(path), flags)


def attach(mount: int, target: int) -> None:
    """Attach a detached mount on top of what the descriptor `target` names."""
    syscalls.call("move_mount", mount, b"", target, b"", _FROM_EMPTY | _TO_EMPTY)


def set_attributes(
    mount: int, add: int = 0, clear: int = 0, propagation: int = 0, recursive: bool = False, userns: int = 0
) -> None:
    """Change a mount's attributes, or with `recursive` those of all mounts below it too.

    propagation: SHARED, SLAVE, PRIVATE or UNBINDABLE (0: unchanged); userns: descriptor of the user namespace whose
    maps an idmapped mount follows (only with IDMAP in `add`, on a detached mount, once).
    """
    if add & ATIME_MASK or clear & ATIME_MASK:
        clear |= ATIME_MASK  # the kernel takes a change of atime only together with the whole mask
    attributes = syscalls.words(add, clear, propagation, userns)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    syscalls.call("mount_setattr", mount, b"", flags, attributes, ctypes.sizeof(attributes))


def set_propagation(path: str, propagation: int, recursive: bool = True) -> None:
    """Change how mounts and unmounts below `path` spread to other mount namespaces."""
    attributes = syscalls.words(0, 0, propagation, 0)
    flags = _AT_RECURSIVE if recursive else 0
    syscalls.call("mount_setattr", _AT_FDCWD, os.fsencode(path), flags, attributes, ctypes.sizeof(attributes))


def pivot_root(root: int) -> None:
    """Make the mount behind `root` this mount namespace's `/` and let go of all that was mounted before.

    The old root ends up on top of the new one and is detached there: no directory is needed for it. What had been
    mounted on the old `/` lies on top of that, and each umount2 takes the topmost only: so until the old root itself
    is no longer in this namespace (EINVAL). One that stays is a way out, by a second chroot.
    """
    old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(root)
    syscalls.call("pivot_root", b".", b".")
    os.fchdir(old)
    os.close(old)
    while True:
        try:
            syscalls.call("umount2", b".", _MNT_DETACH)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            break
    os.chdir("/")
