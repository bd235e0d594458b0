"""Control groups as trees G = (V, E): own limits, the limits that hold, use, pressure, hot spots. Pure.

Law 1: going down a tree, the limit that holds never grows.
Law 2: what is set on one group changes nothing for its siblings and what is below them.
Law 3: a group's use is at least the sum of its children's; the rest is what its own processes use. (Figures are
       read one after the other: where use changes meanwhile, `own_use` may be a little below zero.)
"""

from __future__ import annotations

from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

UNITS = {"memory": "bytes", "cpu": "CPUs", "pids": "tasks", "io": ""}
"""What limits of a resource are counted in. Use of `cpu` is in CPU seconds since the group was made."""

HOT_USE, HOT_PRESSURE, HOT_THROTTLED = 0.9, 10.0, 0.25
"""A group is a hot spot from this share of a limit in use, this percentage of time in which work waited (some, the
last 10 s), this share of periods in which the CPU quota ran out."""


class Figures(Record):
    """What a group says of one resource. limit: its own, None: unlimited; use: None where the kernel does not count;
    pressure: percent of the last 10 s in which some task waited, None where it is not told; throttled: share of the
    quota's periods, since the group was made, in which it ran out; unknown: fields that may not be read.
    """

    limit: float | None = None
    use: float | None = None
    pressure: float | None = None
    throttled: float | None = None
    unknown: tuple[str, ...] = ()


class Holds(Record):
    """The limit that holds for a group. value: None for none; at: the path of the group that sets it, the highest if
    several set the same; certain: False where a limit on the way up may not be read, so that the true one may be less.
    """

    value: float | None = None
    at: str = ""
    certain: bool = True


class Node(Record):
    """One group. path: from the top of the tree, `/` for the top; figures: by resource; container: which one's group
    it is, by name or id, empty for none.
    """

    path: str
    figures: dict[str, Figures]
    container: str = ""

    @property
    def name(self) -> str:
        """The last component of its path."""
        return self.path.rpartition("/")[2] or "/"


SILENT = Figures()
"""What a group says that has nothing to say; whoever reads many groups may use this one for all of them."""

_NO_LIMIT = Holds()


def parent_of(path: str) -> str:
    """The path of the group above; empty for the top."""
    return "" if path == "/" else path.rpartition("/")[0] or "/"


class Tree(Record):
    """One hierarchy. version: 1 or 2; controllers: of the top; mount: where it lies; nodes: each after its parent;
    top: from which group on it was asked for: those above it are here for their limits only.
    """

    version: int
    controllers: tuple[str, ...]
    mount: str
    nodes: tuple[Node, ...]
    top: str = "/"

    @property
    def title(self) -> str:
        """What people call it: `unified` for v2, of v1 the controllers."""
        return "unified" if self.version == 2 else ",".join(self.controllers)

    @property
    def vertices(self) -> tuple[str, ...]:
        """V: the paths of all groups, parents first."""
        return tuple(node.path for node in self.nodes)

    @property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """E: (parent, child)."""
        return tuple((parent_of(node.path), node.path) for node in self.nodes if node.path != "/")

    @property
    def shown(self) -> tuple[Node, ...]:
        """The nodes from `top` on."""
        start = self.top.rstrip("/") + "/"
        return tuple(node for node in self.nodes if node.path == self.top or node.path.startswith(start))

    @property
    def resources(self) -> tuple[str, ...]:
        """Those of which some group has something to say."""
        return tuple(name for name in UNITS if any(_speaks(node.figures.get(name)) for node in self.nodes))

    def children(self) -> dict[str, list[Node]]:
        """The nodes below each path that has some."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            if node.path != "/":
                found.setdefault(parent_of(node.path), []).append(node)
        return found

    def holds(self, resource: str) -> dict[str, Holds]:
        """For each path the limit that holds: the least on the way to the top."""
        found: dict[str, Holds] = {}
        for node in self.nodes:
            above = found.get(parent_of(node.path), _NO_LIMIT)
            own = node.figures.get(resource, SILENT)
            if "limit" in own.unknown:
                above = above.replace(certain=False)
            if own.limit is not None and (above.value is None or own.limit < above.value):
                above = Holds(own.limit, node.path, above.certain)
            found[node.path] = above
        return found

    def own_use(self, resource: str) -> dict[str, float | None]:
        """For each path what its own processes use: its use less that of its children; None where that is unknown.

        So it is for the memory of a v1 root, which the kernel sums up from other statistics than that of its children.
        """
        below = self.children()
        found: dict[str, float | None] = {}
        for node in self.nodes:
            parts = [_use(node, resource), *(_use(child, resource) for child in below.get(node.path, ()))]
            known = [part for part in parts if part is not None]
            apart = node.path == "/" and self.version == 1 and resource == "memory"
            found[node.path] = known[0] - sum(known[1:]) if len(known) == len(parts) and not apart else None
        return found

    def hot(self) -> dict[str, tuple[str, ...]]:
        """The hot spots: for each path the reasons, a few words each."""
        below = self.children()
        found: dict[str, list[str]] = {}
        for resource in self.resources:
            for node in self.nodes:
                if node.figures.get(resource, SILENT) is SILENT:
                    continue
                reasons = list(_reasons(resource, node, below.get(node.path, ())))
                if reasons:
                    found.setdefault(node.path, []).extend(reasons)
        return {path: tuple(reasons) for path, reasons in found.items()}

    def to_json(self) -> dict[str, Any]:
        """As data for other programs."""
        holds = {resource: self.holds(resource) for resource in self.resources}
        hot = self.hot()
        return {
            "version": self.version,
            "controllers": list(self.controllers),
            "mount": self.mount,
            "top": self.top,
            "groups": [
                {
                    "path": node.path,
                    "parent": parent_of(node.path) or None,
                    "container": node.container or None,
                    "hot": list(hot.get(node.path, ())),
                    **{name: _figures_json(own, holds[name][node.path]) for name, own in node.figures.items()
                       if name in holds},
                }
                for node in self.shown
            ],
        }  # fmt: skip


class Forest(Record):
    """All trees of this machine that were asked for. kind: `v1`, `v2` or `hybrid`."""

    kind: str
    trees: tuple[Tree, ...]

    def tree(self, controller: str) -> Tree:
        """The tree of a controller; `KeyError`: none has it."""
        for tree in self.trees:
            if controller in tree.controllers or controller == tree.title:
                return tree
        raise KeyError(controller)


def _speaks(own: Figures | None) -> bool:
    return own is not None and own is not SILENT and own != SILENT


def _use(node: Node, resource: str) -> float | None:
    return node.figures.get(resource, SILENT).use


def _reasons(resource: str, node: Node, children: Iterable[Node]) -> Iterable[str]:
    own = node.figures.get(resource, SILENT)
    if own.limit is not None and own.use is not None and resource != "cpu" and own.use >= HOT_USE * own.limit:
        yield f"{resource} at {100 * own.use / own.limit:.0f} % of its limit" if own.limit else f"{resource} limit 0"
    if own.pressure is not None and own.pressure >= HOT_PRESSURE:
        # it is counted upwards: only the lowest group that feels it is where it comes from
        felt = [child.figures.get(resource, SILENT).pressure or 0.0 for child in children]
        if max(felt, default=0.0) < HOT_PRESSURE:
            yield f"{resource} pressure {own.pressure:.0f} %"
    if own.throttled is not None and own.throttled >= HOT_THROTTLED:
        yield f"CPU quota ran out in {100 * own.throttled:.0f} % of periods"


def _figures_json(own: Figures, holds: Holds) -> dict[str, Any]:
    return {
        "limit": own.limit,
        "effective": holds.value,
        "effective_at": holds.at or None,
        "effective_certain": holds.certain,
        "use": own.use,
        "pressure": own.pressure,
        "throttled": own.throttled,
        "unknown": list(own.unknown),
    }
