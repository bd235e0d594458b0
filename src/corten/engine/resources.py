"""The limits among the options as OCI `linux.resources`. Pure."""

from __future__ import annotations

from corten.engine.option_values import DeviceLimit, count_cpus
from corten.linux.cgroup.resources import (
    BlockIO,
    Cpu,
    Device,
    HugepageLimit,
    Memory,
    Network,
    Pids,
    Priority,
    Rdma,
    Resources,
    ThrottleDevice,
    WeightDevice,
)
from corten.runtime import defaults

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.engine.facts import HostFacts
    from corten.engine.options import RunOptions

PERIOD = 100_000
"""Microseconds over which the CPU limit is counted: the kernel's and every engine's default."""


def resources(options: RunOptions, facts: HostFacts) -> Resources:
    """What is to be written into the control group. Fields that nobody asked for stay None, so nothing is written.

    Device rules need a devices controller. An ordinary user cannot make device nodes in its user namespace, and is
    shown only those that it could open anyway, so there are none for it.
    """
    return Resources(
        devices=_devices(options) if facts.uid == 0 else (),
        memory=_memory(options, facts),
        cpu=_cpu(options),
        pids=Pids(options.pids) if options.pids else None,
        block_io=_block_io(options),
        hugepage_limits=tuple(HugepageLimit(item.page_size, item.limit) for item in options.hugetlb),
        network=_network(options),
        rdma={item.device: Rdma(item.handles, item.objects) for item in options.rdma},
        unified=dict(options.cgroup_conf),
    )


def _devices(options: RunOptions) -> tuple[Device, ...]:
    given = [Device(True, item.kind, item.major, item.minor, item.access) for item in options.devices]
    for rule in options.device_cgroup_rules:
        major, minor = (None if number < 0 else number for number in (rule.major, rule.minor))
        given.append(Device(True, None if rule.kind == "a" else rule.kind, major, minor, rule.access))
    return (*defaults.DEVICE_RULES, *given)


def _memory(options: RunOptions, facts: HostFacts) -> Memory | None:
    swap = options.memory_swap or None
    if swap is None and options.memory is not None and facts.swap:
        swap = 2 * options.memory  # as docker
    found = Memory(
        limit=options.memory,
        reservation=options.memory_reservation,
        swap=swap,
        swappiness=None if options.memory_swappiness == -1 else options.memory_swappiness,
        disable_oom_killer=options.oom_kill_disable or None,
    )
    return None if found == Memory() else found


def _cpu(options: RunOptions) -> Cpu | None:
    quota, period = options.cpu_quota, options.cpu_period
    if options.cpus is not None:
        quota, period = round(options.cpus * PERIOD), PERIOD
    found = Cpu(
        shares=options.cpu_shares,
        quota=quota,
        period=period,
        burst=options.cpu_burst,
        idle=1 if options.cpu_idle else None,
        realtime_runtime=options.cpu_rt_runtime,
        realtime_period=options.cpu_rt_period,
        cpus=options.cpuset_cpus,
        mems=options.cpuset_mems,
    )
    return None if found == Cpu() else found


def cpu_count(options: RunOptions) -> int | None:
    """The threads that are worth starting inside: the CPU limit rounded up, or the CPUs in the set; None: no limit."""
    limits = []
    if options.cpus is not None:
        limits.append(-int(-options.cpus // 1))
    elif options.cpu_quota is not None and options.cpu_quota > 0:
        limits.append(-(-options.cpu_quota // (options.cpu_period or PERIOD)))
    if options.cpuset_cpus is not None:
        limits.append(count_cpus("cpuset-cpus", options.cpuset_cpus))
    return max(1, min(limits)) if limits else None


def _block_io(options: RunOptions) -> BlockIO | None:
    found = BlockIO(
        weight=options.blkio_weight or None,
        weight_device=tuple(WeightDevice(item.major, item.minor, item.value) for item in options.blkio_weight_device),
        throttle_read_bps_device=_rates(options.device_read_bps),
        throttle_write_bps_device=_rates(options.device_write_bps),
        throttle_read_iops_device=_rates(options.device_read_iops),
        throttle_write_iops_device=_rates(options.device_write_iops),
    )
    return None if found == BlockIO() else found


def _rates(limits: tuple[DeviceLimit, ...]) -> tuple[ThrottleDevice, ...]:
    return tuple(ThrottleDevice(item.major, item.minor, item.value) for item in limits)


def _network(options: RunOptions) -> Network | None:
    if options.net_class is None and not options.net_priority:
        return None
    return Network(options.net_class, tuple(Priority(name, number) for name, number in options.net_priority))
