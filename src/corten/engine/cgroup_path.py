"""Where `linux.cgroupsPath` leads: one directory in each hierarchy, as runc's cgroupfs driver has it.

An absolute path begins at the root of each mount; a relative one, or none, below the group that we are in, which may
differ from hierarchy to hierarchy. The named v1 hierarchy of systemd is joined too: callers look for it.
"""

from __future__ import annotations

from corten.errors import InvalidInput, Unsupported
from corten.linux.cgroup import directories
from corten.linux.cgroup import group as groups
from corten.linux.cgroup.group import Group, GroupDir
from corten.linux.cgroup.layout import Hierarchy, Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_V2_ALWAYS = frozenset(("cgroup", "devices", "freezer"))


def place(layout: Layout, path: str, identity: str, need: Iterable[str]) -> Group:
    """The group for a cgroupsPath; reads the tree and changes nothing.

    need: controllers that must be there. Errors: `InvalidInput` for a path that leaves the tree, `Unsupported` for a
    controller that cannot be had.
    """
    wanted = {"io" if controller == "blkio" else controller for controller in need}
    parts = [part for part in path.split("/") if part and part != "."]
    if ".." in parts:
        raise InvalidInput(f'linux.cgroupsPath: "{path}" leaves the tree of control groups')
    above, name = ("/".join(parts[:-1]), parts[-1]) if parts else ("", identity)
    if layout.kind == "v2" and not path.startswith("/") and not above:
        return groups.place(layout, name, None, wanted)
    dirs: list[GroupDir] = []
    for hierarchy in layout.hierarchies:
        base = "" if path.startswith("/") else hierarchy.own.rstrip("/")
        if base and layout.kind == "v2":
            # Our own group has processes (us), so it cannot have limited children: beside it, as runc does.
            base = base.rpartition("/")[0]
        parent = f"{base}/{above}".rstrip("/") or "/"
        if hierarchy.controllers and hierarchy.controllers[0].startswith("name="):
            dirs.append(GroupDir(1, hierarchy.controllers, f"{hierarchy.directory(parent)}/{name}"))
            continue
        served = _served(hierarchy)
        alone = Layout(layout.kind, (hierarchy,))
        dirs += groups.place(alone, name, parent, wanted & served).dirs
    group = Group(tuple(dirs))
    missing = {controller for controller in wanted if group.directory(controller) is None}
    if missing:
        raise Unsupported(f"linux.resources: this machine has no control group for {', '.join(sorted(missing))}")
    return group


def widened(group: Group, layout: Layout, need: Iterable[str]) -> Group:
    """The group with the controllers that are needed: on v2 those that it has not been given yet are handed down to it.
    `KernelError`."""
    wanted = {"io" if controller == "blkio" else controller for controller in need}
    dirs = []
    for own in group.dirs:
        offered = next((one.controllers for one in layout.hierarchies if one.version == 2), ())
        missing = tuple(sorted(wanted.intersection(offered).difference(own.controllers))) if own.version == 2 else ()
        if missing:
            directories.enable(own.path.rpartition("/")[0], missing)
        dirs.append(own.replace(controllers=(*own.controllers, *missing)))
    return Group(tuple(dirs))


def _served(hierarchy: Hierarchy) -> set[str]:
    served = {"io" if controller == "blkio" else controller for controller in hierarchy.controllers}
    return served | _V2_ALWAYS if hierarchy.version == 2 and hierarchy.controllers else served
