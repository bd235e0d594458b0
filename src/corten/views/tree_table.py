"""Trees of control groups as text: one line for each group, its place drawn in."""

from __future__ import annotations

from corten.views.processes import printable
from corten.views.tables import bytes_text, cut, render
from corten.views.trees import Figures, Holds, parent_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.views.trees import Forest, Node, Tree

_UNKNOWN = "unknown"


def text(forest: Forest, width: int | None = None, rates: dict[tuple[str, str], float] | None = None) -> str:
    """All trees. rates: CPUs in use by (tree, path), shown instead of CPU seconds."""
    spoken = [bool(tree.resources) or len(forest.trees) == 1 for tree in forest.trees]
    silent = [tree for tree, speaks in zip(forest.trees, spoken, strict=True) if not speaks]
    told = [tree for tree, speaks in zip(forest.trees, spoken, strict=True) if speaks]
    parts = []
    for tree in told:
        hot = tree.hot()
        parts.append(f"{_heading(tree, hot)}\n{_table(tree, hot, width, rates)}")
    if silent:
        others = "".join(cut(f"{heading(tree)}", width) + "\n" for tree in silent)
        parts.append(f"nothing is limited or counted in (--controller NAME shows the groups):\n{others}")
    return "\n".join(parts)


def heading(tree: Tree) -> str:
    """Which tree it is: `memory (cgroup v1, /sys/fs/cgroup/memory): 12 groups`."""
    return _heading(tree, tree.hot())


def _heading(tree: Tree, reasons: dict[str, tuple[str, ...]]) -> str:
    shown = tree.shown
    count, hot = len(shown), sum(node.path in reasons for node in shown) if reasons else 0
    number = f"{count} group{'s' if count != 1 else ''}"
    warm = f", {hot} hot spot{'s' if hot != 1 else ''}" if hot else ""
    return f"{tree.title} (cgroup v{tree.version}, {tree.mount}): {number}{warm}"


def table(tree: Tree, width: int | None = None, rates: dict[tuple[str, str], float] | None = None) -> str:
    """One tree. For each resource: use, the group's own limit, the limit that holds, the group that sets it, pressure
    in percent of the last 10 s; then the container, and why it is a hot spot.
    """
    return _table(tree, tree.hot(), width, rates)


def _table(
    tree: Tree, hot: dict[str, tuple[str, ...]], width: int | None, rates: dict[tuple[str, str], float] | None
) -> str:
    columns = [(resource, tree.holds(resource)) for resource in tree.resources]
    titles = ["GROUP"]
    align = "<"
    for resource, _ in columns:
        name = resource.upper()
        titles += [f"{name}{'' if resource != 'cpu' or rates is not None else ' s'}", "LIMIT", "HOLDS", "SET BY",
                   f"{name[:3]} PSI"]  # fmt: skip
        align += ">>><>"
    rows, nothing = [], Figures()
    for node, branch in branches(tree):
        row = [branch + (printable(node.name) if node.path != tree.top else node.path)]
        for resource, holds in columns:
            own = node.figures.get(resource, nothing)
            cells = _cells(resource, node, own, holds[node.path])
            if rates is not None and resource == "cpu":
                rate = rates.get((tree.title, node.path))
                cells[0] = "" if rate is None else f"{rate:.2f}"
            row += cells
        rows.append([*row, node.container, "; ".join(hot.get(node.path, ()))])
    return render([*titles, "CONTAINER", "HOT"], rows, align + "<<", width)


def _cells(resource: str, node: Node, own: Figures, holds: Holds) -> list[str]:
    limit = _UNKNOWN if "limit" in own.unknown else amount(resource, own.limit)
    held = amount(resource, holds.value)
    if not holds.certain:
        held = f"at most {held}" if held else _UNKNOWN
    # a limit that holds where it is set need not be said twice
    at = "" if not holds.at else "here" if holds.at == node.path else holds.at
    use = _UNKNOWN if "use" in own.unknown else amount(resource, own.use)
    pressure = _UNKNOWN if "pressure" in own.unknown else "" if own.pressure is None else f"{own.pressure:.1f}"
    return [use, limit, held, at, pressure]


def amount(resource: str, value: float | None) -> str:
    """A figure in the words of its resource; empty for None."""
    if value is None:
        return ""
    if resource == "memory":
        return bytes_text(value)
    return f"{value:.0f}" if value == int(value) else f"{value:.2f}"


def branches(tree: Tree) -> list[tuple[Node, str]]:
    """The shown nodes in their order, each with the branch that leads to it."""
    shown = tree.shown
    below = {parent: children[-1].path for parent, children in tree.children().items()}
    stems: dict[str, str] = {tree.top: ""}
    rows = []
    for node in shown:
        if node.path == tree.top:
            rows.append((node, ""))
            continue
        parent = parent_of(node.path)
        last = below[parent] == node.path
        stem = stems.get(parent, "")
        rows.append((node, stem + ("└─ " if last else "├─ ")))
        stems[node.path] = stem + ("   " if last else "│  ")
    return rows


def screen(forest: Forest, size: tuple[int, int], rates: dict[tuple[str, str], float]) -> str:
    """The text cut to a terminal of (columns, lines), saying how much does not fit."""
    columns, lines = size
    found = text(forest, columns, rates).splitlines()
    if len(found) > lines - 1:
        left = len(found) - (lines - 2)
        found = [*found[: lines - 2], cut(f"… {left} more lines: name a PATH or a --controller to see less", columns)]
    return "\n".join(found)
