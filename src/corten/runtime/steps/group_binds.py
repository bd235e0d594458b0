"""Control groups as OCI has them: one that exists may be used, and its directories are bound where there is no
cgroup namespace."""

from __future__ import annotations

import os

from corten.errors import NameInUse
from corten.linux import mounts, paths
from corten.linux.cgroup.group import Group
from corten.linux.mount_options import MountOptions
from corten.runtime.step import Stage, Step


class MakeOrAdoptGroup(Step):
    """Make the control group where it does not exist; one that does is taken if nothing runs in it."""

    group: Group

    def run(self, stage: Stage) -> None:
        running = self.group.procs()
        if running:
            raise NameInUse(f"control group {self.group.dirs[0].path} is in use: process {running[0]} runs in it")
        missing = tuple(own for own in self.group.dirs if not os.path.isdir(own.path))
        if missing:
            Group(missing).create()

    def describe(self) -> str:
        return "make control group " + " ".join(f"{'+'.join(d.controllers) or 'v2'}:{d.path}" for d in self.group.dirs)


class AdoptScope(Step):
    """Take the control group that systemd has made with the container's process in it; on v1 make what it left out."""

    group: Group

    def run(self, stage: Stage) -> None:
        missing = tuple(own for own in self.group.dirs if own.version == 1 and not os.path.isdir(own.path))
        if missing:
            Group(missing).create()

    def describe(self) -> str:
        return f"take systemd's control group {self.group.dirs[0].path}"


class BindGroups(Step):
    """Bind the group's directories at a place like /sys/fs/cgroup: on v2 the one, else one for each hierarchy."""

    group: Group
    target: str
    options: MountOptions

    def run(self, stage: Stage) -> None:
        place = paths.directory_in_root(stage.root, self.target)
        if [own.version for own in self.group.dirs] == [2]:
            self._bind(self.group.dirs[0].path, place)
            os.close(place)
            return
        top = mounts.new("tmpfs", ("mode=0755", "size=64k"), mounts.NOSUID | mounts.NODEV | mounts.NOEXEC, "tmpfs")
        mounts.attach(top, place)
        os.close(place)
        for own in self.group.dirs:
            data = ",".join(own.controllers)
            name = "unified" if own.version == 2 else data.removeprefix("name=")
            os.mkdir(name, 0o755, dir_fd=top)
            where = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=top)
            self._bind(own.path, where)
            os.close(where)
            for alias in data.split(",") if own.version == 1 and "," in data else ():
                os.symlink(name, alias, dir_fd=top)
        if self.options.add & mounts.RDONLY:
            mounts.set_attributes(top, add=mounts.RDONLY)
        os.close(top)

    def _bind(self, source: str, place: int) -> None:
        tree = mounts.open_tree(source)
        mounts.set_attributes(tree, add=self.options.add)
        mounts.attach(tree, place)
        os.close(tree)

    def describe(self) -> str:
        return f"bind the control group on {self.target}{' (ro)' if self.options.add & mounts.RDONLY else ''}"
