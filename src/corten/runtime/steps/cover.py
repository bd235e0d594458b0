"""Steps that hide or freeze parts of the root, such as those of /proc and /sys that reach the host."""

from __future__ import annotations

import os
import stat

from corten.linux import mounts, paths
from corten.runtime.step import Stage, Step

_NULL = os.makedev(1, 3)


def _null(stage: Stage) -> int:
    """The null device, looked at before it is used: where /dev is a directory of the user's, its `null` may be missing,
    or a link to a file of /proc that would then lie open (CVE-2025-31133). Then the host's own is taken."""
    try:
        null = paths.open_in_root(stage.root, "/dev/null", os.O_PATH)
    except OSError:
        return os.open("/dev/null", os.O_PATH | os.O_CLOEXEC)
    about = os.fstat(null)
    if stat.S_ISCHR(about.st_mode) and about.st_rdev == _NULL:
        return null
    os.close(null)
    return os.open("/dev/null", os.O_PATH | os.O_CLOEXEC)


class Hide(Step):
    """Mask a path: an empty read-only directory over a directory, the null device over a file. Absent is fine."""

    path: str

    def run(self, stage: Stage) -> None:
        try:
            place = paths.open_in_root(stage.root, self.path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            if paths.is_directory(place):
                self._hide_directory(stage, place)
            else:
                null = _null(stage)
                tree = mounts.open_tree("", at=null)
                os.close(null)
                mounts.attach(tree, place)
                os.close(tree)
        finally:
            os.close(place)

    def _hide_directory(self, stage: Stage, place: int) -> None:
        # One empty tmpfs serves all: a copy of its mount is cheaper than another file system.
        empty = stage.trees.get("empty", -1)
        if empty < 0:
            attributes = mounts.RDONLY | mounts.NOSUID | mounts.NODEV | mounts.NOEXEC
            empty = mounts.new("tmpfs", ("nr_inodes=1", "mode=0755", "ro"), attributes)
            mounts.attach(empty, place)
            stage.trees["empty"] = empty
        else:
            tree = mounts.open_tree("", at=empty)
            mounts.attach(tree, place)
            os.close(tree)

    def describe(self) -> str:
        return f"hide {self.path}"


class MakeReadOnly(Step):
    """Make a path and all mounted below it read-only. Absent is fine."""

    path: str

    def run(self, stage: Stage) -> None:
        try:
            place = paths.open_in_root(stage.root, self.path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return
        tree = mounts.open_tree("", at=place, recursive=True)
        mounts.set_attributes(tree, add=mounts.RDONLY, recursive=True)
        mounts.attach(tree, place)
        os.close(tree)
        os.close(place)

    def describe(self) -> str:
        return f"make {self.path} read-only"
