"""Steps about what is made in the root: device nodes, links, small files."""

from __future__ import annotations

import os
import stat

from corten.linux import mounts, paths
from corten.runtime.step import Stage, Step
from corten.runtime.steps.aside import ASIDE


class MakeDevice(Step):
    """Make a device node."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0

    def run(self, stage: Stage) -> None:
        parent, name = os.path.split(self.path)
        above = stage.directory(parent)
        bits = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}[self.kind]
        try:
            os.mknod(name, bits | self.mode, os.makedev(self.major, self.minor), dir_fd=above)
        except FileExistsError:
            found = os.stat(name, dir_fd=above, follow_symlinks=False)
            if stat.S_IFMT(found.st_mode) != bits or found.st_rdev != os.makedev(self.major, self.minor):
                raise
        os.chown(name, self.uid, self.gid, dir_fd=above, follow_symlinks=False)
        # mknod's mode went through the umask.
        os.chmod(name, self.mode, dir_fd=above)

    def describe(self) -> str:
        return f"make device {self.path} ({self.kind} {self.major}:{self.minor}, mode {self.mode:04o})"


class BindDevice(Step):
    """Show a device of the host: the way where nodes cannot be made, in a user namespace."""

    source: str
    path: str

    def run(self, stage: Stage) -> None:
        tree = mounts.open_tree(self.source)
        place = paths.file_in_root(stage.root, self.path)
        mounts.attach(tree, place)
        os.close(place)
        os.close(tree)

    def describe(self) -> str:
        return f"bind device {self.source} on {self.path}"


class MakeLink(Step):
    """Make a symbolic link."""

    path: str
    to: str

    def run(self, stage: Stage) -> None:
        parent, name = os.path.split(self.path)
        try:
            os.symlink(self.to, name, dir_fd=stage.directory(parent))
        except FileExistsError:
            pass  # the root file system brings its own

    def describe(self) -> str:
        return f"link {self.path} -> {self.to}"


class ProvideFile(Step):
    """Show a small file that the engine provides (/etc/hostname, /etc/hosts), by a mount as docker does.

    It lies on the tmpfs of what is made aside, which goes with the pivot: no disk is written to, and nothing of the
    user's is changed.
    """

    path: str
    content: str
    mode: int = 0o644

    def run(self, stage: Stage) -> None:
        top = stage.trees[ASIDE]
        name = paths.flat(self.path)
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self.mode, dir_fd=top)
        os.write(fd, self.content.encode())
        os.fchmod(fd, self.mode)
        os.close(fd)
        tree = mounts.open_tree(name, at=top)
        place = paths.file_in_root(stage.root, self.path)
        mounts.attach(tree, place)
        os.close(place)
        os.close(tree)

    def describe(self) -> str:
        return f"provide {self.path}"
