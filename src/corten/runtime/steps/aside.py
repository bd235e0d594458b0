"""Steps that make parts of the root aside, and move them in once there is a root. What and why: `runtime.aside`."""

from __future__ import annotations

import os

from corten.linux import mounts, paths
from corten.runtime.step import Stage, Step

ASIDE = "aside"


class MakeAside(Step):
    """Make an empty place that stands for the root until there is one.

    at: a directory to make and attach it to, where nothing else is looked for; or "/", where nothing at all is
    looked for any more (a path that leads over `..` comes out on top). It goes with the old root, at the pivot.
    """

    at: str

    def run(self, stage: Stage) -> None:
        top = mounts.new("tmpfs", ("mode=0755", "size=1m"), mounts.NODEV | mounts.NOSUID | mounts.NOEXEC)
        if self.at != "/":
            os.mkdir(self.at, 0o700)
        place = os.open(self.at, os.O_PATH | os.O_CLOEXEC)
        mounts.attach(top, place)
        os.close(place)
        stage.trees[ASIDE] = stage.root = top

    def describe(self) -> str:
        return "make a place aside, on a tmpfs"


class MoveIn(Step):
    """Move what was made aside into the root, with all that is mounted below it."""

    tops: tuple[str, ...]

    def run(self, stage: Stage) -> None:
        aside = stage.trees[ASIDE]
        for top in self.tops:
            made = os.open(top.strip("/"), os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=aside)
            place = paths.directory_in_root(stage.root, top)
            mounts.attach(made, place)
            os.close(place)
            os.close(made)

    def describe(self) -> str:
        return f"move {', '.join(self.tops)} into the root"
