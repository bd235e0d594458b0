"""One control group: a directory in each hierarchy.

Rule 1: a `Group` is data and may be sent to another process; nothing is held open.
Rule 2: `place` decides (and only reads); `create`, `join`, `apply`, `kill`, `remove` act.
Rule 3: what cannot be done is an error that names the path; making a group leaves nothing behind when it fails.
Rule 4: on v1 a thread joins by writing 0 to `tasks`: cgroup.procs takes the kernel's lock over all thread groups.
"""

from __future__ import annotations

import errno
import os

from corten.errors import InvalidInput, KernelError, Unsupported
from corten.linux.cgroup import directories, files
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from corten.linux.cgroup.files import Write
    from corten.linux.cgroup.layout import Hierarchy, Layout
    from corten.linux.cgroup.resources import Resources

# what an account of a container needs, on v2: given wherever it can be had
_USUAL = ("memory", "pids", "cpu", "io")
# a group without these two tells nothing of use: worth one step further up the tree
_WORTH_CLIMBING = frozenset({"memory", "pids"})
# what every v2 group has, whatever its controllers
_IN_EVERY_V2 = frozenset({"cgroup", "devices", "freezer"})


class GroupDir(Record):
    """The group's directory in one hierarchy.

    path: absolute; controllers: what it limits and counts; enable: v2, what the parent does not hand down yet.
    """

    version: int
    controllers: tuple[str, ...]
    path: str
    enable: tuple[str, ...] = ()

    @property
    def join_file(self) -> str:
        """The file by which a thread (on v2 its process) joins it: by writing 0."""
        return f"{self.path}/{'tasks' if self.version == 1 else 'cgroup.procs'}"


class Group(Record):
    """A control group as a tuple of directories, one for each hierarchy it is in."""

    dirs: tuple[GroupDir, ...]

    def directory(self, controller: str) -> str | None:
        """The directory that serves a controller (`io` and `blkio` are one; `cgroup`: the v2 files of the group
        itself); None: none does."""
        found = self._serving(controller)
        return found.path if found else None

    def version(self, controller: str) -> int:
        """1 or 2: whose files the controller has here; 0 where the group does not have it."""
        found = self._serving(controller)
        return found.version if found else 0

    def _serving(self, controller: str) -> GroupDir | None:
        for own in self.dirs:
            if controller in own.controllers:
                return own
        if controller == "io":
            return self._serving("blkio")
        if controller in _IN_EVERY_V2:
            return self._v2()
        return None

    def _v2(self) -> GroupDir | None:
        for own in self.dirs:
            if own.version == 2:
                return own
        return None

    # --- making and joining

    def create(self) -> None:
        """Make the directories. `NameInUse`: the group exists; `KernelError`: refused. Nothing is left of a group
        that failed."""
        made: list[str] = []
        try:
            for own in self.dirs:
                directories.make(own)
                made.append(own.path)
        except BaseException:
            for path in made:
                os.rmdir(path)
            raise

    def join(self, v2: bool = True) -> None:
        """Move the calling thread (on v2 its process) into the group. `KernelError`.

        v2: False for a process that was cloned into the v2 directory, and need not move there again.
        """
        for own in self.dirs:
            if own.version == 2 and not v2:
                continue
            path = own.join_file
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(fd, b"0")
                finally:
                    os.close(fd)
            except OSError as error:
                raise KernelError(f"join control group {path}", error.errno or 0, _join_hint(error.errno)) from error

    def open_v2(self) -> int | None:
        """A descriptor of the v2 directory for clone3(CLONE_INTO_CGROUP), to be closed by the caller; None without
        one."""
        own = self._v2()
        if own is None:
            return None
        try:
            return os.open(own.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise KernelError(f"open control group {own.path}", error.errno or 0) from error

    # --- limits

    def apply(self, write: Write) -> None:
        """Do one write and read it back. `Unsupported`, `InvalidInput` or `KernelError`, naming the file, what was
        wanted and what is held."""
        directory = self.directory(write.controller)
        if directory is None:
            raise Unsupported(f"{write.field or write.file}: the group has no {write.controller} controller")
        files.put(directory, write)

    def apply_devices(self, resources: Resources) -> None:
        """Put the device rules in force: v1 lines or v2 program, read back. `Unsupported` or `KernelError`."""
        from corten.linux.cgroup import devices

        devices.apply(self, resources.devices)

    # --- what is inside

    def procs(self) -> tuple[int, ...]:
        """The ids of all processes in the group and in groups below it; empty where the group is gone."""
        own = self._v2() or (self.dirs[0] if self.dirs else None)
        return tuple(directories.procs(own.path)) if own else ()

    def kill(self, timeout: float = 10.0) -> None:
        """Kill every process in the group and below. Returns when the kernel has been told (they may still be dying).

        v2: `cgroup.kill`, which no fork escapes. Else: freeze, SIGKILL to each, thaw, until none is left, at most
        `timeout` seconds.
        """
        own = self._v2()
        if own is not None:
            try:
                directories.put(f"{own.path}/cgroup.kill", b"1")
                return
            except FileNotFoundError:
                if not os.path.isdir(own.path):
                    return
            except OSError as error:
                raise KernelError(f"kill control group {own.path}", error.errno or 0) from error
        from corten.linux.cgroup import ending

        ending.kill_each(self, timeout)

    def freeze(self, timeout: float = 10.0) -> None:
        """Stop every process in the group, and wait until they stand. `KernelError` (ETIMEDOUT) after `timeout`
        seconds."""
        from corten.linux.cgroup import ending

        ending.set_frozen(self, True, timeout)

    def thaw(self, timeout: float = 10.0) -> None:
        """Let them run again."""
        from corten.linux.cgroup import ending

        ending.set_frozen(self, False, timeout)

    def remove(self, timeout: float = 5.0) -> None:
        """Remove the group and the groups made below it; it may be gone already.

        Processes that are dying are waited for, at most `timeout` seconds; then `KernelError` (EBUSY).
        """
        busy = []
        for own in self.dirs:
            try:
                os.rmdir(own.path)
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                    raise KernelError(f"remove control group {own.path}", error.errno or 0) from error
                busy.append(own)
        if busy:
            from corten.linux.cgroup import ending

            ending.remove_busy(busy, timeout)


def of_process(pid: int) -> Group:
    """The group that a process is in, as far as our mounts show it. `ProcessLookupError`: it is gone."""
    from corten.linux.cgroup import layout

    try:
        hierarchies = layout.of_process(pid).hierarchies
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, f"process {pid} has ended") from None
    dirs = []
    for own in hierarchies:
        path = own.directory(own.own)
        offered = "" if own.version == 1 else files.text(f"{path}/cgroup.controllers") or ""
        served = own.controllers if own.version == 1 else tuple(offered.split())
        dirs.append(GroupDir(own.version, served, path))
    return Group(tuple(dirs))


# --- placing


def place(layout: Layout, name: str, parent: str | None = None, need: Iterable[str] = frozenset()) -> Group:
    """Where a group of that name goes; reads the tree and changes nothing.

    parent: a path from the root of each mount (`/a/b`); None: below our own group, or on v2 below its nearest ancestor
    that can have children with the controllers (decided once for each layout, need and user). need: controllers that
    must be there (`memory`, `cpu`, `cpuset`, `pids`, `io`, `devices`, ...).
    Hierarchies that cannot be written and are not needed are left out (`left_out`). `InvalidInput`: not a name;
    `Unsupported`: a needed controller cannot be had, and what to do about it.
    """
    if not name or "/" in name or name in (".", "..") or "\n" in name:
        raise InvalidInput(f"{name!r} is not a name for a control group")
    if parent is not None:
        parent = _clean(parent)
    wanted = frozenset("io" if controller == "blkio" else controller for controller in need)
    if parent is not None:
        dirs = _place(layout, parent, wanted)
    else:
        key = (id(layout), wanted, os.geteuid())
        cached = _placed.get(key)
        if cached is None or cached[0] is not layout:
            cached = _placed[key] = (layout, _place(layout, None, wanted))
        dirs = cached[1]
    return Group(tuple(GroupDir(own.version, own.controllers, f"{own.path}/{name}", own.enable) for own in dirs))


# where groups go: deciding took as long as making one (150 us of 1 ms, hybrid, measured), and a process rarely moves
_placed: dict[tuple[int, frozenset[str], int], tuple[Layout, list[GroupDir]]] = {}


def _place(layout: Layout, parent: str | None, wanted: frozenset[str]) -> list[GroupDir]:
    """The directories, less the name."""
    missing = set(wanted)
    dirs = []
    for hierarchy in layout.hierarchies:
        placed = _place_v1(hierarchy, parent) if hierarchy.version == 1 else _place_v2(hierarchy, parent, wanted)
        if placed is not None:
            dirs.append(placed)
            missing.difference_update(placed.controllers)
            if "blkio" in placed.controllers:
                missing.discard("io")
            if placed.version == 2:
                missing -= _IN_EVERY_V2
    if missing:
        raise Unsupported(_why_not(layout, sorted(missing)))
    return dirs


def left_out(layout: Layout, group: Group) -> tuple[str, ...]:
    """The controllers of this machine that the group does not have."""
    return tuple(
        controller
        for hierarchy in layout.hierarchies
        for controller in hierarchy.controllers
        if not controller.startswith("name=") and group.directory(controller) is None
    )


def _clean(parent: str) -> str:
    parts = [part for part in parent.split("/") if part]
    if any(part in (".", "..") for part in parts) or "\n" in parent:
        raise InvalidInput(f"{parent!r} is not a path for a control group")
    return "/" + "/".join(parts)


def _place_v1(hierarchy: Hierarchy, parent: str | None) -> GroupDir | None:
    if hierarchy.controllers[0].startswith("name="):
        return None
    base = hierarchy.directory(hierarchy.own if parent is None else parent)
    if not os.access(_existing(base) if parent else base, os.W_OK | os.X_OK, effective_ids=True):
        return None
    return GroupDir(1, hierarchy.controllers, base)


def _place_v2(hierarchy: Hierarchy, parent: str | None, wanted: frozenset[str]) -> GroupDir | None:
    need = wanted.intersection(hierarchy.controllers)
    if parent is not None:
        return _place_below(hierarchy, parent, need)
    worth = _WORTH_CLIMBING.intersection(hierarchy.controllers)
    path, nearest = hierarchy.own, None
    while True:
        found = _hosted(hierarchy, path, need)
        if found is not None and need.issubset(found.controllers):
            if worth.issubset(found.controllers):
                return found
            nearest = nearest or found
        if path == "/":
            return nearest
        path = path.rpartition("/")[0] or "/"


def _hosted(hierarchy: Hierarchy, path: str, need: frozenset[str]) -> GroupDir | None:
    """The group as a child of the existing v2 group at `path`; None where we may not make one there."""
    base = hierarchy.directory(path)
    if not _ours(base):
        return None
    have = files.require(f"{base}/cgroup.subtree_control").split()
    enable = [
        controller
        for controller in files.require(f"{base}/cgroup.controllers").split()
        if controller not in have and (controller in need or controller in _USUAL)
    ]
    if enable and not _may_enable(base):
        enable = []
    return GroupDir(2, (*have, *enable), base, tuple(enable))


def _place_below(hierarchy: Hierarchy, parent: str, need: frozenset[str]) -> GroupDir | None:
    base = hierarchy.directory(parent)
    existing = _existing(base)
    if not _ours(existing):
        return None
    have = files.require(f"{base}/cgroup.subtree_control").split() if existing == base else []
    offered = files.require(f"{existing}/cgroup.controllers").split()
    enable = [
        controller
        for controller in hierarchy.controllers
        if controller not in have and (controller in need or (controller in _USUAL and controller in offered))
    ]
    return GroupDir(2, (*have, *enable), base, tuple(enable))


def _existing(path: str) -> str:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _ours(base: str) -> bool:
    """Whether we may make a child of a v2 group and move ourselves into it (cgroups(7): its cgroup.procs must be
    writable)."""
    return os.access(base, os.W_OK | os.X_OK, effective_ids=True) and os.access(
        f"{base}/cgroup.procs", os.W_OK, effective_ids=True
    )


def _may_enable(base: str) -> bool:
    """v2: only the root of the tree may have both processes and controllers below; the root has no cgroup.type."""
    if not os.access(f"{base}/cgroup.subtree_control", os.W_OK, effective_ids=True):
        return False
    return files.text(f"{base}/cgroup.procs") == "" or not os.path.exists(f"{base}/cgroup.type")


def _why_not(layout: Layout, missing: list[str]) -> str:
    what = ", ".join(missing)
    if not layout.hierarchies:
        return f"no control group for {what}: no cgroup file system is mounted; mount one on /sys/fs/cgroup"
    offered = {controller for hierarchy in layout.hierarchies for controller in hierarchy.controllers}
    absent = [name for name in missing if name not in offered and not (name == "io" and "blkio" in offered)]
    if absent:
        return f"no control group for {what}: this kernel offers no {', '.join(absent)} controller (see /proc/cgroups)"
    if os.geteuid() == 0:
        return f"no control group for {what}: read-only here, or not handed down to our group; mount the tree writable"
    if layout.kind == "v2":
        return f"no control group for {what}: run it under `systemd-run --user --scope -p Delegate=yes ...`, or as root"
    return f"no control group for {what}: run as root, or have root make a group and chown it to you"


def _join_hint(error: int | None) -> str:
    if error == errno.EACCES:
        return "the nearest common ancestor of this process and the group must be writable to you"
    if error == errno.ENOSPC:
        return "the group's cpuset is empty"
    if error == errno.EBUSY:
        return "a v2 group with limited children cannot have processes of its own"
    return ""
