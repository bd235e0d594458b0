"""Limits: what the options write into the control files, read from outside while the container runs, and what holds."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

import corten
from corten.linux.cgroup import layout
from small_root import CORTEN, line, refused, run, sh, shared, start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MIB = 1 << 20
HERE = layout.detect()
V2 = HERE.kind == "v2"
OFFERED = {controller for hierarchy in HERE.hierarchies for controller in hierarchy.controllers}


def directory(container: corten.Container, controller: str) -> Path:
    """The directory of a container's group with this controller, as its first process has joined it."""
    paths = {}
    for row in Path(f"/proc/{container.pid}/cgroup").read_text().splitlines():
        _, controllers, path = row.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    for hierarchy in HERE.hierarchies:
        if controller in hierarchy.controllers:
            path = paths.get(hierarchy.controllers[0] if hierarchy.version == 1 else "", "/")
            return Path(hierarchy.directory(path))
    raise AssertionError(f"no {controller} controller here")


def control(container: corten.Container, file: str) -> str:
    """A control file of a running container, such as `memory.max`."""
    return (directory(container, file.partition(".")[0]) / file).read_text().strip()


def check(v1: dict[str, object], v2: dict[str, object], **options: Any) -> None:
    """Start a container and look at its control files, those of this machine's layout."""
    expected = v2 if V2 else v1
    with start("echo ready; read x", stdin=corten.PIPE, **options) as container:
        assert line(container) == "ready"
        assert {file: control(container, file) for file in expected} == {k: str(v) for k, v in expected.items()}


def test_memory() -> None:
    # docker: without --memory-swap as much swap again as memory.
    check(
        {
            "memory.limit_in_bytes": 64 * MIB,
            "memory.memsw.limit_in_bytes": 128 * MIB,
            "memory.soft_limit_in_bytes": 32 * MIB,
        },
        {"memory.max": 64 * MIB, "memory.swap.max": 64 * MIB, "memory.low": 32 * MIB},
        memory="64m",
        memory_reservation="32m",
    )


@pytest.mark.parametrize(
    ("swap", "both", "alone"),
    [
        ("64m", 64 * MIB, 0),
        ("100m", 100 * MIB, 36 * MIB),
        ("-1", 9223372036854771712, "max"),
        ("0", 128 * MIB, 64 * MIB),
    ],
)
def test_memory_and_swap(swap: str, both: int, alone: int | str) -> None:
    check({"memory.memsw.limit_in_bytes": both}, {"memory.swap.max": alone}, memory="64m", memory_swap=swap)


def test_what_only_v1_has() -> None:
    options: dict[str, Any] = {"memory": "64m", "memory_swappiness": 7}
    if V2:
        with pytest.raises(corten.Unsupported, match=r"memory\.swappiness"):
            run("true", **options)
        with pytest.raises(corten.Unsupported, match=r"memory\.oom_control"):
            run("true", memory="64m", oom_kill_disable=True)
        return
    check({"memory.swappiness": 7}, {}, **options)
    with start("echo ready; read x", stdin=corten.PIPE, memory="64m", oom_kill_disable=True) as container:
        assert line(container) == "ready"
        assert "oom_kill_disable 1" in control(container, "memory.oom_control")


def test_cpu() -> None:
    check(
        {"cpu.cfs_quota_us": 150000, "cpu.cfs_period_us": 100000, "cpu.shares": 2048, "cpu.cfs_burst_us": 0},
        {"cpu.max": "150000 100000", "cpu.weight": 174, "cpu.max.burst": 0},
        cpus=1.5,
        cpu_shares=2048,
    )
    check(
        {"cpu.cfs_quota_us": 20000, "cpu.cfs_period_us": 40000, "cpu.shares": 1024, "cpu.cfs_burst_us": 10000},
        {"cpu.max": "20000 40000", "cpu.weight": 100, "cpu.max.burst": 10000},
        cpu_quota=20000,
        cpu_period=40000,
        cpu_burst=10000,
    )
    check({"cpu.idle": 1}, {"cpu.idle": 1}, cpu_idle=True)
    check({"cpu.idle": 0, "cpu.cfs_quota_us": -1}, {"cpu.idle": 0, "cpu.max": "max 100000"}, cpu_shares=1000)


def test_cpuset() -> None:
    expected: dict[str, object] = {"cpuset.cpus": 0, "cpuset.mems": 0}
    check(expected, expected, cpuset_cpus="0", cpuset_mems="0")
    last = os.cpu_count() or 1
    assert sh("grep Cpus_allowed_list /proc/self/status", cpuset_cpus=str(last - 1)).split()[1] == str(last - 1)
    assert sh("nproc", cpuset_cpus="0").strip() == "1"


def test_pids() -> None:
    check({"pids.max": 17}, {"pids.max": 17}, pids=17)
    check({"pids.max": "max"}, {"pids.max": "max"}, pids=-1, memory="64m", cpus=1)


def _disk() -> tuple[str, str]:
    """(node, numbers) of the disk that holds the root file system."""
    number = os.stat("/").st_dev
    for node in Path("/dev").iterdir():
        if node.is_block_device() and node.stat().st_rdev == number:
            return str(node), f"{os.major(number)}:{os.minor(number)}"
    raise AssertionError("no node for the root file system's disk in /dev")


def test_disk_rates() -> None:
    node, numbers = _disk()
    check(
        {
            "blkio.throttle.read_bps_device": f"{numbers} {10 * MIB}",
            "blkio.throttle.write_bps_device": f"{numbers} {MIB}",
            "blkio.throttle.read_iops_device": f"{numbers} 100",
            "blkio.throttle.write_iops_device": f"{numbers} 200",
        },
        {"io.max": f"{numbers} rbps={10 * MIB} wbps={MIB} riops=100 wiops=200"},
        device_read_bps=[f"{node}:10mb"],
        device_write_bps=[f"{node}:1m"],
        device_read_iops=[f"{node}:100"],
        device_write_iops=[f"{node}:200"],
    )


def test_disk_rate_holds(tmp_path: Path) -> None:
    node, _ = _disk()
    assert os.stat(tmp_path).st_dev == os.stat("/").st_dev
    script = "dd if=/dev/zero of=/mnt/file bs=256k count=4 oflag=direct 2>/dev/null"
    began = time.monotonic()
    result = run(script, volumes=[f"{tmp_path}:/mnt"], device_write_bps=[f"{node}:1m"])
    assert result.exit_code == 0
    assert time.monotonic() - began > 0.5  # 1 MiB at 1 MiB a second, less the first slice
    assert result.usage.io_write_bytes is not None
    # And what the file system writes of its own: a transaction with what others have changed may fall to us.
    assert result.usage.io_write_bytes >= MIB


def test_huge_pages_and_weights() -> None:
    if "hugetlb" in OFFERED:
        with start("echo ready; read x", stdin=corten.PIPE, hugetlb=["2MB=64m"]) as container:
            assert line(container) == "ready"
            where = directory(container, "hugetlb")
            found = [path for path in where.glob("hugetlb.2MB.rsvd.*") if path.name.endswith(("max", "limit_in_bytes"))]
            assert [path.read_text().strip() for path in found] == [str(64 * MIB)]
    else:
        assert "hugetlb" in refused("--hugetlb", "2MB=64m", "--rootfs", shared(), "true").stderr
    with start("echo ready; read x", stdin=corten.PIPE, blkio_weight=300) as container:
        assert line(container) == "ready"
        where = directory(container, "io" if V2 else "blkio")
        # 10 to 1000 of v1 are 1 to 10000 of io.weight
        assert {"300", "2930"} & set(" ".join(path.read_text() for path in where.glob("*weight")).split())


# --- what the options that this machine lacks say

LACKING = [
    (["--rdma", "mlx5_0:handles=2"], "rdma"),
    (["--net-class", "0x100001"], "net_cls"),
    (["--net-priority", "lo=5"], "net_prio"),
    (["--cgroup-conf", "memory.nonsense=1"], "memory.nonsense"),
    (["--cpuset-cpus", "999"], "cpuset.cpus"),
    (["--cpuset-mems", "9"], "cpuset.mems"),
]


@pytest.mark.parametrize(("words", "said"), LACKING)
def test_limit_that_cannot_be_applied_names_its_file(words: list[str], said: str) -> None:
    done = refused(*words, "--rootfs", shared(), "true")
    assert done.returncode == 125
    assert said in done.stderr


def test_best_effort_says_what_was_left_out() -> None:
    words = ["--best-effort", "--net-class", "5", "--memory", "64m", "--rootfs", shared(), "--writable", "tmpfs"]
    done = subprocess.run(
        [CORTEN, "run", *words, "echo", "ran"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert (done.returncode, done.stdout) == (0, "ran\n")
    (said,) = done.stderr.splitlines()
    assert said.startswith("corten: not applied: net_cls limits: ")
    result = run("true", best_effort=True, net_class=5, memory="64m")
    assert len(result.not_applied) == 1
    assert result.usage.memory_limit == 64 * MIB


# --- groups in groups


def _limit_memory(path: Path, size: int) -> None:
    (path / ("memory.max" if V2 else "memory.limit_in_bytes")).write_text(str(size))


@pytest.fixture
def parent() -> Iterator[str]:
    """The name of a group at the top of each hierarchy, with a limit of 32 MiB."""
    name = f"corten-nested-{os.getpid()}"
    with start("read x", stdin=corten.PIPE, cgroup_parent=name, memory="64m") as container:
        above = {directory(container, controller).parent for controller in OFFERED if controller.isalpha()}
        memory = directory(container, "memory").parent
        assert memory.name == name
    _limit_memory(memory, 32 * MIB)
    yield name
    # As docker and podman do: a parent that was missing is made, and left.
    for path in above:
        if path.name == name:
            path.rmdir()


def test_group_in_a_group(parent: str) -> None:
    with start("echo ready; read x", stdin=corten.PIPE, cgroup_parent=parent, memory="64m") as container:
        assert line(container) == "ready"
        for controller in ("memory", "pids", "cpu"):
            assert directory(container, controller).parent.name == parent
        # The tightest limit on the way to the root is the one that holds.
        assert container.stats().memory_limit == 32 * MIB


def test_limit_below_what_can_start(parent: str) -> None:
    """The least that the option takes is enough; what is less, from further up, is told as what it is."""
    assert run("true", memory="6m", memory_swap="6m").exit_code == 0
    with start("read x", stdin=corten.PIPE, cgroup_parent=parent, memory="64m") as container:
        above = directory(container, "memory").parent
    if not V2:  # where a limit below what is still cached is refused
        (above / "memory.force_empty").write_text("0")
    _limit_memory(above, 256 << 10)
    done = refused("--memory", "8m", "--cgroup-parent", parent, "--rootfs", shared(), "--writable", "throwaway", "true")
    # What it is not enough for, some step or the exec of the program, is the kernel's business.
    before = "out of memory before the program started" in done.stderr
    assert done.returncode == (125 if before else 137)
    assert "out of memory" in done.stderr


@pytest.mark.parametrize("text", ["../..", "/a/../b", ""])
def test_parent_that_is_none(text: str) -> None:
    done = refused("--cgroup-parent", text, "--rootfs", shared(), "true")
    assert done.returncode == 125


# --- while it runs


def limits(container: corten.Container) -> tuple[str, str, str]:
    """(memory, CPU quota, processes)."""
    quota = control(container, "cpu.max" if V2 else "cpu.cfs_quota_us").split()[0]
    return control(container, "memory.max" if V2 else "memory.limit_in_bytes"), quota, control(container, "pids.max")


def test_update_while_it_runs() -> None:
    with start("echo ready; read x", stdin=corten.PIPE, memory="64m", cpus=1, pids=10) as container:
        assert line(container) == "ready"
        container.update(memory="128m", cpus=0.5, pids=20)
        assert limits(container) == (str(128 * MIB), "50000", "20")
        container.update(memory="200m")  # beyond what memory and swap together were at first
        assert limits(container) == (str(200 * MIB), "50000", "20")
        container.update(memory="32m", memory_reservation="16m")
        assert limits(container) == (str(32 * MIB), "50000", "20")
        assert control(container, "memory.low" if V2 else "memory.soft_limit_in_bytes") == str(16 * MIB)
        container.update(cpus=2)
        assert limits(container) == (str(32 * MIB), "200000", "20")


def test_update_of_swap() -> None:
    with start("echo ready; read x", stdin=corten.PIPE, memory="64m", memory_swap="64m") as container:
        assert line(container) == "ready"
        if not V2:
            with pytest.raises(corten.KernelError, match="swap"):
                container.update(memory="128m")  # what was said of swap is not changed silently
        container.update(memory="128m", memory_swap="256m")
        file = "memory.swap.max" if V2 else "memory.memsw.limit_in_bytes"
        assert control(container, file) == str((128 if V2 else 256) * MIB)


def test_update_of_a_container_without_limits() -> None:
    with start("echo ready; read x", stdin=corten.PIPE) as container:
        assert line(container) == "ready"
        container.update(memory="64m", pids=5)
        assert container.stats().memory_limit == 64 * MIB
        assert control(container, "pids.max") == "5"


def test_update_below_what_is_in_use() -> None:
    fill = "dd if=/dev/zero of=/dev/shm/x bs=1M count=40 2>/dev/null; echo full; read x"
    with start(fill, stdin=corten.PIPE, memory="100m", memory_swap="100m") as container:
        assert line(container) == "full"
        if not V2:  # v2 would kill the container instead
            with pytest.raises(corten.KernelError, match=r"memory\.limit_in_bytes"):
                container.update(memory="10m")
        assert container.running()
        assert container.stats().memory_limit == 100 * MIB


def test_update_that_makes_no_sense() -> None:
    with start("read x", stdin=corten.PIPE) as container:
        for wrong in ({"memory": "1k"}, {"memory": "lots"}, {"cpus": -1}, {"pids": "x"}):
            with pytest.raises(corten.InvalidInput):
                container.update(**wrong)


def test_stats() -> None:
    fill = "dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null; sleep 1000 & echo full; read x"
    with start(fill, stdin=corten.PIPE, memory="100m", pids=10) as container:
        assert line(container) == "full"
        now = container.stats()
    assert now.memory_now is not None
    assert 20 * MIB <= now.memory_now < 60 * MIB
    assert now.memory_peak is not None
    assert now.memory_peak >= now.memory_now
    assert now.pids_now == 3  # init, shell, sleep
    assert now.memory_limit == 100 * MIB
    assert now.cpu_seconds is not None
    assert 0 < now.cpu_seconds < 10


# --- that they hold, and how the end is told


def test_memory_limit_holds() -> None:
    result = run("dd if=/dev/zero of=/dev/shm/x bs=1M count=100", memory="50m", memory_swap="50m", shm_size="200m")
    assert (result.oom_killed, result.exit_code, result.usage.memory_limit) == (True, 137, 50 * MIB)
    # The memory is nobody's own, so which process the kernel picks is not ours to say.
    assert "out of memory (limit 50 MiB, peak 50 MiB" in result.reason


def test_memory_limit_of_the_program_itself() -> None:
    result = corten.run("host", ["python3", "-c", "x = bytearray(200 << 20)"], memory="50m", memory_swap="50m")
    assert (result.oom_killed, result.exit_code, result.signal) == (True, 137, 9)
    assert result.reason == "killed: out of memory (limit 50 MiB, peak 50 MiB, in python3 pid 2)"


def test_process_limit_holds() -> None:
    script = "i=0; while [ $i -lt 20 ]; do sleep 1000 & i=$((i + 1)); done; exit 3"
    result = run(script, pids=8)
    assert result.exit_code != 0
    assert "the process limit (8) refused a new process" in result.reason
    assert result.usage.pids_peak == 8


def test_cpu_limit_holds() -> None:
    spin = "import time\nwhile time.process_time() < 0.12: pass"
    result = corten.run("host", ["python3", "-c", spin], cpus=0.1)
    assert result.exit_code == 0
    assert result.usage.cpu_seconds >= 0.12
    assert result.duration > 0.7  # 1.2 s less the first period
    assert result.usage.throttled_seconds is not None
    assert result.usage.throttled_seconds > 0.1


# --- devices


def test_device_only_when_it_was_given() -> None:
    node = os.stat("/dev/fuse")
    made = f"mknod /tmp/fuse c {os.major(node.st_rdev)} {os.minor(node.st_rdev)} && : </tmp/fuse"
    assert "Operation not permitted" in str(run(made, cap_add=["MKNOD"]).stderr)
    assert run(": </dev/fuse").exit_code != 0
    assert sh(": </dev/fuse; stat -c '%F %t' /dev/fuse", devices=["/dev/fuse"]).strip() == "character special file a"
    assert sh(": </dev/other", devices=["/dev/fuse:/dev/other"]) == ""
    rule = f"c {os.major(node.st_rdev)}:{os.minor(node.st_rdev)} rw"
    assert sh(made, cap_add=["MKNOD"], device_cgroup_rules=[rule]) == ""


def test_access_to_a_device() -> None:
    assert run(": <>/dev/fuse", devices=["/dev/fuse:r"]).exit_code != 0
    assert run(": </dev/fuse", devices=["/dev/fuse:r"]).exit_code == 0
    assert run(": <>/dev/fuse", devices=["/dev/fuse:rw"]).exit_code == 0


def test_the_hosts_disk_is_out_of_reach() -> None:
    numbers = os.stat("/").st_dev
    script = f"mknod /tmp/disk b {os.major(numbers)} {os.minor(numbers)} && dd if=/tmp/disk of=/dev/null count=1"
    assert "Operation not permitted" in str(run(script, cap_add=["MKNOD"]).stderr)


def test_device_list_of_the_group() -> None:
    if V2:
        return  # there it is a program: tests/system/test_cgroup.py
    with start("echo ready; read x", stdin=corten.PIPE) as container:
        assert line(container) == "ready"
        rows = set(control(container, "devices.list").splitlines())
    assert "a *:* rwm" not in rows
    assert {"c *:* m", "b *:* m", "c 1:3 rwm", "c 5:0 rwm", "c 136:* rwm"} <= rows


@pytest.mark.parametrize("timeout", ["30d", "99999999999d"])
def test_a_timeout_longer_than_poll_can_wait(timeout: str) -> None:
    assert run("true", timeout=timeout).exit_code == 0
    words = [CORTEN, "run", "--timeout", timeout, "--writable", "throwaway", "--rootfs", shared(), "true"]
    assert subprocess.run(words, timeout=60, check=False).returncode == 0


def test_a_parent_that_somebody_has_only_made() -> None:
    """A new v1 cpuset is empty, and so would be all below it."""
    name = f"corten-parent-{os.getpid()}"
    tops = [Path(hierarchy.directory("/")) for hierarchy in HERE.hierarchies if hierarchy.version == 1]
    tops = [top / name for top in tops if (top / "cpuset.cpus").exists()]
    for top in tops:
        top.mkdir()
    try:
        assert run("true", cgroup_parent=f"/{name}").exit_code == 0
    finally:
        for hierarchy in HERE.hierarchies:
            made = Path(hierarchy.directory("/")) / name
            if made.exists():
                made.rmdir()
