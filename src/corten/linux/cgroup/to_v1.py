"""OCI resources as writes to v1 control files. Pure."""

from __future__ import annotations

from corten.errors import InvalidInput
from corten.linux.cgroup.convert import PAGE, check_shares, check_weight, cpu_list, page_size, rounded, shown_v1
from corten.linux.cgroup.files import Write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.linux.cgroup.resources import BlockIO, Cpu, HugepageLimit, Memory, Network, Now

_MEMORY = "linux.resources.memory."
_CPU = "linux.resources.cpu."
_IO = "linux.resources.blockIO."


def memory(memory: Memory, now: Now) -> list[Write]:
    """The limit and the limit with swap, in the order the kernel wants (limit <= limit with swap at every moment),
    then the rest."""
    both = []
    limit, swap = memory.limit or 0, memory.swap or 0
    if limit == -1 and not swap and now.memory_swap is not None:
        swap = -1
    if limit > 0 and 0 < swap < limit:
        raise InvalidInput(f"{_MEMORY}swap: {swap} is below the memory limit of {limit} (it is memory plus swap)")
    if limit:
        both.append(
            Write("memory", "memory.limit_in_bytes", str(limit), shown_v1(limit), _MEMORY + "limit",
                  not_below="memory.usage_in_bytes" if memory.check_before_update else "")
        )  # fmt: skip
    if swap:
        both.append(Write("memory", "memory.memsw.limit_in_bytes", str(swap), shown_v1(swap), _MEMORY + "swap"))
    if now.memory_swap is not None and (limit < 0 or limit > now.memory_swap):
        both.reverse()
    found = both
    for field, file, value in (
        ("reservation", "memory.soft_limit_in_bytes", memory.reservation),
        ("kernel", "memory.kmem.limit_in_bytes", memory.kernel),
        ("kernelTCP", "memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp),
    ):
        if value:
            found.append(Write("memory", file, str(value), shown_v1(value), _MEMORY + field))
    if memory.swappiness is not None and memory.swappiness >= 0:
        if memory.swappiness > 100:
            raise InvalidInput(f"{_MEMORY}swappiness: {memory.swappiness} is not in 0..100")
        value_s = str(memory.swappiness)
        found.append(Write("memory", "memory.swappiness", value_s, value_s, _MEMORY + "swappiness"))
    if memory.disable_oom_killer is not None:
        flag = str(int(memory.disable_oom_killer))
        found.append(
            Write("memory", "memory.oom_control", flag, f"oom_kill_disable {flag}", _MEMORY + "disableOOMKiller")
        )
    if memory.use_hierarchy is not None:
        flag = str(int(memory.use_hierarchy))
        found.append(Write("memory", "memory.use_hierarchy", flag, flag, _MEMORY + "useHierarchy"))
    return found


def cpu(cpu: Cpu, now: Now) -> list[Write]:
    """Shares and idle, then period and quota in the order in which no step asks for more than both the old and the
    new, then burst."""
    found = []
    if cpu.shares:
        found.append(_same("cpu.shares", check_shares(cpu.shares), _CPU + "shares"))
    if cpu.idle is not None:
        idle = _same("cpu.idle", cpu.idle, _CPU + "idle")
        # the kernel refuses shares while a group is idle
        found.insert(len(found) if cpu.idle else 0, idle)
    bandwidth = []
    if cpu.period:
        bandwidth.append(_same("cpu.cfs_period_us", cpu.period, _CPU + "period"))
    if cpu.quota:
        quota = cpu.quota if cpu.quota > 0 else -1
        bandwidth.append(_same("cpu.cfs_quota_us", quota, _CPU + "quota"))
        if cpu.period and now.cpu_period is not None and cpu.period < now.cpu_period:
            bandwidth.reverse()
    if cpu.burst is not None:
        _check_burst(cpu)
        burst = _same("cpu.cfs_burst_us", cpu.burst, _CPU + "burst")
        lower = now.cpu_burst is not None and cpu.burst < now.cpu_burst
        bandwidth.insert(0 if lower else len(bandwidth), burst)
    found += bandwidth
    if cpu.realtime_period:
        found.append(_same("cpu.rt_period_us", cpu.realtime_period, _CPU + "realtimePeriod"))
    if cpu.realtime_runtime:
        found.append(_same("cpu.rt_runtime_us", cpu.realtime_runtime, _CPU + "realtimeRuntime"))
    return found


def _check_burst(cpu: Cpu) -> None:
    if cpu.burst and cpu.quota and cpu.quota > 0 and cpu.burst > cpu.quota:
        raise InvalidInput(f"{_CPU}burst: {cpu.burst} is above the quota of {cpu.quota}")


def _same(file: str, value: int, field: str) -> Write:
    return Write("cpu", file, str(value), str(value), field)


def cpuset(cpu: Cpu) -> list[Write]:
    """CPUs, then memory nodes."""
    return [
        Write("cpuset", f"cpuset.{name}", value, cpu_list(value, _CPU + name), _CPU + name)
        for name, value in (("cpus", cpu.cpus), ("mems", cpu.mems))
        if value
    ]


def block_io(io: BlockIO) -> list[Write]:
    """Weights (of BFQ where the kernel has no CFQ) and rates."""
    found = []
    if io.weight:
        found.append(_weight("weight", str(check_weight(io.weight, _IO + "weight")), "weight"))
    if io.leaf_weight:
        value = str(check_weight(io.leaf_weight, _IO + "leafWeight"))
        found.append(Write("io", "blkio.leaf_weight", value, value, _IO + "leafWeight"))
    for device in io.weight_device:
        name = f"{device.major}:{device.minor}"
        if device.weight is None and device.leaf_weight is None:
            raise InvalidInput(f"{_IO}weightDevice: give weight, leafWeight or both for {name}")
        if device.weight:
            line = f"{name} {check_weight(device.weight, _IO + 'weightDevice')}"
            found.append(_weight("weight_device", line, "weightDevice"))
        if device.leaf_weight:
            line = f"{name} {check_weight(device.leaf_weight, _IO + 'weightDevice')}"
            found.append(Write("io", "blkio.leaf_weight_device", line, line, _IO + "weightDevice.leafWeight"))
    for file, field, devices in (
        ("read_bps_device", "throttleReadBpsDevice", io.throttle_read_bps_device),
        ("write_bps_device", "throttleWriteBpsDevice", io.throttle_write_bps_device),
        ("read_iops_device", "throttleReadIOPSDevice", io.throttle_read_iops_device),
        ("write_iops_device", "throttleWriteIOPSDevice", io.throttle_write_iops_device),
    ):
        for rate in devices:
            name = f"{rate.major}:{rate.minor}"
            line = f"{name} {rate.rate}"
            found.append(Write("io", f"blkio.throttle.{file}", line, line if rate.rate else f"!{name}", _IO + field))
    return found


def _weight(file: str, value: str, field: str) -> Write:
    bfq = Write("io", f"blkio.bfq.{file}", value, value, _IO + field)
    return Write("io", f"blkio.{file}", value, value, _IO + field, otherwise=bfq)


def hugepages(limits: tuple[HugepageLimit, ...]) -> list[Write]:
    """Reservations, or usage where the kernel does not count reservations (as the OCI specification has it)."""
    found = []
    for limit in limits:
        shown = str(rounded(limit.limit, max(page_size(limit.page_size), PAGE)))
        field = f"linux.resources.hugepageLimits.{limit.page_size}"
        usage = Write("hugetlb", f"hugetlb.{limit.page_size}.limit_in_bytes", str(limit.limit), shown, field)
        found.append(usage.replace(file=f"hugetlb.{limit.page_size}.rsvd.limit_in_bytes", otherwise=usage))
    return found


def network(network: Network) -> list[Write]:
    """Class and priorities: only v1 has them."""
    found = []
    if network.class_id is not None:
        value = str(network.class_id)
        found.append(Write("net_cls", "net_cls.classid", value, value, "linux.resources.network.classID"))
    for priority in network.priorities:
        line = f"{priority.name} {priority.priority}"
        found.append(Write("net_prio", "net_prio.ifpriomap", line, line, "linux.resources.network.priorities"))
    return found
