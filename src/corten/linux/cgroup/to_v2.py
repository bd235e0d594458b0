"""OCI resources as writes to v2 control files, converted as the OCI runtimes do. Pure."""

from __future__ import annotations

from corten.errors import InvalidInput, Unsupported
from corten.linux.cgroup import convert
from corten.linux.cgroup.files import Write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.linux.cgroup.resources import BlockIO, Cpu, HugepageLimit, Memory, Now

_MEMORY = "linux.resources.memory."
_CPU = "linux.resources.cpu."
_IO = "linux.resources.blockIO."


def memory(memory: Memory) -> list[Write]:
    """memory.max, memory.swap.max, memory.low."""
    for field, file, asked in (
        ("kernel", "memory.kmem.limit_in_bytes", (memory.kernel or 0) > 0),
        ("kernelTCP", "memory.kmem.tcp.limit_in_bytes", (memory.kernel_tcp or 0) > 0),
        ("swappiness", "memory.swappiness", memory.swappiness is not None and memory.swappiness >= 0),
        ("disableOOMKiller", "memory.oom_control", memory.disable_oom_killer is True),
        ("useHierarchy", "memory.use_hierarchy", memory.use_hierarchy is False),
    ):
        if asked:
            raise Unsupported(f"{_MEMORY}{field}: {file} is a v1 file, and this machine has cgroup v2")
    found = []
    if memory.limit:
        found.append(
            Write(
                "memory",
                "memory.max",
                convert.max_or(memory.limit),
                convert.shown_v2(memory.limit),
                _MEMORY + "limit",
                not_below="memory.current" if memory.check_before_update else "",
            )
        )
    swap = convert.swap_v2(memory.limit, memory.swap)
    if swap is not None:
        found.append(Write("memory", "memory.swap.max", convert.max_or(swap), convert.shown_v2(swap), _MEMORY + "swap"))
    if memory.reservation:
        value = convert.max_or(memory.reservation)
        found.append(
            Write("memory", "memory.low", value, convert.shown_v2(memory.reservation), _MEMORY + "reservation")
        )
    return found


def cpu(cpu: Cpu, now: Now) -> list[Write]:
    """cpu.weight and cpu.idle, cpu.max (quota and period in one line), cpu.max.burst."""
    if cpu.realtime_runtime or cpu.realtime_period:
        field, file = (
            ("realtimeRuntime", "rt_runtime_us") if cpu.realtime_runtime else ("realtimePeriod", "rt_period_us")
        )
        raise Unsupported(f"{_CPU}{field}: cpu.{file} is a v1 file, and this machine has cgroup v2")
    found = []
    if cpu.shares:
        weight = str(convert.weight_of_shares(cpu.shares))
        found.append(Write("cpu", "cpu.weight", weight, weight, _CPU + "shares"))
    if cpu.idle is not None:
        idle = Write("cpu", "cpu.idle", str(cpu.idle), str(cpu.idle), _CPU + "idle")
        # the kernel refuses a weight while a group is idle
        found.insert(len(found) if cpu.idle else 0, idle)
    if cpu.burst and cpu.quota and cpu.quota > 0 and cpu.burst > cpu.quota:
        raise InvalidInput(f"{_CPU}burst: {cpu.burst} is above the quota of {cpu.quota}")
    limit = []
    if cpu.quota or cpu.period:
        quota = convert.max_or(cpu.quota) if cpu.quota else ""
        if cpu.quota:
            # a line without a period leaves the period; the OCI default is the kernel's
            line = f"{quota} {cpu.period}" if cpu.period else quota
            expect = f"{quota} {cpu.period}" if cpu.period else f"{quota} "
        else:
            line = expect = f"{now.cpu_quota or 'max'} {cpu.period}"
        limit.append(Write("cpu", "cpu.max", line, expect, _CPU + ("quota" if cpu.quota else "period")))
    if cpu.burst is not None:
        burst = Write("cpu", "cpu.max.burst", str(cpu.burst), str(cpu.burst), _CPU + "burst")
        # the burst must not be above the quota at any moment
        lower = now.cpu_burst is not None and cpu.burst < now.cpu_burst
        limit.insert(0 if lower else len(limit), burst)
    return found + limit


def cpuset(cpu: Cpu) -> list[Write]:
    """CPUs and memory nodes; read back from `.effective`, because v2 takes any list and then silently gives what the
    parent has."""
    return [
        Write("cpuset", f"cpuset.{name}", value, convert.cpu_list(value, _CPU + name), _CPU + name,
              read_from=f"cpuset.{name}.effective")
        for name, value in (("cpus", cpu.cpus), ("mems", cpu.mems))
        if value
    ]  # fmt: skip


def block_io(io: BlockIO) -> list[Write]:
    """Weights (BFQ's own, else io.weight, converted) and one io.max line for each device."""
    found = []
    if io.leaf_weight or any(device.leaf_weight for device in io.weight_device):
        raise Unsupported(f"{_IO}leafWeight: blkio.leaf_weight is a v1 file, and this machine has cgroup v2")
    if io.weight:
        value = convert.check_weight(io.weight, _IO + "weight")
        found.append(_weight("default", value, _IO + "weight"))
    for device in io.weight_device:
        if device.weight is None:
            raise InvalidInput(f"{_IO}weightDevice: give a weight for {device.major}:{device.minor}")
        value = convert.check_weight(device.weight, _IO + "weightDevice")
        found.append(_weight(f"{device.major}:{device.minor}", value, _IO + "weightDevice"))
    lines: dict[str, tuple[list[str], str]] = {}
    for key, field, devices in (
        ("rbps", "throttleReadBpsDevice", io.throttle_read_bps_device),
        ("wbps", "throttleWriteBpsDevice", io.throttle_write_bps_device),
        ("riops", "throttleReadIOPSDevice", io.throttle_read_iops_device),
        ("wiops", "throttleWriteIOPSDevice", io.throttle_write_iops_device),
    ):
        for rate in devices:
            words, _ = lines.setdefault(f"{rate.major}:{rate.minor}", ([], _IO + field))
            words.append(f"{key}={rate.rate or 'max'}")
    for name, (words, field) in lines.items():
        line = " ".join((name, *words))
        # the kernel shows no line for a device without any limit left
        expect = "" if all(word.endswith("=max") for word in words) else line
        found.append(Write("io", "io.max", line, expect, field))
    return found


def _weight(name: str, weight: int, field: str) -> Write:
    line, converted = f"{name} {weight}", f"{name} {convert.io_weight(weight, field)}"
    return Write(
        "io", "io.bfq.weight", line, line, field, otherwise=Write("io", "io.weight", converted, converted, field)
    )


def hugepages(limits: tuple[HugepageLimit, ...]) -> list[Write]:
    """Reservations, or usage where the kernel does not count reservations (as the OCI specification has it)."""
    found = []
    for limit in limits:
        shown = str(convert.rounded(limit.limit, convert.page_size(limit.page_size)))
        field = f"linux.resources.hugepageLimits.{limit.page_size}"
        usage = Write("hugetlb", f"hugetlb.{limit.page_size}.max", str(limit.limit), shown, field)
        found.append(usage.replace(file=f"hugetlb.{limit.page_size}.rsvd.max", otherwise=usage))
    return found


def unified(values: dict[str, str], controllers: set[str], hybrid: bool) -> list[Write]:
    """Values for v2 files by name. `Unsupported`: the controller is not on the v2 tree; `InvalidInput`: not a file
    name."""
    found = []
    for file, value in values.items():
        field = f"linux.resources.unified[{file!r}]"
        controller, dot, _ = file.partition(".")
        if "/" in file or not dot or not controller:
            raise InvalidInput(f"{field} is not the name of a control file")
        if controller not in controllers or (hybrid and controller == "cgroup"):
            why = "here the controller is not on the v2 tree" if controllers else "this machine has cgroup v1"
            raise Unsupported(f"{field}: {file} is a v2 file, and {why}")
        lines = [line for line in value.split("\n") if line.strip()]
        found += [Write(controller, file, line, _unified_shown(file, line, field), field) for line in lines]
    return found


def _unified_shown(file: str, value: str, field: str) -> str:
    """What a v2 file shows after `value` was written, for the files of the kernel's cgroup-v2.rst; empty where that
    is not known."""
    value = value.strip()
    if file in (
        "memory.min",
        "memory.low",
        "memory.high",
        "memory.max",
        "memory.swap.max",
        "memory.swap.high",
        "memory.zswap.max",
    ):
        bytes_ = convert.size(value)
        return value if bytes_ is None else convert.shown_v2(bytes_)
    if file in ("cpuset.cpus", "cpuset.mems"):
        return convert.cpu_list(value, field)
    if file in ("cpu.max", "io.max", "rdma.max", "misc.max"):
        return "" if all(word.endswith("=max") for word in value.split()[1:]) and "=" in value else value + " "
    if file in ("io.weight", "io.bfq.weight") and value.isdecimal():
        return f"default {value}"
    if file in ("cpu.weight", "cpu.idle", "cpu.max.burst", "pids.max", "memory.oom.group", "cgroup.freeze"):
        return value
    return ""
