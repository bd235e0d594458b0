"""Which control group hierarchies this machine has, and where this process is in them.

Rule 1: a path is trusted only where the mount shows it: a hierarchy in which our own group lies outside the mount (or
outside
        our cgroup namespace) is left out.
Rule 2: detection is done once for each process; a forked child that has joined another group detects anew.
Source of the formats: proc(5), cgroups(7).
"""

from __future__ import annotations

import os

from corten.records import Record


class Hierarchy(Record):
    """One mounted hierarchy.

    controllers: as the kernel names them (`cpu`, `blkio`, `name=systemd`; for v2 what its root offers); mount: where
    it is
    mounted; own: the path of this process's group below `mount`, `/` for the mount itself.
    """

    version: int
    controllers: tuple[str, ...]
    mount: str
    own: str

    def directory(self, path: str) -> str:
        """The absolute directory of the group at `path` (`/a/b`) in this hierarchy."""
        return self.mount + path if path != "/" else self.mount


class Layout(Record):
    """kind: `v1`, `v2` or `hybrid` (v1 controllers beside a v2 tree); hierarchies: empty when none is mounted."""

    kind: str
    hierarchies: tuple[Hierarchy, ...]


_detected: tuple[int, Layout] = (0, Layout("v2", ()))


def detect() -> Layout:
    """The layout of this machine as this process sees it; read once for each process id. `OSError` without /proc."""
    global _detected  # noqa: PLW0603 - the cache of this process
    pid = os.getpid()
    if _detected[0] != pid:
        _detected = (pid, parse(_read("/proc/self/mountinfo"), _read("/proc/self/cgroup"), _root_controllers))
    return _detected[1]


def of_process(pid: int) -> Layout:
    """The layout as `detect` gives it, but with the groups of another process in `own`. `OSError`: it is gone."""
    return parse(_read("/proc/self/mountinfo"), _read(f"/proc/{pid}/cgroup"), _root_controllers)


def parse(mountinfo: str, own_groups: str, root_controllers: RootControllers) -> Layout:
    """The layout from the text of /proc/self/mountinfo and /proc/self/cgroup.

    root_controllers: gives the controllers that the v2 tree mounted at a path offers.
    """
    v1_groups: list[tuple[tuple[str, ...], str]] = []
    v2_group = None
    for line in own_groups.splitlines():
        number, names, path = line.split(":", 2)
        if number == "0" and not names:
            v2_group = path
        else:
            v1_groups.append((tuple(names.split(",")), path))
    found: dict[tuple[int, tuple[str, ...]], Hierarchy] = {}
    for root, mount, kind, options in _cgroup_mounts(mountinfo):
        if kind == "cgroup2":
            own = _below(root, v2_group)
            if own is not None:
                found.setdefault((2, ()), Hierarchy(2, root_controllers(mount), mount, own))
            continue
        for controllers, path in v1_groups:
            own = _below(root, path)
            if own is not None and options.issuperset(controllers):
                found.setdefault((1, controllers), Hierarchy(1, controllers, mount, own))
    versions = {version for version, _ in found}
    return Layout("hybrid" if len(versions) == 2 else "v1" if versions == {1} else "v2", tuple(found.values()))


def _cgroup_mounts(mountinfo: str) -> list[tuple[str, str, str, set[str]]]:
    """(root, mount point, file system type, super options) of each mount of a control group hierarchy."""
    mounts = []
    for line in mountinfo.splitlines():
        if " - cgroup" not in line:
            continue
        left, _, right = line.partition(" - ")
        fields, tail = left.split(" "), right.split(" ")
        if tail[0] in ("cgroup", "cgroup2"):
            mounts.append((unescape(fields[3]), unescape(fields[4]), tail[0], set(tail[-1].split(","))))
    return mounts


def _below(root: str, path: str | None) -> str | None:
    """`path` as seen in a mount that shows the tree from `root` on; None where it is not shown."""
    if path is None or "/.." in path or "/.." in root:
        return None
    if root == "/":
        return path
    if path == root:
        return "/"
    return path[len(root) :] if path.startswith(root + "/") else None


def unescape(field: str) -> str:
    """A path of mountinfo, where space, tab, newline and backslash stand as three octal digits."""
    if "\\" not in field:
        return field
    head, *rest = field.split("\\")
    return head + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)


def _root_controllers(mount: str) -> tuple[str, ...]:
    return tuple(_read(mount + "/cgroup.controllers").split())


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
    finally:
        os.close(fd)
    return b"".join(parts).decode("utf-8", "surrogateescape")


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    RootControllers = Callable[[str], tuple[str, ...]]
