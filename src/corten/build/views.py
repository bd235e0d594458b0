"""Layers seen as one tree, by a descriptor: nothing is mounted where anybody could see it, and a close ends it.

Rule: a detached mount (fsmount(2)) is a directory to openat2 and its kin; it never enters a mount table.
"""

from __future__ import annotations

import os
import threading

from corten.linux import mounts, syscalls
from corten.runtime.steps.root import in_user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_LONGEST_OPTION = 255  # bytes of a value that fsconfig(2) takes
_CLONE_FS = 0x200


class View:
    """The root of a stack of layers, for a `with` block that gives its descriptor.

    lowers: directories, topmost first; layer: a directory with `upper` and `work` that takes what is written; empty:
    nothing can be written.
    """

    def __init__(self, lowers: tuple[str, ...], layer: str = "") -> None:
        self._lowers, self._layer = lowers, layer
        self.fd = self._mount = -1

    def __enter__(self) -> Self:
        if not self._layer and len(self._lowers) == 1:  # an overlay wants two
            self.fd = os.open(self._lowers[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            return self
        self._mount = _overlay(self._lowers, self._layer)
        try:  # what fsmount gives can only be walked from (O_PATH)
            self.fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._mount)
        except BaseException:
            os.close(self._mount)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self.fd)
        if self._mount >= 0:
            os.close(self._mount)


def _overlay(lowers: tuple[str, ...], layer: str) -> int:
    """A detached overlay. Up to Linux 6.4 all lower directories are one option, which fsconfig(2) bounds."""
    attributes = 0 if layer else mounts.RDONLY
    # In a user namespace only user.* attributes may be written or read.
    extra = ("userxattr",) if in_user_namespace() else ()
    writes = (f"upperdir={layer}/upper", f"workdir={layer}/work", *extra) if layer else extra
    opened = []
    try:
        opened += [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in lowers]
        names = ":".join(f"/proc/self/fd/{fd}" for fd in opened)
        if len(names) <= _LONGEST_OPTION:
            return mounts.new("overlay", (f"lowerdir={names}", *writes), attributes)
        names = ":".join(map(str, opened))
        if len(names) <= _LONGEST_OPTION:
            return _from_there("/proc/self/fd", (f"lowerdir={names}", *writes), attributes)
        plus = (f"lowerdir+=/proc/self/fd/{fd}" for fd in opened)
        return mounts.new("overlay", (*plus, *writes), attributes)
    finally:
        for fd in opened:
            os.close(fd)


def _from_there(where: str, options: tuple[str, ...], attributes: int) -> int:
    """An overlay whose options begin at another directory: in a thread with a working directory of its own."""
    found: list[int | BaseException] = []

    def work() -> None:
        try:
            syscalls.call("unshare", _CLONE_FS)
            os.chdir(where)
            found.append(mounts.new("overlay", options, attributes))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=work, name="corten-overlay")
    thread.start()
    thread.join()
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def make_layer(path: str) -> str:
    """Make the directory that a view or a container writes to; its path."""
    for part in (path, f"{path}/upper", f"{path}/work"):
        os.mkdir(part, 0o755)
        os.chmod(part, 0o755)  # noqa: S103 - it becomes the root of a container
    return path
