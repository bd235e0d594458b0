"""Namespaces: each kind private, the host's, or another process's; maps of users; clocks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import corten
from small_root import line, make, refused, run, sh, shared, start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

FILES = {"cgroup": "cgroup", "ipc": "ipc", "mnt": "mnt", "net": "net", "pid": "pid", "time": "time", "uts": "uts"}
OPTIONS = {
    "cgroup": "cgroupns",
    "ipc": "ipc",
    "net": "network",
    "pid": "pid",
    "time": "timens",
    "user": "userns",
    "uts": "uts",
}
"""The file below /proc/PID/ns, and the option."""

MAPS = {"uidmap": ["0:100000:1000", "1000:300000:1000"], "gidmap": ["0:200000:65536"]}


def inside(**options: Any) -> dict[str, str]:
    """The namespaces of a program in a container."""
    words = sh("cd /proc/self/ns && for n in *; do echo $n $(readlink $n); done", **options).split()
    return dict(zip(words[::2], words[1::2], strict=True))


def of(pid: int | str) -> dict[str, str]:
    return {entry.name: str(entry.readlink()) for entry in Path(f"/proc/{pid}/ns").iterdir()}


def test_all_are_private_but_the_user_namespace() -> None:
    host, own = of("self"), inside()
    same = {kind for kind in host if host[kind] == own[kind]}
    assert same == {"user"}


@pytest.mark.parametrize("kind", [kind for kind in OPTIONS if kind != "user"])
def test_the_hosts_own(kind: str) -> None:
    host, own = of("self"), inside(**{OPTIONS[kind]: "host"})
    same = {name.removesuffix("_for_children") for name in host if host[name] == own[name]}
    assert same == {"user", kind}


@pytest.fixture(scope="module")
def other() -> Iterator[int]:
    """A process with namespaces of its own, in a user namespace of its own."""
    with start("echo ready; read x", stdin=corten.PIPE, **MAPS) as container:
        assert line(container) == "ready"
        yield container.pid


@pytest.mark.parametrize("kind", OPTIONS)
def test_anothers_by_path(kind: str, other: int) -> None:
    own = inside(writable="direct", **{OPTIONS[kind]: f"ns:/proc/{other}/ns/{kind}"})
    assert own[kind] == of(other)[kind]
    host = of("self")
    same = {name for name in host if host[name] == own[name]}
    assert same == (set() if kind == "user" else {"user"})


def test_all_of_anothers_at_once(other: int) -> None:
    options = {option: f"ns:/proc/{other}/ns/{kind}" for kind, option in OPTIONS.items()}
    own, theirs = inside(writable="direct", **options), of(other)
    assert {kind for kind in theirs if own[kind] != theirs[kind]} == {"mnt"}


def test_a_container_in_the_namespaces_of_another() -> None:
    with start("hostname first; echo ready; read first; exit 3", cap_add=["SYS_ADMIN"], unmask=["ALL"],
               stdin=corten.PIPE) as first:  # fmt: skip
        assert line(first) == "ready"
        spaces = {OPTIONS[kind]: f"ns:/proc/{first.pid}/ns/{kind}" for kind in ("pid", "net", "ipc", "uts")}
        rows = sh("hostname; ps -o pid,args | grep -v grep | grep -c 'read first'; echo $$", **spaces).split()
        assert rows[:2] == ["first", "1"]
        assert int(rows[2]) > 2
        assert first.running()


def test_timeout_in_the_pid_namespace_of_another() -> None:
    with start("echo ready; read x", stdin=corten.PIPE) as first:
        assert line(first) == "ready"
        joined = f"ns:/proc/{first.pid}/ns/pid"
        result = run("(sleep 1000 &); setsid sleep 1000 & wait", pid=joined, timeout=0.3)
        assert result.timed_out
        assert "sleep" not in sh("ps", pid=joined)
        assert first.running()


def test_pid_namespace_of_the_host_leaves_nothing_running() -> None:
    nap = f"20000{os.getpid()}"
    assert run(f"(setsid sleep {nap} &); true", pid="host").exit_code == 0
    assert nap not in subprocess.run(["ps", "-ef"], capture_output=True, text=True, check=True).stdout


def test_spawner_stays_at_home_after_joining(other: int) -> None:
    inside(pid=f"ns:/proc/{other}/ns/pid")
    assert inside(pid="host")["pid"] == of("self")["pid"]


def test_path_of_the_wrong_kind_is_refused(other: int) -> None:
    before = "corten: join network namespace"
    done = refused("--network", f"ns:/proc/{other}/ns/uts", "--rootfs", shared(), "true")
    assert (done.returncode, done.stderr.startswith(before)) == (125, True), done.stderr
    done = refused("--pid", f"ns:/proc/{other}/ns/uts", "--rootfs", shared(), "true")
    assert (done.returncode, "pid namespace" in done.stderr) == (125, True), done.stderr
    done = refused("--network", "ns:/proc/999999999/ns/net", "--rootfs", shared(), "true")
    assert "no such file" in done.stderr


# --- users


def test_maps_are_what_was_asked_for() -> None:
    shown = sh("cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups", **MAPS)
    assert [row.split() for row in shown.splitlines()] == [
        ["0", "100000", "1000"], ["1000", "300000", "1000"], ["0", "200000", "65536"], ["allow"]]  # fmt: skip


def test_files_made_inside_have_mapped_owners_outside(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents[:-2]:
        parent.chmod(0o755)
    made = f"{tmp_path}:/mnt"
    assert sh("id -u; echo x >/mnt/a; stat -c %u:%g /mnt/a", volumes=[made], **MAPS).split() == ["0", "0:0"]
    assert sh("echo x >/mnt/b; stat -c %u:%g /mnt/b", volumes=[made], user="alice", **MAPS).split() == ["1001:1002"]
    owners = {name: (tmp_path / name).stat() for name in ("a", "b")}
    assert (owners["a"].st_uid, owners["a"].st_gid) == (100000, 200000)
    assert (owners["b"].st_uid, owners["b"].st_gid) == (300001, 201002)


def test_root_in_a_user_namespace_is_nobody_outside(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("for root only")
    secret.chmod(0o600)
    result = run("cat /mnt/secret", volumes=[f"{secret}:/mnt/secret"], **MAPS)
    assert "Permission denied" in str(result.stderr)
    assert sh("cat /mnt/secret", volumes=[f"{secret}:/mnt/secret"]) == "for root only"


def test_writes_to_the_layer_of_a_user_namespace(tmp_path: Path) -> None:
    """The root's files belong to the container's root, as in docker and podman; what it writes, to its host user."""
    assert sh("stat -c %u:%g /etc/passwd / /bin/sh; echo x >/etc/passwd; cat /etc/hostname", hostname="box",
              **MAPS).split() == ["0:0", "0:0", "0:0", "box"]  # fmt: skip
    assert sh("mkdir /new && echo x >/new/file && stat -c %u /new/file", writable="tmpfs", **MAPS).strip() == "0"
    kept = tmp_path / "kept"
    kept.mkdir(0o700)
    sh("echo kept >/etc/new; echo changed >/etc/passwd", writable=str(kept), **MAPS)
    for name in ("new", "passwd"):
        found = (kept / "upper/etc" / name).stat()
        assert (found.st_uid, found.st_gid) == (100000, 200000)
    assert sh("cat /etc/new", writable=str(kept), **MAPS) == "kept\n"


def test_directory_as_root_of_a_user_namespace(tmp_path: Path) -> None:
    """Nothing is mapped when it is written to directly: it is as it is on the host."""
    mine = make(tmp_path / "closed/root")
    (tmp_path / "closed").chmod(0o700)
    assert sh("stat -c %u /bin/busybox", rootfs=str(mine), writable="direct", **MAPS).strip() == "65534"
    for path in (mine, *mine.rglob("*")):
        os.chown(path, 100000, 200000, follow_symlinks=False)
    assert sh("echo x >/etc/new; stat -c %u /etc/new", rootfs=str(mine), writable="direct", **MAPS).strip() == "0"
    assert (mine / "etc/new").stat().st_uid == 100000


def test_bind_of_an_unreachable_directory_in_a_user_namespace(tmp_path: Path) -> None:
    """The source lies below a directory that only the host's root may enter: the engine opens it, not the container."""
    hidden = tmp_path / "hidden"
    (hidden / "shown").mkdir(parents=True)
    (hidden / "shown/file").write_text("shown")
    hidden.chmod(0o700)
    assert sh("cat /mnt/file", volumes=[f"{hidden}/shown:/mnt:ro"], **MAPS) == "shown"


def test_private_user_namespace_needs_a_range_for_root() -> None:
    named = [line for line in Path("/etc/subuid").read_text().splitlines() if line.split(":")[0] in ("root", "0")]
    if named:
        first = inside(userns="private")
        assert first["user"] != of("self")["user"]
    else:
        done = refused("--userns", "private", "--rootfs", shared(), "true")
        assert done.returncode == 125
        assert "/etc/subuid" in done.stderr
        assert "--uidmap" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--uidmap", "0:100000:10"], "give both"),
        (["--uidmap", "0:1:10", "--uidmap", "5:50:10", "--gidmap", "0:0:1"], "uidmap"),
        (["--uidmap", "0:x:10", "--gidmap", "0:0:1"], "uidmap"),
        (["--uidmap", "0:0:1", "--gidmap", "0:0:1", "-u", "alice"], "1001"),
        (["--userns", "keep-id"], "keep-id"),
        (["--uidmap", "0:0:1", "--gidmap", "0:0:1", "--userns", "host"], "userns host"),
    ],
)
def test_maps_that_make_no_sense(words: list[str], said: str) -> None:
    done = refused(*words, "--rootfs", shared(), "true")
    assert done.returncode == 125
    assert said in done.stderr


@pytest.mark.parametrize("option", [{"pid": "host"}, {"network": "host"}, {"ipc": "host"}, {"uts": "host"}])
def test_user_namespace_beside_a_namespace_of_the_host(option: dict[str, str]) -> None:
    own = inside(**option, **MAPS)
    (name,) = option
    assert own[FILES.get(name, "net")] == of("self")[FILES.get(name, "net")]


# --- clocks


def test_clocks_are_shifted() -> None:
    assert float(sh("cat /proc/uptime").split()[0]) == pytest.approx(_uptime(), abs=60)
    day = 86400
    shifted = sh("cat /proc/uptime /proc/self/timens_offsets", time_offset=["boottime=7d", "monotonic=-10s"])
    uptime, *offsets = shifted.splitlines()
    assert float(uptime.split()[0]) == pytest.approx(_uptime() + 7 * day, abs=60)
    assert [row.split() for row in offsets] == [["monotonic", "-10", "0"], ["boottime", str(7 * day), "0"]]


def _uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


def test_clock_before_the_start_is_refused() -> None:
    done = refused("--time-offset", "boottime=-100000d", "--rootfs", shared(), "true")
    assert done.returncode == 125
    assert "time namespace" in done.stderr


# --- what private means


def test_the_host_is_out_of_sight() -> None:
    assert sh("ls /proc | grep -c '^[0-9]'; ls /sys/class/net").split()[1:] == ["lo"]
    assert sh("cat /proc/self/cgroup").split(":")[-1].strip() == "/"
    name = f"/dev/shm/corten-test-{os.getpid()}"
    Path(name).write_text("of the host")
    try:
        assert run(f"cat {name}").exit_code != 0
        assert sh(f"cat {name}", ipc="host") == "of the host"
    finally:
        Path(name).unlink()


def test_names_are_the_containers_own() -> None:
    name = os.uname().nodename
    sh("hostname changed", cap_add=["SYS_ADMIN"])
    assert os.uname().nodename == name
    assert sh("hostname", uts="host").strip() == name
