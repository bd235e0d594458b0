"""What a container's mounts leave in its layer: the places they were mounted on. They are no part of an image.

Rule 1: a place that was there before stays; an empty file or directory that was made for a mount goes.
Rule 2: a directory that a layer holds only because something in it was made and removed again goes, too.
"""

from __future__ import annotations

import os
import posixpath
import stat

from corten.build.views import View
from corten.linux import paths

OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")


def remove_stubs(upper: str, lowers: tuple[str, ...], targets: tuple[str, ...]) -> None:
    """Tidy a layer. upper: its directory; lowers: those below, topmost first; targets: where was mounted.

    Nothing is followed: a name below `upper` that is a link has been made by the container.
    """
    with View(lowers) as view:
        _remove_stubs(upper, view.fd, targets)


def _remove_stubs(upper: str, lower: int, targets: tuple[str, ...]) -> None:
    above: dict[str, None] = {}
    for target in sorted(targets, key=lambda one: -one.count("/")):
        path = target.strip("/")
        if not _is_below(upper, posixpath.dirname(path)):
            continue
        if not _exists(lower, path):
            _remove_empty(f"{upper}/{path}")
        while path := posixpath.dirname(path):
            above[path] = None
    for path in sorted(above, key=lambda one: -one.count("/")):
        if not _is_below(upper, path):
            continue
        before = _exists(lower, path)
        if before is None:
            if not os.listdir(f"{upper}/{path}") and _made_for_mounts(path, targets):
                os.rmdir(f"{upper}/{path}")
        else:
            _restore(f"{upper}/{path}", before)
    root = os.stat(".", dir_fd=lower)
    os.chmod(upper, stat.S_IMODE(root.st_mode))
    os.chown(upper, root.st_uid, root.st_gid)
    os.utime(upper, ns=(root.st_mtime_ns, root.st_mtime_ns))


def _is_below(upper: str, path: str) -> bool:
    """Whether a path is a directory of the layer, reached over no link."""
    where = upper
    for name in path.split("/") if path else ():
        where = f"{where}/{name}"
        try:
            if not stat.S_ISDIR(os.lstat(where).st_mode):
                return False
        except OSError:
            return False
    return True


def _exists(lower: int, path: str) -> os.stat_result | None:
    try:
        fd = paths.open_in_root(lower, path, os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def _remove_empty(path: str) -> None:
    try:
        about = os.lstat(path)
        if stat.S_ISDIR(about.st_mode):
            os.rmdir(path)
        elif stat.S_ISREG(about.st_mode) and about.st_size == 0:
            os.unlink(path)
    except OSError:  # not empty, or never made: it is the container's own
        return


def _made_for_mounts(path: str, targets: tuple[str, ...]) -> bool:
    return any(target.strip("/").startswith(f"{path}/") for target in targets)


def _restore(path: str, before: os.stat_result) -> None:
    """Take a directory that was only copied up out of the layer again, if nothing of it has changed."""
    about = os.lstat(path)
    same = (about.st_mode, about.st_uid, about.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    if not same or os.listdir(path):
        return
    if any(name in OPAQUE for name in os.listxattr(path, follow_symlinks=False)):
        return
    os.rmdir(path)
