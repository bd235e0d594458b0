"""Files looked up in layers that are not mounted, as an overlay of them would show them.

Rule 1: a name is what the topmost layer that has it says: a file, a link, or that it is deleted. Directories are
        merged, down to the first that is opaque.
Rule 2: links are followed here, by name, as if the topmost directory were `/`: nothing leads out of the layers.
Source: kernel, Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

OPAQUE_NAMES = ("trusted.overlay.opaque", "user.overlay.opaque")
"""Attributes with which a directory shows nothing of what lies below it, for the two kinds of overlays."""
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40  # as the kernel


class Layered:
    """Layers, the topmost first, for a `with` block."""

    def __init__(self, layers: Sequence[str]) -> None:
        self._layers = layers
        self._open: list[int] = []
        # The directories that make up a merged one, topmost first.
        self._merged: dict[tuple[str, ...], list[int]] = {}

    def __enter__(self) -> Self:
        top = []
        for path in self._layers:
            try:
                top.append(self._kept(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)))
            except OSError:
                continue
            if _is_opaque(top[-1]):
                break
        self._merged[()] = top
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for fd in self._open:
            os.close(fd)

    def _kept(self, fd: int) -> int:
        self._open.append(fd)
        return fd

    def read(self, path: str, most: int) -> bytes | None:
        """At most so many bytes of a regular file; None if there is none, or it cannot be read."""
        way: tuple[str, ...] = ()
        left, links = path.split("/")[::-1], 0
        while left:
            name = left.pop()
            if name in ("", "."):
                continue
            if name == "..":
                way = way[:-1]
                continue
            above, about = self._find(way, name)
            if about is None:
                return None
            if stat.S_ISLNK(about.st_mode):
                links += 1
                if links > _MOST_LINKS:
                    return None
                target = os.readlink(name, dir_fd=above)
                way = () if target.startswith("/") else way
                left += target.split("/")[::-1]
            elif stat.S_ISDIR(about.st_mode):
                way = (*way, name)
            elif stat.S_ISREG(about.st_mode) and not left:
                return _contents(name, above, most)
            else:
                return None
        return None

    def _find(self, way: tuple[str, ...], name: str) -> tuple[int, os.stat_result | None]:
        """(descriptor of the directory of the topmost layer that has the name, what it is there)."""
        for fd in self._directories(way):
            try:
                about = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError:
                continue
            deleted = stat.S_ISCHR(about.st_mode) and about.st_rdev == 0
            return fd, None if deleted else about
        return -1, None

    def _directories(self, way: tuple[str, ...]) -> list[int]:
        if way in self._merged:
            return self._merged[way]
        found: list[int] = []
        for above in self._directories(way[:-1]):
            try:
                fd = self._kept(os.open(way[-1], _DIRECTORY, dir_fd=above))
            except FileNotFoundError:
                continue
            except OSError:
                break  # something else, or deleted: what lies below it is hidden
            found.append(fd)
            if _is_opaque(fd):
                break
        self._merged[way] = found
        return found


def _is_opaque(fd: int) -> bool:
    for name in OPAQUE_NAMES:
        try:
            if os.getxattr(f"/proc/self/fd/{fd}", name) == b"y":
                return True
        except OSError:
            continue
    return False


def _contents(name: str, above: int, most: int) -> bytes | None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=above)
    except OSError:
        return None
    try:
        return os.read(fd, most)
    except OSError:
        return None
    finally:
        os.close(fd)
