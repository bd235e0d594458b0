"""`corten cgroups` and `views.cgroups` against the file systems and the kernel's own accounts."""

from __future__ import annotations

import html
import json
import os
import pty
import signal
import subprocess
import threading
from pathlib import Path

import pytest

import small_root
from corten import views
from corten.linux.cgroup import group, layout, limits, resources
from corten.linux.cgroup.group import Group
from corten.linux.cgroup.resources import Cpu, Memory, Pids, Resources
from ordinary_user import User
from small_root import CORTEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from corten.views import Tree

    Run = Callable[..., subprocess.CompletedProcess[str]]

MIB = 1 << 20


def below(own: Group, name: str) -> Group:
    pure = layout.detect().kind == "v2"
    handed = {part: part.controllers if pure else () for part in own.dirs}
    return Group(tuple(part.replace(path=f"{part.path}/{name}", enable=handed[part]) for part in own.dirs))


def put(own: Group, wanted: Resources) -> None:
    for write in resources.writes(wanted, own):
        own.apply(write)


@pytest.fixture
def nest() -> Iterator[dict[str, Group]]:
    """Groups a, a/b, a/b/c, a/d with limits: those of b are above those of a, c has none, d has tighter ones."""
    top = group.place(layout.detect(), f"corten-views-{os.getpid()}", need={"memory", "pids", "cpu"})
    made = {"a": top, "a/b": below(top, "b"), "a/d": below(top, "d")}
    made["a/b/c"] = below(made["a/b"], "c")
    done: list[Group] = []
    try:
        for name in ("a", "a/b", "a/b/c", "a/d"):
            made[name].create()
            done.append(made[name])
        put(made["a"], Resources(memory=Memory(limit=200 * MIB), pids=Pids(50), cpu=Cpu(quota=150_000, period=100_000)))
        put(made["a/b"], Resources(memory=Memory(limit=300 * MIB), pids=Pids(60)))
        put(made["a/d"], Resources(memory=Memory(limit=100 * MIB), pids=Pids(7), cpu=Cpu(quota=50_000, period=100_000)))
        yield made
    finally:
        for own in reversed(done):
            own.kill()
            own.remove()


def tree_of(own: Group, controller: str) -> tuple[Tree, str]:
    """The tree of a controller, and the path of the group in it."""
    tree = views.cgroups(controller).tree(controller)
    directory = own.directory(controller)
    assert directory is not None
    return tree, directory.removeprefix(tree.mount)


def test_the_same_groups_as_a_walk_of_the_file_systems(nest: dict[str, Group]) -> None:
    def walk() -> set[str]:
        tops = [one.mount for one in layout.detect().hierarchies]
        return {path for top in tops for path, _, _ in os.walk(top)}

    before, forest, after = walk(), views.cgroups(), walk()
    ours = {tree.mount + path.rstrip("/") for tree in forest.trees for path in tree.vertices}
    # Others make and remove groups on this machine: what was there before and after must be there, and nothing else.
    assert before & after <= ours
    assert not [path for path in ours - (before | after) if os.path.exists(path)]
    assert {part.path for own in nest.values() for part in own.dirs} <= before & after
    for tree in forest.trees:
        assert len(tree.edges) == len(tree.vertices) - 1
        assert all(os.path.dirname(child) == parent for parent, child in tree.edges)


@pytest.mark.parametrize("controller", ["memory", "pids", "cpu"])
def test_the_limit_that_holds(nest: dict[str, Group], controller: str) -> None:
    tree, top = tree_of(nest["a"], controller)
    holds = tree.holds(controller)
    for name, own in nest.items():
        held = holds[top + name.removeprefix("a")]
        assert held.value == limits.effective(own, controller), name
        assert held.certain
    at = {name: holds[top + name.removeprefix("a")].at.removeprefix(top) for name in nest}
    assert at == {"a": "", "a/b": "", "a/b/c": "", "a/d": "/d"}
    limit = {name: own.limit for name, own in figures(tree, top, controller).items()}
    assert limit == {
        "memory": {"a": 200 * MIB, "a/b": 300 * MIB, "a/b/c": None, "a/d": 100 * MIB},
        "pids": {"a": 50, "a/b": 60, "a/b/c": None, "a/d": 7},
        "cpu": {"a": 1.5, "a/b": None, "a/b/c": None, "a/d": 0.5},
    }[controller]


def figures(tree: Tree, top: str, controller: str) -> dict[str, views.Figures]:
    return {"a" + node.path.removeprefix(top): node.figures[controller] for node in tree.nodes
            if node.path == top or node.path.startswith(top + "/")}  # fmt: skip


def test_the_kernel_says_the_same_of_memory(nest: dict[str, Group]) -> None:
    if nest["a"].version("memory") != 1:
        return  # v2 tells nobody; `limits` above is the other witness
    tree, top = tree_of(nest["a"], "memory")
    for name, own in nest.items():
        stat = dict(line.split() for line in Path(f"{own.directory('memory')}/memory.stat").read_text().splitlines())
        held = tree.holds("memory")[top + name.removeprefix("a")]
        assert held.value == int(stat["hierarchical_memory_limit"])


def test_the_whole_machine_keeps_the_laws(nest: dict[str, Group]) -> None:
    for tree in views.cgroups().trees:
        for resource in tree.resources:
            holds = tree.holds(resource)
            for parent, child in tree.edges:
                above, own = holds[parent].value, holds[child].value
                assert above is None or (own is not None and own <= above)


def test_a_groups_use_is_at_least_that_of_its_children(nest: dict[str, Group]) -> None:
    children = [holder(nest["a/b/c"], 20), holder(nest["a/d"], 5)]
    try:
        for controller, least in (("memory", {"a/b/c": 20 * MIB, "a/b": 0, "a/d": 5 * MIB, "a": 0}),
                                  ("pids", {"a/b/c": 1, "a/b": 0, "a/d": 1, "a": 0})):  # fmt: skip
            tree, top = tree_of(nest["a"], controller)
            own = tree.own_use(controller)
            for name, value in least.items():
                found = own[top + name.removeprefix("a")]
                assert found is not None
                assert found >= value if controller == "memory" else found == value, (controller, name)
            assert (figures(tree, top, controller)["a"].use or 0) >= sum(least.values())
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def holder(own: Group, mebibytes: int) -> int:
    """A process in a group that holds so much memory and rests."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            own.join()
            kept = bytearray(os.urandom(1 << 20) * mebibytes)
            os.write(writing, b"+")
            signal.pause()
            os.write(writing, kept[:1])
        finally:
            os._exit(1)
    os.close(writing)
    assert os.read(reading, 1) == b"+"
    os.close(reading)
    return pid


def test_containers_and_hot_spots(command: Run) -> None:
    script = "head -c 38000000 /dev/zero >/tmp/x; (while :; do :; done) & (while :; do :; done) & echo up; wait"
    mine = {"memory": "40m", "memory_swap": "40m", "cpus": 0.1, "pids": 6, "writable": "tmpfs"}
    with small_root.start(script, name="hog", **mine) as box:
        assert small_root.line(box) == "up"
        trees = json.loads(command("cgroups", "--json").stdout)["trees"]
        rows = [row for tree in trees for row in tree["groups"] if row["container"] == "hog"]
        (pids,) = [row["pids"] for row in rows if "pids" in row]
        assert pids["limit"] == pids["effective"] == 6
        assert pids["use"] >= 4
        assert any(word.startswith("memory at 9") for row in rows for word in row["hot"])
        own = box._plan.group
        assert own is not None
        # until the quota has run out once: two endless loops on a tenth of a CPU
        while not any("ran out" in word for word in hot(own, "cpu")):
            pass
        text = command("cgroups", "--controller", "memory", "hog").stdout.splitlines()
        assert len(text) == 3
        assert " hog        memory at 9" in text[2]
        assert {"40", "MiB", "here", "hog"} <= set(text[2].split())
    assert command("cgroups", "hog").stderr == "corten: no live container 'hog'; there are none\n"


def hot(own: Group, controller: str) -> tuple[str, ...]:
    tree, path = tree_of(own, controller)
    return tree.hot().get(path, ())


def test_groups_that_are_removed_while_they_are_read(nest: dict[str, Group]) -> None:
    done = threading.Event()
    top = nest["a/b"]

    def churn() -> None:
        while not done.is_set():
            inner = below(top, "x")
            inner.create()
            deeper = below(inner, "y")
            deeper.create()
            deeper.remove()
            inner.remove()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(60):
            for tree in views.cgroups().trees:
                known = set(tree.vertices)
                assert all(parent in known for parent, _ in tree.edges)
    finally:
        done.set()
        thread.join()


def test_what_may_not_be_read_is_unknown(nest: dict[str, Group], user: User) -> None:
    directory = nest["a/b"].directory("memory")
    name = "memory.limit_in_bytes" if nest["a/b"].version("memory") == 1 else "memory.max"
    os.chmod(f"{directory}/{name}", 0)
    found = json.loads(user.corten("cgroups", "--controller", "memory", "--json", str(directory)).stdout)
    rows = {os.path.basename(row["path"]): row["memory"] for tree in found["trees"] for row in tree["groups"]}
    assert (rows["b"]["limit"], rows["b"]["unknown"], rows["b"]["effective_certain"]) == (None, ["limit"], False)
    assert (rows["c"]["unknown"], rows["c"]["effective"], rows["c"]["effective_certain"]) == ([], 200 * MIB, False)


@pytest.fixture
def user() -> Iterator[User]:
    made = User()
    yield made
    made.close()


def test_a_part_of_the_trees(nest: dict[str, Group], command: Run) -> None:
    own = nest["a/b"]
    tree, path = tree_of(own, "memory")
    for word in (path, path.rstrip("/") + "/", str(own.directory("memory"))):
        done = command("cgroups", "--controller", "memory", word)
        lines = done.stdout.splitlines()
        assert lines[0].startswith(f"{tree.title} (cgroup v{tree.version}, {tree.mount}): 2 groups"), done.stderr
        assert lines[2].split()[0] == path
        assert lines[2].split()[-5:] == ["300", "MiB", "200", "MiB", path.removesuffix("/b")]
        assert lines[3].split()[:2] == ["└─", "c"]


def test_pictures(nest: dict[str, Group], command: Run, tmp_path: Path) -> None:
    for suffix, start in ((".svg", b"<?xml"), (".png", b"\x89PNG"), (".gv", b"digraph"), (".mermaid", b"%%")):
        target = tmp_path / f"x{suffix}"
        done = command("cgroups", "--controller", "pids", "--output", str(target), "--theme", "dark")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert target.read_bytes().startswith(start)
    drawn = html.unescape((tmp_path / "x.svg").read_text())
    assert f"corten-views-{os.getpid()}" in drawn
    assert "0 / 50^ tasks" in drawn
    text = command("cgroups", "--controller", "pids", "--format", "dot", str(nest["a"].directory("pids"))).stdout
    assert text.count(" -> ") == len(nest) - 1


def test_watching_on_a_terminal(nest: dict[str, Group]) -> None:
    main, terminal = pty.openpty()
    directory = str(nest["a"].directory("pids"))
    words = [CORTEN, "cgroups", "--watch", "--interval", "0.1", "--controller", "pids", directory]
    process = subprocess.Popen(words, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, start_new_session=True)
    os.close(terminal)
    assert process.stderr is not None
    seen = b""
    try:
        while b"7" not in seen:
            seen += os.read(main, 65536)
        put(nest["a/d"], Resources(pids=Pids(4321)))
        while b"4321" not in seen:
            seen += os.read(main, 65536)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
        os.close(main)


def test_watching_as_data(nest: dict[str, Group]) -> None:
    words = [CORTEN, "cgroups", "--watch", "--interval", "0.1", "--json", "--controller", "pids"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert [json.loads(process.stdout.readline())["trees"][0]["version"] for _ in range(2)] == [
            views.cgroups("pids").trees[0].version
        ] * 2
        process.stdout.close()
        assert process.wait(20) == 141
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        process.stderr.close()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--controller nope", "no control group tree has a controller 'nope': there are "),
        ("/nope/nope", "control group /nope/nope: there is none"),
        ("--controller memory /nope", "control group /nope: there is none in the tree of memory"),
        ("../x", "no live container '../x'; there are none"),
        ("/../../etc", "control group /../../etc: there is none"),
        ("a b", "unexpected argument 'b'"),
        ("--watch", "--watch needs a terminal: leave it out, or add --json to get one line each time"),
        ("--watch --output x.svg", "--watch shows text or JSON: it cannot be drawn"),
        ("--interval 3", "--interval is for --watch"),
        ("--watch --interval 0", "--interval: '0' is not a number of seconds from 0.1 to 3600"),
        ("--watch --interval nan", "--interval: 'nan' is not a number of seconds from 0.1 to 3600"),
        ("--output", "--output requires an argument"),
        ("--output=", "--output: the name of a file is missing"),
        ("--output x.jpeg", "--output: x.jpeg: the suffix says what to draw, and .jpeg is not one of "),
    ],
)
def test_mistakes(words: str, message: str, command: Run, tmp_path: Path) -> None:
    done = command("cgroups", *words.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith(f"corten: {message}")
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_what_was_never_used_is_known_without_reading(nest: dict[str, Group]) -> None:
    """Use and pressure of each group are what its own files say, also where nothing was used above it."""
    child = holder(nest["a/b/c"], 5)
    try:
        for controller, file in (("pids", "pids.current"), ("memory", "memory.pressure")):
            tree, top = tree_of(nest["a"], controller) if controller == "pids" else unified(nest["a"])
            for name, own in figures(tree, top, controller).items():
                text = Path(tree.mount + top + name.removeprefix("a"), file).read_text()
                found = own.use if controller == "pids" else own.pressure
                assert found == float(text.split()[1][6:] if "avg10=" in text else text), name
        used = {name: own.use for name, own in figures(*tree_of(nest["a"], "pids"), "pids").items()}
        assert used == {"a": 1, "a/b": 1, "a/b/c": 1, "a/d": 0}
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def unified(own: Group) -> tuple[Tree, str]:
    """The v2 tree, which has the pressure on hybrid machines, too."""
    tree = views.cgroups("unified").trees[0]
    (directory,) = [part.path for part in own.dirs if part.version == 2]
    return tree, directory.removeprefix(tree.mount)
