"""A tree of control groups as a picture: groups in groups, with a bar for what is used of the limit that holds."""

from __future__ import annotations

from corten.views.picture import Box, Picture
from corten.views.tree_table import amount, heading
from corten.views.trees import Figures, Forest, Holds, Node, Tree, parent_of

_UNIT = {"memory": "", "cpu": " CPUs", "pids": " tasks", "io": ""}


def of_tree(tree: Tree) -> Picture:
    """The picture of one tree, from its top on."""
    below: dict[str, list[Node]] = {}
    for node in tree.shown:
        below.setdefault(parent_of(node.path), []).append(node)
    holds, hot = {name: tree.holds(name) for name in tree.resources}, tree.hot()

    def box(node: Node) -> Box:
        inside = tuple(sorted((box(child) for child in below.get(node.path, ())), key=_in_order))
        title = tree.top if node.path == tree.top else node.name
        lines, bar = _lines(node, holds)
        reasons = hot.get(node.path, ())
        lines = [line for line in lines if line not in reasons]
        if node.container and node.container not in title:
            title = node.container
        role = "hot" if reasons else "container" if node.container else "plain"
        return Box(title, (*lines, *reasons), bar, (), role, inside)

    notes = ["bar: use of the limit that holds. Blue: a container. Red: a hot spot"]
    if "memory" in tree.resources or "pids" in tree.resources:
        notes.append("a figure of 100 MiB / 200 MiB is use / limit; ^ marks a limit that a group further up sets")
    return Picture(heading(tree), (box(next(iter(tree.shown))),), tuple(notes))


def _in_order(box: Box) -> list[tuple[bool, int, str]]:
    """As people count: job-2 before job-10."""
    words = "".join(char if char.isdecimal() else f" {char} " for char in box.title).split()
    return [(word.isdecimal(), int(word) if word.isdecimal() else 0, word) for word in words]


def best(forest: Forest) -> Tree:
    """The tree to draw where none is named: the one that tells of memory limits, else the one that tells most."""
    return max(forest.trees, key=lambda tree: ("memory" in tree.controllers, len(tree.resources), len(tree.nodes)))


def _lines(node: Node, holds: dict[str, dict[str, Holds]]) -> tuple[list[str], float | None]:
    """The small print of a group, and the largest share of a limit that is in use."""
    lines: list[str] = []
    shares: list[float] = []
    for resource, table in holds.items():
        own, held = node.figures.get(resource, Figures()), table[node.path]
        use = "unknown" if "use" in own.unknown else amount(resource, own.use)
        limit = amount(resource, held.value)
        mark = "" if not limit or held.at == node.path else "^"
        if resource == "cpu":
            words = f"{use} s" if use else ""
            words += f"{', ' if words else ''}limit {limit}{mark} CPUs" if limit else ""
        else:
            words = f"{use} / {limit}{mark}" if use and limit else use or (f"limit {limit}{mark}" if limit else "")
            words += _UNIT[resource] if words else ""
        if words:
            lines.append(words)
        if own.pressure:
            lines.append(f"{resource} pressure {own.pressure:.0f} %")
        if held.value and own.use is not None and resource != "cpu":
            shares.append(own.use / held.value)
    return lines, max(shares, default=None)
