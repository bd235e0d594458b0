"""Control groups on the kernel of this machine, whatever its layout."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from corten.errors import InvalidInput, KernelError, NameInUse, Unsupported
from corten.linux.cgroup import directories, ending, events, files, group, layout, limits, pressure, resources, usage
from corten.linux.cgroup.devices import attach, attached
from corten.linux.cgroup.files import Write
from corten.linux.cgroup.group import Group
from corten.linux.cgroup.layout import Layout
from corten.linux.cgroup.resources import Cpu, Device, Memory, Pids, Resources
from corten.runtime import defaults

MIB = 1 << 20
NEED = {"memory", "cpu", "pids", "cpuset", "io", "devices", "freezer"}


@pytest.fixture(scope="module")
def here() -> Layout:
    return layout.detect()


@pytest.fixture
def made(here: Layout, request: pytest.FixtureRequest) -> Iterator[Group]:
    own = group.place(here, f"corten-test-{os.getpid()}", need=NEED)
    own.create()
    try:
        yield own
    finally:
        own.kill()
        own.remove()
        assert not any(os.path.exists(part.path) for part in own.dirs)


class Inside:
    """A process in a group: runs `work` after it has joined; `end` gives its exit status."""

    def __init__(self, own: Group, work: Callable[[], int | None]) -> None:
        ready, go = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                os.close(ready)
                own.join()
                os.write(go, b"1")
                status = work() or 0
            finally:
                os._exit(status)
        os.close(go)
        assert os.read(ready, 1) == b"1"
        os.close(ready)
        self.waited = False

    def end(self) -> int:
        self.waited = True
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def pause() -> None:
    while True:
        select.select([], [], [], 60)


def put(own: Group, wanted: Resources, now: resources.Now | None = None) -> None:
    for write in resources.writes(wanted, own, now):
        own.apply(write)


def held(own: Group, controller: str, v1: str, v2: str) -> str:
    name = v1 if own.version(controller) == 1 else v2
    return files.require(f"{own.directory(controller)}/{name}").strip()


# --- making, joining, removing


def test_a_group_is_made_in_each_hierarchy_joined_and_removed(made: Group, here: Layout) -> None:
    with pytest.raises(NameInUse, match="exists already"):
        made.create()
    child = Inside(made, pause)
    text = files.require(f"/proc/{child.pid}/cgroup")
    assert text.count(f"/corten-test-{os.getpid()}\n") == len(made.dirs)
    assert made.procs() == (child.pid,)
    made.kill()
    assert child.end() == -9
    assert set(group.left_out(here, made)) <= {"net_cls", "net_prio", "hugetlb", "rdma", "misc", "perf_event", "dmem"}


def test_clone_into_the_v2_group(made: Group) -> None:
    fd = made.open_v2()
    assert fd is not None
    try:
        assert os.path.samestat(os.fstat(fd), os.stat(made.directory("cgroup") or ""))
    finally:
        os.close(fd)


def test_remove_takes_nested_groups_but_not_the_living(here: Layout) -> None:
    own = group.place(here, f"corten-nest-{os.getpid()}")
    own.create()
    for part in own.dirs:
        os.makedirs(f"{part.path}/a/b")
    child = Inside(own, pause)
    try:
        with pytest.raises(KernelError, match=rf"pid {child.pid}\) still in it"):
            own.remove(timeout=0.01)
        assert own.procs() == (child.pid,)
    finally:
        own.kill()
        own.remove()  # before the process has been waited for: it is dying or a zombie
        child.end()
    assert not any(os.path.exists(part.path) for part in own.dirs)
    own.remove()
    assert own.procs() == ()
    own.kill()


def test_a_group_that_fails_leaves_nothing(here: Layout) -> None:
    own = group.place(here, f"corten-half-{os.getpid()}")
    last = own.dirs[-1].path
    os.mkdir(last)
    try:
        with pytest.raises(NameInUse, match=last):
            own.create()
        assert [part.path for part in own.dirs if os.path.exists(part.path)] == [last]
    finally:
        os.rmdir(last)


def test_below_a_parent_by_path(here: Layout) -> None:
    # beside our own group's children, because the roots of the hierarchies need not be ours
    top = group.place(here, f"corten-top-{os.getpid()}")
    memory = next(part for part in here.hierarchies if "memory" in part.controllers)
    path = (top.directory("memory") or "")[len(memory.mount) :]
    only = Layout(here.kind, (memory,))
    own = group.place(only, "leaf", parent=f"{path}/slice", need={"memory"})
    assert own.directory("memory") == f"{memory.mount}{path}/slice/leaf"
    own.create()
    try:
        own.apply(resources.writes(Resources(memory=Memory(limit=64 * MIB)), own)[0])
        assert limits.effective(own, "memory") == 64 * MIB
    finally:
        own.remove()
        os.rmdir(f"{memory.mount}{path}/slice")
        os.rmdir(f"{memory.mount}{path}")


@pytest.mark.parametrize("version", [1, 2])
def test_kill_without_cgroup_kill(here: Layout, version: int) -> None:
    """The path of kernels and layouts without `cgroup.kill`, by each freezer: a fork bomb held by the process limit."""
    if here.kind == "v2" and version == 1:
        return
    own = group.place(here, f"corten-bomb-{os.getpid()}", need={"pids", "freezer"})
    own.create()
    try:
        put(own, Resources(pids=Pids(30)))
        told, tell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

        def bomb() -> None:
            while True:
                try:
                    os.fork()
                except OSError:
                    if not refused:
                        refused.append(os.write(tell, b"1"))
                    os.sched_yield()

        refused: list[int] = []
        child = Inside(own, bomb)
        assert select.select([told], [], [], 20)[0] == [told]
        ending.kill_each(own if version == 2 else Group(tuple(part for part in own.dirs if part.version == 1)), 20)
        assert child.end() == -9
        os.close(told)
        os.close(tell)
        assert own.procs() == ()
        assert (events.hits(own).pids or 0) > 0
    finally:
        own.kill()
        own.remove()


def test_freeze_and_thaw(made: Group) -> None:
    told, tell = os.pipe()

    def count() -> None:
        while True:
            os.write(tell, b".")
            os.sched_yield()

    child = Inside(made, count)
    os.close(tell)
    os.set_blocking(told, False)
    made.freeze()
    try:
        while True:  # what was written before it stood still
            os.read(told, 65536)
    except BlockingIOError:
        pass
    assert select.select([told], [], [], 0.05)[0] == []
    made.thaw()
    assert select.select([told], [], [], 10)[0] == [told]
    made.freeze()
    made.kill()  # a frozen group dies too
    assert child.end() == -9
    os.close(told)


# --- limits


def test_limits_are_written_and_read_back(made: Group) -> None:
    put(
        made,
        Resources(
            memory=Memory(limit=100_000_000, swap=200_000_000, reservation=50_000_000),
            cpu=Cpu(shares=512, quota=50_000, period=100_000, burst=10_000, cpus="0", mems="0"),
            pids=Pids(20),
        ),
    )
    page = os.sysconf("SC_PAGE_SIZE")
    assert int(held(made, "memory", "memory.limit_in_bytes", "memory.max")) == 100_000_000 // page * page
    assert held(made, "cpu", "cpu.cfs_quota_us", "cpu.max") in ("50000", "50000 100000")
    assert held(made, "cpu", "cpu.shares", "cpu.weight") in ("512", "59")
    assert held(made, "cpuset", "cpuset.cpus", "cpuset.cpus") == "0"
    assert held(made, "pids", "pids.max", "pids.max") == "20"
    assert limits.effective(made, "pids") == 20
    assert limits.effective(made, "cpu") == 0.5
    assert limits.cpus(made) == "0"


@pytest.mark.parametrize(
    ("limit", "swap", "period", "quota"), [(400, 800, 200_000, 180_000), (50, 60, 10_000, 1_000), (-1, -1, 50_000, -1)]
)
def test_limits_are_raised_and_lowered(made: Group, limit: int, swap: int, period: int, quota: int) -> None:
    first = Resources(
        memory=Memory(limit=100 * MIB, swap=200 * MIB), cpu=Cpu(quota=50_000, period=100_000, burst=5_000)
    )
    put(made, first)
    scaled = Memory(limit=limit * MIB, swap=swap * MIB) if limit > 0 else Memory(limit=-1)
    put(made, Resources(memory=scaled, cpu=Cpu(quota=quota, period=period, burst=500)), resources.now(made))
    assert resources.now(made).cpu_period == period
    assert resources.now(made).cpu_quota == (quota if quota > 0 else None)


def test_a_value_that_the_kernel_changes_is_an_error(made: Group) -> None:
    with pytest.raises(KernelError, match=r"pids\.max: wanted 21, the kernel holds 20"):
        made.apply(Write("pids", "pids.max", "20", "21"))


def test_a_value_that_the_kernel_refuses_is_an_error(made: Group) -> None:
    with pytest.raises(KernelError, match=r"write 1 to .*Invalid argument \(EINVAL\)") as caught:
        put(made, Resources(cpu=Cpu(quota=1)))
    assert caught.value.errno == errno.EINVAL


def test_a_cpu_that_is_not_there_is_an_error(made: Group) -> None:
    with pytest.raises(KernelError, match=r"write 7000 to .*cpuset\.cpus"):
        put(made, Resources(cpu=Cpu(cpus="7000")))


def test_a_file_that_this_kernel_lacks_is_named(made: Group) -> None:
    with pytest.raises(Unsupported, match=r"linux\.resources\.x: this kernel has no .*/memory\.nothing"):
        made.apply(Write("memory", "memory.nothing", "1", "1", "linux.resources.x"))
    made.apply(Write("pids", "pids.nothing", "1", "1", otherwise=Write("pids", "pids.max", "9", "9")))
    assert limits.effective(made, "pids") == 9


def test_a_limit_below_what_is_in_use(made: Group) -> None:
    def hold() -> None:
        block = mmap.mmap(-1, 20 * MIB)
        block.write(b"x" * 20 * MIB)
        os.write(tell, b"1")
        pause()

    told, tell = os.pipe()
    child = Inside(made, hold)
    assert os.read(told, 1) == b"1"
    with pytest.raises(InvalidInput, match=r"memory\.limit: 4194304 bytes is below the \d+ bytes in use"):
        put(made, Resources(memory=Memory(limit=4 * MIB, check_before_update=True)))
    assert limits.effective(made, "memory") is None or (limits.effective(made, "memory") or 0) > 4 * MIB
    account = usage.read(made)
    assert (account.memory_now or 0) >= 20 * MIB
    assert (account.memory_working_set or 0) >= 20 * MIB
    assert account.pids_now == 1
    made.kill()
    child.end()
    os.close(told)
    os.close(tell)


def test_the_tightest_limit_on_the_way_up_holds(made: Group) -> None:
    put(made, Resources(memory=Memory(limit=50 * MIB), pids=Pids(10), cpu=Cpu(quota=150_000, period=100_000)))
    if made.version("memory") == 2:
        directories.enable(made.directory("memory") or "", ("memory", "pids", "cpu"))
    inner = Group(tuple(part.replace(path=f"{part.path}/inner", enable=()) for part in made.dirs))
    inner.create()
    assert limits.effective(inner, "memory") == 50 * MIB
    put(inner, Resources(memory=Memory(limit=80 * MIB), pids=Pids(5)))
    assert limits.effective(inner, "memory") == 50 * MIB
    assert limits.effective(inner, "pids") == 5
    assert limits.effective(inner, "cpu") == 1.5
    assert usage.read(inner).memory_limit == 50 * MIB


# --- devices


def opens(path: str, flags: int) -> Callable[[], int]:
    def work() -> int:
        try:
            os.close(os.open(path, flags))
        except OSError as error:
            return error.errno or 99
        return 0

    return work


def test_devices(made: Group) -> None:
    null, zero = Device(True, "c", 1, 3, "rw"), Device(True, "c", 1, 5, "r")
    made.apply_devices(Resources(devices=(Device(False), null, zero)))
    assert Inside(made, opens("/dev/null", os.O_RDWR)).end() == 0
    assert Inside(made, opens("/dev/zero", os.O_RDONLY)).end() == 0
    assert Inside(made, opens("/dev/zero", os.O_WRONLY)).end() == errno.EPERM
    assert Inside(made, opens("/dev/full", os.O_RDONLY)).end() == errno.EPERM
    # an update: null is taken away, full is given
    made.apply_devices(Resources(devices=(Device(False), Device(True, "c", 1, 7, "rwm"), zero)))
    assert Inside(made, opens("/dev/null", os.O_RDWR)).end() == errno.EPERM
    assert Inside(made, opens("/dev/full", os.O_RDWR)).end() == 0
    # all but one
    made.apply_devices(Resources(devices=(Device(True), Device(False, "c", 1, 5, "w"))))
    assert Inside(made, opens("/dev/zero", os.O_RDWR)).end() == errno.EPERM
    assert Inside(made, opens("/dev/zero", os.O_RDONLY)).end() == 0
    assert Inside(made, opens("/dev/null", os.O_RDWR)).end() == 0


def test_the_device_program_of_v2(here: Layout) -> None:
    """On a hybrid machine too: the v2 tree takes programs."""
    only = Layout("v2", tuple(part for part in here.hierarchies if part.version == 2))
    own = group.place(only, f"corten-bpf-{os.getpid()}", need={"devices"})
    own.create()
    try:
        for allowed in ((1, 5), (1, 7)):
            own.apply_devices(Resources(devices=(Device(False), Device(True, "c", *allowed, "r"))))
            fd = own.open_v2()
            assert fd is not None
            assert len(attached(fd)) == 1
            os.close(fd)
        assert Inside(own, opens("/dev/full", os.O_RDONLY)).end() == 0
        assert Inside(own, opens("/dev/full", os.O_WRONLY)).end() == errno.EPERM
        assert Inside(own, opens("/dev/zero", os.O_RDONLY)).end() == errno.EPERM
        with pytest.raises(InvalidInput):
            own.apply_devices(Resources(devices=(Device(True, "z"),)))
        # What the kernel logs of this one does not fit into 4096 bytes: that must not be why it is refused.
        many = (Device(True, "c", 200 + number, 1, "r") for number in range(100))
        own.apply_devices(Resources(devices=(*defaults.DEVICE_RULES, *many, Device(True, "c", 1, 7, "rw"))))
        assert Inside(own, opens("/dev/full", os.O_WRONLY)).end() == 0
        with pytest.raises(KernelError, match=r"load device rules for .*EINVAL.*: ."):
            attach(own.dirs[0].path, bytes.fromhex("ff" + "00" * 7))  # no instruction
    finally:
        own.kill()
        own.remove()


# --- what it used, what happened to it


def test_usage_counts_cpu_and_throttling(made: Group) -> None:
    put(made, Resources(cpu=Cpu(quota=10_000, period=100_000)))

    def burn() -> None:
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass

    assert Inside(made, burn).end() == 0
    account = usage.read(made)
    assert 0.05 <= (account.cpu_seconds or 0) < 1
    assert (account.user_seconds or 0) + (account.system_seconds or 0) == pytest.approx(account.cpu_seconds, rel=0.2)
    assert (account.throttled_periods or 0) >= 3
    assert (account.throttled_seconds or 0) > 0.1
    assert account.pids_now == 0
    assert account.pids_peak == 1
    assert account.swap == 0
    assert None not in (account.io_read_bytes, account.io_write_bytes, account.io_read_ops, account.io_write_ops)


def allocate() -> None:
    block = mmap.mmap(-1, 64 * MIB)
    for _ in range(64):
        block.write(b"x" * MIB)


def test_out_of_memory_is_counted_and_wakes_the_watch(made: Group) -> None:
    put(made, Resources(memory=Memory(limit=16 * MIB, swap=16 * MIB)))
    assert (events.oom(made).oom_kill, events.oom(made).limit_hits) == (0, 0)
    with events.OomWatch(made) as watch:
        assert select.select([watch], [], [], 0)[0] == []
        assert Inside(made, allocate).end() == -9
        assert select.select([watch], [], [], 10)[0] == [watch]
        watch.clear()
        assert select.select([watch], [], [], 0)[0] == []
    watch.close()
    with pytest.raises(ValueError, match="closed"):
        watch.fileno()
    found = events.oom(made)
    assert found.oom_kill == 1
    assert found.own_limit
    assert found.limit_hits != 0
    assert found.oom is None if made.version("memory") == 1 else (found.oom or 0) > 0
    assert 15 * MIB < (usage.read(made).memory_peak or 0) <= 16 * MIB


def test_out_of_memory_in_a_nested_group_is_counted(made: Group) -> None:
    if made.version("memory") == 2:
        directories.enable(made.directory("memory") or "", ("memory",))
    inner = Group(tuple(part.replace(path=f"{part.path}/inner", enable=()) for part in made.dirs))
    inner.create()
    put(inner, Resources(memory=Memory(limit=16 * MIB, swap=16 * MIB)))
    assert Inside(inner, allocate).end() == -9
    assert events.oom(made).oom_kill == 1
    assert events.oom(made).limit_hits == 0
    assert not events.oom(made).own_limit
    assert events.oom(inner).own_limit


def test_the_process_limit_is_counted(made: Group) -> None:
    put(made, Resources(pids=Pids(1)))

    def fork() -> int:
        try:
            os.fork()
        except BlockingIOError:
            return 11
        return 0

    assert Inside(made, fork).end() == 11
    assert events.hits(made).pids == 1


def test_pressure(made: Group) -> None:
    assert Inside(made, allocate).end() == 0
    found = pressure.read(made)
    assert set(found) == {"cpu", "memory", "io"}
    assert found["memory"].some_total_us >= 0
    assert found["memory"].full_avg10 is not None


# --- threads, and the layout itself


def test_only_the_calling_thread_joins_on_v1(made: Group, here: Layout) -> None:
    if here.kind == "v2":
        return
    only = Group(tuple(part for part in made.dirs if part.version == 1))
    seen: list[str] = []

    def enter() -> None:
        only.join()
        seen.append(files.require("/proc/thread-self/cgroup"))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen[0].count("corten-test") == len(only.dirs)
    assert "corten-test" not in files.require("/proc/self/cgroup")


def test_detection_is_done_once_for_each_process() -> None:
    assert layout.detect() is layout.detect()


def test_a_user_without_a_group_is_told_what_to_do(here: Layout) -> None:
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).setresuid(65534, 65534, 65534)
        try:
            placed = group.place(here, "x")
            group.place(here, "x", need={"memory"})
        except Unsupported as error:
            os.write(tell, f"{len(placed.dirs)} {error}".encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(tell)
    text = os.read(told, 1000).decode()
    os.close(told)
    assert text.startswith("0 no control group for memory: ")
    assert ("systemd-run --user" if here.kind == "v2" else "run as root, or have root make a group") in text
