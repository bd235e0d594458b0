"""Reads the trees of control groups from the mounted file systems.

Rule 1: a group that is removed while it is read is left out, with all below it.
Rule 2: a file that is not there means that the group does not have the thing; one that may not be read is unknown.
Rule 3: a directory without sub-directories is not listed: kernfs counts them as links, and there are forty files in it.
Rule 4: a group's path is looked up once, and its files from there: that is a quarter of the time of it all (measured).
Rule 5: what a group has never used or waited for, none below it has: that is not read, but known.
Sources: the kernel's cgroup-v2.rst and cgroup-v1/*.rst, accounting/psi.rst.
"""

from __future__ import annotations

import os

from corten.errors import InvalidInput, NotFound, Unsupported
from corten.linux.cgroup import layout as layouts
from corten.linux.cgroup.files import UNLIMITED
from corten.linux.cgroup.layout import Hierarchy
from corten.views.trees import SILENT, Figures, Forest, Node, Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from corten.engine.listing import Live

    # what a file says, for each of the fields; the descriptor is of its directory
    Parse = Callable[[bytes, int], tuple[float | None, ...]]
    # (resource, file, fields of Figures, how its text is read)
    Source = tuple[str, str, tuple[str, ...], Parse]
    # by resource: (file, fields, how it is read)
    Sources = tuple[tuple[str, tuple[tuple[str, tuple[str, ...], Parse], ...]], ...]


def read(controller: str = "", path: str = "/", silent: bool = True) -> Forest:
    """The trees of this machine as far as they are in sight.

    controller: only the tree that has it (`memory`, `io`, `unified`, ...); path: only from this group on: a path from
    the top of the trees, a directory in one of them, or a container by name or id; silent: also
    trees that neither limit nor count what is shown here (on v1 cpuset, devices, freezer, ...) and are not named.
    `NotFound`, `InvalidInput`, `Unsupported`.
    """
    from corten.engine import listing

    layout = layouts.detect()
    hierarchies = [one for one in layout.hierarchies if not controller or _has(one, controller)]
    if not layout.hierarchies:
        raise Unsupported("no control group file system is mounted within sight: mount one on /sys/fs/cgroup")
    if not hierarchies:
        known = sorted({name for one in layout.hierarchies for name in one.controllers or ("unified",)})
        raise InvalidInput(f"no control group tree has a controller {controller!r}: there are {', '.join(known)}")
    if not silent and not controller:
        hierarchies = [one for one in hierarchies if _sources(one)] or hierarchies
    live = listing.live()
    tops = _tops(path, hierarchies, live)
    if not tops:
        raise NotFound(f"control group {path}: there is none" + (f" in the tree of {controller}" if controller else ""))
    labels = {own.path: one.label for one in live if one.group for own in one.group.dirs}
    trees = tuple(_tree(one, top, labels) for one, top in tops)
    if not any(tree.shown for tree in trees):
        raise NotFound(f"control group {path}: it has just been removed")
    return Forest(layout.kind, trees)


def _has(hierarchy: Hierarchy, controller: str) -> bool:
    names = {"io": ("io", "blkio"), "unified": ()}.get(controller, (controller,))
    found = any(name in hierarchy.controllers for name in names)
    return found or (controller == "unified" and hierarchy.version == 2)


def _tops(path: str, hierarchies: Iterable[Hierarchy], live: Iterable[Live]) -> list[tuple[Hierarchy, str]]:
    """Where to begin in each hierarchy; those that do not have the path are left out."""
    if not path.startswith("/"):
        from corten.engine import listing

        one = listing.find(path, live)
        if one.group is None:
            raise NotFound(f"container {path} has no control group")
        # of two mounts that one begins with the other, the longer one is meant
        dirs = [own.path for own in one.group.dirs]
        return [(own, top) for own in hierarchies for directory in dirs if (top := _below(own.mount, directory))]
    path = os.path.normpath("/" + path.lstrip("/"))
    hierarchies = list(hierarchies)
    inside = [(own, top) for own in hierarchies if (top := _below(own.mount, path)) and os.path.isdir(path)]
    if inside:
        return inside
    return [(own, path) for own in hierarchies if os.path.isdir(own.directory(path))]


def _below(mount: str, directory: str) -> str:
    """The path of a directory below a mount; empty if it is not there."""
    if directory == mount:
        return "/"
    return directory[len(mount) :] if directory.startswith(f"{mount}/") else ""


def _tree(hierarchy: Hierarchy, top: str, labels: dict[str, str]) -> Tree:
    sources = _sources(hierarchy)
    nodes: list[Node] = []
    above, parts = "", [part for part in top.split("/") if part]
    for part in ("", *parts[:-1]) if parts else ():
        above = f"{above}/{part}" if part else ""
        directory = f"{hierarchy.mount}{above}"
        try:
            fd = os.open(directory, _GROUP)
        except OSError:
            break
        nodes.append(Node(above or "/", _figures_of(fd, sources)[0], labels.get(directory, "")))
        os.close(fd)
    stack: list[tuple[str, frozenset[str]]] = [(top.rstrip("/"), frozenset())]
    while stack:
        path, nothing = stack.pop()
        directory = f"{hierarchy.mount}{path}"
        try:
            fd = os.open(directory, _GROUP)
        except OSError:  # gone; or closed to us
            continue
        try:
            figures, nothing = _figures_of(fd, sources, nothing)
            if sources and path and all(own is SILENT for own in figures.values()) and not os.path.isdir(directory):
                continue
            if os.fstat(fd).st_nlink != 2:
                stack += [(child, nothing) for child in sorted(_children(fd, path), reverse=True)]
        except FileNotFoundError:
            continue
        finally:
            os.close(fd)
        nodes.append(Node(path or "/", figures, labels.get(directory, "")))
    return Tree(hierarchy.version, hierarchy.controllers, hierarchy.mount, tuple(nodes), top)


_GROUP = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def _children(directory: int, path: str) -> list[str]:
    """The groups below one; FileNotFoundError if it is gone."""
    try:
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    except PermissionError:  # closed to us: what is below it is out of sight
        return []
    try:
        with os.scandir(fd) as entries:
            return [f"{path}/{entry.name}" for entry in entries if entry.is_dir(follow_symlinks=False)]
    finally:
        os.close(fd)


def _figures_of(
    directory: int, sources: Sources, nothing: frozenset[str] = frozenset()
) -> tuple[dict[str, Figures], frozenset[str]]:
    """What a group says of each resource; nothing if it is gone. And the files that say "nothing" for it and all below
    it. nothing: the same of the group above.
    """
    figures: dict[str, Figures] = {}
    more: list[str] = []
    for resource, files in sources:
        own: dict[str, Any] = {}
        for file, fields, parse in files:
            if file in nothing:
                own[fields[0]] = 0.0
                continue
            data = _bytes(file, directory)
            if data:
                own.update(zip(fields, parse(data, directory), strict=True))
                if file in _NOTHING and data.startswith(_NOTHING[file]):
                    more.append(file)
            elif data is None:
                own["unknown"] = (*own.get("unknown", ()), *fields)
        figures[resource] = _figures(own)
    return figures, nothing.union(more) if more else nothing


_seen: dict[tuple[Any, ...], Figures] = {(): SILENT}


def _figures(values: dict[str, Any]) -> Figures:
    """Of a thousand groups most say the same: making a record costs eight times as much as finding one (measured)."""
    key = (*values, *values.values())
    found = _seen.get(key)
    if found is None:
        if len(_seen) > 10_000:
            _seen.clear()
            _seen[()] = SILENT
        found = _seen[key] = Figures(**values)
    return found


def _bytes(name: str, directory: int) -> bytes | None:
    """The content of a control file: empty where there is none or it is switched off, None where it may not be
    read."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except PermissionError:
        return None
    except OSError:
        return b""
    try:
        return os.read(fd, 4096)
    except PermissionError:
        return None
    except OSError:
        return b""
    finally:
        os.close(fd)


# --- the files


def _sources(hierarchy: Hierarchy) -> Sources:
    """The files that tell of limits, use and pressure in a tree, by resource."""
    found: list[Source] = []
    for controller in hierarchy.controllers:
        found += _FILES.get((controller, hierarchy.version), ())
    if hierarchy.version == 2:
        # beside v1 controllers, cpuacct has said how much CPU time was used
        found += (_USAGE_V2, *_PRESSURE) if "cpu" in hierarchy.controllers else _PRESSURE
    names = dict.fromkeys(resource for resource, _, _, _ in found)
    return tuple((name, tuple(source[1:] for source in found if source[0] == name)) for name in names)


def _number(text: bytes, directory: int = -1) -> tuple[float | None]:  # noqa: ARG001 - a Parse
    """A number; None for `max`, for v1's way to say so, and for anything else."""
    word = text.strip()
    value = int(word) if word.isdigit() else UNLIMITED
    return (None if value >= UNLIMITED else value,)


def _nanoseconds(text: bytes, directory: int) -> tuple[float | None]:
    (value,) = _number(text, directory)
    return (None if value is None else value / 1e9,)


def _quota_v1(text: bytes, directory: int) -> tuple[float | None, float | None]:
    """The quota in CPUs and how often it ran out: two more files, read only where there is a quota."""
    quota = int(text)
    period = int(_bytes("cpu.cfs_period_us", directory) or 0)
    if quota < 0 or not period:
        return None, None
    return quota / period, _throttled(_bytes("cpu.stat", directory) or b"")


def _quota_v2(text: bytes, directory: int) -> tuple[float | None]:  # noqa: ARG001 - a Parse
    quota, period = text.split()
    return (None if quota == b"max" else int(quota) / int(period),)


def _usage_v2(text: bytes, directory: int) -> tuple[float | None, float | None]:  # noqa: ARG001 - a Parse
    used = int(text.split(None, 2)[1]) / 1e6 if text.startswith(b"usage_usec ") else None
    return used, _throttled(text)


def _throttled(text: bytes) -> float | None:
    """The share of periods in which the quota ran out, from cpu.stat of either version; None without a quota."""
    words = text.split()
    table = dict(zip(words[::2], words[1::2], strict=False))
    periods = int(table.get(b"nr_periods", 0))
    return int(table.get(b"nr_throttled", 0)) / periods if periods else None


def _pressure(text: bytes, directory: int) -> tuple[float | None]:  # noqa: ARG001 - a Parse
    """The first line: `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`."""
    return (float(text.split(None, 2)[1][6:]) if text.startswith(b"some avg10=") else None,)


_PIDS: tuple[Source, ...] = (("pids", "pids.max", ("limit",), _number), ("pids", "pids.current", ("use",), _number))
_FILES: dict[tuple[str, int], tuple[Source, ...]] = {
    ("memory", 1): (
        ("memory", "memory.limit_in_bytes", ("limit",), _number),
        ("memory", "memory.usage_in_bytes", ("use",), _number),
    ),
    ("memory", 2): (
        ("memory", "memory.max", ("limit",), _number),
        ("memory", "memory.current", ("use",), _number),
    ),
    ("pids", 1): _PIDS,
    ("pids", 2): _PIDS,
    ("cpu", 1): (("cpu", "cpu.cfs_quota_us", ("limit", "throttled"), _quota_v1),),
    ("cpuacct", 1): (("cpu", "cpuacct.usage", ("use",), _nanoseconds),),
    ("cpu", 2): (("cpu", "cpu.max", ("limit",), _quota_v2),),
}
_USAGE_V2: Source = ("cpu", "cpu.stat", ("use", "throttled"), _usage_v2)
_PRESSURE: tuple[Source, ...] = (
    ("cpu", "cpu.pressure", ("pressure",), _pressure),
    ("memory", "memory.pressure", ("pressure",), _pressure),
    ("io", "io.pressure", ("pressure",), _pressure),
)
_NEVER = b"some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
# Files that count what is below a group, too, and what they say where there has never been any.
_NOTHING = {
    **dict.fromkeys(("memory.usage_in_bytes", "memory.current", "pids.current", "cpuacct.usage"), b"0\n"),
    "cpu.stat": b"usage_usec 0\n",
    **dict.fromkeys(("cpu.pressure", "memory.pressure", "io.pressure"), _NEVER),
}
