"""`corten plan`: the ordered steps of a container that is not made."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from small_root import CORTEN, shared

OPTIONS = [
    "--memory", "64m", "--cpus", "1.5", "--pids-limit", "20", "--hostname", "box", "-v", "/usr:/mnt:ro",
    "--tmpfs", "/tmp", "--read-only", "-u", "alice", "--timeout", "10", "--sysctl", "net.core.somaxconn=5",
    "--name", "planned",
]  # fmt: skip
WHAT = ["--writable", "throwaway", "--rootfs"]


def plan(*words: str) -> str:
    done = subprocess.run([CORTEN, "plan", *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def files(home: Path) -> set[str]:
    return {str(path) for path in home.rglob("*")}


def test_text(home: Path) -> None:
    root = shared()  # made when first asked for
    before = files(home)
    rows = plan(*OPTIONS, *WHAT, root, "sh", "-c", "echo hi").splitlines()
    assert files(home) == before
    numbers = [int(row.split()[0]) for row in rows]
    assert numbers == list(range(1, len(rows) + 1))
    stages = [row.split()[1] for row in rows]
    assert list(dict.fromkeys(stages)) == ["host", "clone", "inside", "program", "after"]
    text = "\n".join(rows)
    order = [
        "claim ",
        "make control group",
        "= 67108864",
        "clone with new namespaces",
        "join the control group",
        "make all mounts private",
        "mount proc on /proc",
        "host name box",
        "sysctl net/core/somaxconn = 5",
        "as root, writes to",
        "move /proc, /dev, /sys into the root",
        "bind /usr on /mnt (ro",
        "make the root read-only",
        "pivot into the root",
        "become user 1001:1002",
        "no new privileges",
        "load system call filter default",
        "init: reap orphans, forward signals",
        "run sh -c echo hi",
        "kill everything after 10 s",
        "remove the control group",
    ]
    places = [text.index(words) for words in order]
    assert places == sorted(places)


def test_json() -> None:
    steps = json.loads(plan("--json", *OPTIONS, *WHAT, shared(), "true"))
    assert {step["stage"] for step in steps} == {"host", "clone", "inside", "program", "after"}
    for step in steps:
        assert set(step) == {"stage", "step", "does", "fields"}
        assert step["does"]
    named = [step for step in steps if step["step"]]
    kinds = {step["step"] for step in named}
    assert {"MakeGroup", "JoinGroup", "MountOverlay", "Mount", "Pivot", "BecomeUser", "LoadFilter"} <= kinds
    writes = [step["fields"]["write"] for step in named if step["step"] == "WriteLimit"]
    assert str(64 << 20) in [write["value"] for write in writes]
    text = plan(*OPTIONS, *WHAT, shared(), "true").splitlines()
    assert [_anonymous(step["does"]) for step in steps] == [_anonymous(row[14:]) for row in text]


def _anonymous(text: str) -> str:
    """Without the id, which is new each time."""
    return re.sub(r"\b[0-9a-f]{12}\b", "ID", text)


def test_two_plans_are_equal_but_for_the_id() -> None:
    words = ["--memory", "64m", *WHAT, shared(), "true"]
    first, second = plan(*words), plan(*words)
    assert first != second
    assert _anonymous(first) == _anonymous(second)


def test_plan_of_the_host_image() -> None:
    assert "run python3 -V" in plan("host", "python3", "-V")


def test_plan_in_a_user_namespace() -> None:
    text = plan("--uidmap", "0:100000:1000", "--gidmap", "0:200000:1000", *WHAT, shared(), "true")
    assert "map uids 0->100000 (1000)" in text
    assert "map gids 0->200000 (1000)" in text
    assert text.index("ids mapped") < text.index("clone with new namespaces")


def test_the_plan_is_what_run_does(tmp_path: Path) -> None:
    """An error of `run` names the step as the plan has it."""
    (tmp_path / "file").write_text("")
    words = ["-v", f"{tmp_path}:/etc/passwd/x", *WHAT, shared(), "true"]
    done = subprocess.run([CORTEN, "run", *words], capture_output=True, text=True, check=False)
    step = done.stderr.removeprefix("corten: ").partition(": Not a directory")[0]
    assert step in [row[14:] for row in plan(*words).splitlines()]


WRONG: dict[tuple[str, ...], str] = {
    (): "plan needs an IMAGE",
    ("--memory", "x", "host", "true"): "--memory",
    ("host",): "command",
}


@pytest.mark.parametrize(("words", "said"), WRONG.items())
def test_bad_input(words: tuple[str, ...], said: str) -> None:
    done = subprocess.run([CORTEN, "plan", *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_plan_changes_nothing_of_a_new_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    words = [CORTEN, "plan", "--name", "x", *WHAT, shared(), "true"]
    subprocess.run(words, env={**os.environ, "CORTEN_HOME": str(home)}, check=True, stdout=subprocess.DEVNULL)
    made = {path.name for path in home.iterdir()}
    assert made <= {"filters"}  # a cache: the compiled system call filter
