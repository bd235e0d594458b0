"""What only pure cgroup v2 shows. Run in the virtual machine by test_cgroup_v2.py."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from corten.errors import KernelError
from corten.linux.cgroup import directories, files, group, layout, limits, resources, usage
from corten.linux.cgroup.group import Group
from corten.linux.cgroup.resources import (
    BlockIO,
    Cpu,
    HugepageLimit,
    Memory,
    Pids,
    Resources,
    ThrottleDevice,
)

MIB = 1 << 20


def put(own: Group, wanted: Resources) -> None:
    for write in resources.writes(wanted, own):
        own.apply(write)


@pytest.fixture
def made() -> Iterator[Group]:
    need = {"memory", "cpu", "pids", "cpuset", "io", "hugetlb"}
    own = group.place(layout.detect(), "corten-inside", need=need)
    own.create()
    yield own
    own.kill()
    own.remove()


def test_a_group_goes_beside_our_leaf_because_the_leaf_has_processes(made: Group) -> None:
    here = layout.detect()
    assert here.kind == "v2"
    (tree,) = here.hierarchies
    assert tree.own != "/"
    (part,) = made.dirs
    assert part.path == tree.directory(os.path.dirname(tree.own)) + "/corten-inside"
    assert files.require(f"{part.path}/cgroup.controllers").split() == list(part.controllers)


def test_a_parent_that_is_not_there_is_made_with_the_controllers() -> None:
    (tree,) = layout.detect().hierarchies
    own = group.place(layout.detect(), "leaf", parent="/corten-a/b", need={"memory", "cpuset"})
    own.create()
    try:
        put(own, Resources(memory=Memory(limit=50 * MIB), cpu=Cpu(cpus="0"), pids=Pids(7)))
        assert limits.effective(own, "memory") == 50 * MIB
        assert limits.cpus(own) == "0"
    finally:
        own.remove()
        os.rmdir(f"{tree.mount}/corten-a/b")
        os.rmdir(f"{tree.mount}/corten-a")


def test_cpus_that_v2_takes_and_does_not_give_are_an_error(made: Group) -> None:
    put(made, Resources(cpu=Cpu(cpus="0")))
    (part,) = made.dirs
    directories.enable(part.path, ("cpuset",))
    inner = Group((part.replace(path=f"{part.path}/inner"),))
    inner.create()
    with pytest.raises(KernelError, match=r"cpuset\.cpus\.effective .*: wanted 0-1, the kernel holds 0"):
        put(inner, Resources(cpu=Cpu(cpus="0-1")))


def test_all_the_rest(made: Group) -> None:
    put(
        made,
        Resources(
            memory=Memory(limit=-1, reservation=10 * MIB),
            cpu=Cpu(shares=1024, period=50_000),
            block_io=BlockIO(weight=500),
            hugepage_limits=(HugepageLimit("2MB", 5 * MIB),),
            unified={"memory.high": "20M", "pids.max": "77", "memory.oom.group": "1"},
        ),
    )
    (part,) = made.dirs
    assert files.require(f"{part.path}/memory.high").strip() == str(20 * MIB)
    assert files.require(f"{part.path}/hugetlb.2MB.rsvd.max").strip() == str(4 * MIB)
    assert files.require(f"{part.path}/cpu.weight").strip() == "100"


def test_a_disk_that_is_not_there(made: Group) -> None:
    with pytest.raises(
        KernelError, match=r"write 250:250 rbps=1024 to .*io\.max: No such device \(ENODEV\): no such block"
    ):
        put(made, Resources(block_io=BlockIO(throttle_read_bps_device=(ThrottleDevice(250, 250, 1024),))))


def test_the_account_of_an_empty_group(made: Group) -> None:
    account = usage.read(made)
    assert account.cpu_seconds == 0
    assert account.memory_peak is not None
    assert account.io_read_bytes == 0
