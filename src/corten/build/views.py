"""Layers seen as one tree, by a descriptor: nothing is mounted where anybody could see it, and a close ends it.

Rule: a detached mount (fsmount(2)) is a directory to openat2 and its kin; it never enters a mount table.
"""

from __future__ import annotations

import os

from corten.linux import mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


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
        options = [f"lowerdir+={path}" for path in self._lowers]
        if self._layer:
            options += [f"upperdir={self._layer}/upper", f"workdir={self._layer}/work"]
        self._mount = mounts.new("overlay", options, 0 if self._layer else mounts.RDONLY)
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


def make_layer(path: str) -> str:
    """Make the directory that a view or a container writes to; its path."""
    for part in (path, f"{path}/upper", f"{path}/work"):
        os.mkdir(part, 0o755)
        os.chmod(part, 0o755)  # noqa: S103 - it becomes the root of a container
    return path
