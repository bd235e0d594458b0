"""The laws of control group trees, for arbitrary ones; hot spots; how they are drawn in text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corten.views import tree_table
from corten.views.trees import Figures, Forest, Node, Tree, parent_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MIB = 1 << 20


def tree(*nodes: Node, **more: Any) -> Tree:
    return Tree(**{"version": 2, "controllers": ("memory",), "mount": "/cg", "nodes": nodes, **more})


def node(path: str, limit: float | None = None, use: float | None = None, **more: Any) -> Node:
    container = more.pop("container", "")
    return Node(path, {"memory": Figures(limit, use, **more)}, container)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Any shape, any limits; the use of a group is that of its own processes and of its children."""
    parents = draw(st.lists(st.integers(0, 100), max_size=14))
    paths = ["/"]
    for number, pick in enumerate(parents):
        paths.append(f"{paths[pick % len(paths)].rstrip('/')}/g{number}")
    limits = {path: draw(st.none() | st.integers(0, 9)) for path in paths}
    own = {path: draw(st.integers(0, 5)) for path in paths}
    use = {path: sum(n for other, n in own.items() if (other + "/").startswith(path.rstrip("/") + "/"))
           for path in paths}  # fmt: skip
    return tree(*(node(path, limits[path], use[path]) for path in preorder(paths)))


def preorder(paths: list[str]) -> list[str]:
    return sorted(paths, key=lambda path: path.split("/"))


def order(value: float | None) -> float:
    return float("inf") if value is None else value


@given(trees())
def test_the_limit_that_holds_never_grows_downward(found: Tree) -> None:
    holds = found.holds("memory")
    for parent, child in found.edges:
        assert order(holds[child].value) <= order(holds[parent].value)


@given(trees())
def test_it_is_the_least_on_the_way_up_and_set_by_a_group_there(found: Tree) -> None:
    limits = {one.path: one.figures["memory"].limit for one in found.nodes}
    for path, held in found.holds("memory").items():
        way = [path]
        while way[-1] != "/":
            way.append(parent_of(way[-1]))
        assert order(held.value) == min(order(limits[step]) for step in way)
        if held.value is None:
            assert held.at == ""
        else:
            assert held.at in way
            assert limits[held.at] == held.value


@given(trees(), st.integers(0, 100), st.none() | st.integers(0, 9))
def test_what_is_set_on_one_group_changes_nothing_beside_it(found: Tree, pick: int, limit: int | None) -> None:
    changed = found.nodes[pick % len(found.nodes)]
    other = found.replace(
        nodes=tuple(one if one is not changed else node(one.path, limit, 1) for one in found.nodes)
    )
    before, after = found.holds("memory"), other.holds("memory")
    below = changed.path.rstrip("/") + "/"
    for path in found.vertices:
        if path != changed.path and not path.startswith(below):
            assert before[path] == after[path]


@given(trees())
def test_use_adds_up(found: Tree) -> None:
    own = found.own_use("memory")
    assert all(value is not None and value >= 0 for value in own.values())
    assert sum(value or 0 for value in own.values()) == found.nodes[0].figures["memory"].use


@given(trees())
def test_it_is_a_tree(found: Tree) -> None:
    assert len(found.edges) == len(found.vertices) - 1
    assert {child for _, child in found.edges} == set(found.vertices) - {"/"}
    assert all(found.vertices.index(parent) < found.vertices.index(child) for parent, child in found.edges)


def test_what_may_not_be_read_makes_the_limit_below_uncertain() -> None:
    found = tree(node("/"), node("/a", unknown=("limit",)), node("/a/b", 5), node("/c", 7))
    holds = found.holds("memory")
    assert [(holds[path].value, holds[path].certain) for path in found.vertices] == [
        (None, True), (None, False), (5, False), (7, True),
    ]  # fmt: skip
    text = tree_table.table(found)
    assert [line.split()[1:] for line in text.splitlines()[2:4]] == [
        ["a", "unknown", "unknown"],
        ["└─", "b", "5", "B", "at", "most", "5", "B", "here"],
    ]


def test_use_of_the_v1_root_is_counted_in_another_way() -> None:
    found = tree(node("/", use=1), node("/a", use=5), version=1)
    assert found.own_use("memory") == {"/": None, "/a": 5}
    assert found.replace(version=2).own_use("memory") == {"/": -4, "/a": 5}


def test_hot_spots_are_where_the_heat_comes_from() -> None:
    found = tree(
        node("/", pressure=50.0),
        node("/a", 100, 90, pressure=40.0),
        node("/a/calm", 100, 50, pressure=9.9),
        node("/a/sick", None, 40, pressure=30.0),
        node("/b", 100, 89),
        node("/c", 0, 0),
        node("/d", throttled=0.25),
        node("/e", throttled=0.2),
    )
    assert found.hot() == {
        "/a": ("memory at 90 % of its limit",),
        "/a/sick": ("memory pressure 30 %",),
        "/c": ("memory limit 0",),
        "/d": ("CPU quota ran out in 25 % of periods",),
    }


def test_text() -> None:
    found = tree(
        node("/", use=300 * MIB),
        node("/a", 200 * MIB, 190 * MIB),
        node("/a/corten-1", 400 * MIB, 1536, container="web"),
        node("/a/x\x1b[31m", None, 0),
        node("/b", 1 << 30, 3 * MIB),
    )
    assert tree_table.text(Forest("v2", (found,))) == (
        "unified (cgroup v2, /cg): 5 groups, 1 hot spot\n"
        "GROUP            MEMORY    LIMIT    HOLDS  SET BY  CONTAINER  HOT\n"
        "/               300 MiB\n"
        "├─ a            190 MiB  200 MiB  200 MiB  here               memory at 95 % of its limit\n"
        "│  ├─ corten-1  1.5 KiB  400 MiB  200 MiB  /a      web\n"
        "│  └─ x?[31m        0 B           200 MiB  /a\n"
        "└─ b              3 MiB    1 GiB    1 GiB  here\n"
    )
    below = tree_table.table(found.replace(top="/a")).splitlines()
    assert [line.split()[0] for line in below] == ["GROUP", "/a", "├─", "└─"]
    assert max(map(len, tree_table.table(found, 30).splitlines())) == 30
    page = tree_table.screen(Forest("v2", (found,)), (40, 5), {}).splitlines()
    assert len(page) == 4
    assert page[-1].startswith("… 4 more lines")


def test_on_a_screen_cpu_is_a_rate() -> None:
    cpu = [Node(path, {"cpu": Figures(None, 5.0)}) for path in ("/", "/a", "/new")]
    rates = {("unified", "/"): 1.25, ("unified", "/a"): 0.5}
    page = tree_table.screen(Forest("v2", (tree(*cpu),)), (60, 20), rates).splitlines()
    assert [line.split()[-1] for line in page[1:]] == ["CPU", "1.25", "0.50", "new"]
    assert tree_table.table(tree(*cpu)).splitlines()[0].split() == ["GROUP", "CPU", "s"]
