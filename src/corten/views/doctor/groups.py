"""Control groups: a group is made as a container's would be, limits are written and read back, and it is removed."""

from __future__ import annotations

import os

from corten.errors import Error
from corten.linux.cgroup import files, layout, pressure
from corten.linux.cgroup import group as groups
from corten.linux.cgroup import resources as limits
from corten.linux.cgroup.group import Group
from corten.linux.cgroup.layout import Layout
from corten.linux.cgroup.resources import Cpu, Device, Memory, Pids, Resources
from corten.views.doctor.abilities import DEGRADED, MISSING, OK, Ability

_AREA = "Control groups"
_MIB = 1 << 20
# controller: (what is tried, what is missing without)
_CONTROLLERS = {
    "memory": (Resources(memory=Memory(limit=64 * _MIB)), "--memory"),
    "pids": (Resources(pids=Pids(64)), "--pids-limit"),
    "cpu": (Resources(cpu=Cpu(quota=50_000, period=100_000)), "--cpus and --cpu-shares"),
    "cpuset": (Resources(cpu=Cpu(cpus="0")), "--cpuset-cpus"),
    "io": (Resources(), "limits of disks"),
    "hugetlb": (Resources(), "--hugetlb"),
}
_USUAL = ("memory", "pids", "cpu")


def abilities() -> list[Ability]:
    """Layout, controllers, pressure, swap."""
    here = layout.detect()
    if not here.hierarchies:
        return [Ability(_AREA, "layout", MISSING, "no control group file system is mounted", "no limits, no account",
                        "mount -t cgroup2 none /sys/fs/cgroup", True)]  # fmt: skip
    own = ", ".join(sorted({hierarchy.own for hierarchy in here.hierarchies}))
    rows = [Ability(_AREA, "layout", OK, f"{here.kind}, this process is in {own}", needed=True)]
    if here.kind == "v1":
        rows[0] = Ability(_AREA, "layout", DEGRADED, "v1 without a v2 tree", "no pressure, no atomic kill",
                          "mount -t cgroup2 none /sys/fs/cgroup/unified", True)  # fmt: skip
    try:
        group = groups.place(here, _name())
        if not group.dirs:
            raise Error("none may be made below this process's")
        group.create()
    except (Error, OSError) as error:
        rows.append(Ability(_AREA, "a group of one's own", DEGRADED, str(error), _WITHOUT, _delegation(here), True))
        return rows
    try:
        rows += [_pressure(group), _swap(group), _kill(group), _devices(group)]
    finally:
        group.remove()
    return [*rows, *(_controller(here, name, *how) for name, how in _CONTROLLERS.items())]


_WITHOUT = "containers run without limits and without an account of memory and processes (--best-effort)"


def _name() -> str:
    return f"corten-doctor-{os.getpid()}"


def _controller(here: Layout, controller: str, resources: Resources, option: str) -> Ability:
    needed = controller in _USUAL
    try:
        group = groups.place(here, _name(), None, {controller})
        held = _try(group, controller, resources)
    except (Error, OSError) as error:
        found, _, mend = str(error).partition("; ")
        found = found.partition(": run ")[0]
        offered = any(name in own.controllers for own in here.hierarchies for name in (controller, _V1.get(controller)))
        mend = _delegation(here) if offered else ""
        return Ability(_AREA, controller, MISSING, found, f"no {option}", mend, needed)
    return Ability(_AREA, controller, OK, held, needed=needed)


_V1 = {"io": "blkio"}


def _try(group: Group, controller: str, resources: Resources) -> str:
    """Make the group, write, read back, remove it."""
    group.create()
    try:
        written = limits.writes(resources, group)
        for write in written:
            group.apply(write)
        directory = os.path.dirname(group.directory(controller) or "")
        return f"{written[-1].file} written and read back" if written else f"a group can be made in {directory}"
    finally:
        group.remove()


def _delegation(here: Layout) -> str:
    """The command that gives this user's shell a control group in which it may make others."""
    uid = os.geteuid()
    if uid == 0:
        return "mount -o remount,rw /sys/fs/cgroup"
    shell = os.getppid()
    if here.kind == "v2":
        if os.path.isdir("/run/systemd/system"):
            return "systemd-run --user --scope -p Delegate=yes corten run ..."
        # The process in a group beside those of its containers: v2 has processes in leaves only.
        tree = here.hierarchies[0].mount
        top = f"{tree}/user-{uid}"
        return (
            f"as root: echo +memory +pids +cpu +io >{tree}/cgroup.subtree_control; mkdir -p {top}/shell && "
            f"chown -R {uid} {top} && echo {shell} >{top}/shell/cgroup.procs"
        )
    tops = [
        f"{own.directory(own.own).rstrip('/')}/user-{uid}"
        for own in here.hierarchies
        # A new v1 cpuset is empty, and nothing could join it.
        if own.version == 2 or not {"cpuset", "name=systemd"}.intersection(own.controllers)
    ]
    return f"as root: for d in {' '.join(tops)}; do mkdir -p $d; chown -R {uid} $d; echo {shell} >$d/cgroup.procs; done"


def _pressure(group: Group) -> Ability:
    kinds = pressure.read(group)
    if kinds:
        return Ability(_AREA, "pressure", OK, ", ".join(kinds))
    mend = "boot with psi=1" if not os.path.exists("/proc/pressure") else ""
    follows = "no time lost to waiting in the account"
    return Ability(_AREA, "pressure", MISSING, "the kernel tells none of a group", follows, mend)


def _swap(group: Group) -> Ability:
    directory = group.directory("memory")
    if directory is None:
        return Ability(_AREA, "swap", MISSING, "the group has no memory controller", "no limit of swap")
    name = "memory.memsw.limit_in_bytes" if group.version("memory") == 1 else "memory.swap.max"
    if files.text(f"{directory}/{name}") is not None:
        return Ability(_AREA, "swap", OK, f"{name} is there")
    return Ability(_AREA, "swap", MISSING, f"no {name}", "no limit of swap", "boot with swapaccount=1")


def _kill(group: Group) -> Ability:
    directory = group.directory("cgroup")
    if directory is not None and os.path.exists(f"{directory}/cgroup.kill"):
        return Ability(_AREA, "kill", OK, "cgroup.kill ends all at once")
    return Ability(_AREA, "kill", DEGRADED, "no cgroup.kill", "a group is frozen and killed process by process")


def _devices(group: Group) -> Ability:
    if os.geteuid():
        return Ability(_AREA, "device rules", DEGRADED, "only root sets them", "no device node can be made either")
    rules = (Device(False, access="rwm"), Device(True, "c", 1, 3, "rwm"))
    try:
        group.apply_devices(Resources(devices=rules))
    except (Error, OSError) as error:
        return Ability(_AREA, "device rules", MISSING, str(error), "a container with CAP_MKNOD reads every disk")
    means = "a list" if group.version("devices") == 1 else "a BPF program"
    return Ability(_AREA, "device rules", OK, f"{means} was set", needed=True)
