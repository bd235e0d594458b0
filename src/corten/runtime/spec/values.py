"""What a field may hold, beyond its Python type: bounds of integers, names that exist, fields that must be there.

Keys are `module.Class.field`, the module by its last name. Source: the specification's schema (defs.json,
defs-linux.json) and its text.
"""

from __future__ import annotations

INT32 = (-(2**31), 2**31 - 1)
INT64 = (-(2**63), 2**63 - 1)
UINT16 = (0, 2**16 - 1)
UINT32 = (0, 2**32 - 1)
UINT64 = (0, 2**64 - 1)
ANY = (INT64[0], UINT64[1])

# An integer that is not named here may be any that 64 bits hold, signed or not.
BOUNDS = {
    "process.User.uid": UINT32,
    "process.User.gid": UINT32,
    "process.User.umask": UINT32,
    "process.User.additional_gids": UINT32,
    "process.Box.height": UINT64,
    "process.Box.width": UINT64,
    "process.Rlimit.hard": UINT64,
    "process.Rlimit.soft": UINT64,
    "process.Scheduler.nice": INT32,
    "process.Scheduler.priority": INT32,
    "process.Scheduler.runtime": UINT64,
    "process.Scheduler.deadline": UINT64,
    "process.Scheduler.period": UINT64,
    "process.IOPriority.priority": INT32,
    "process.Process.oom_score_adj": (-1000, 1000),
    "hooks.Hook.timeout": INT32,
    "idmap.IdMapping.container_id": UINT32,
    "idmap.IdMapping.host_id": UINT32,
    "idmap.IdMapping.size": UINT32,
    "linux.Device.major": INT64,
    "linux.Device.minor": INT64,
    "linux.Device.file_mode": UINT32,
    "linux.Device.uid": UINT32,
    "linux.Device.gid": UINT32,
    "resources.Device.major": INT64,
    "resources.Device.minor": INT64,
    "resources.Memory.limit": INT64,
    "resources.Memory.reservation": INT64,
    "resources.Memory.swap": INT64,
    "resources.Memory.kernel": INT64,
    "resources.Memory.kernel_tcp": INT64,
    "resources.Memory.swappiness": UINT64,
    "resources.Cpu.shares": UINT64,
    "resources.Cpu.quota": INT64,
    "resources.Cpu.burst": UINT64,
    "resources.Cpu.period": UINT64,
    "resources.Cpu.realtime_runtime": INT64,
    "resources.Cpu.realtime_period": UINT64,
    "resources.Cpu.idle": INT64,
    "resources.Pids.limit": INT64,
    "resources.WeightDevice.major": INT64,
    "resources.WeightDevice.minor": INT64,
    "resources.WeightDevice.weight": UINT16,
    "resources.WeightDevice.leaf_weight": UINT16,
    "resources.ThrottleDevice.major": INT64,
    "resources.ThrottleDevice.minor": INT64,
    "resources.ThrottleDevice.rate": UINT64,
    "resources.BlockIO.weight": UINT16,
    "resources.BlockIO.leaf_weight": UINT16,
    "resources.HugepageLimit.limit": UINT64,
    "resources.Priority.priority": UINT32,
    "resources.Network.class_id": UINT32,
    "resources.Rdma.hca_handles": UINT32,
    "resources.Rdma.hca_objects": UINT32,
    "seccomp.Seccomp.default_errno_ret": UINT32,
    "seccomp.SyscallRule.errno_ret": UINT32,
    "seccomp.SyscallArg.index": UINT32,
    "seccomp.SyscallArg.value": UINT64,
    "seccomp.SyscallArg.value_two": UINT64,
    "linux.TimeOffset.secs": INT64,
    "linux.TimeOffset.nanosecs": UINT32,
}

# Required by the specification although a Python caller need not give them.
REQUIRED = frozenset(("container.Spec.oci_version", "process.Process.cwd", "seccomp.SyscallArg.op"))

NAMESPACES = ("cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts")
RLIMITS = tuple(
    f"RLIMIT_{name}"
    for name in (
        "AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK".split()
    )
)
ACTIONS = tuple(
    f"SCMP_ACT_{name}" for name in "KILL KILL_PROCESS KILL_THREAD TRAP ERRNO TRACE ALLOW LOG NOTIFY".split()
)
PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable")

CHOICES = {
    "linux.Namespace.type": NAMESPACES,
    "process.Rlimit.type": RLIMITS,
    "process.Scheduler.policy": tuple(
        f"SCHED_{name}" for name in ("OTHER", "FIFO", "RR", "BATCH", "ISO", "IDLE", "DEADLINE")
    ),
    "process.Scheduler.flags": tuple(
        f"SCHED_FLAG_{name}"
        for name in ("RESET_ON_FORK RECLAIM DL_OVERRUN KEEP_POLICY KEEP_PARAMS UTIL_CLAMP_MIN UTIL_CLAMP_MAX".split())
    ),
    "process.IOPriority.class_": ("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"),
    "linux.Device.type": ("c", "b", "u", "p"),
    "linux.Linux.rootfs_propagation": ("", *PROPAGATIONS),
    "linux.MemoryPolicy.mode": tuple(
        f"MPOL_{name}"
        for name in ("DEFAULT PREFERRED BIND INTERLEAVE LOCAL PREFERRED_MANY WEIGHTED_INTERLEAVE".split())
    ),
    "linux.MemoryPolicy.flags": tuple(
        f"MPOL_F_{name}" for name in ("NUMA_BALANCING", "RELATIVE_NODES", "STATIC_NODES")
    ),
    "linux.Personality.domain": ("LINUX", "LINUX32"),
    "resources.Device.type": ("a", "b", "c"),
    "seccomp.Seccomp.default_action": ACTIONS,
    "seccomp.SyscallRule.action": ACTIONS,
    "seccomp.SyscallArg.op": tuple(f"SCMP_CMP_{name}" for name in "NE LT LE EQ GE GT MASKED_EQ".split()),
    "seccomp.Seccomp.architectures": tuple(
        f"SCMP_ARCH_{name}"
        for name in (
            "X86 X86_64 X32 ARM AARCH64 LOONGARCH64 M68K MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PARISC "
            "PARISC64 PPC PPC64 PPC64LE RISCV64 S390 S390X SH SHEB"
        ).split()
    ),
    "seccomp.Seccomp.flags": tuple(
        f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV")
    ),
    # the clocks that a time namespace can move: time_namespaces(7)
    "linux.Linux.time_offsets": ("boottime", "monotonic"),
}


def full_name(kind: type, field: str) -> str:
    """The key of a field in the tables above."""
    return f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}.{field}"
