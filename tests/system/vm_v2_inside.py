"""Whole containers on pure cgroup v2, as root or as a user with a delegated group. Run in the virtual machine by
test_vm_v2.py."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import corten
import small_root
from corten import views
from corten.images.store.images import Store
from corten.linux.cgroup import layout
from corten.linux.cgroup.group import Group
from images_lab import image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MIB = 1 << 20
ROOT = os.geteuid() == 0
TREE = Path("/sys/fs/cgroup")
EATER = "import time\nx = bytearray(200 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\ntime.sleep(60)"


def groups() -> dict[str, str]:
    """Every group that is there, and what it hands down."""
    return {str(path.parent): path.read_text() for path in TREE.rglob("cgroup.subtree_control")}


@pytest.fixture(scope="module", autouse=True)
def place() -> Iterator[Path]:
    """A home on a file system that can carry an overlay's writable part, and the groups as they are at the start."""
    path = Path(tempfile.mkdtemp(prefix="corten-v2-"))
    os.environ["CORTEN_HOME"] = str(path)
    small_root.shared()
    assert small_root.sh("true") == ""
    before = groups()
    yield path
    assert groups() == before
    assert list((path / "containers").iterdir()) == []
    shutil.rmtree(path)


def group_of(container: corten.Container) -> Group:
    group = container._plan.group
    assert group is not None
    return group


def own_group() -> Path:
    (tree,) = layout.detect().hierarchies
    return TREE / tree.own.strip("/")


def test_the_layout_is_pure_v2() -> None:
    assert layout.detect().kind == "v2"


def test_limits_are_in_force_and_seen_inside() -> None:
    files = "memory.max memory.swap.max cpu.max pids.max cpuset.cpus.effective"
    script = f"cd /sys/fs/cgroup; cat /proc/self/cgroup {files}"
    found = small_root.sh(script, memory="64m", memory_swap="64m", cpus=0.5, pids=20, cpuset_cpus="0").split("\n")
    assert found[:6] == ["0::/", str(64 * MIB), "0", "50000 100000", "20", "0"]


def test_the_group_is_read_only_inside() -> None:
    script = "echo max >/sys/fs/cgroup/memory.max; mkdir /sys/fs/cgroup/x; mount -t cgroup2 x /mnt; echo end"
    result = small_root.run(script, memory="64m")
    assert result.stdout == "end\n"
    assert str(result.stderr).count("Read-only file system") == 2
    assert "mount: " in str(result.stderr)


def test_the_container_is_cloned_into_its_group() -> None:
    words = [small_root.CORTEN, "run", "-m", "64m", "--rootfs", small_root.shared(), "true"]
    # Not the end: newuidmap, which a user's container may need, gets no rights below a tracer.
    traced = subprocess.run(["strace", "-f", "-e", "trace=clone3", *words], capture_output=True, text=True, check=False)
    assert "CLONE_INTO_CGROUP" in traced.stderr


def test_out_of_memory_is_told() -> None:
    result = corten.run("host", ["python3", "-c", EATER], memory="40m", memory_swap="40m")
    assert (result.exit_code, result.oom_killed) == (137, True)
    assert result.reason.startswith("killed: out of memory (limit 40 MiB, peak 40 MiB, in python3")
    assert result.usage.memory_limit == 40 * MIB
    assert result.usage.memory_peak is not None
    assert result.usage.memory_peak <= 40 * MIB


def test_a_fork_bomb_is_held() -> None:
    result = small_root.run("bomb() { bomb | bomb & }; bomb; sleep 1; exit 1", pids=12, timeout=60)
    assert result.usage.pids_peak == 12
    assert "the process limit (12) refused a new process" in result.reason


def test_the_cpu_limit_throttles() -> None:
    script = "(while :; do :; done) & (while :; do :; done) & sleep 2; exit 0"
    result = small_root.run(script, cpus=0.2)
    assert result.usage.throttled_seconds
    assert result.usage.cpu_seconds < 0.2 * result.duration + 0.3


def test_limits_change_while_it_runs() -> None:
    script = "echo up; read x; cd /sys/fs/cgroup; cat memory.max cpu.max pids.max"
    settings: dict[str, Any] = {"memory": "64m", "stdin": corten.PIPE}
    with small_root.start(script, **settings) as container:
        assert small_root.line(container) == "up"
        container.update(memory="96m", cpus=1.5, pids=33)
        assert container.stdin is not None
        container.stdin.write(b"go\n")
        assert [small_root.line(container) for _ in range(3)] == [str(96 * MIB), "150000 100000", "33"]


def test_any_file_of_v2_can_be_written() -> None:
    conf = {"memory.high": "20M", "memory.oom.group": "1"}
    found = small_root.sh("cd /sys/fs/cgroup; cat memory.high memory.oom.group", cgroup_conf=conf)
    assert found.split() == [str(20 * MIB), "1"]
    with pytest.raises(corten.Error, match=r"memory\.nonsense"):
        small_root.run("true", cgroup_conf={"memory.nonsense": "1"})


def test_frozen_processes_stand_and_die() -> None:
    with small_root.start("echo up; while :; do :; done", memory="64m") as container:
        small_root.line(container)
        group = group_of(container)
        group.freeze()
        directory = Path(group.dirs[0].path)
        assert "frozen 1" in (directory / "cgroup.events").read_text()
        container.kill()
        assert container.wait(20).signal == 9


def test_what_shares_the_hosts_processes_ends_with_its_group() -> None:
    with small_root.start("sleep 1000 & sleep 1000 & echo up; wait", pid="host", memory="64m") as container:
        small_root.line(container)
        inside = group_of(container).procs()
        assert len(inside) >= 3
        container.kill()
        container.wait(20)
    for pid in inside:
        assert not Path(f"/proc/{pid}").exists() or "(sleep) Z" in Path(f"/proc/{pid}/stat").read_text()


def test_the_account_has_pressure_and_use() -> None:
    result = small_root.run("head -c 20000000 /dev/zero >/tmp/x", memory="64m")
    assert result.usage.pressure is not None
    assert {"cpu", "memory", "io"} <= set(result.usage.pressure)
    assert result.usage.cpu_seconds > 0
    assert result.usage.pids_peak is not None
    assert result.usage.io_write_bytes is not None


def test_the_tree_is_seen_with_the_limit_that_holds() -> None:
    with small_root.start("echo up; sleep 60", name="seen", memory="64m", pids=9, cpus=0.5) as container:
        small_root.line(container)
        (tree,) = views.cgroups().trees
        assert (tree.version, tree.mount) == (2, str(TREE))
        assert {str(TREE) + path.rstrip("/") for path in tree.vertices} == {str(TREE), *groups()}
        own = group_of(container).dirs[0].path.removeprefix(str(TREE))
        (node,) = [node for node in tree.nodes if node.container == "seen"]
        assert node.path == own
        for resource, limit in (("memory", 64 * MIB), ("pids", 9), ("cpu", 0.5)):
            held = tree.holds(resource)[own]
            assert (held.value, held.at) == (limit, own)
            assert node.figures[resource].use is not None
        assert {name for name, figures in node.figures.items() if figures.pressure is not None} == {
            "cpu", "memory", "io"}  # fmt: skip
        memory = tree.own_use("memory")
        assert all(value is None or value >= -MIB for value in memory.values())
        found = views.namespaces()
        assert [name for name, pids in found.containers if container.pid in pids] == ["seen"]
        # what an ordinary user may not look at is unknown, and only that
        assert bool(found.unknown) == (not ROOT)


@pytest.mark.skipif(not ROOT, reason="a process for each layer takes minutes in this machine")
def test_an_image_of_more_layers_than_an_option_can_name(place: Path) -> None:
    """This machine's kernel (6.1) does not take the layers of an overlay one by one."""
    os.environ["CORTEN_REGISTRIES"] = "/dev/null"
    image(Store(str(place)), "layers", 72)
    result = corten.run("layers", ["cat", "/etc/layer0", "/etc/layer71"])
    assert result.stdout == "layers 0layers 71", result


def test_a_group_of_ones_choice() -> None:
    parent = str(own_group().parent.relative_to(TREE) / "corten-nest")
    script = "cat /sys/fs/cgroup/pids.max"
    with small_root.start(f"echo up; {script}; sleep 60", pids=7, cgroup_parent=f"/{parent}") as container:
        assert small_root.line(container) == "up"
        assert group_of(container).dirs[0].path.startswith(f"{TREE}/{parent}/corten-")
    (TREE / parent).rmdir()


if ROOT:

    def test_devices_that_are_not_given_cannot_be_opened() -> None:
        # With the right to make nodes, only the program that the kernel asks for each opening stands in the way.
        script = """
            mknod /tmp/kmsg c 1 11; mknod /tmp/fuse c 10 229; mknod /tmp/null c 1 3
            for name in kmsg fuse null; do (: </tmp/$name) 2>/dev/null && echo $name opens || echo $name refused; done
        """
        refused = ["kmsg refused", "fuse refused", "null opens"]
        assert small_root.sh(script, cap_add=["mknod"]).splitlines() == refused
        given = small_root.sh(script, cap_add=["mknod"], device_cgroup_rules=["c 10:229 rw"]).splitlines()
        assert given == ["kmsg refused", "fuse opens", "null opens"]

else:

    def test_a_group_that_was_not_delegated_is_refused() -> None:
        with pytest.raises(corten.Unsupported, match="systemd-run --user --scope -p Delegate=yes"):
            small_root.run("true", memory="64m", cgroup_parent="/system.slice")

    def test_nothing_is_taken_from_outside_what_was_delegated() -> None:
        with small_root.start("echo up; sleep 60", memory="64m") as container:
            small_root.line(container)
            assert f"/user@{os.getuid()}.service/" in group_of(container).dirs[0].path
            container.kill()
            container.wait(20)

    def test_what_subordinate_ids_own_is_removed() -> None:
        script = "mkdir -p /a/b; touch /a/b/c; chown -R 33:33 /a; chmod 0 /a/b /a; cat /proc/self/uid_map"
        assert small_root.sh(script, memory="64m").split()[3:] == ["1", "524288", "65536"]


def test_a_delegated_or_own_tree_survives_the_spawner() -> None:
    """A library's process that is killed takes its containers with it, and the next command their groups."""
    code = (
        "import corten, os, sys; sys.path.insert(0, 'tests/system'); import small_root;"
        "c = small_root.start('echo up; sleep 600', memory='64m'); small_root.line(c);"
        "os.write(1, c._plan.group.dirs[0].path.encode()); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    small_root.sh("true")
    # The spawner sees the end of its parent and undoes; whoever is first, the group goes.
    assert _gone(Path(done.stdout))


def _gone(path: Path) -> bool:
    from corten.linux.cgroup import files

    for _ in range(10000):
        try:
            files.require(str(path / "cgroup.events"))
        except OSError as error:
            return error.errno in (errno.ENOENT, errno.ENODEV)
        os.sched_yield()
    return False
