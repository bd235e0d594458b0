"""`corten namespaces` and `views.namespaces` against the kernel and against lsns."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import corten
import small_root
from corten import views
from corten.errors import InvalidInput, NotFound
from corten.linux.namespaces import KINDS
from ordinary_user import User

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Run = Callable[..., subprocess.CompletedProcess[str]]


def of(pid: int | str, kind: str) -> int:
    return int(os.readlink(f"/proc/{pid}/ns/{kind}").partition("[")[2].rstrip("]"))


@pytest.fixture
def two() -> Iterator[tuple[corten.Container, corten.Container]]:
    """A container, and another that shares its IPC namespace."""
    with small_root.start("sleep 60 & echo up; wait", name="one", memory="64m") as one:
        small_root.line(one)
        shared = {"ipc": f"ns:/proc/{one.pid}/ns/ipc"}
        with small_root.start("sleep 60 & echo up; wait", name="two", memory="64m", **shared) as two:
            small_root.line(two)
            yield one, two


LSNS = """
import json, os, subprocess
from corten import views
made = [subprocess.Popen(["unshare", *kinds.split(), "sleep", "60"])
        for kinds in ("--net --uts", "--user --map-root-user --ipc", "--mount --cgroup", "--net --uts", "--time")]
made += [subprocess.Popen(["nsenter", f"--net=/proc/{made[0].pid}/ns/net", "sleep", "60"])]
for process in made:
    while open(f"/proc/{process.pid}/comm").read() != "sleep\\n":
        os.sched_yield()
zombie = os.fork()
if zombie == 0:
    os._exit(0)
os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
found = views.namespaces()
ours = {f"{own.kind} {own.identity}": [len(own.processes), own.first.pid] for own in found.namespaces if own.first}
out = subprocess.run(["lsns", "--json", "--output", "NS,TYPE,NPROCS,PID"], capture_output=True, check=True).stdout
theirs = {f"{own['type']} {own['ns']}": [int(own["nprocs"]), int(own["pid"])] for own in json.loads(out)["namespaces"]}
mine = {kind: os.stat(f"/proc/self/ns/{kind}").st_ino for kind in found.kinds}
print(json.dumps([ours, theirs, mine]))
for process in made:
    process.kill()
    process.wait()
"""


def test_the_same_as_lsns() -> None:
    # In a PID namespace of its own: others come and go on this machine.
    words = ["unshare", "--pid", "--fork", "--mount", "--mount-proc", sys.executable, "-c", LSNS]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours, theirs, mine = json.loads(done.stdout)
    for kind, identity in mine.items():
        # lsns is a process, too; and it counts the zombie where that still is in a namespace
        theirs[f"{kind} {identity}"][0] -= 2 if kind in ("pid", "user") else 1
    assert ours == theirs
    assert len(ours) == 8 + 2 + 2 + 2 + 2 + 1


def test_it_is_a_partition_of_the_live_processes(two: tuple[corten.Container, corten.Container]) -> None:
    found = views.namespaces()
    unknown = dict(found.unknown)
    for kind in KINDS:
        partition = found.partition(kind)
        assert sum(len(own) for own in partition.classes) == len(partition.elements)
        assert partition.elements | unknown.get(kind, frozenset()) == found.processes
        assert found.common().refines(partition.only(found.common().elements))
    one, other = (box.pid for box in two)
    assert {os.getpid(), one, other} <= found.processes
    for kind in KINDS:
        assert found.partition(kind).class_of(one) == frozenset(
            pid for pid in found.partition(kind).elements if found.partition(kind).same(pid, one)
        )
        assert found.same(one, other)[kind] == (of(one, kind) == of(other, kind))
    shared = {kind for kind, same in found.same(one, other).items() if same}
    assert shared == {"ipc", "user"}
    assert found.same(one, one) == dict.fromkeys(KINDS, True)
    with pytest.raises(NotFound, match="process 99999999"):
        found.same(1, 99999999)


def test_containers_are_named(two: tuple[corten.Container, corten.Container], command: Run) -> None:
    found = views.namespaces(("net", "ipc", "user"))
    held = {name: pids for name, pids in found.containers if name in ("one", "two")}
    assert two[0].pid in held["one"]
    assert two[1].pid in held["two"]
    assert all(len(pids) == 3 for pids in held.values())  # init, sh, sleep
    by = {own.identity: own.containers for own in found.namespaces}
    assert by[of(two[0].pid, "net")] == ("one",)
    assert set(by[of(two[0].pid, "ipc")]) == {"one", "two"}
    only = command("namespaces", "--container", "one", "--type", "net,uts").stdout.splitlines()
    assert [line.split()[:3] for line in only] == [
        ["KIND", "NAMESPACE", "PROCESSES"],
        *([kind, str(of(two[0].pid, kind)), "3"] for kind in ("net", "uts")),
    ]
    same = command("namespaces", "--same", "one", str(two[1].pid)).stdout.splitlines()
    assert same[1:] == ["share:        ipc, user", "do not share: cgroup, mnt, net, pid, time, uts"]
    data = json.loads(command("namespaces", "--json", "--same", "one", "two").stdout)
    assert data["processes"] == [two[0].pid, two[1].pid]
    assert data["same"]["ipc"] is True
    assert data["same"]["net"] is False
    common = json.loads(command("namespaces", "--json", "--common").stdout)
    assert any(two[0].pid in own and len(own) == 3 for own in common["classes"])


def test_user_and_pid_namespaces_nest(command: Run) -> None:
    words = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "sh", "-c",
             "unshare --user --map-root-user --pid --fork sh -c 'echo up; exec sleep 60'; :"]  # fmt: skip
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        found = views.namespaces(("pid", "user"))
        deepest = youngest(process.pid)
        for kind in ("pid", "user"):
            known = {own.identity: own for own in found.of(kind)}
            inner = known[of(deepest, kind)]
            middle = known[inner.parent or 0]
            assert middle.parent == of("self", kind)
            assert known[of("self", kind)].parent is None
            assert inner.unknown == ()
            assert inner.owner == (middle.identity if kind == "user" else of(deepest, "user"))
            assert inner.creator == (0 if kind == "user" else None)
        table = command("namespaces", "--type", "pid").stdout
        assert "└─ " in table
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def youngest(pid: int) -> int:
    """The last in the line of descent of a process in which each has one child: not the one with the highest id, for
    they begin anew at the machine's limit."""
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        (pid,) = map(int, children)
    return pid


def test_an_ancestor_without_a_process_is_shown() -> None:
    # The middle one is left by all: its only process makes the inner one and goes in.
    libc = ctypes.CDLL(None, use_errno=True)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        ok = libc.unshare(0x10000000) == 0
        for file, line in (("uid_map", "0 0 1"), ("setgroups", "deny"), ("gid_map", "0 0 1")):
            Path(f"/proc/self/{file}").write_text(line)
        ok = ok and libc.unshare(0x10000000) == 0
        os.write(writing, b"+" if ok else b"-")
        signal.pause()
    try:
        assert os.read(reading, 1) == b"+"
        found = views.namespaces(("user",))
        known = {own.identity: own for own in found.namespaces}
        middle = known[known[of(pid, "user")].parent or 0]
        assert (middle.processes, middle.first, middle.parent) == (frozenset(), None, of("self", "user"))
        assert middle.identity not in found.partition("user").labels
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)
        os.close(writing)


def test_the_dead_and_the_half_dead() -> None:
    zombie = os.fork()
    if zombie == 0:
        os._exit(0)
    os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
    code = (
        "import ctypes, os, threading; reading, writing = os.pipe();"
        "threading.Thread(target=lambda: (os.write(1, b'up'), os.read(reading, 1))).start();"
        "ctypes.CDLL(None).syscall(60 if os.uname().machine == 'x86_64' else 93, 0)"
    )
    leaderless = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert leaderless.stdout is not None
        assert leaderless.stdout.read(2) == b"up"
        while "Z (zombie)" not in Path(f"/proc/{leaderless.pid}/status").read_text():
            os.sched_yield()
        for kinds in (KINDS, ("user",), ("pid", "user"), ("mnt",)):
            found = views.namespaces(kinds)
            assert zombie not in found.processes
            assert leaderless.pid in found.processes, "its other thread lives"
    finally:
        os.waitpid(zombie, 0)
        leaderless.kill()
        leaderless.communicate()


def test_processes_that_vanish_while_they_are_read() -> None:
    done = threading.Event()

    def churn() -> None:
        while not done.is_set():
            subprocess.run(["true"], check=True)

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(25):
            found = views.namespaces()
            unknown = dict(found.unknown)
            sets = {found.partition(kind).elements | unknown.get(kind, frozenset()) for kind in KINDS}
            assert len(sets) == 1, "all kinds speak of the same processes"
    finally:
        done.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def user() -> Iterator[User]:
    made = User()
    yield made
    made.close()


def test_what_a_user_may_not_read_is_unknown(user: User) -> None:
    done = user.corten("namespaces", "--json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert set(data["unknown"]) == set(KINDS)
    for kind in KINDS:
        assert os.getpid() in data["unknown"][kind]
        known = {pid for own in data["namespaces"] if own["type"] == kind for pid in own["processes"]}
        assert known, "its own process"
        assert not known & set(data["unknown"][kind])
        assert not any(is_of_root(pid) for pid in known)
    text = user.corten("namespaces").stdout
    assert "not permitted to look" in text.splitlines()[-1]
    same = user.corten("namespaces", "--same", str(os.getpid()), "1")
    assert same.stdout.splitlines()[-1] == f"unknown:      {', '.join(KINDS)}"


def is_of_root(pid: int) -> bool:
    """By its real user id: that of its files changes with its being dumpable. False if it has gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.partition("\nUid:")[2].split()[0] == "0"


def test_pictures(two: tuple[corten.Container, corten.Container], command: Run, tmp_path: Path) -> None:
    for suffix, start in ((".svg", b"<?xml"), (".png", b"\x89PNG"), (".dot", b"digraph"), (".mmd", b"%%")):
        target = tmp_path / f"x{suffix}"
        done = command("namespaces", "--output", str(target))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert target.read_bytes().startswith(start)
    assert b">one</text>" in (tmp_path / "x.svg").read_bytes()
    assert command("namespaces", "--format", "mermaid").stdout.count('"one<br/>') == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--type nett", "--type: 'nett' is not a kind of namespace: use cgroup, ipc, mnt, net, pid, time, user, uts"),
        ("--container nobody", "no live container 'nobody'; there are none"),
        ("--same 1", "--same needs two processes or containers, such as: corten namespaces --same 1 4711"),
        ("--same 1 2 3", "unexpected argument '3': usage: corten namespaces [OPTIONS]"),
        ("--same 1 9999999", "--same: process 9999999: there is none that lives"),
        ("--same 1 2 --common", "--same and --common exclude each other"),
        ("--common --output x.svg", "--common is text or JSON: it cannot be drawn"),
        ("--output x.pdf", "--output: x.pdf: the suffix says what to draw, and .pdf is not one of "
                           ".svg, .png, .dot, .gv, .mmd, .mermaid"),
        ("--format yaml", "--format: 'yaml' is not one of text, json, dot, mermaid"),
        ("--theme dark", "--theme is for pictures: it needs --output"),
        ("--output x.svg --theme pink", "--theme: 'pink' is not one of auto, light, dark"),
        ("--output x.svg --layout heap", "--layout: 'heap' is not one of boxes, tree"),
        ("--output x.svg --json", "--output writes a picture instead of printing: leave --format and --json out"),
        ("stray", "unexpected argument 'stray': it goes with --same"),
    ],
)  # fmt: skip
def test_mistakes(words: str, message: str, command: Run, tmp_path: Path) -> None:
    done = command("namespaces", *words.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (125, "", f"corten: {message}\n")
    assert os.listdir(tmp_path) == []


def test_kinds_by_their_other_names() -> None:
    assert views.namespaces(("network", "mount")).kinds == ("mnt", "net")
    with pytest.raises(InvalidInput):
        views.namespaces(("",))
