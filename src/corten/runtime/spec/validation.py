"""The rules of the specification that involve more than one field, or more of a field than its type.

Rule 1: pure: nothing of this machine is looked at; what the kernel here cannot do is found by the steps.
Rule 2: the first fault is the error: one line that begins with the field in JSON spelling.
Source: OCI runtime specification 1.3, config.md and config-linux.md; where it is silent, what runc's validator refuses.
"""

from __future__ import annotations

from corten.errors import InvalidInput
from corten.linux.idmap import check
from corten.runtime.spec.container import Mount, Spec
from corten.runtime.spec.hooks import Hooks
from corten.runtime.spec.keys import json_key
from corten.runtime.spec.linux import Linux, MemoryPolicy, Personality
from corten.runtime.spec.process import Process, Scheduler, User

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from corten.linux.idmap import IdMapping

NAME_MAX = 64  # __NEW_UTS_LEN, include/uapi/linux/utsname.h
INTERFACE_MAX = 15  # IFNAMSIZ - 1


def _refuse(place: str, what: str) -> None:
    raise InvalidInput(f"{place}: {what}")


def validate(spec: Spec, start: bool = True) -> None:
    """Check a whole configuration. start: it must be complete enough to start its process. Errors: `InvalidInput`."""
    _version(spec.oci_version)
    if spec.process is None:
        if start:
            _refuse("process", "missing; it is needed to start")
    else:
        validate_process(spec.process, start)
    if spec.root is None:
        _refuse("root", "missing; a Linux container has a root file system")
    elif not spec.root.path:
        _refuse("root.path", "empty")
    if "" in spec.annotations:
        _refuse("annotations", "a key is empty")
    linux = spec.linux or Linux()
    kinds = _namespaces(linux)
    for field in ("hostname", "domainname"):
        name = getattr(spec, field)
        if name and "uts" not in kinds:
            _refuse(field, "needs a uts namespace in linux.namespaces, else it would rename the host")
        if len(name.encode()) > NAME_MAX:
            _refuse(field, f"{len(name.encode())} bytes are more than the kernel's {NAME_MAX}")
    for index, mount in enumerate(spec.mounts):
        _mount(f"mounts[{index}]", mount, "user" in kinds)
    if spec.hooks:
        _hooks(spec.hooks)
    _linux(spec, linux, kinds)


def _version(text: str) -> None:
    core = text.partition("+")[0].partition("-")[0].split(".")
    if len(core) != 3 or not all(part.isascii() and part.isdigit() for part in core):
        _refuse("ociVersion", f'"{text}" is not a semantic version such as 1.3.0')
    if core[0] != "1" or int(core[1]) > 3:
        _refuse("ociVersion", f"{text} is not supported; 1.0 to 1.3 are")


def _absolute(place: str, path: str) -> None:
    if not path.startswith("/"):
        _refuse(place, f'"{path}" is not an absolute path' if path else "empty; expected an absolute path")


_NO_CHANGE = 2**32 - 1
"""To setresuid(2) and its kin."""


def _user(place: str, user: User) -> None:
    if user.umask is not None and user.umask > 0o777:
        _refuse(f"{place}.umask", f"{user.umask:#o} is more than 0o777")
    ids = (("uid", user.uid), ("gid", user.gid), *(("additionalGids", gid) for gid in user.additional_gids))
    for field, number in ids:
        if number == _NO_CHANGE:
            _refuse(f"{place}.{field}", f"{number} is no id: the kernel takes it for no change, so for root")


def _environment(place: str, env: tuple[str, ...]) -> None:
    for index, entry in enumerate(env):
        if entry.find("=") < 1:
            _refuse(f"{place}[{index}]", f'"{entry}" is not of the form NAME=value')


def _list_of_numbers(place: str, text: str) -> None:
    """`0-3,7`, as the kernel writes lists of CPUs and nodes."""
    for part in text.replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not (last.isdecimal() and int(first) <= int(last))):
            _refuse(place, f'"{text}" is not a list such as 0-3,7')


# --- process


def validate_process(process: Process, start: bool = True, place: str = "process") -> None:
    """Check `process` alone, as `exec` gives it. start: there must be something to run. Errors: `InvalidInput`."""
    if start and not process.args:
        _refuse(f"{place}.args", "missing; there is nothing to run")
    _absolute(f"{place}.cwd", process.cwd)
    _environment(f"{place}.env", process.env)
    size = process.console_size
    if process.terminal and size and max(size.height, size.width) > 0xFFFF:
        _refuse(f"{place}.consoleSize", f"{size.height} by {size.width} is more than a terminal's 65535")
    _user(f"{place}.user", process.user)
    seen: dict[str, int] = {}
    for index, limit in enumerate(process.rlimits):
        here = f"{place}.rlimits[{index}]"
        if limit.type in seen:
            _refuse(f"{here}.type", f"{limit.type} was given by rlimits[{seen[limit.type]}] already")
        if limit.soft > limit.hard:
            _refuse(f"{here}.soft", f"{limit.soft} is above the hard limit {limit.hard}")
        seen[limit.type] = index
    if process.scheduler:
        _scheduler(f"{place}.scheduler", process.scheduler)
    if process.io_priority and not 0 <= process.io_priority.priority <= 7:
        _refuse(f"{place}.ioPriority.priority", f"{process.io_priority.priority} is outside 0 to 7")
    affinity = process.exec_cpu_affinity
    if affinity:
        for field in ("initial", "final"):
            if getattr(affinity, field):
                _list_of_numbers(f"{place}.execCPUAffinity.{field}", getattr(affinity, field))


def _scheduler(place: str, scheduler: Scheduler) -> None:
    policy = scheduler.policy
    if not -20 <= scheduler.nice <= 19:
        _refuse(f"{place}.nice", f"{scheduler.nice} is outside -20 to 19")
    if scheduler.nice and policy not in ("SCHED_OTHER", "SCHED_BATCH"):
        _refuse(f"{place}.nice", f"has no meaning with {policy}; only with SCHED_OTHER and SCHED_BATCH")
    real_time = policy in ("SCHED_FIFO", "SCHED_RR")
    if scheduler.priority and not real_time:
        _refuse(f"{place}.priority", f"has no meaning with {policy}; only with SCHED_FIFO and SCHED_RR")
    if real_time and not 1 <= scheduler.priority <= 99:
        _refuse(f"{place}.priority", f"{scheduler.priority} is outside 1 to 99, which {policy} needs")
    times = (scheduler.runtime, scheduler.deadline, scheduler.period)
    if policy != "SCHED_DEADLINE":
        for field in ("runtime", "deadline", "period"):
            if getattr(scheduler, field):
                _refuse(f"{place}.{field}", f"has no meaning with {policy}; only with SCHED_DEADLINE")
    elif not 0 < times[0] <= times[1] <= (times[2] or times[1]):
        _refuse(f"{place}.runtime", f"SCHED_DEADLINE needs 0 < runtime <= deadline <= period, got {times}")


# --- mounts and hooks


def _mount(place: str, mount: Mount, userns: bool) -> None:
    if not mount.destination:  # a relative one is deprecated, and means relative to /
        _refuse(f"{place}.destination", "empty; expected an absolute path")
    binds = mount.type == "bind" or "bind" in mount.options or "rbind" in mount.options
    if binds and not mount.source:
        _refuse(f"{place}.source", "missing; a bind mount needs one")
    if not binds and not mount.type:
        _refuse(f"{place}.type", "missing; only a bind mount needs none")
    _map_pair(place, mount.uid_mappings, mount.gid_mappings)
    asked = [option for option in mount.options if option in ("idmap", "ridmap")]
    if asked and not mount.uid_mappings and not userns:
        _refuse(f"{place}.options", f"{asked[0]} needs uidMappings and gidMappings here or a user namespace")


def _map_pair(place: str, uids: Sequence[IdMapping], gids: Sequence[IdMapping]) -> None:
    for given, absent, field in ((uids, gids, "gidMappings"), (gids, uids, "uidMappings")):
        if given and not absent:
            _refuse(f"{place}.{field}", "missing; uid and gid mappings go together")
    check(uids, f"{place}.uidMappings")
    check(gids, f"{place}.gidMappings")


def _hooks(hooks: Hooks) -> None:
    for field in hooks._fields:
        for index, hook in enumerate(getattr(hooks, field)):
            here = f"hooks.{json_key(field)}[{index}]"
            _absolute(f"{here}.path", hook.path)
            _environment(f"{here}.env", hook.env)
            if hook.timeout is not None and hook.timeout <= 0:
                _refuse(f"{here}.timeout", f"{hook.timeout} is not a number of seconds above 0")


# --- linux


def _namespaces(linux: Linux) -> dict[str, str]:
    """Kind to path, an empty one for a new namespace."""
    kinds: dict[str, str] = {}
    for index, namespace in enumerate(linux.namespaces):
        here = f"linux.namespaces[{index}]"
        if namespace.type in kinds:
            _refuse(f"{here}.type", f"{namespace.type} was given already")
        if namespace.path:
            _absolute(f"{here}.path", namespace.path)
        kinds[namespace.type] = namespace.path
    return kinds


def _linux(spec: Spec, linux: Linux, kinds: dict[str, str]) -> None:
    _maps(linux, kinds)
    _time_offsets(linux, kinds)
    if "mount" not in kinds:
        _without_mount_namespace(spec, linux)
    for field in ("masked_paths", "readonly_paths"):
        for index, path in enumerate(getattr(linux, field)):
            _absolute(f"linux.{json_key(field)}[{index}]", path)
    _devices(linux)
    _net_devices(linux, kinds)
    for key in linux.sysctl:
        _sysctl(key, kinds)
    if ".." in linux.cgroups_path.split("/"):
        _refuse("linux.cgroupsPath", f'"{linux.cgroups_path}" contains ".."')
    if linux.intel_rdt and (linux.intel_rdt.clos_id in (".", "..") or "/" in linux.intel_rdt.clos_id):
        _refuse("linux.intelRdt.closID", f'"{linux.intel_rdt.clos_id}" is not the name of a directory')
    if linux.memory_policy:
        _memory_policy(linux.memory_policy)
    if linux.personality:
        _personality(linux.personality)


def _time_offsets(linux: Linux, kinds: dict[str, str]) -> None:
    if linux.time_offsets and kinds.get("time") != "":
        _refuse("linux.timeOffsets", "need a new time namespace in linux.namespaces; no other's clocks can be moved")
    for clock, offset in linux.time_offsets.items():
        if offset.nanosecs >= 10**9:
            _refuse(f"linux.timeOffsets.{clock}.nanosecs", f"{offset.nanosecs} is not below a second")


def _without_mount_namespace(spec: Spec, linux: Linux) -> None:
    needs = {
        "mounts": spec.mounts,
        "root.readonly": spec.root and spec.root.readonly,
        "linux.maskedPaths": linux.masked_paths,
        "linux.readonlyPaths": linux.readonly_paths,
        "linux.rootfsPropagation": linux.rootfs_propagation,
    }
    for place, given in needs.items():
        if given:
            _refuse(place, "needs a mount namespace in linux.namespaces, else the host's mounts would change")


def _devices(linux: Linux) -> None:
    for index, device in enumerate(linux.devices):
        here = f"linux.devices[{index}]"
        _absolute(f"{here}.path", device.path)
        for number in ("major", "minor") if device.type != "p" else ():
            value = getattr(device, number)
            if value is None:
                _refuse(f"{here}.{number}", f'missing; a device of type "{device.type}" needs one')
            if value < 0:
                _refuse(f"{here}.{number}", f"{value} is not the number of a device")


def _maps(linux: Linux, kinds: dict[str, str]) -> None:
    for field in ("uid_mappings", "gid_mappings"):
        place = f"linux.{json_key(field)}"
        if getattr(linux, field):
            if "user" not in kinds:
                _refuse(place, "need a user namespace in linux.namespaces")
            if kinds["user"]:
                _refuse(place, f"cannot be given for the existing user namespace {kinds['user']}, which has its own")
        elif kinds.get("user") == "":
            _refuse(place, "missing; without it nobody exists in the new user namespace")
    _map_pair("linux", linux.uid_mappings, linux.gid_mappings)


def _net_devices(linux: Linux, kinds: dict[str, str]) -> None:
    if linux.net_devices and "network" not in kinds:
        _refuse("linux.netDevices", "need a network namespace in linux.namespaces to be moved to")
    taken: dict[str, str] = {}
    for key, device in linux.net_devices.items():
        for name in (key, device.name):
            wrong = (
                len(name.encode()) > INTERFACE_MAX or name in (".", "..") or any(c in "/:" or c.isspace() for c in name)
            )
            if wrong or not key:
                _refuse(f'linux.netDevices["{key}"]', f'"{name}" cannot be the name of a network interface')
        inside = device.name or key
        if inside in taken:
            _refuse(f'linux.netDevices["{key}"].name', f'"{inside}" is the name of {taken[inside]} already')
        taken[inside] = key


# The parameters that a namespace has of its own; any other would change the whole machine.
_IPC_SYSCTLS = frozenset(
    "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni "
    "kernel.shm_rmid_forced".split()
)


def _sysctl(key: str, kinds: dict[str, str]) -> None:
    # As sysctl(8) has it: with a slash first, slashes separate and dots are part of names.
    slash, dot = key.find("/"), key.find(".")
    name = key if slash < 0 or 0 <= dot < slash else key.translate({0x2E: "/", 0x2F: "."})
    place = f'linux.sysctl["{key}"]'
    if name.startswith("net."):
        kind = "network"
    elif name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
        kind = "ipc"
    elif name == "kernel.domainname":
        kind = "uts"
    elif name == "kernel.hostname":
        _refuse(place, "use the field hostname")
    else:
        _refuse(place, "belongs to the whole machine, not to a namespace")
    if kind not in kinds:
        _refuse(place, f"needs a {kind} namespace in linux.namespaces, else it would change the host")
    # It becomes a path below /proc/sys: `net/../kernel/core_pattern` would be the machine's.
    if not {"", "/", "//"}.isdisjoint(name.split(".")):
        _refuse(place, "is not the name of a kernel parameter")


def _memory_policy(policy: MemoryPolicy) -> None:
    """What set_mempolicy(2) would refuse with EINVAL."""
    place = "linux.memoryPolicy"
    if policy.nodes:
        _list_of_numbers(f"{place}.nodes", policy.nodes)
        if policy.mode in ("MPOL_DEFAULT", "MPOL_LOCAL"):
            _refuse(f"{place}.nodes", f"must be empty with {policy.mode}")
    elif policy.mode not in ("MPOL_DEFAULT", "MPOL_LOCAL", "MPOL_PREFERRED"):
        _refuse(f"{place}.nodes", f"missing; {policy.mode} needs at least one node")
    if {"MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"} <= set(policy.flags):
        _refuse(f"{place}.flags", "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other")
    if "MPOL_F_NUMA_BALANCING" in policy.flags and policy.mode not in ("MPOL_BIND", "MPOL_PREFERRED_MANY"):
        _refuse(f"{place}.flags", f"MPOL_F_NUMA_BALANCING has no meaning with {policy.mode}")


def _personality(personality: Personality) -> None:
    if personality.flags:
        _refuse("linux.personality.flags", f'"{personality.flags[0]}" is unknown; the specification defines none')
