"""Reads the trees of control groups from the mounted file systems.

Rule 1: a group that is removed while it is read is left out, with all below it.
Rule 2: a file that is not there means that the group does not have the thing; one that may not be read is unknown.
Rule 3: a directory without sub-directories is not listed: kernfs counts them as links, and there are forty files in it.
Sources: the kernel's cgroup-v2.rst and cgroup-v1/*.rst, accounting/psi.rst.
"""

from __future__ import annotations

import os

from corten.errors import InvalidInput, NotFound, Unsupported
from corten.linux.cgroup import layout as layouts
from corten.linux.cgroup.files import UNLIMITED
from corten.linux.cgroup.layout import Hierarchy
from corten.views.trees import Figures, Forest, Node, Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from corten.engine.listing import Live

    # what a file of the directory says, for each of the fields
    Parse = Callable[[bytes, str], tuple[float | None, ...]]
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
        node = _node(hierarchy.mount, above, sources, labels)
        if node is None:
            break
        nodes.append(node)
    stack = [top.rstrip("/")]
    while stack:
        path = stack.pop()
        try:
            alone = os.stat(f"{hierarchy.mount}{path}").st_nlink == 2
        except OSError:  # gone
            continue
        node = _node(hierarchy.mount, path, sources, labels)
        if node is None:
            continue
        nodes.append(node)
        if not alone:
            stack += sorted(_children(hierarchy.mount, path), reverse=True)
    return Tree(hierarchy.version, hierarchy.controllers, hierarchy.mount, tuple(nodes), top)


def _children(mount: str, path: str) -> list[str]:
    try:
        with os.scandir(f"{mount}{path}") as entries:
            return [f"{path}/{entry.name}" for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:  # gone; or closed to us, and then what is below it is out of sight
        return []


def _node(mount: str, path: str, sources: Sources, labels: dict[str, str]) -> Node | None:
    """One group; None if it is gone. `path` is empty for the top."""
    directory = f"{mount}{path}"
    figures: dict[str, Figures] = {}
    present = False
    for resource, files in sources:
        own: dict[str, Any] = {}
        for file, fields, parse in files:
            data = _bytes(f"{directory}/{file}")
            if data:
                present = True
                own.update(zip(fields, parse(data, directory), strict=True))
            elif data is None:
                own["unknown"] = (*own.get("unknown", ()), *fields)
        figures[resource] = _figures(own)
    if sources and not present and path and not os.path.isdir(directory):
        return None
    return Node(path or "/", figures, labels.get(directory, ""))


_seen: dict[tuple[Any, ...], Figures] = {}


def _figures(values: dict[str, Any]) -> Figures:
    """Of a thousand groups most say the same: making a record costs eight times as much as finding one (measured)."""
    key = (*values, *values.values())
    found = _seen.get(key)
    if found is None:
        if len(_seen) > 10_000:
            _seen.clear()
        found = _seen[key] = Figures(**values)
    return found


def _bytes(path: str) -> bytes | None:
    """The content of a control file: empty where there is none or it is switched off, None where it may not be
    read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
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


def _number(text: bytes, directory: str = "") -> tuple[float | None]:  # noqa: ARG001 - a Parse
    """A number; None for `max`, for v1's way to say so, and for anything else."""
    word = text.strip()
    value = int(word) if word.isdigit() else UNLIMITED
    return (None if value >= UNLIMITED else value,)


def _nanoseconds(text: bytes, directory: str) -> tuple[float | None]:
    (value,) = _number(text, directory)
    return (None if value is None else value / 1e9,)


def _quota_v1(text: bytes, directory: str) -> tuple[float | None, float | None]:
    """The quota in CPUs and how often it ran out: two more files, read only where there is a quota."""
    quota = int(text)
    period = int(_bytes(f"{directory}/cpu.cfs_period_us") or 0)
    if quota < 0 or not period:
        return None, None
    return quota / period, _throttled(_bytes(f"{directory}/cpu.stat") or b"")


def _quota_v2(text: bytes, directory: str) -> tuple[float | None]:  # noqa: ARG001 - a Parse
    quota, period = text.split()
    return (None if quota == b"max" else int(quota) / int(period),)


def _usage_v2(text: bytes, directory: str) -> tuple[float | None, float | None]:  # noqa: ARG001 - a Parse
    used = int(text.split(None, 2)[1]) / 1e6 if text.startswith(b"usage_usec ") else None
    return used, _throttled(text)


def _throttled(text: bytes) -> float | None:
    """The share of periods in which the quota ran out, from cpu.stat of either version; None without a quota."""
    words = text.split()
    table = dict(zip(words[::2], words[1::2], strict=False))
    periods = int(table.get(b"nr_periods", 0))
    return int(table.get(b"nr_throttled", 0)) / periods if periods else None


def _pressure(text: bytes, directory: str) -> tuple[float | None]:  # noqa: ARG001 - a Parse
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
