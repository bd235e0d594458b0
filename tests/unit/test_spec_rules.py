"""The rules between fields: each is broken once, and the error begins with the field."""

from __future__ import annotations

from typing import Any

import pytest

from corten.errors import InvalidInput
from corten.runtime import defaults
from corten.runtime.spec import (
    Box,
    Device,
    ExecCPUAffinity,
    Hook,
    Hooks,
    IdMapping,
    IntelRdt,
    IOPriority,
    MemoryPolicy,
    Mount,
    Namespace,
    NetDevice,
    Personality,
    Process,
    Rlimit,
    Root,
    Scheduler,
    Spec,
    TimeOffset,
    User,
    validate,
    validate_process,
)

GOOD = defaults.default_spec(("true",))
IDS = (IdMapping(0, 100000, 10),)
assert GOOD.process is not None
assert GOOD.linux is not None
PROCESS, LINUX = GOOD.process, GOOD.linux
USERNS = (*LINUX.namespaces, Namespace("user"))


def _without(*kinds: str) -> tuple[Namespace, ...]:
    return tuple(space for space in LINUX.namespaces if space.type not in kinds)


def _bad(**changes: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        validate(GOOD.replace(**changes))
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("version", ["1.0.0", "1.0.2-dev", "1.1.0+build", "1.2.1", "1.3.0", "1.3.7-rc.1", "1.0.0-rc5"])
def test_versions_accepted(version: str) -> None:
    validate(GOOD.replace(oci_version=version))


@pytest.mark.parametrize("version", ["", "1", "1.0", "0.9.0", "2.0.0", "1.4.0", "1.x.0", "v1.0.0", "-"])
def test_versions_refused(version: str) -> None:
    assert _bad(oci_version=version).startswith("ociVersion: ")


@pytest.mark.parametrize(
    ("field", "process"),
    [
        ("process.args", PROCESS.replace(args=())),
        ("process.cwd", PROCESS.replace(cwd="relative")),
        ("process.cwd", PROCESS.replace(cwd="")),
        ("process.env[1]", PROCESS.replace(env=("A=", "B"))),
        ("process.env[0]", PROCESS.replace(env=("=x",))),
        ("process.consoleSize", PROCESS.replace(terminal=True, console_size=Box(1, 70000))),
        ("process.user.uid", PROCESS.replace(user=User(uid=2**32 - 1))),
        ("process.user.gid", PROCESS.replace(user=User(gid=2**32 - 1))),
        ("process.user.additionalGids", PROCESS.replace(user=User(additional_gids=(1, 2**32 - 1)))),
        ("process.user.umask", PROCESS.replace(user=User(umask=0o1777))),
        (
            "process.rlimits[1].type",
            PROCESS.replace(rlimits=(Rlimit("RLIMIT_CORE", 1, 1), Rlimit("RLIMIT_CORE", 2, 2))),
        ),
        ("process.rlimits[0].soft", PROCESS.replace(rlimits=(Rlimit("RLIMIT_CORE", 1, 2),))),
        ("process.scheduler.nice", PROCESS.replace(scheduler=Scheduler("SCHED_OTHER", nice=20))),
        ("process.scheduler.nice", PROCESS.replace(scheduler=Scheduler("SCHED_FIFO", nice=1, priority=1))),
        ("process.scheduler.priority", PROCESS.replace(scheduler=Scheduler("SCHED_FIFO"))),
        ("process.scheduler.priority", PROCESS.replace(scheduler=Scheduler("SCHED_OTHER", priority=1))),
        ("process.scheduler.period", PROCESS.replace(scheduler=Scheduler("SCHED_RR", priority=1, period=1))),
        ("process.scheduler.runtime", PROCESS.replace(scheduler=Scheduler("SCHED_DEADLINE", runtime=5, deadline=4))),
        ("process.ioPriority.priority", PROCESS.replace(io_priority=IOPriority("IOPRIO_CLASS_BE", 8))),
        ("process.execCPUAffinity.final", PROCESS.replace(exec_cpu_affinity=ExecCPUAffinity("0", "3-1"))),
        ("process", None),
    ],
)
def test_process(field: str, process: Process | None) -> None:
    assert _bad(process=process).startswith(f"{field}: ")


def test_process_accepted() -> None:
    validate_process(PROCESS.replace(console_size=Box(1, 70000)))  # to be ignored without a terminal
    validate_process(PROCESS.replace(scheduler=Scheduler("SCHED_DEADLINE", runtime=5, deadline=5)))
    validate_process(PROCESS.replace(scheduler=Scheduler("SCHED_BATCH", nice=-20)))
    validate_process(PROCESS.replace(exec_cpu_affinity=ExecCPUAffinity("", "0-3,7")))
    validate_process(Process(), start=False)
    validate(GOOD.replace(process=None), start=False)
    with pytest.raises(InvalidInput, match=r"^config\.cwd: "):
        validate_process(Process(args=("a",), cwd="x"), place="config")


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("root", {"root": None}),
        ("root.path", {"root": Root("")}),
        ("annotations", {"annotations": {"": "x"}}),
        ("hostname", {"hostname": "a", "linux": LINUX.replace(namespaces=_without("uts"))}),
        ("hostname", {"hostname": "a", "linux": None, "mounts": ()}),
        ("domainname", {"domainname": "a", "linux": LINUX.replace(namespaces=_without("uts"))}),
        ("hostname", {"hostname": "é" * 33}),
        ("mounts[0].destination", {"mounts": (Mount("", "proc"),)}),
        ("mounts[1].source", {"mounts": (Mount("/a", "proc"), Mount("/b", "none", options=("rbind",)))}),
        ("mounts[0].type", {"mounts": (Mount("/a"),)}),
        ("mounts[0].gidMappings", {"mounts": (Mount("/a", "proc", uid_mappings=IDS),)}),
        ("mounts[0].uidMappings", {"mounts": (Mount("/a", "proc", gid_mappings=IDS),)}),
        ("mounts[0].uidMappings[0]", {"mounts": (Mount("/a", "proc", "", (), (IdMapping(0, 0, 0),), IDS),)}),
        ("mounts[0].options", {"mounts": (Mount("/a", "bind", "/b", ("idmap",)),)}),
        ("hooks.createRuntime[0].path", {"hooks": Hooks(create_runtime=(Hook("hook"),))}),
        ("hooks.poststop[1].timeout", {"hooks": Hooks(poststop=(Hook("/a"), Hook("/a", timeout=0)))}),
        ("hooks.prestart[0].env[0]", {"hooks": Hooks(prestart=(Hook("/a", env=("x",)),))}),
    ],
)
def test_top(field: str, changes: dict[str, Any]) -> None:
    assert _bad(**changes).startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("linux.namespaces[7].type", {"namespaces": (*LINUX.namespaces, Namespace("pid"))}),
        ("linux.namespaces[0].path", {"namespaces": (Namespace("pid", "ns/pid"),)}),
        ("linux.uidMappings", {"uid_mappings": IDS, "gid_mappings": IDS}),
        ("linux.uidMappings", {"namespaces": USERNS}),
        ("linux.gidMappings", {"namespaces": USERNS, "uid_mappings": IDS}),
        ("linux.uidMappings", {"namespaces": (*LINUX.namespaces, Namespace("user", "/proc/1/ns/user")),
                               "uid_mappings": IDS, "gid_mappings": IDS}),
        ("linux.gidMappings[0] and linux.gidMappings[1] overlap inside",
         {"namespaces": USERNS, "uid_mappings": IDS, "gid_mappings": (*IDS, IdMapping(5, 5, 1))}),
        ("linux.timeOffsets", {"namespaces": _without("time"), "time_offsets": {"monotonic": TimeOffset(1)}}),
        ("linux.timeOffsets", {"namespaces": (*_without("time"), Namespace("time", "/proc/1/ns/time")),
                               "time_offsets": {"monotonic": TimeOffset(1)}}),
        ("linux.timeOffsets.boottime.nanosecs", {"time_offsets": {"boottime": TimeOffset(0, 10**9)}}),
        ("mounts", {"namespaces": _without("mount")}),
        ("linux.maskedPaths[0]", {"masked_paths": ("proc",)}),
        ("linux.readonlyPaths[1]", {"readonly_paths": ("/proc", "sys")}),
        ("linux.devices[0].path", {"devices": (Device("null", "c", 1, 3),)}),
        ("linux.devices[0].minor", {"devices": (Device("/dev/null", "c", 1),)}),
        ("linux.netDevices", {"namespaces": _without("network"), "net_devices": {"eth0": NetDevice()}}),
        ('linux.netDevices["eth0"]', {"net_devices": {"eth0": NetDevice("a name that is long")}}),
        ('linux.netDevices["a/b"]', {"net_devices": {"a/b": NetDevice("a")}}),
        ('linux.netDevices["b"].name', {"net_devices": {"a": NetDevice("lan"), "b": NetDevice("lan")}}),
        ('linux.sysctl["kernel.panic"]', {"sysctl": {"kernel.panic": "1"}}),
        ('linux.sysctl["kernel.hostname"]', {"sysctl": {"kernel.hostname": "x"}}),
        ('linux.sysctl["net.ipv4.ip_forward"]', {"sysctl": {"net.ipv4.ip_forward": "1"},
                                                 "namespaces": _without("network")}),
        ('linux.sysctl["net/ipv4/ip_forward"]', {"sysctl": {"net/ipv4/ip_forward": "1"},
                                                 "namespaces": _without("network")}),
        ('linux.sysctl["kernel.sem"]', {"sysctl": {"kernel.sem": "1"}, "namespaces": _without("ipc")}),
        ('linux.sysctl["net..x"]', {"sysctl": {"net..x": "1"}}),
        ('linux.sysctl["net/../kernel/core_pattern"]', {"sysctl": {"net/../kernel/core_pattern": "1"}}),
        ('linux.sysctl["net/./x"]', {"sysctl": {"net/./x": "1"}}),
        ("linux.cgroupsPath", {"cgroups_path": "/a/../../b"}),
        ("linux.intelRdt.closID", {"intel_rdt": IntelRdt("../a")}),
        ("linux.memoryPolicy.nodes", {"memory_policy": MemoryPolicy("MPOL_BIND")}),
        ("linux.memoryPolicy.nodes", {"memory_policy": MemoryPolicy("MPOL_BIND", "1,a")}),
        ("linux.memoryPolicy.nodes", {"memory_policy": MemoryPolicy("MPOL_LOCAL", "0")}),
        ("linux.memoryPolicy.flags", {"memory_policy": MemoryPolicy(
            "MPOL_BIND", "0", ("MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"))}),
        ("linux.memoryPolicy.flags", {"memory_policy": MemoryPolicy(
            "MPOL_INTERLEAVE", "0", ("MPOL_F_NUMA_BALANCING",))}),
        ("linux.personality.flags", {"personality": Personality("LINUX", ("X",))}),
    ],
)  # fmt: skip
def test_linux(field: str, changes: dict[str, Any]) -> None:
    assert _bad(linux=LINUX.replace(**changes)).startswith(f"{field}: ")


def test_accepted() -> None:
    validate(GOOD.replace(hostname="é" * 32, domainname="x"))
    validate(GOOD.replace(mounts=(Mount("relative", "tmpfs"), Mount("/a", "", "/b", ("bind",)))))
    validate(GOOD.replace(hooks=Hooks(poststart=(Hook("/a", timeout=1),))))
    mapped = LINUX.replace(namespaces=USERNS, uid_mappings=IDS, gid_mappings=IDS)
    validate(GOOD.replace(linux=mapped, mounts=(Mount("/a", "bind", "/b", ("ridmap",)),)))
    validate(GOOD.replace(linux=LINUX.replace(namespaces=(*LINUX.namespaces, Namespace("user", "/proc/1/ns/user")))))
    validate(GOOD.replace(linux=LINUX.replace(
        time_offsets={"monotonic": TimeOffset(-1, 5)},
        devices=(Device("/run/fifo", "p"),),
        net_devices={"a": NetDevice("b"), "b": NetDevice("a"), "c": NetDevice()},
        sysctl={"net.ipv4.ip_forward": "1", "fs.mqueue.msg_max": "5", "kernel.domainname": "x",
                "net/ipv4/conf/eth0.1/forwarding": "1"},
        cgroups_path="/a/..b",
        memory_policy=MemoryPolicy("MPOL_PREFERRED_MANY", "0-1,3", ("MPOL_F_NUMA_BALANCING",)),
        personality=Personality("LINUX32"),
    )))  # fmt: skip


def test_smallest() -> None:
    validate(Spec(process=Process(args=("true",)), root=Root("rootfs")))
