"""Steps about what is mounted in the root. Every place is resolved below the root by the kernel."""

from __future__ import annotations

import errno
import os
import stat

from corten.errors import KernelError
from corten.linux import mounts, paths
from corten.linux.idmap import IdMapping, userns_fd
from corten.linux.mount_options import MountOptions
from corten.runtime.step import Stage, Step


class OpenTree(Step):
    """Open the source of a bind mount ahead of its mounting, with the rights of whoever runs this step.

    target: where it will be mounted; empty: it becomes the root. sends: mounts made on it are to reach the host.
    Without that it only receives: what is opened where mounts are shared would send, whatever is done around it.
    """

    source: str
    recursive: bool
    uid_maps: tuple[IdMapping, ...] = ()
    gid_maps: tuple[IdMapping, ...] = ()
    idmap_below: bool = False
    target: str = ""
    sends: bool = False

    def run(self, stage: Stage) -> None:
        tree = mounts.open_tree(self.source, recursive=self.recursive)
        if not self.sends:
            mounts.set_attributes(tree, propagation=mounts.SLAVE, recursive=True)
        stage.trees[f"tree:{self.target}"] = tree
        if self.uid_maps:
            userns = userns_fd(self.uid_maps, self.gid_maps)
            try:
                mounts.set_attributes(tree, add=mounts.IDMAP, userns=userns, recursive=self.idmap_below)
            finally:
                os.close(userns)

    def describe(self) -> str:
        mapped = ", ids mapped" if self.uid_maps else ""
        return f"open {self.source}{' and what is mounted below' if self.recursive else ''}{mapped}"


class Mount(Step):
    """Mount a file system or bind a tree at a place below the root.

    kind: file system type, or `bind`; options: see `mount_options.parse`; is_file: bind onto a file.
    """

    kind: str
    source: str
    target: str
    options: MountOptions

    def run(self, stage: Stage) -> None:
        fd = self._make(stage)
        try:
            wants_directory = not self.options.bind or paths.is_directory(fd)
            try:
                target = _place(stage.root, self.target, wants_directory)
            except NotADirectoryError as error:
                hint = f"{self.source} is a directory, and there is a file in its place or on the way"
                raise KernelError(self.describe(), error.errno or 0, hint if self.options.bind else "") from None
            try:
                if not wants_directory and paths.is_directory(target):
                    raise KernelError(self.describe(), errno.EISDIR, f"{self.source} is a file: name one inside")
                if self.options.copy_up:
                    _copy_up(target, fd)
                mounts.attach(fd, target)
            finally:
                os.close(target)
            self._finish(fd)
        finally:
            os.close(fd)

    def _make(self, stage: Stage) -> int:
        options = self.options
        if not options.bind:
            # A read-only superblock as mount(2) makes it; shared ones (proc, sysfs, cgroup) stay as they are.
            frozen = ("ro",) if options.add & mounts.RDONLY and self.kind in ("tmpfs", "ramfs") else ()
            return mounts.new(self.kind, (*options.data, *frozen), options.add, self.source)
        fd = stage.trees.pop(f"tree:{self.target}", -1)
        if fd < 0:
            fd = mounts.open_tree(self.source, recursive=options.recursive)
        # Setting only: in a user namespace flags that the host has locked cannot be cleared, and must not be.
        atime = options.clear & mounts.ATIME_MASK
        if options.add or atime:
            mounts.set_attributes(fd, add=options.add, clear=atime)
        clear = options.clear & ~mounts.ATIME_MASK
        if clear:
            try:
                mounts.set_attributes(fd, clear=clear)
            except PermissionError:
                if clear & ~mounts.RDONLY or os.fstatvfs(fd).f_flag & os.ST_RDONLY:
                    raise
        return fd

    def _finish(self, fd: int) -> None:
        options = self.options
        if options.add_below or options.clear_below:
            mounts.set_attributes(fd, add=options.add_below, clear=options.clear_below, recursive=True)
        if options.propagation:
            mounts.set_attributes(fd, propagation=options.propagation)
        if options.propagation_below:
            mounts.set_attributes(fd, propagation=options.propagation_below, recursive=True)

    def describe(self) -> str:
        options = self.options
        words = [word for bit, word in _ATTRIBUTE_WORDS if options.add & bit] + list(options.data)
        if options.bind:
            if options.add_below & mounts.RDONLY:
                words.append("ro recursively")
            return f"bind {self.source} on {self.target}" + (f" ({','.join(words)})" if words else "")
        return f"mount {self.kind} on {self.target}" + (f" ({','.join(words)})" if words else "")


_ATTRIBUTE_WORDS = (
    (mounts.RDONLY, "ro"),
    (mounts.NOSUID, "nosuid"),
    (mounts.NODEV, "nodev"),
    (mounts.NOEXEC, "noexec"),
    (mounts.NOATIME, "noatime"),
    (mounts.STRICTATIME, "strictatime"),
    (mounts.NODIRATIME, "nodiratime"),
    (mounts.NOSYMFOLLOW, "nosymfollow"),
)


def _place(root: int, target: str, is_directory: bool) -> int:
    return paths.directory_in_root(root, target) if is_directory else paths.file_in_root(root, target)


def _copy_up(source: int, target: int) -> None:
    """Copy what lies below one directory into another: files, directories, links, with modes and owners."""
    # Both are O_PATH, which neither lists nor takes a change of owner.
    pair = [os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd) for fd in (source, target)]
    try:
        _copy_tree(*pair)
    finally:
        for fd in pair:
            os.close(fd)


def _copy_tree(source: int, target: int) -> None:
    about = os.fstat(source)
    os.fchown(target, about.st_uid, about.st_gid)
    os.fchmod(target, stat.S_IMODE(about.st_mode))
    with os.scandir(source) as listing:
        entries = list(listing)
    for entry in entries:
        about = entry.stat(follow_symlinks=False)
        if stat.S_ISLNK(about.st_mode):
            os.symlink(os.readlink(entry.name, dir_fd=source), entry.name, dir_fd=target)
            os.chown(entry.name, about.st_uid, about.st_gid, dir_fd=target, follow_symlinks=False)
        elif stat.S_ISDIR(about.st_mode):
            os.mkdir(entry.name, dir_fd=target)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            pair = [os.open(entry.name, flags, dir_fd=fd) for fd in (source, target)]
            _copy_tree(*pair)
            for fd in pair:
                os.close(fd)
        elif stat.S_ISREG(about.st_mode):
            reading = os.open(entry.name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=source)
            writing = os.open(entry.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=target)
            while os.sendfile(writing, reading, None, 1 << 20):
                pass
            os.fchown(writing, about.st_uid, about.st_gid)
            os.fchmod(writing, stat.S_IMODE(about.st_mode))
            os.close(reading)
            os.close(writing)


class CgroupMounts(Step):
    """Show the container its own groups at a place like /sys/fs/cgroup, one directory for each v1 hierarchy."""

    target: str
    hierarchies: tuple[tuple[str, str], ...]
    options: MountOptions

    def run(self, stage: Stage) -> None:
        top = mounts.new("tmpfs", ("mode=0755", "size=64k"), mounts.NOSUID | mounts.NODEV | mounts.NOEXEC, "tmpfs")
        place = paths.directory_in_root(stage.root, self.target)
        mounts.attach(top, place)
        os.close(place)
        os.fchdir(top)
        for name, data in self.hierarchies:
            os.mkdir(name, 0o755)
            mounts.mount_here("cgroup" if data else "cgroup2", name, self.options.add, data)
            for alias in data.split(",") if "," in data else ():
                os.symlink(name, alias)
        os.chdir("/")  # not back: where the launcher is may be closed to the container's root
        if self.options.add & mounts.RDONLY:
            mounts.set_attributes(top, add=mounts.RDONLY)
        os.close(top)

    def describe(self) -> str:
        names = " ".join(name for name, _ in self.hierarchies)
        return f"mount cgroup on {self.target}: {names}{' (ro)' if self.options.add & mounts.RDONLY else ''}"
