"""OCI `linux.resources`, typed, and the control file writes it turns into. Pure: reads and writes nothing.

Rule 1: names are those of the OCI runtime specification (config-linux.md) in snake_case; a value that is None, and as
in the OCI
        runtimes a limit, share, weight or period of 0, is "leave it".
Rule 2: what the layout cannot express is `Unsupported`, naming the OCI field; nothing is dropped in silence.
Rule 3: the writes are in an order in which each is valid when it is made: for a new group, or for one that stands as
`now` says.
"""

from __future__ import annotations

from corten.errors import InvalidInput, Unsupported
from corten.linux.cgroup import convert, files, to_v1, to_v2
from corten.linux.cgroup.files import Write
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from corten.linux.cgroup.group import Group
    from corten.linux.cgroup.layout import Layout


class Device(Record):
    """A rule of the device list. type: `a`, `c`, `b` or None (all); major, minor: None for any; access: of `rwm`,
    None: all."""

    allow: bool
    type: str | None = None
    major: int | None = None
    minor: int | None = None
    access: str | None = None


class Memory(Record):
    """Bytes; -1: unlimited. swap: memory plus swap."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    kernel: int | None = None
    kernel_tcp: int | None = None
    swappiness: int | None = None
    disable_oom_killer: bool | None = None
    use_hierarchy: bool | None = None
    check_before_update: bool | None = None


class Cpu(Record):
    """quota, burst, period, realtime_*: microseconds; quota -1: unlimited; cpus, mems: lists like `0-2,5`."""

    shares: int | None = None
    quota: int | None = None
    burst: int | None = None
    period: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    cpus: str | None = None
    mems: str | None = None
    idle: int | None = None


class Pids(Record):
    """limit: the number of tasks; negative: unlimited."""

    limit: int | None = None


class WeightDevice(Record):
    """Weight of one block device, 10..1000."""

    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


class ThrottleDevice(Record):
    """rate: bytes or operations per second; 0: no limit."""

    major: int
    minor: int
    rate: int


class BlockIO(Record):
    """Weights 10..1000 and rates of block devices."""

    weight: int | None = None
    leaf_weight: int | None = None
    weight_device: tuple[WeightDevice, ...] = ()
    throttle_read_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_write_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_read_iops_device: tuple[ThrottleDevice, ...] = ()
    throttle_write_iops_device: tuple[ThrottleDevice, ...] = ()


class HugepageLimit(Record):
    """page_size: as the kernel names it (`2MB`); limit: bytes."""

    page_size: str
    limit: int


class Priority(Record):
    """Priority of the traffic on one interface."""

    name: str
    priority: int


class Network(Record):
    """class_id: of the network classifier; priorities: for each interface."""

    class_id: int | None = None
    priorities: tuple[Priority, ...] = ()


class Rdma(Record):
    """Limits of one RDMA device."""

    hca_handles: int | None = None
    hca_objects: int | None = None


class Resources(Record):
    """The whole of `linux.resources`. rdma: by device name; unified: v2 file name to value."""

    devices: tuple[Device, ...] = ()
    memory: Memory | None = None
    cpu: Cpu | None = None
    pids: Pids | None = None
    block_io: BlockIO | None = None
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    network: Network | None = None
    rdma: dict[str, Rdma] = {}
    unified: dict[str, str] = {}


class Now(Record):
    """What a group holds, where the writes depend on it. Bytes, microseconds; None: unlimited or unknown."""

    memory_swap: int | None = None
    cpu_quota: int | None = None
    cpu_period: int | None = None
    cpu_burst: int | None = None


def now(group: Group) -> Now:
    """Read what `writes` must know of a group that has limits already."""
    memory, cpu = group.directory("memory"), group.directory("cpu")
    swap = files.number(f"{memory}/memory.memsw.limit_in_bytes") if group.version("memory") == 1 else None
    if group.version("cpu") == 1:
        names = ("quota", "period", "burst")
        return Now(swap, *(files.number(f"{cpu}/cpu.cfs_{name}_us") for name in names))
    if cpu is None or (line := files.text(f"{cpu}/cpu.max")) is None:
        return Now(swap)
    quota, period = line.split()
    return Now(swap, int(quota) if quota != "max" else None, int(period), files.number(f"{cpu}/cpu.max.burst"))


def needs(resources: Resources) -> frozenset[str]:
    """The controllers a group must have for these resources (the `need` of `group.place`), v2 names where they
    differ."""
    memory, cpu, network = resources.memory, resources.cpu or Cpu(), resources.network or Network()
    asked = (
        ("devices", resources.devices),
        ("memory", memory not in (None, Memory())),
        ("cpuset", cpu.cpus or cpu.mems),
        ("cpu", cpu.replace(cpus=None, mems=None) != Cpu()),
        ("pids", resources.pids and resources.pids.limit),
        ("io", resources.block_io not in (None, BlockIO())),
        ("hugetlb", resources.hugepage_limits),
        ("rdma", resources.rdma),
        ("net_cls", network.class_id is not None),
        ("net_prio", network.priorities),
    )
    by_file = {name.partition(".")[0] for name in resources.unified} - {"cgroup"}
    return frozenset(by_file.union(name for name, given in asked if given))


def writes(resources: Resources, where: Group | Layout, now: Now | None = None) -> tuple[Write, ...]:
    """The writes that put `resources` in force (all but the devices), in order.

    where: the group, or the layout it will be in; now: what the group holds, for an update of a group that has limits.
    `Unsupported`: this layout cannot express a field; `InvalidInput`: values out of range or in contradiction.
    """
    v1, v2 = _split(where)
    need = needs(resources)

    def second(controller: str, field: str) -> bool:
        if controller not in v1 and controller not in v2:
            raise Unsupported(f"linux.resources.{field}: the group has no {controller} controller")
        return controller not in v1

    found: list[Write] = []
    if "memory" in need and (memory := resources.memory):
        two = second("memory", _first("memory", memory))
        found += to_v2.memory(memory) if two else to_v1.memory(memory, now or Now())
    if cpu := resources.cpu:
        if "cpu" in need:
            two = second("cpu", _first("cpu", cpu.replace(cpus=None, mems=None)))
            found += to_v2.cpu(cpu, now or Now()) if two else to_v1.cpu(cpu, now or Now())
        if cpu.cpus or cpu.mems:
            two = second("cpuset", "cpu.cpus" if cpu.cpus else "cpu.mems")
            found += to_v2.cpuset(cpu) if two else to_v1.cpuset(cpu)
    if "pids" in need and (pids := resources.pids) and pids.limit:
        second("pids", "pids.limit")
        value = convert.max_or(pids.limit)
        found.append(Write("pids", "pids.max", value, value, "linux.resources.pids.limit"))
    return (*found, *_rarer(resources, need, second), *to_v2.unified(resources.unified, v2, bool(v1)))


def _rarer(resources: Resources, need: frozenset[str], second: Callable[[str, str], bool]) -> list[Write]:
    found: list[Write] = []
    if "io" in need and (io := resources.block_io):
        found += to_v2.block_io(io) if second("io", "blockIO") else to_v1.block_io(io)
    if limits := resources.hugepage_limits:
        found += to_v2.hugepages(limits) if second("hugetlb", "hugepageLimits") else to_v1.hugepages(limits)
    if resources.rdma:
        second("rdma", "rdma")
        found += _rdma(resources.rdma)
    if network := resources.network:
        for controller, file, field, given in (
            ("net_cls", "net_cls.classid", "classID", network.class_id is not None),
            ("net_prio", "net_prio.ifpriomap", "priorities", network.priorities),
        ):
            if given and second(controller, f"network.{field}"):
                raise Unsupported(
                    f"linux.resources.network.{field}: {file} is a v1 file, and this machine has cgroup v2"
                )
        found += to_v1.network(network)
    return found


def _first(name: str, part: Record) -> str:
    """`memory.limit`: the first field of a part that is given, for an error."""
    return next((f"{name}.{field}" for field in part._fields if part.__dict__[field] is not None), name)


def _split(where: Group | Layout) -> tuple[set[str], set[str]]:
    """The controllers that v1 and v2 serve there, `io` for both names of it."""
    served: tuple[set[str], set[str]] = (set(), set())
    parts = where.dirs if hasattr(where, "dirs") else where.hierarchies
    for part in parts:
        served[part.version - 1].update(part.controllers)
        if part.version == 2:
            served[1].add("cgroup")
    if "blkio" in served[0]:
        served[0].add("io")
    return served


def _rdma(rdma: dict[str, Rdma]) -> list[Write]:
    found = []
    for name, limits in rdma.items():
        words = [
            f"{key}={value}"
            for key, value in (("hca_handle", limits.hca_handles), ("hca_object", limits.hca_objects))
            if value is not None
        ]
        if not words:
            raise InvalidInput(f"linux.resources.rdma.{name}: give hcaHandles, hcaObjects or both")
        line = " ".join((name, *words))
        found.append(Write("rdma", "rdma.max", line, line, f"linux.resources.rdma.{name}"))
    return found
