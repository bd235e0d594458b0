"""Steps about the root: what it is made of, and the change into it."""

from __future__ import annotations

import errno
import os

from corten.errors import KernelError
from corten.linux import mounts, paths
from corten.linux.idmap import IdMapping, userns_fd
from corten.linux.process import real_cwd
from corten.records import Record
from corten.runtime.step import Stage, Step


class Isolate(Step):
    """Stop mounts made here from reaching the host."""

    propagation: int = mounts.SLAVE

    def run(self, stage: Stage) -> None:
        mounts.set_propagation("/", self.propagation)

    def describe(self) -> str:
        kind = {mounts.SLAVE: "slave", mounts.PRIVATE: "private", mounts.SHARED: "shared"}[self.propagation]
        return f"make all mounts {kind}"


class MountRoot(Step):
    """Make a directory the root of the container."""

    path: str
    recursive: bool = True
    at: str = ""
    """A directory to attach it to in this mount namespace; empty: the path itself."""

    def run(self, stage: Stage) -> None:
        tree = stage.trees.pop("tree:", -1)
        if tree < 0:
            tree = mounts.open_tree(self.path, recursive=self.recursive)
        _become_root(stage, tree, self.at or self.path)

    def describe(self) -> str:
        return f"take {self.path} as root"


class Below(Record):
    """An overlay of its own at a place below the root: target, its lower directories, and a name for its layer.

    Without lower directories it goes on top of what the root has there.
    """

    target: str
    lowers: tuple[str, ...]
    name: str
    read_only: bool = False


class OpenLayers(Step):
    """Open the directories of an overlay in the launcher, for a child of another user namespace: it cannot reach them.

    With maps, the container's users own in the lower ones what the host's users of the same numbers own.
    """

    lowers: tuple[str, ...]
    layer: str
    uid_maps: tuple[IdMapping, ...]
    gid_maps: tuple[IdMapping, ...]

    def run(self, stage: Stage) -> None:
        userns = userns_fd(self.uid_maps, self.gid_maps) if self.uid_maps else -1
        try:
            for path in self.lowers:
                tree = stage.trees[_OPENED + path] = mounts.open_tree(path)
                if userns >= 0:
                    _map_ids(tree, userns, path)
        finally:
            if userns >= 0:
                os.close(userns)
        if self.layer:
            stage.trees[_OPENED + self.layer] = mounts.open_tree(self.layer)

    def describe(self) -> str:
        return f"open {listed(self.lowers, ', ')}{', ids mapped' if self.uid_maps else ''}"


def _map_ids(tree: int, userns: int, path: str) -> None:
    try:
        mounts.set_attributes(tree, add=mounts.IDMAP, userns=userns)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        remedy = "set CORTEN_HOME to a directory on ext4, xfs or btrfs, or leave the user namespace out"
        why = f"this kernel cannot map ids on that file system: {remedy}"
        raise KernelError(f"map the ids of {path}", errno.EINVAL, why) from None


def listed(paths: tuple[str, ...], between: str) -> str:
    """Directories in one line, of many layers only some."""
    if len(paths) <= _SHOWN + 1:
        return between.join(paths)
    return f"{between.join(paths[:_SHOWN])}{between}{len(paths) - _SHOWN} others"


_SHOWN = 9
_OPENED = "layer:"
_LONGEST_OPTION = 255  # bytes of a value that fsconfig(2) takes


class MountOverlay(Step):
    """Make an overlay the root: read-only layers below one that is written to.

    lowers: directories, topmost first; layer: directory with `upper` and `work` (empty: a new tmpfs of `size` bytes);
    at: a directory of the host to attach it to in this mount namespace; below: more overlays, in directories of
    their names beside `upper`; volatile: nobody will read the layer after the container's end, so nothing of it has to
    reach the disk: no fsync inside, and no sync at its end, which was a quarter of a start (Linux 5.10).
    """

    lowers: tuple[str, ...]
    layer: str
    at: str
    size: int = 0
    below: tuple[Below, ...] = ()
    volatile: bool = False

    def run(self, stage: Stage) -> None:
        places = {name[len(_OPENED) :]: fd for name, fd in stage.trees.items() if name.startswith(_OPENED)}
        for fd in places.values():
            self._attach(fd)  # an overlay takes only what is mounted in its own mount namespace
        lowers, *others = [
            tuple(f"/proc/self/fd/{places[path]}" if path in places else path for path in paths)
            for paths in (self.lowers, *(below.lowers for below in self.below))
        ]
        if stage.places:
            lowers = (*lowers, stage.places)
        layer = f"/proc/self/fd/{places[self.layer]}" if self.layer in places else self.layer
        if not layer:
            options = ("mode=0755", *([f"size={self.size}"] if self.size else []))
            tmpfs = mounts.new("tmpfs", options, mounts.NODEV)
            self._attach(tmpfs)
            stage.trees["memory"] = tmpfs
            layer = f"/proc/self/fd/{tmpfs}"
            make_layer(layer, tuple(below.name for below in self.below))
        root = _overlay(lowers, layer, self.volatile)
        # All of them are made first: the root covers the place where their layers lie.
        made = [
            (below, _overlay(own, f"{layer}/{below.name}", self.volatile))
            for below, own in zip(self.below, others, strict=True)
            if own
        ]
        on_top = [below for below in self.below if not below.lowers]
        opened = os.open(layer, os.O_PATH | os.O_CLOEXEC) if on_top else -1
        _become_root(stage, root, self.at)
        for covered, mount in made:
            if covered.read_only:
                mounts.set_attributes(mount, add=mounts.RDONLY)
            place = paths.directory_in_root(stage.root, covered.target)
            mounts.attach(mount, place)
            os.close(place)
            os.close(mount)
        for below in on_top:
            _cover(stage.root, below, f"/proc/self/fd/{opened}", self.volatile)
        if opened >= 0:
            os.close(opened)

    def _attach(self, mount: int) -> None:
        here = os.open(self.at, os.O_PATH | os.O_CLOEXEC)
        mounts.attach(mount, here)
        os.close(here)

    def describe(self) -> str:
        others = f" (and {', '.join(below.target for below in self.below)})" if self.below else ""
        return f"mount overlay of {listed(self.lowers, ' on ')} as root{others}, writes to {self.layer or 'memory'}"


def _cover(root: int, below: Below, layer: str, volatile: bool) -> None:
    """Mount an overlay on a directory of the root that shows what is there, and looks like it."""
    place = paths.directory_in_root(root, below.target)
    about, upper = os.stat(place), f"{layer}/{below.name}/upper"
    os.chown(upper, about.st_uid, about.st_gid)
    os.chmod(upper, about.st_mode & 0o7777)
    mount = _overlay((f"/proc/self/fd/{place}",), f"{layer}/{below.name}", volatile)
    mounts.attach(mount, place)
    os.close(place)
    os.close(mount)


def make_layer(path: str, names: tuple[str, ...], uid: int = 0, gid: int = 0) -> None:
    """Make the directories that overlays write to: `upper` and `work`, and the same in a directory for each name."""
    if uid or gid:
        os.chown(path, uid, gid)  # for its process to pass through; other users of the machine must not
    for part in (path, *(f"{path}/{name}" for name in names)):
        for directory in (part, f"{part}/upper", f"{part}/work"):
            if not os.path.isdir(directory):
                os.mkdir(directory)
                os.chmod(directory, 0o755)  # noqa: S103 - it becomes the container's `/`
                if uid or gid:
                    os.chown(directory, uid, gid)


def lower_option(lowers: tuple[str, ...]) -> str:
    """Lower directories as one value of `lowerdir`."""
    return ":".join(path.replace("\\", "\\\\").replace(":", "\\:") for path in lowers)


def remove_unused(path: str, names: tuple[str, ...]) -> bool:
    """Remove what `make_layer` made, as far as nothing was written to it; whether nothing is left.

    It lists nothing: that takes twice as long as the removal.
    """
    try:
        for part in (*(f"{path}/{name}" for name in names), path):
            mark = f"{part}/work/work/incompat/volatile/dirty"
            if os.path.exists(mark):  # of a volatile one (ovl_create_volatile_dirty of the kernel's overlayfs/super.c)
                os.unlink(mark)
                mark = os.path.dirname(mark)
                os.rmdir(mark)
                os.rmdir(os.path.dirname(mark))
            for left in ("/upper", "/work/work", "/work", ""):
                os.rmdir(f"{part}{left}")
    except OSError:
        return False
    return True


def _overlay(lowers: tuple[str, ...], layer: str, volatile: bool) -> int:
    # In a user namespace only user.* attributes may be written, hence userxattr; elsewhere trusted.* are safer.
    extra = (*(("userxattr",) if in_user_namespace() else ()), *(("volatile",) if volatile else ()))
    opened = -1
    if "\\" in layer or len(os.fsencode(layer)) > _LONGEST_OPTION - len("/upper"):  # which the kernel takes otherwise
        opened = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        layer = f"/proc/self/fd/{opened}"
    writes = (f"upperdir={layer}/upper", f"workdir={layer}/work", *extra)
    escaped = lower_option(lowers)
    try:
        if len(os.fsencode(escaped)) <= _LONGEST_OPTION:
            overlay = mounts.new("overlay", (f"lowerdir={escaped}", *writes))
        else:
            overlay = overlay_of_many(lowers, writes)
    except mounts.MountError as error:
        if error.errno == errno.EINVAL:  # an overlay, NFS and their like cannot be written to through an overlay
            remedy = "writes must go to a local disk: set CORTEN_HOME to a directory there, or --writable tmpfs"
            error.said = f"{error.said}: {remedy}" if error.said else remedy
        raise
    finally:
        if opened >= 0:
            os.close(opened)
    if os.fstatvfs(overlay).f_flag & os.ST_RDONLY:
        # Where it cannot write to its work directory the kernel goes on without, and says so in its log only.
        os.close(overlay)
        raise KernelError(
            f"mount overlay with writes to {layer}", 0, "the kernel cannot write there: is there space left?"
        )
    return overlay


def overlay_of_many(lowers: tuple[str, ...], options: tuple[str, ...]) -> int:
    """An overlay whose lower directories do not fit into an option: they are named by descriptor.

    For a process that has a mount namespace to itself. It is in / afterwards.
    """
    opened = []
    try:
        opened += [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in lowers]
        os.chdir("/proc/self/fd")  # so that a name is a number: some 60 of them fit
        names = ":".join(map(str, opened))
        if len(names) <= _LONGEST_OPTION:
            return mounts.new("overlay", (f"lowerdir={names}", *options))
        # Since Linux 6.5 they could be given one by one (`lowerdir+`); this does for all.
        return mounts.new_by_page("overlay", (f"lowerdir={names}", *options))
    finally:
        os.chdir("/")
        for fd in opened:
            os.close(fd)


def in_user_namespace() -> bool:
    """Whether this process is in another user namespace than the machine's own."""
    with open("/proc/self/uid_map") as file:
        return file.read().split() != ["0", "0", "4294967295"]


def _become_root(stage: Stage, mount: int, at: str) -> None:
    target = os.open(at, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mounts.attach(mount, target)
    finally:
        os.close(target)
    # pivot_root refuses a root whose parent mount is shared; Isolate has seen to it.
    stage.root = mount


class FreezeRoot(Step):
    """Make the root itself read-only; what is mounted in it stays as it is."""

    def run(self, stage: Stage) -> None:
        mounts.set_attributes(stage.root, add=mounts.RDONLY)

    def describe(self) -> str:
        return "make the root read-only"


class Pivot(Step):
    """Change into the new root and let go of the old one."""

    def run(self, stage: Stage) -> None:
        for fd in stage.trees.values():
            os.close(fd)
        stage.trees.clear()
        mounts.pivot_root(stage.root)
        os.close(stage.root)
        stage.root = -1

    def describe(self) -> str:
        return "pivot into the root, detach the old one"


class Propagate(Step):
    """Set how mounts below the new root spread (OCI rootfsPropagation)."""

    propagation: int

    def run(self, stage: Stage) -> None:
        mounts.set_propagation("/", self.propagation, recursive=False)

    def describe(self) -> str:
        kinds = {mounts.SHARED: "shared", mounts.SLAVE: "slave", mounts.PRIVATE: "private"}
        return f"make the root's mounts {kinds.get(self.propagation, 'unbindable')}"


class MakeDirectory(Step):
    """Make a directory of the root where it is missing: an image's volume, or where to work in a read-only root."""

    path: str

    def run(self, stage: Stage) -> None:
        os.close(paths.directory_in_root(stage.root, self.path))

    def describe(self) -> str:
        return f"make {self.path} if it is missing"


class WorkingDirectory(Step):
    """Go to the working directory, made where it is missing."""

    path: str

    def run(self, stage: Stage) -> None:
        try:
            os.chdir(self.path)
        except FileNotFoundError:
            os.makedirs(self.path, 0o755)
            os.chdir(self.path)
        # A directory outside the root, reached through a leaked descriptor (CVE-2024-21626), shows itself here.
        if real_cwd().startswith("("):
            raise KernelError(f"go to {self.path}", errno.EXDEV, "the directory lies outside the container")

    def describe(self) -> str:
        return f"go to {self.path}"
