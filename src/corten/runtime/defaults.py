"""What a container gets when nobody says otherwise: the OCI and Podman defaults, as data.

Sources: OCI runtime specification 1.3, config-linux.md (file systems and devices that must be there); the default
paths of podman 5 and moby 28; moby's advisory GHSA-6fw5-f8r9-fgfm (powercap and its kin tell of the host's power).
"""

from __future__ import annotations

import os

from corten.linux import capabilities
from corten.linux.cgroup.resources import Device as DeviceRule
from corten.linux.cgroup.resources import Resources
from corten.runtime.spec import Device, IdMapping, Linux, Mount, Namespace, Process, Root, Spec, User

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
UMASK = 0o022

# In the order in which a mount listing shows them best; the user namespace is added when there are mappings for it.
NAMESPACES = ("cgroup", "ipc", "mount", "network", "pid", "time", "uts")

_TIGHT = ("nosuid", "noexec", "nodev")

MOUNTS = (
    Mount("/proc", "proc", "proc", _TIGHT),
    Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "noexec", "strictatime", "mode=755", "size=65536k")),
    Mount("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
    Mount("/dev/shm", "tmpfs", "shm", (*_TIGHT, "mode=1777", "size=65536k")),
    Mount("/dev/mqueue", "mqueue", "mqueue", _TIGHT),
    Mount("/sys", "sysfs", "sysfs", (*_TIGHT, "ro")),
    Mount("/sys/fs/cgroup", "cgroup", "cgroup", (*_TIGHT, "relatime", "ro")),
)


def mounts(gid_mappings: tuple[IdMapping, ...] = ()) -> tuple[Mount, ...]:
    """`MOUNTS` as a user namespace with these groups can have them: devpts refuses a `gid=5` that is not mapped."""
    if not gid_mappings or any(m.container_id <= 5 < m.container_id + m.size for m in gid_mappings):
        return MOUNTS
    return tuple(
        mount.replace(options=tuple(option for option in mount.options if option != "gid=5")) for mount in MOUNTS
    )


# Emptied: they tell of the host or of other containers, or are an attack surface without a use inside.
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
)

READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def thermal_paths(cpus: str = "/sys/devices/system/cpu") -> tuple[str, ...]:
    """The `thermal_throttle` directories of this machine's CPUs, which are to be masked too; none in most machines.

    They count throttling events, which other containers' work can be read from.
    """
    if not os.path.isdir(f"{cpus}/cpu0/thermal_throttle"):
        return ()
    numbered = sorted(int(name[3:]) for name in os.listdir(cpus) if name.startswith("cpu") and name[3:].isdigit())
    return tuple(f"{cpus}/cpu{number}/thermal_throttle" for number in numbered)


def _character(name: str, major: int, minor: int) -> Device:
    return Device(f"/dev/{name}", "c", major, minor, 0o666, 0, 0)


# Numbers: the kernel's Documentation/admin-guide/devices.txt
DEVICES = (
    _character("null", 1, 3),
    _character("zero", 1, 5),
    _character("full", 1, 7),
    _character("random", 1, 8),
    _character("urandom", 1, 9),
    _character("tty", 5, 0),
)

# (path, what it points to); /dev/console is a mount of the terminal, made when there is one
LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
)

# Nothing; making nodes (not opening them); the devices above; console, ptmx and the terminals of devpts.
DEVICE_RULES = (
    DeviceRule(False, None, None, None, "rwm"),
    DeviceRule(True, "c", None, None, "m"),
    DeviceRule(True, "b", None, None, "m"),
    *(DeviceRule(True, device.type, device.major, device.minor, "rwm") for device in DEVICES),
    DeviceRule(True, "c", 5, 1, "rwm"),
    DeviceRule(True, "c", 5, 2, "rwm"),
    DeviceRule(True, "c", 136, None, "rwm"),
)


def default_spec(
    args: tuple[str, ...],
    uid_mappings: tuple[IdMapping, ...] = (),
    gid_mappings: tuple[IdMapping, ...] = (),
) -> Spec:
    """A container with every namespace of its own, the default rights, and no filter yet (the engine adds one).

    With id mappings, in a user namespace too. The root is `rootfs`, below the bundle.
    """
    kinds = (*NAMESPACES, "user") if uid_mappings else NAMESPACES
    return Spec(
        process=Process(
            args=args,
            env=(f"PATH={PATH}",),
            user=User(umask=UMASK),
            capabilities=capabilities.DEFAULT,
            no_new_privileges=True,
        ),
        root=Root("rootfs"),
        mounts=mounts(gid_mappings),
        linux=Linux(
            namespaces=tuple(map(Namespace, kinds)),
            uid_mappings=uid_mappings,
            gid_mappings=gid_mappings,
            resources=Resources(devices=DEVICE_RULES),
            masked_paths=(*MASKED_PATHS, *thermal_paths()),
            readonly_paths=READONLY_PATHS,
        ),
    )
