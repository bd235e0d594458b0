"""Bundles that two runtimes are compared by: a script that looks around, a table of changes to make to a configuration,
and what of the look may differ."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LOOK = r"""
grep -E '^(Uid|Gid|Groups|Umask|Cap...|NoNewPrivs|Seccomp):' /proc/self/status
cat /proc/self/limits /proc/self/uid_map /proc/self/gid_map /proc/self/cgroup /proc/self/oom_score_adj
cat /proc/self/mountinfo
stat -c %a /tmp /dev /dev/shm; env | sort; pwd; hostname; id; ls /proc/self/fd
ls -ln /dev | sed 's/[A-Z][a-z][a-z] .[0-9] ..:..//; s/^total.*//'
for key in net/ipv4/ip_forward kernel/shmmax fs/mqueue/msg_max; do cat /proc/sys/$key; done
readlink /proc/self/cwd /proc/self/root
touch /made 2>&1; mknod /tmp/node c 1 3 2>&1; head -c 1 /dev/null; ls /proc/acpi 2>&1
exit 33
"""


def normal(text: str) -> list[str]:
    """Without what may differ: ids and order of mounts, devices, how a masked path is made, a link to /proc/kcore."""
    lines, mounts = [], []
    for line in text.splitlines():
        if " - " in line and re.match(r"\d+ \d+ \d+:\d+ ", line):
            left, right = line.split(" - ")
            root, place, options = left.split()[3:6]
            kind, source, data = [*right.split(" "), ""][:3]
            if place in ("/proc/acpi", "/sys/firmware", "/sys/fs/cgroup/unified"):
                continue
            if kind == "tmpfs" and place == "/sys/fs/cgroup":
                options, data, source = "", "", ""  # runc mounts it writable, and of another size
            if kind == "tmpfs":
                # runc makes only the mount read-only, and changes modes afterwards
                data = ",".join(one for one in data.split(",") if one not in ("ro", "rw") and one[:5] != "mode=")
            if kind == "cgroup":
                source = ""  # runc names some after their controller
            if kind in ("sysfs", "proc", "mqueue"):
                data = ""  # whether the superblock is read-only: shared ones are left alone
            mounts.append(" ".join([root, place, options, kind, source, ",".join(sorted(data.split(",")))]))
        elif not line.startswith("_=") and "/dev/core" not in line and " core -> " not in line:
            lines.append(line)
    return [*sorted(mounts), *lines]


def namespaces(*kinds: str) -> list[dict[str, str]]:
    return [{"type": kind} for kind in kinds]


USERNS = {
    "namespaces": namespaces("pid", "network", "ipc", "uts", "mount", "user", "cgroup"),
    "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}, {"containerID": 1, "hostID": 100001, "size": 2000}],
    "gidMappings": [{"containerID": 0, "hostID": 0, "size": 1}, {"containerID": 1, "hostID": 100001, "size": 2000}],
}
CGROUPS = {
    "destination": "/sys/fs/cgroup",
    "type": "cgroup",
    "source": "cgroup",
    "options": ["ro", "nosuid", "noexec", "nodev"],
}


def extend(name: str, *items: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config[name].extend(items)


def linux(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["linux"].update(values)


def both(*changes: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        for one in changes:
            one(config)

    return change


def process(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["process"].update(values)


TABLE: dict[str, Callable[[dict[str, Any]], None]] = {
    "plain": lambda config: None,
    "user": process(user={"uid": 1000, "gid": 1000, "additionalGids": [5, 7], "umask": 63}),
    "root without capabilities": process(capabilities=None),
    "all capability sets": process(capabilities={
        kind: ["CAP_NET_RAW", "CAP_KILL"] for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")
    }, user={"uid": 1000, "gid": 0}),
    "new privileges": process(noNewPrivileges=False),
    "limits": process(rlimits=[
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]),
    "oom score": process(oomScoreAdj=100),
    "working directory": process(cwd="/tmp"),
    "missing working directory": process(cwd="/tmp/a/b"),
    "user namespace": linux(**USERNS),
    "control groups": both(
        extend("mounts", CGROUPS), linux(resources={"memory": {"limit": 64 << 20}, "pids": {"limit": 50}})
    ),
    "control group namespace": both(
        extend("mounts", CGROUPS), linux(namespaces=namespaces("pid", "ipc", "mount", "uts", "network", "cgroup"))
    ),
    "host's namespaces": both(
        linux(namespaces=namespaces("mount", "pid")), lambda config: config.update(hostname="")
    ),
    "host's processes": linux(namespaces=namespaces("mount", "uts", "ipc", "network")),
    "sysctl": linux(sysctl={"net.ipv4.ip_forward": "1", "kernel.shmmax": "1000000", "fs.mqueue.msg_max": "20"}),
    "writable root": lambda config: config["root"].update(readonly=False, path=config["root"]["path"] + "-copy"),
    "mounts": extend(
        "mounts",
        {"destination": "/mnt/a", "type": "tmpfs", "source": "x", "options": ["noatime", "ro", "size=1m"]},
        {"destination": "/mnt/b", "type": "bind", "source": "/etc", "options": ["bind", "ro", "nosuid", "noexec"]},
        {"destination": "/mnt/c", "type": "bind", "source": "/etc/hostname", "options": ["rbind", "rprivate"]},
        {"destination": "/mnt/d", "type": "tmpfs", "source": "tmpfs", "options": ["strictatime", "nodiratime"]},
    ),
    # crun refuses some of these
    "options of whole file systems": extend(
        "mounts",
        {"destination": "/mnt/e", "type": "tmpfs", "source": "tmpfs",
         "options": ["sync", "dirsync", "lazytime", "nomand", "silent", "iversion", "size=1m"]},
        {"destination": "/mnt/f", "type": "bind", "source": "/etc", "options": ["bind", "sync", "async", "loud"]},
    ),
    "devices": linux(devices=[
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 432, "uid": 3, "gid": 4},
        {"path": "/dev/pipe", "type": "p"},
    ]),
    "absent program": process(args=["absent"]),
    "directory as program": process(args=["/etc"]),
    "file as program": process(args=["/etc/passwd"]),
    "absent root": lambda config: config["root"].update(path="/absent"),
    "absent bind source": extend(
        "mounts", {"destination": "/mnt", "type": "bind", "source": "/absent", "options": ["bind"]}
    ),
    "unknown file system": extend("mounts", {"destination": "/mnt", "type": "absentfs", "source": "x"}),
    "unknown namespace": linux(namespaces=[{"type": "absent"}]),
    "namespace of nobody": linux(namespaces=[*namespaces("pid", "mount"), {"type": "network", "path": "/absent"}]),
    "hostname without namespace": linux(namespaces=namespaces("mount", "pid")),
    "the machine's sysctl": linux(sysctl={"vm.swappiness": "1"}),
    "no arguments": process(args=[]),
    "relative working directory": process(cwd="tmp"),
}  # fmt: skip
