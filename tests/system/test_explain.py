"""`corten explain`: what is told of a container is what the kernel says, and what stands open is marked."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

import small_root
from corten.linux import inspect
from ordinary_user import User

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Command = Callable[..., subprocess.CompletedProcess[str]]

UP = "echo up; sleep 60"
MIB = 1 << 20


@pytest.fixture
def user() -> Iterator[User]:
    made = User()
    yield made
    made.close()


def explain(command: Command, word: str) -> dict[str, Any]:
    done = command("explain", "--json", word)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def marked(found: dict[str, Any], rank: int = 2) -> set[str]:
    return {point["about"] for point in found["weak_points"] if point["rank"] >= rank}


def test_a_usual_container(command: Command, tmp_path: Path) -> None:
    volumes = [f"{tmp_path}:/data", f"{tmp_path}:/frozen:ro"]
    with small_root.start(UP, name="explained", memory="64m", pids=20, volumes=volumes) as box:
        assert small_root.line(box) == "up"
        found = explain(command, "explained")
        (program,) = inspect.children(box.pid)
        assert (found["pid"], found["looked_at"]) == (box.pid, program)
        assert found["container"] == {"id": box.id, "name": "explained"}
        assert (found["shared"], found["unknown"]) == (["user"], [])
        kept = {limit["kind"]: (limit["value"], limit["own"]) for limit in found["limits"]}
        assert (kept["memory"], kept["pids"], kept["cpu"]) == ((64 * MIB, True), (20, True), (None, False))
        windows = {window["target"]: (window["source"], window["writable"]) for window in found["windows"]}
        assert windows == {"/data": (str(tmp_path), True), "/frozen": (str(tmp_path), False)}
        assert found["status"]["seccomp"] == 2
        assert found["devices"] == "listed"
        assert "/proc/sys" in found["frozen"]
        assert {"/proc/keys", "/sys/firmware"} <= set(found["hidden"])
        assert marked(found) == {"user"}  # no user namespace
        assert {"cpu", "files"} <= marked(found, 1)
        page = command("explain", "explained").stdout
        assert len(page.splitlines()) < 32
        assert max(map(len, page.splitlines())) <= 100
        assert "!  host's files    /data (of" in page
        assert "64 MiB, set by its own group" in page


def test_a_limit_of_a_group_above_is_told_with_its_group(command: Command) -> None:
    parent = f"corten-above-{os.getpid()}"
    tree = Path("/sys/fs/cgroup")
    top = tree / "pids" if (tree / "pids").is_dir() else tree
    with small_root.start(UP, pids=20, cgroup_parent=f"/{parent}") as box:
        assert small_root.line(box) == "up"
        (top / parent / "pids.max").write_text("10")
        limit = next(limit for limit in explain(command, box.id)["limits"] if limit["kind"] == "pids")
        assert (limit["value"], limit["source"], limit["own"]) == (10, str(top / parent), False)
    for path in (*tree.glob(f"*/{parent}"), *tree.glob(parent)):
        path.rmdir()


OPEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "a capability": ({"cap_add": ["SYS_ADMIN"]}, "capabilities", "CAP_SYS_ADMIN"),
    "no filter": ({"security_opt": ["seccomp=unconfined"]}, "seccomp", "no system call filter"),
    "the host's network": ({"network": "host"}, "network", "the host's loopback"),
    "the host's processes": ({"pid": "host"}, "pid", "the host's processes"),
    "the host's root": ({"volumes": ["/:/host"]}, "files", "it may write to the host's / as /host"),
    "kernel settings": ({"security_opt": ["unmask=ALL"]}, "files", "/proc/sys is writable"),
}


@pytest.mark.parametrize("what", OPEN)
def test_what_stands_open_is_marked(what: str, command: Command) -> None:
    options, about, words = OPEN[what]
    with small_root.start(UP, **options) as box:
        assert small_root.line(box) == "up"
        found = explain(command, box.id)
        assert about in marked(found)
        assert any(words in point["words"] for point in found["weak_points"])


def test_the_socket_of_an_engine(command: Command, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "docker.sock"))
        with small_root.start(UP, volumes=[f"{tmp_path}/docker.sock:/run/x.sock"]) as box:
            assert small_root.line(box) == "up"
            points = explain(command, box.id)["weak_points"]
            assert points[0]["words"].startswith("the socket of a container engine")


def test_a_user_namespace(command: Command) -> None:
    maps = {"uidmap": ["0:100000:65536"], "gidmap": ["0:200000:65536"]}
    with small_root.start(UP, **maps) as box:
        assert small_root.line(box) == "up"
        found = explain(command, box.id)
        assert (found["shared"], found["inside_uid"]) == ([], 0)
        assert found["uid_map"] == [{"container_id": 0, "host_id": 100000, "size": 65536}]
        assert "root inside is uid 100000 of the host" in command("explain", box.id).stdout
        assert marked(found) == set()


def test_a_process_of_the_host(command: Command) -> None:
    page = command("explain", str(os.getpid())).stdout
    assert "none of Corten's" in page
    assert "nothing: it is not isolated" in page
    found = explain(command, str(os.getpid()))
    assert (found["own"], found["container"]) == ([], None)
    assert "mount" in marked(found, 3)


def test_what_a_user_may_not_see_is_unknown(user: User) -> None:
    with small_root.start(UP) as box:
        assert small_root.line(box) == "up"
        done = user.corten("explain", "--json", str(box.pid))
        assert done.stderr == ""
        found = json.loads(done.stdout)
        assert (found["own"], found["shared"]) == ([], [])
        assert len(found["unknown"]) == 8
        page = user.corten("explain", str(box.pid)).stdout
        assert "unknown         user, cgroup, ipc, uts, network, pid, time, mount: no permission to look" in page
        assert "not isolated" not in page
        assert "files           unknown" in page


def test_a_container_cannot_write_on_the_screen(command: Command, tmp_path: Path) -> None:
    evil = tmp_path / "a\x1b[2J\nb"
    evil.mkdir()
    with small_root.start(UP, mounts=[f"type=bind,src={tmp_path},dst=/data"], cap_add=["SYS_ADMIN"]) as box:
        assert small_root.line(box) == "up"
        (program,) = inspect.children(box.pid)
        inside = ["nsenter", "-t", str(program), "-m", "mount", "--bind", "/data/a\x1b[2J\nb", "/data/a\x1b[2J\nb"]
        subprocess.run(inside, check=True)
        page = command("explain", box.id).stdout
        assert "a?[2J?b" in page
        assert all(line.isprintable() for line in page.splitlines())


def test_bad_input(command: Command) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    for words, said in (
        ([], "explain needs a CONTAINER or PID"),
        (["nobody"], "no live container 'nobody'"),
        ([str(gone.pid)], f"process {gone.pid}: there is none"),
        (["0"], "process 0"),
        (["--form", "x"], "unknown option --form"),
    ):
        done = command("explain", *words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1), done
        assert said in done.stderr
