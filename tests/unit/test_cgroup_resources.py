"""OCI resources as control file writes."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.errors import InvalidInput, Unsupported
from corten.linux.cgroup import convert
from corten.linux.cgroup.files import Write, agrees
from corten.linux.cgroup.group import Group, GroupDir
from corten.linux.cgroup.resources import (
    BlockIO,
    Cpu,
    Device,
    HugepageLimit,
    Memory,
    Network,
    Now,
    Pids,
    Priority,
    Rdma,
    Resources,
    ThrottleDevice,
    WeightDevice,
    needs,
    writes,
)

V1_NAMES = ("memory", "cpu", "cpuset", "pids", "blkio", "hugetlb", "rdma", "net_cls", "net_prio", "devices")
V1 = Group(tuple(GroupDir(1, (name,), f"/v1/{name}/x") for name in V1_NAMES))
V2 = Group((GroupDir(2, ("memory", "cpu", "cpuset", "pids", "io", "hugetlb", "rdma"), "/v2/x"),))
MIB = 1 << 20


def lines(resources: Resources, where: Group, now: Now | None = None) -> list[tuple[str, str]]:
    return [(write.file, write.value) for write in writes(resources, where, now)]


# --- numbers


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 100), (262144, 10000), (512, 59), (2048, 174)])
def test_shares_to_weight_as_the_oci_runtimes(shares: int, weight: int) -> None:
    assert convert.weight_of_shares(shares) == weight


@given(st.integers(2, 262143))
def test_more_shares_never_weigh_less(shares: int) -> None:
    less, more = convert.weight_of_shares(shares), convert.weight_of_shares(shares + 1)
    assert 1 <= less <= more <= 10000


@given(st.integers(10, 1000))
def test_io_weight_is_in_range(weight: int) -> None:
    assert 1 <= convert.io_weight(weight, "w") <= 10000


def test_io_weight_ends() -> None:
    assert (convert.io_weight(10, "w"), convert.io_weight(1000, "w")) == (1, 10000)


@given(st.sets(st.integers(0, 200), min_size=1))
def test_a_cpu_list_in_any_order_is_shown_sorted_and_merged(cpus: set[int]) -> None:
    shown = convert.cpu_list(",".join(map(str, cpus)), "f")
    back: set[int] = set()
    ends = [-2]
    for run in shown.split(","):
        low, _, high = run.partition("-")
        assert int(low) > ends[-1] + 1
        ends.append(int(high or low))
        back.update(range(int(low), ends[-1] + 1))
    assert back == cpus
    assert convert.cpu_list(shown, "f") == shown


@pytest.mark.parametrize("text", ["", "a", "3-1", "1-", "-1", "1,,2", "0-9999999"])
def test_not_a_cpu_list(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"cpu\.cpus"):
        convert.cpu_list(text, "cpu.cpus")


@given(st.integers(0, 1 << 63))
def test_pages_round_down(value: int) -> None:
    kept = convert.rounded(value)
    assert kept <= value
    assert kept % convert.PAGE == 0
    assert value - kept < convert.PAGE or value >= (1 << 63) - 1


@given(st.integers(1, 1 << 50), st.integers(0, 1 << 50))
def test_swap_is_what_is_above_memory(limit: int, more: int) -> None:
    assert convert.swap_v2(limit, limit + more) == more


@pytest.mark.parametrize(
    ("limit", "swap", "expected"),
    [(-1, None, -1), (-1, 0, -1), (100, -1, -1), (100, None, None), (None, -1, -1), (-1, 5, 5)],
)
def test_swap_special_cases(limit: int | None, swap: int | None, expected: int | None) -> None:
    assert convert.swap_v2(limit, swap) == expected


@pytest.mark.parametrize(("limit", "swap"), [(None, 5), (100, 50)])
def test_swap_that_makes_no_sense(limit: int | None, swap: int) -> None:
    with pytest.raises(InvalidInput, match=r"memory\.swap"):
        convert.swap_v2(limit, swap)


@pytest.mark.parametrize(
    ("text", "expect", "good"),
    [
        ("100\n", "100", True),
        ("1000\n", "100", False),
        ("100 50\n", "100", False),
        ("100 50\n", "100 ", True),
        ("max 100000\n", "50 ", False),
        ("8:0 rbps=1 wbps=max riops=max wiops=2\n", "8:0 rbps=1 wiops=2", True),
        ("8:0 rbps=10 wbps=max riops=max wiops=2\n", "8:0 rbps=1 wiops=2", False),
        ("8:1 rbps=1\n", "8:0 rbps=1", False),
        ("oom_kill_disable 1\nunder_oom 0\n", "oom_kill_disable 1", True),
        ("8:0 5\n", "!8:0", False),
        ("8:1 5\n", "!8:0", True),
        ("", "!8:0", True),
        ("anything", "", True),
        ("", "1", False),
    ],
)
def test_agrees(text: str, expect: str, good: bool) -> None:
    assert agrees(text, expect) is good


# --- v1 and v2 side by side


def test_memory() -> None:
    wanted = Resources(memory=Memory(limit=100 * MIB + 1, swap=150 * MIB, reservation=50 * MIB))
    assert writes(wanted, V1)[:2] == (
        Write("memory", "memory.limit_in_bytes", "104857601", "104857600", "linux.resources.memory.limit"),
        Write("memory", "memory.memsw.limit_in_bytes", "157286400", "157286400", "linux.resources.memory.swap"),
    )
    assert lines(wanted, V1)[2:] == [("memory.soft_limit_in_bytes", "52428800")]
    assert lines(wanted, V2) == [
        ("memory.max", "104857601"),
        ("memory.swap.max", str(50 * MIB - 1)),
        ("memory.low", "52428800"),
    ]


def test_unlimited_memory() -> None:
    wanted = Resources(memory=Memory(limit=-1))
    assert [(w.file, w.value, w.expect) for w in writes(wanted, V2)] == [
        ("memory.max", "max", "max"),
        ("memory.swap.max", "max", "max"),
    ]
    assert writes(wanted, V1)[0].expect == str(((1 << 63) - 1) // convert.PAGE * convert.PAGE)
    # an update must lift the limit with swap first
    assert lines(wanted, V1, Now(memory_swap=MIB)) == [
        ("memory.memsw.limit_in_bytes", "-1"),
        ("memory.limit_in_bytes", "-1"),
    ]


@given(st.integers(1, 99), st.integers(0, 99), st.integers(1, 99), st.integers(0, 99))
def test_v1_memory_stays_below_memory_with_swap_at_every_step(limit: int, more: int, old: int, old_more: int) -> None:
    wanted = Resources(memory=Memory(limit=limit, swap=limit + more))
    held = {"memory.limit_in_bytes": old, "memory.memsw.limit_in_bytes": old + old_more}
    for file, value in lines(wanted, V1, Now(memory_swap=old + old_more)):
        held[file] = int(value)
        assert held["memory.limit_in_bytes"] <= held["memory.memsw.limit_in_bytes"]
    assert list(held.values()) == [limit, limit + more]


@given(st.integers(1, 99), st.integers(1, 99), st.integers(1, 99), st.integers(1, 99))
def test_v1_quota_and_period_never_ask_for_more_than_before_or_after(q: int, p: int, old_q: int, old_p: int) -> None:
    held = {"cpu.cfs_quota_us": old_q, "cpu.cfs_period_us": old_p}
    for file, value in lines(Resources(cpu=Cpu(quota=q, period=p)), V1, Now(cpu_quota=old_q, cpu_period=old_p)):
        held[file] = int(value)
        assert held["cpu.cfs_quota_us"] / held["cpu.cfs_period_us"] <= max(q / p, old_q / old_p)
    assert list(held.values()) == [q, p]


def test_cpu() -> None:
    wanted = Resources(cpu=Cpu(shares=1024, quota=50000, period=100000, burst=1000, cpus="1,0", mems="0", idle=1))
    assert lines(wanted, V1) == [
        ("cpu.shares", "1024"),
        ("cpu.idle", "1"),
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "50000"),
        ("cpu.cfs_burst_us", "1000"),
        ("cpuset.cpus", "1,0"),
        ("cpuset.mems", "0"),
    ]
    found = writes(wanted, V2)
    assert [(w.file, w.value) for w in found] == [
        ("cpu.weight", "100"),
        ("cpu.idle", "1"),
        ("cpu.max", "50000 100000"),
        ("cpu.max.burst", "1000"),
        ("cpuset.cpus", "1,0"),
        ("cpuset.mems", "0"),
    ]
    assert (found[4].expect, found[4].read_from) == ("0-1", "cpuset.cpus.effective")


def test_no_more_idle_comes_before_the_shares() -> None:
    wanted = Resources(cpu=Cpu(shares=1024, idle=0))
    assert [file for file, _ in lines(wanted, V1)] == ["cpu.idle", "cpu.shares"]
    assert [file for file, _ in lines(wanted, V2)] == ["cpu.idle", "cpu.weight"]


def test_a_lower_burst_comes_before_the_lower_quota() -> None:
    wanted = Resources(cpu=Cpu(quota=1000, burst=500))
    assert [file for file, _ in lines(wanted, V1, Now(cpu_burst=2000))] == ["cpu.cfs_burst_us", "cpu.cfs_quota_us"]
    assert [file for file, _ in lines(wanted, V2, Now(cpu_burst=2000))] == ["cpu.max.burst", "cpu.max"]


def test_a_new_period_keeps_the_quota_on_v2() -> None:
    wanted = Resources(cpu=Cpu(period=50000))
    assert lines(wanted, V2, Now(cpu_quota=7000)) == [("cpu.max", "7000 50000")]
    assert lines(wanted, V2) == [("cpu.max", "max 50000")]


def test_pids() -> None:
    for where in (V1, V2):
        assert lines(Resources(pids=Pids(20)), where) == [("pids.max", "20")]
        assert lines(Resources(pids=Pids(-1)), where) == [("pids.max", "max")]
        assert lines(Resources(pids=Pids(0)), where) == []


def test_block_io() -> None:
    disk = ThrottleDevice(8, 0, 1024)
    wanted = Resources(
        block_io=BlockIO(
            weight=500,
            weight_device=(WeightDevice(8, 16, 100),),
            throttle_read_bps_device=(disk,),
            throttle_write_iops_device=(disk.replace(rate=7), ThrottleDevice(8, 16, 0)),
        )
    )
    v1 = writes(wanted, V1)
    assert [(w.file, w.value, w.expect) for w in v1] == [
        ("blkio.weight", "500", "500"),
        ("blkio.weight_device", "8:16 100", "8:16 100"),
        ("blkio.throttle.read_bps_device", "8:0 1024", "8:0 1024"),
        ("blkio.throttle.write_iops_device", "8:0 7", "8:0 7"),
        ("blkio.throttle.write_iops_device", "8:16 0", "!8:16"),
    ]
    assert v1[0].otherwise is not None
    assert v1[0].otherwise.file == "blkio.bfq.weight"
    v2 = writes(wanted, V2)
    assert [(w.file, w.value) for w in v2] == [
        ("io.bfq.weight", "default 500"),
        ("io.bfq.weight", "8:16 100"),
        ("io.max", "8:0 rbps=1024 wiops=7"),
        ("io.max", "8:16 wiops=max"),
    ]
    assert v2[0].otherwise is not None
    assert (v2[0].otherwise.file, v2[0].otherwise.value) == ("io.weight", "default 4950")


def test_hugepages_round_to_their_size() -> None:
    wanted = Resources(hugepage_limits=(HugepageLimit("2MB", 5 * MIB),))
    for where, files in (
        (V1, ("hugetlb.2MB.rsvd.limit_in_bytes", "hugetlb.2MB.limit_in_bytes")),
        (V2, ("hugetlb.2MB.rsvd.max", "hugetlb.2MB.max")),
    ):
        (write,) = writes(wanted, where)
        assert write.otherwise is not None
        assert (write.file, write.otherwise.file) == files
        assert (write.expect, write.otherwise.expect) == (str(4 * MIB), str(4 * MIB))


def test_rdma_and_network() -> None:
    wanted = Resources(
        rdma={"mlx5_1": Rdma(3, 10000), "rxe3": Rdma(hca_objects=5)},
        network=Network(1048577, (Priority("eth0", 500),)),
    )
    assert lines(wanted, V1) == [
        ("rdma.max", "mlx5_1 hca_handle=3 hca_object=10000"),
        ("rdma.max", "rxe3 hca_object=5"),
        ("net_cls.classid", "1048577"),
        ("net_prio.ifpriomap", "eth0 500"),
    ]


def test_unified() -> None:
    values = {"memory.high": "1G", "io.max": "8:0 rbps=1\n8:16 wbps=2", "cpu.max": "5000", "cgroup.max.depth": "4"}
    assert [(w.file, w.value, w.expect) for w in writes(Resources(unified=values), V2)] == [
        ("memory.high", "1G", "1073741824"),
        ("io.max", "8:0 rbps=1", "8:0 rbps=1 "),
        ("io.max", "8:16 wbps=2", "8:16 wbps=2 "),
        ("cpu.max", "5000", "5000 "),
        ("cgroup.max.depth", "4", ""),
    ]


# --- what cannot be


@pytest.mark.parametrize(
    ("resources", "where", "names"),
    [
        (Resources(memory=Memory(swappiness=10)), V2, r"memory\.swappiness: memory\.swappiness is a v1 file"),
        (Resources(memory=Memory(kernel=10)), V2, r"memory\.kernel: memory\.kmem\.limit_in_bytes"),
        (Resources(memory=Memory(kernel_tcp=10)), V2, r"memory\.kernelTCP: memory\.kmem\.tcp"),
        (Resources(memory=Memory(disable_oom_killer=True)), V2, r"disableOOMKiller: memory\.oom_control"),
        (Resources(memory=Memory(use_hierarchy=False)), V2, r"useHierarchy: memory\.use_hierarchy"),
        (Resources(cpu=Cpu(realtime_runtime=10)), V2, r"realtimeRuntime: cpu\.rt_runtime_us"),
        (Resources(cpu=Cpu(realtime_period=10)), V2, r"realtimePeriod: cpu\.rt_period_us"),
        (Resources(block_io=BlockIO(leaf_weight=10)), V2, r"leafWeight: blkio\.leaf_weight"),
        (Resources(network=Network(class_id=1)), V2, r"network\.classID: .*net_cls"),
        (Resources(network=Network(priorities=(Priority("e", 1),))), V2, r"network\.priorities: .*net_prio"),
        (Resources(unified={"memory.high": "1"}), V1, r"unified\['memory\.high'\]: memory\.high is a v2 file"),
        (Resources(memory=Memory(limit=1)), Group(()), r"memory\.limit: the group has no memory controller"),
        (Resources(cpu=Cpu(mems="0")), Group(()), r"cpu\.mems: the group has no cpuset controller"),
        (Resources(cpu=Cpu(shares=2)), Group(()), r"cpu\.shares: the group has no cpu controller"),
        (Resources(pids=Pids(1)), Group(()), r"pids\.limit: the group has no pids controller"),
        (Resources(block_io=BlockIO(weight=10)), Group(()), "blockIO: the group has no io controller"),
        (Resources(hugepage_limits=(HugepageLimit("2MB", 1),)), Group(()), "hugepageLimits: .*no hugetlb"),
        (Resources(rdma={"a": Rdma(1)}), Group(()), "rdma: the group has no rdma"),
    ],
)
def test_what_the_layout_cannot_express_is_named(resources: Resources, where: Group, names: str) -> None:
    with pytest.raises(Unsupported, match=names):
        writes(resources, where)


def test_unified_on_hybrid_only_for_what_the_v2_tree_has() -> None:
    hybrid = Group((*V1.dirs[:1], GroupDir(2, ("hugetlb",), "/v2/x")))
    assert lines(Resources(unified={"hugetlb.2MB.max": "0"}), hybrid) == [("hugetlb.2MB.max", "0")]
    for file in ("memory.high", "cgroup.max.depth"):
        with pytest.raises(Unsupported, match=file):
            writes(Resources(unified={file: "1"}), hybrid)


@pytest.mark.parametrize(
    ("resources", "names"),
    [
        (Resources(cpu=Cpu(shares=1)), r"shares: 1 is not in 2\.\.262144"),
        (Resources(cpu=Cpu(shares=300000)), "shares"),
        (Resources(cpu=Cpu(quota=1000, burst=2000)), "burst: 2000 is above the quota"),
        (Resources(cpu=Cpu(cpus="x")), r"cpu\.cpus"),
        (Resources(memory=Memory(limit=10, swap=5)), r"memory\.swap"),
        (Resources(block_io=BlockIO(weight=5)), r"blockIO\.weight: 5 is not in 10\.\.1000"),
        (Resources(block_io=BlockIO(weight_device=(WeightDevice(8, 0),))), "weightDevice: give"),
        (Resources(hugepage_limits=(HugepageLimit("2", 1),)), "not a page size"),
        (Resources(rdma={"a": Rdma()}), "rdma.a: give"),
    ],
)
def test_values_that_make_no_sense(resources: Resources, names: str) -> None:
    for where in (V1, V2):
        with pytest.raises(InvalidInput, match=names):
            writes(resources, where)


def test_needs() -> None:
    assert needs(Resources()) == frozenset()
    assert (
        needs(Resources(memory=Memory(), cpu=Cpu(), pids=Pids(0), block_io=BlockIO(), network=Network())) == frozenset()
    )
    wanted = Resources(
        devices=(Device(False),),
        memory=Memory(1),
        cpu=Cpu(cpus="0"),
        pids=Pids(-1),
        unified={"io.max": "x", "cgroup.max.depth": "1"},
    )
    assert needs(wanted) == {"devices", "memory", "cpuset", "pids", "io"}
    assert needs(Resources(cpu=Cpu(shares=2))) == {"cpu"}


def test_check_before_update() -> None:
    wanted = Resources(memory=Memory(limit=MIB, check_before_update=True))
    assert writes(wanted, V1)[0].not_below == "memory.usage_in_bytes"
    assert writes(wanted, V2)[0].not_below == "memory.current"


def test_writes_can_be_sent_to_another_process() -> None:
    found = writes(Resources(block_io=BlockIO(weight=500)), V2)
    assert pickle.loads(pickle.dumps(found)) == found
