"""The same bundle under `runc` and `corten-oci`: what the program sees, how it ends, and the state must be the same."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oci_runtime import Runtime, config_of

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


def compare(oci: Runtime, runc: Runtime, place: Path, identity: str) -> None:
    """Run it under both."""
    ended = [runtime("run", "--bundle", str(place), identity) for runtime in (runc, oci)]
    theirs, ours = (normal(done.stdout) for done in ended)
    assert ours == theirs, "\n".join([ended[1].stderr, *difflib.unified_diff(theirs, ours, "runc", "corten-oci", n=0)])
    assert ended[1].returncode == ended[0].returncode, (ended[0].stderr, ended[1].stderr)
    if ended[0].returncode != 33:
        assert ended[1].stderr


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


@pytest.mark.parametrize("name", TABLE)
def test_table(
    oci: Runtime, runc: Runtime, bundle: Callable[..., Path], identity: str, rootfs: Path, name: str
) -> None:
    if name == "writable root":
        import shutil

        copy = rootfs.with_name(rootfs.name + "-copy")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(rootfs, copy, symlinks=True)
    if name == "mounts":
        (rootfs / "mnt").mkdir(exist_ok=True)
    compare(oci, runc, bundle("sh", "-c", LOOK, change=TABLE[name]), identity)


capability = st.sampled_from(
    ["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW", "CAP_SETUID", "CAP_SYS_CHROOT", "CAP_AUDIT_WRITE"]
)
identifier = st.integers(0, 1999)


@st.composite
def configurations(draw: st.DrawFn) -> Callable[[dict[str, Any]], None]:
    """A random container that both should be able to make."""
    held = draw(st.lists(capability, unique=True))
    effective = draw(st.lists(st.sampled_from(held), unique=True)) if held else []
    user = {"uid": draw(identifier), "gid": draw(identifier)}
    groups = draw(st.lists(identifier, max_size=3, unique=True))
    if groups:
        user["additionalGids"] = groups  # type: ignore[assignment]
    kinds = ["mount", "pid", *draw(st.lists(st.sampled_from(["network", "ipc", "uts", "cgroup"]), unique=True))]
    in_userns = draw(st.booleans())
    files = draw(st.integers(16, 1024))
    values = {
        "user": user,
        "capabilities": {"bounding": held, "permitted": held, "effective": effective},
        "noNewPrivileges": draw(st.booleans()),
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": draw(st.integers(16, files)), "hard": files}],
        "env": [
            "PATH=/usr/bin:/bin",
            *draw(st.lists(st.from_regex(r"[A-Z]{1,8}X=[a-z ]{0,8}", fullmatch=True), max_size=3)),
        ],
        "cwd": draw(st.sampled_from(["/", "/tmp", "/usr/bin"])),
    }
    limit = draw(st.integers(20, 2000))

    def change(config: dict[str, Any]) -> None:
        config["process"].update(values)
        if in_userns and "network" in kinds:  # without its own network, a user namespace cannot have sysfs
            config["linux"].update(USERNS)
            kinds[:] = [*kinds, "user"]
        config["linux"].update(namespaces=namespaces(*dict.fromkeys(kinds)), resources={"pids": {"limit": limit}})
        if "uts" not in kinds:
            del config["hostname"]

    return change


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=configurations())
def test_random(oci: Runtime, runc: Runtime, tmp_path: Path, rootfs: Path, identity: str, change: Any) -> None:
    config = config_of(rootfs, "sh", "-c", LOOK)
    change(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    compare(oci, runc, tmp_path, identity)


def test_state(oci: Runtime, runc: Runtime, bundle: Callable[..., Path], identity: str) -> None:
    place = bundle("sleep", "1000", change=lambda config: config.update(annotations={"a.b": "c", "d": "<&>"}))
    seen = []
    for runtime in (runc, oci):
        states = []
        runtime.quietly("create", "--bundle", str(place), identity)
        states.append(runtime.state(identity))
        runtime("start", identity, check=True)
        states.append(runtime.state(identity))
        runtime("pause", identity, check=True)
        states.append(runtime.state(identity))
        runtime("delete", "--force", identity, check=True)
        seen.append(states)
    for theirs, ours in zip(*seen, strict=True):
        for state in (theirs, ours):
            assert state.pop("pid") > 0
            assert state.pop("created")
            assert state.pop("ociVersion")
        assert list(ours.items()) == list(theirs.items())
