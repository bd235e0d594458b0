"""`corten cgroups`: the trees of control groups, once or live."""

from __future__ import annotations

import os
import sys

from corten.cli import view_options
from corten.cli.parser import Command, Group, Option, UsageError, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from corten.views.trees import Forest

COMMAND = Command(
    "corten cgroups",
    "[OPTIONS] [PATH]",
    "Show the trees of control groups: each group's own limit, the limit that holds and the group that sets it, use, "
    "pressure, container, and hot spots. PATH: only from this group on (a path from the top of the trees, a directory, "
    "or a container by name or id). Pictures show one tree: that of --controller, else of memory.",
    (
        Group(
            "What to show",
            (
                Option(("--controller",), "NAME", "Only the tree of this controller (memory, cpu, pids, io, ...)"),
                Option(("--watch",), "", "Show it again and again, with CPUs in use, until Ctrl-C"),
                Option(("--interval",), "SECONDS", "How often with --watch (default: 2)"),
            ),
        ),
        view_options.group("The same as --format json; with --watch one object on each line"),
    ),
    maximum=1,
    interspersed=True,
)


def run(words: Sequence[str]) -> int:
    """Print them; 0."""
    values, arguments = parse(COMMAND, words)
    path = arguments[0] if arguments else "/"
    interval = _interval(values)
    form = view_options.Form(values)
    if values.get("watch"):
        if form.drawn:
            raise UsageError("--watch shows text or JSON: it cannot be drawn")
        return _watch(values.get("controller", ""), path, interval, form.format == "json")
    from corten.views import tree_reading

    forest = tree_reading.read(values.get("controller", ""), path, silent=form.format == "json")
    if form.drawn:
        from corten.views import tree_picture

        form.draw(lambda: tree_picture.of_tree(tree_picture.best(forest)))
    elif form.format == "json":
        view_options.print_json(_data(forest))
    else:
        from corten.views import tables, tree_table

        sys.stdout.write(tree_table.text(forest, tables.terminal_width()))
    return 0


def _interval(values: dict[str, Any]) -> float:
    if "interval" not in values:
        return 2.0
    if not values.get("watch"):
        raise UsageError("--interval is for --watch")
    try:
        interval = float(values["interval"])
    except ValueError:
        interval = 0.0
    if not 0.1 <= interval <= 3600:
        raise UsageError(f"--interval: {values['interval']!r} is not a number of seconds from 0.1 to 3600")
    return interval


def _data(forest: Forest) -> dict[str, Any]:
    return {"layout": forest.kind, "trees": [tree.to_json() for tree in forest.trees]}


def _watch(controller: str, path: str, interval: float, as_json: bool) -> int:
    """Until somebody ends it: nothing of the terminal's settings is changed, so nothing must be restored."""
    import time

    from corten.views import tables, tree_reading, tree_table

    if not as_json and not os.isatty(1):
        raise UsageError("--watch needs a terminal: leave it out, or add --json to get one line each time")
    before: tuple[float, Forest] | None = None
    while True:
        forest = tree_reading.read(controller, path, silent=as_json)
        now = time.monotonic()
        if as_json:
            view_options.print_json(_data(forest), 0)
        else:
            page = tree_table.screen(forest, tables.terminal_size() or (80, 24), _rates(before, now, forest))
            # home, each line and what is left of the screen cleared: no flicker
            sys.stdout.write("\x1b[H" + page.replace("\n", "\x1b[K\n") + "\x1b[K\n\x1b[J")
        sys.stdout.flush()
        before = (now, forest)
        time.sleep(interval)


def _rates(before: tuple[float, Forest] | None, now: float, forest: Forest) -> dict[tuple[str, str], float]:
    """CPUs in use since the last reading, by (tree, path): none at the first."""
    if before is None:
        return {}
    then, old = before
    used = {
        (tree.title, node.path): use
        for tree in old.trees for node in tree.nodes
        if "cpu" in node.figures and (use := node.figures["cpu"].use) is not None
    }  # fmt: skip
    return {
        (tree.title, node.path): max(0.0, (use - used[tree.title, node.path]) / (now - then))
        for tree in forest.trees for node in tree.nodes
        if (tree.title, node.path) in used and (use := node.figures["cpu"].use) is not None
    }  # fmt: skip
