"""Fields of the specification that the differential test cannot compare, each seen from inside."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from leaks import groups_named
from oci_runtime import TIMEOUT, Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Make = Callable[..., Path]


def seen(oci: Runtime, bundle: Make, identity: str, script: str, change: Any = None, **process: Any) -> list[str]:
    """The words that a shell script in a container prints."""
    done = oci("run", "--bundle", str(bundle("sh", "-c", script, change=change, **process)), identity)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def linux(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["linux"].update(values)


def test_scheduling(oci: Runtime, bundle: Make, identity: str) -> None:
    script = "chrt -p $$; nice; ionice -p $$; uname -m"
    process = {
        "scheduler": {"policy": "SCHED_BATCH", "nice": 5},
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 0},
    }
    words = seen(oci, bundle, identity, script, linux(personality={"domain": "LINUX32"}), **process)
    assert "SCHED_BATCH" in words
    assert words[-3:-1] == ["5", "idle"]
    assert words[-1] in ("i686", "armv8l", "armv7l")


def test_memory_policy(oci: Runtime, bundle: Make, identity: str) -> None:
    change = linux(memoryPolicy={"mode": "MPOL_BIND", "nodes": "0"})
    script = "test -e /proc/self/numa_maps || exit 0; head -1 /proc/self/numa_maps"
    words = seen(oci, bundle, identity, script, change)
    assert not words or "bind:0" in words[1]


def test_time_namespace(oci: Runtime, bundle: Make, identity: str) -> None:
    def change(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"].append({"type": "time"})
        config["linux"]["timeOffsets"] = {"boottime": {"secs": 1000000}}

    uptime = float(seen(oci, bundle, identity, "cut -d. -f1 /proc/uptime", change)[0])
    assert 1000000 < uptime < 1000000 + float(Path("/proc/uptime").read_text().split()[0]) + 10


def test_no_pivot_and_keyring(oci: Runtime, bundle: Make, identity: str) -> None:
    place = str(bundle("sh", "-c", "ls /; cat /proc/keys >/dev/null; readlink /proc/self/root"))
    done = oci("run", "--no-pivot", "--no-new-keyring", "--bundle", place, identity)
    assert done.returncode == 0, done.stderr
    assert "evil" in done.stdout.split() or "usr" in done.stdout.split()
    assert "root" in done.stdout


def test_idmapped_and_recursively_read_only_binds(
    oci: Runtime, bundle: Make, identity: str, tmp_path: Path, rootfs: Path
) -> None:
    (rootfs / "mnt").mkdir(exist_ok=True)
    tmp_path.chmod(0o755)  # through the mapping its owner is nobody whom the container knows
    (tmp_path / "theirs").write_text("")
    os.chown(tmp_path / "theirs", 1000, 1000)
    maps = [{"containerID": 1000, "hostID": 5000, "size": 1}]

    def change(config: dict[str, Any]) -> None:
        config["mounts"] += [
            {
                "destination": "/mnt", "type": "bind", "source": str(tmp_path), "options": ["rbind", "rro", "idmap"],
                "uidMappings": maps, "gidMappings": maps,
            },
        ]  # fmt: skip

    place = bundle("sh", "-c", "stat -c %u /mnt/theirs; touch /mnt/new", change=change)
    done = oci("run", "--bundle", str(place), identity)
    assert (done.stdout, "Read-only" in done.stderr) == ("5000\n", True), done.stderr


@pytest.mark.parametrize("kinds", [("network", "ipc", "uts"), ("pid",), ("user", "network", "pid", "ipc", "uts")])
def test_namespaces_of_another_container(oci: Runtime, bundle: Make, identity: str, kinds: tuple[str, ...]) -> None:
    """As in a pod: the second container joins those of the first by path."""
    files = {"network": "net"}
    maps = [{"containerID": 0, "hostID": 0, "size": 1}, {"containerID": 1, "hostID": 100001, "size": 1000}]

    def first_change(config: dict[str, Any]) -> None:
        if "user" in kinds:
            config["linux"]["namespaces"].append({"type": "user"})
            config["linux"].update(uidMappings=maps, gidMappings=maps)

    first = f"{identity}-first"
    oci.quietly("run", "--detach", "--bundle", str(bundle("sleep", "1000", change=first_change)), first)
    pid = oci.state(first)["pid"]

    def change(config: dict[str, Any]) -> None:
        listed = config["linux"]["namespaces"]
        for kind in kinds:
            path = f"/proc/{pid}/ns/{files.get(kind, kind)}"
            listed[:] = [one for one in listed if one["type"] != kind] + [{"type": kind, "path": path}]
        if "uts" in kinds:
            config["hostname"] = ""

    names = [files.get(kind, kind) for kind in kinds]
    script = "readlink " + " ".join(f"/proc/self/ns/{name}" for name in names)
    done = oci("run", "--bundle", str(bundle("sh", "-c", script, change=change)), identity)
    assert done.stdout.split() == [os.readlink(f"/proc/{pid}/ns/{name}") for name in names], done.stderr
    oci("delete", "--force", first, check=True)


def test_seccomp_listener(oci: Runtime, bundle: Make, identity: str, tmp_path: Path) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": str(tmp_path / "listener"),
        "listenerMetadata": "some words",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    }
    place = bundle("sleep", "1000", change=linux(seccomp=profile))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "listener"))
        server.listen(1)
        server.settimeout(TIMEOUT)
        oci.quietly("create", "--bundle", str(place), identity)
        connection, _ = server.accept()
        with connection:
            data, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 1)
    told = json.loads(data)
    assert (told["fds"], told["metadata"], told["state"]["id"]) == (["seccompFd"], "some words", identity)
    assert told["pid"] == oci.state(identity)["pid"]
    assert os.readlink(f"/proc/self/fd/{descriptors[0]}") == "anon_inode:seccomp notify"
    os.close(descriptors[0])
    oci("delete", "--force", identity, check=True)


def test_seccomp_without_no_new_privileges(oci: Runtime, bundle: Make, identity: str) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99}],
    }
    for privileges in (False, True):
        script = "grep ^Seccomp: /proc/self/status; mkdir /tmp/x 2>&1 || true"
        words = seen(oci, bundle, identity, script, linux(seccomp=profile), noNewPrivileges=privileges)
        assert words[1] == "2"
        assert "assign" in words  # Cannot assign requested address: errno 99


def test_network_device(oci: Runtime, bundle: Make, identity: str) -> None:
    name = f"ct{os.getpid() % 10**6}"
    added = subprocess.run(["ip", "link", "add", name, "type", "dummy"], check=False, capture_output=True, text=True)
    if added.returncode:
        added = subprocess.run(["ip", "link", "add", name, "type", "veth"], check=True, capture_output=True, text=True)
    try:
        change = linux(netDevices={name: {"name": "moved"}})
        words = seen(oci, bundle, identity, "cat /proc/net/dev", change)
        assert "moved:" in words
    finally:
        subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)


def test_existing_group_is_taken_only_when_empty(oci: Runtime, bundle: Make, identity: str) -> None:
    place = str(bundle("sleep", "1000", change=linux(cgroupsPath=f"/{identity}-group")))
    oci.quietly("run", "--detach", "--bundle", place, identity)
    refused = oci("run", "--bundle", place, f"{identity}-2")
    assert (refused.returncode, "is in use" in refused.stderr) == (1, True)
    oci("delete", "--force", identity, check=True)
    assert groups_named(f"{identity}-group") == []
