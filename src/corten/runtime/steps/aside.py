"""Steps that make parts of the root aside, and move them in once there is a root. What and why: `runtime.aside`."""

from __future__ import annotations

import os

from corten.linux import mounts, paths
from corten.runtime.step import Stage, Step

ASIDE = "aside"


class MakeAside(Step):
    """Make an empty place that stands for the root until there is one.

    at: a directory to attach it to, where nothing else is looked for, made if missing and left for the next; or "/",
    where nothing at all is looked for any more (a path that leads over `..` comes out on top). It goes with the old
    root, at the pivot.
    """

    at: str

    def run(self, stage: Stage) -> None:
        top = mounts.new("tmpfs", ("mode=0755", "size=1m"), mounts.NODEV | mounts.NOSUID | mounts.NOEXEC)
        try:
            place = os.open(self.at, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            os.makedirs(self.at, 0o700, exist_ok=True)
            place = os.open(self.at, os.O_PATH | os.O_CLOEXEC)
        mounts.attach(top, place)
        os.close(place)
        stage.trees[ASIDE] = stage.root = top

    def describe(self) -> str:
        return "make a place aside, on a tmpfs"


class LayPlaces(Step):
    """Make a layer of empty directories and files for what will be mounted, to lie below all others of the root.

    What the root has not got then need not be written to the layer on disk, at 200 us for each directory.
    places: (path, what it is made after): a source of the host, "" for a directory, None for a file.
    """

    places: tuple[tuple[str, str | None], ...]

    def run(self, stage: Stage) -> None:
        stage.places = f"/proc/self/fd/{stage.trees[ASIDE]}/places"
        os.mkdir(stage.places, 0o755)
        os.chdir(stage.places)  # for short ways: there are dozens
        for path, after in self.places:
            name = path.strip("/")
            if after is None or (after and not os.path.isdir(after)):
                if "/" in name:
                    os.makedirs(os.path.dirname(name), 0o755, exist_ok=True)
                os.close(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
            else:
                os.makedirs(name, 0o755, exist_ok=True)
        os.chdir("/")

    def describe(self) -> str:
        return f"lay out places for {', '.join(path for path, _ in self.places)}"


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
