"""What all contestants share: one root file system, one seccomp filter, one OCI bundle with the same limits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyseccomp
from contest import Missing

PROFILE = "/usr/share/containers/seccomp.json"
"""Podman's default profile, from Debian's golang-github-containers-common: the same for every contestant."""

CAPABILITIES = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE",
                "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT")  # fmt: skip
"""Podman's default set."""

MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
MEMORY, QUOTA, PERIOD, PIDS = 512 << 20, 100_000, 100_000, 64
DEVICES = (("c", 1, 3), ("c", 1, 5), ("c", 1, 7), ("c", 1, 8), ("c", 1, 9), ("c", 5, 0), ("c", 5, 2), ("c", 136, None))


class Lab:
    """A directory with `rootfs`, `filter.bpf` and `bundle/config.json`, and the yardstick's program."""

    def __init__(self, directory: str, floor: str) -> None:
        self.rootfs, self.bundle = f"{directory}/rootfs", f"{directory}/bundle"
        self.filter_path, self.floor = f"{directory}/filter.bpf", floor


@contextmanager
def laboratory(floor: str) -> Iterator[Lab]:
    """A lab, removed at the end."""
    directory = tempfile.mkdtemp(prefix="corten-bench-", dir="/var/tmp")
    try:
        os.chmod(directory, 0o755)
        lab = Lab(directory, floor)
        _make_rootfs(lab.rootfs)
        rules = list(_rules())
        _write_filter(lab.filter_path, rules)
        os.mkdir(lab.bundle)
        with open(f"{lab.bundle}/config.json", "w") as file:
            json.dump(_oci(lab, rules), file)
        yield lab
    finally:
        shutil.rmtree(directory)


def _make_rootfs(rootfs: str) -> None:
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        os.makedirs(f"{rootfs}/{name}")
    for name in ("hostname", "hosts"):  # as every root file system of a distribution has them
        with open(f"{rootfs}/etc/{name}", "w"):
            pass
    subprocess.run(["gcc", "-O2", "-static", "-x", "c", "-", "-o", f"{rootfs}/bin/true"],
                   input=b"int main(void) { return 0; }", check=True)  # fmt: skip


def _rules() -> Iterator[dict[str, Any]]:
    """The profile's rules that hold for this machine and these capabilities, as OCI `linux.seccomp.syscalls`."""
    if not os.path.exists(PROFILE):
        raise Missing(f"{PROFILE} is not there: it comes with podman")
    with open(PROFILE) as file:
        profile = json.load(file)
    machine = MACHINES[os.uname().machine]
    for rule in profile["syscalls"]:
        wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
        if not set(wanted.get("caps") or ()) <= set(CAPABILITIES):
            continue
        if wanted.get("arches") and machine not in wanted["arches"]:
            continue
        if set(unwanted.get("caps") or ()) & set(CAPABILITIES) or machine in (unwanted.get("arches") or ()):
            continue
        kept = {key: rule[key] for key in ("names", "action", "args") if rule.get(key)}
        if rule["action"] == "SCMP_ACT_ERRNO":
            kept["errnoRet"] = rule.get("errnoRet", 1)
        yield kept


def _write_filter(path: str, rules: list[dict[str, Any]]) -> None:
    compare = {"SCMP_CMP_EQ": pyseccomp.EQ, "SCMP_CMP_NE": pyseccomp.NE, "SCMP_CMP_MASKED_EQ": pyseccomp.MASKED_EQ}
    filter_ = pyseccomp.SyscallFilter(pyseccomp.ERRNO(38))  # ENOSYS, as podman answers what it does not know
    filter_.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)  # a tree instead of a list: loads in 0.14 instead of 0.35 ms
    for rule in rules:
        action = pyseccomp.ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else pyseccomp.ERRNO(rule["errnoRet"])
        arguments = []
        for arg in rule.get("args", ()):
            values = (arg["value"], arg["valueTwo"]) if arg["op"] == "SCMP_CMP_MASKED_EQ" else (arg["value"],)
            arguments.append(pyseccomp.Arg(arg["index"], compare[arg["op"]], *values))
        for name in rule["names"]:
            try:
                number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
            except ValueError:  # newer than this libseccomp
                continue
            if number >= 0:
                filter_.add_rule(action, number, *arguments)
    with open(path, "wb") as file:
        filter_.export_bpf(file)


def _oci(lab: Lab, rules: list[dict[str, Any]]) -> dict[str, Any]:
    safe = ["nosuid", "noexec", "nodev"]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False, "user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "cwd": "/",
            "env": ["PATH=/bin"], "noNewPrivileges": True,
            "capabilities": {kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
        },
        "root": {"path": lab.rootfs, "readonly": False},
        "hostname": "bench",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": safe},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": [*safe, "mode=1777", "size=268435456"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": safe},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*safe, "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*safe, "ro"]},
        ],
        "linux": {
            "cgroupsPath": f"corten-bench-{os.getpid()}",
            "resources": {
                "devices": [
                    {"allow": False, "access": "rwm"},
                    *({"allow": True, "type": kind, "access": "m"} for kind in "cb"),
                    *({"allow": True, "type": kind, "major": major, "access": "rwm"}
                      | ({} if minor is None else {"minor": minor}) for kind, major, minor in DEVICES),
                ],
                "memory": {"limit": MEMORY, "swap": 2 * MEMORY},
                "cpu": {"quota": QUOTA, "period": PERIOD},
                "pids": {"limit": PIDS},
            },
            "namespaces": [{"type": kind} for kind in ("mount", "pid", "uts", "ipc", "network", "cgroup")],
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": rules},
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                            "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/interrupts",
                            "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }  # fmt: skip
