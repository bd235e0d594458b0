"""`--systemd-cgroup`: a scope asked for over a real message bus. No systemd runs here: a stand-in answers for it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from leaks import groups_named
from oci_runtime import TIMEOUT, Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Make = Callable[..., Path]

STAND_IN = Path(__file__).parents[1] / "systemd_stand_in.py"
CONFIG = """<busconfig><type>session</type><listen>unix:path={path}</listen><policy context="default">
<allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>
</policy></busconfig>
"""


class Systemd:
    """The record of what the stand-in was asked."""

    def __init__(self, record: Path) -> None:
        self.record = record

    def calls(self, name: str) -> list[list[Any]]:
        """The arguments of each call of that name."""
        lines = map(json.loads, self.record.read_text().splitlines())
        return [line[1:] for line in lines if line[0] == name]


@contextlib.contextmanager
def serving(words: list[str], greeting: str) -> Iterator[None]:
    """A server that says so when it is ready."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline().startswith(greeting)
            yield
        finally:
            server.kill()


@pytest.fixture
def bus(nothing_left_behind: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A message bus of our own as that of the system, with nobody on it."""
    path = tmp_path / "bus"
    (tmp_path / "bus.conf").write_text(CONFIG.format(path=path))
    words = ["dbus-daemon", f"--config-file={tmp_path / 'bus.conf'}", "--nofork", "--print-address"]
    with serving(words, "unix:path="):
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={path}")
        yield path


@pytest.fixture
def systemd(bus: Path, tmp_path: Path, identity: str) -> Iterator[Systemd]:
    """The stand-in. Its slices are removed in the end."""
    record = tmp_path / "record"
    with serving([sys.executable, str(STAND_IN), str(record)], "ready"):
        yield Systemd(record)
    for top, names, _ in os.walk("/sys/fs/cgroup", topdown=False):
        for name in names:
            if name.startswith(f"corten{os.getpid()}"):
                os.rmdir(os.path.join(top, name))


def scoped(identity: str, **linux: Any) -> Callable[[dict[str, Any]], None]:
    """In a slice below another, as podman and kubelet name them."""

    def change(config: dict[str, Any]) -> None:
        above = f"corten{os.getpid()}-pod.slice"
        config["linux"].update(cgroupsPath=f"{above}:libpod:{identity}", **linux)
        config["annotations"] = {
            "org.systemd.property.TimeoutStopSec": "uint64 7",
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
            "org.systemd.property.After": "['one.service', 'two.service']",
        }

    return change


def path_of(identity: str) -> str:
    top = f"corten{os.getpid()}"
    return f"/{top}.slice/{top}-pod.slice/libpod-{identity}.scope"


def test_life_in_a_scope(oci: Runtime, bundle: Make, identity: str, systemd: Systemd) -> None:
    resources = {"memory": {"limit": 64 << 20}, "pids": {"limit": 33}, "cpu": {"quota": 25000, "period": 100000}}
    place = bundle("sleep", "1000", change=scoped(identity, resources=resources))
    oci.quietly("--systemd-cgroup", "create", "--bundle", str(place), identity)
    pid = oci.state(identity)["pid"]
    ((unit, mode, properties, _),) = systemd.calls("StartTransientUnit")
    assert (unit, mode) == (f"libpod-{identity}.scope", "replace")
    given = dict(properties)
    assert given["PIDs"] == ["au", [pid]]
    assert given["Delegate"] == ["b", True]
    assert given["TasksMax"] == ["t", 33]
    assert given["CPUQuotaPerSecUSec"] == ["t", 250000]
    assert (given.get("MemoryMax") or given["MemoryLimit"]) == ["t", 64 << 20]
    assert given["TimeoutStopUSec"] == ["t", 7_000_000]
    assert given["CollectMode"] == ["s", "inactive-or-failed"]
    assert given["After"] == ["as", ["one.service", "two.service"]]
    assert ["/dev/char/1:3", "rwm"] in given["DeviceAllow"][1]
    groups = {line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()}
    assert groups == {path_of(identity)}
    assert limit(identity, "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    oci("start", identity, check=True)
    assert oci("exec", identity, "cat", "/proc/self/cgroup").stdout.count(path_of(identity)) == len(
        Path("/proc/self/cgroup").read_text().splitlines()
    )
    oci("update", "--memory", "96m", "--pids-limit", "44", identity, check=True)
    ((unit, runtime, changed),) = systemd.calls("SetUnitProperties")
    assert (unit, runtime) == (f"libpod-{identity}.scope", True)
    assert ["TasksMax", ["t", 44]] in changed
    assert limit(identity, "memory.limit_in_bytes", "memory.max") == str(96 << 20)
    oci("pause", identity, check=True)
    oci("resume", identity, check=True)
    oci("kill", identity, "KILL", check=True)
    oci("delete", "--force", identity, check=True)
    assert systemd.calls("StopUnit") == [[f"libpod-{identity}.scope", "replace"]]
    assert groups_named(f"libpod-{identity}.scope") == []


def limit(identity: str, *files: str) -> str:
    """A value of the container's group, of v1 or v2."""
    tried = [group / name for name in files for group in groups_named(f"libpod-{identity}.scope")]
    (found,) = [path for path in tried if path.exists()]
    return found.read_text().strip()


def test_run_and_the_default_scope(oci: Runtime, bundle: Make, identity: str, systemd: Systemd) -> None:
    done = oci("--systemd-cgroup", "run", "--bundle", str(bundle("cat", "/proc/self/cgroup")), identity)
    assert done.returncode == 0, done.stderr
    assert {line.split(":", 2)[2] for line in done.stdout.splitlines()} == {f"/system.slice/corten-{identity}.scope"}
    assert [call[0] for call in systemd.calls("StopUnit")] == [f"corten-{identity}.scope"]


def test_what_systemd_refuses(oci: Runtime, bundle: Make, identity: str, systemd: Systemd) -> None:
    def said(change: Callable[[dict[str, Any]], None]) -> str:
        done = oci("--systemd-cgroup", "run", "--bundle", str(bundle("true", change=change)), identity)
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert not os.listdir(oci.root)
        return line

    def path(text: str) -> Callable[[dict[str, Any]], None]:
        return lambda config: config["linux"].update(cgroupsPath=text)

    assert "the job ended as 'failed'" in said(path(f"system.slice:fails:{identity}"))
    assert "is not SLICE:PREFIX:NAME" in said(path("/a/path"))
    assert '"nothing" is not the name of a slice' in said(path(f"nothing:a:{identity}"))

    def property_of(name: str, value: str) -> Callable[[dict[str, Any]], None]:
        return lambda config: config.update(annotations={f"org.systemd.property.{name}": value})

    assert "Cannot set property Absent" in said(property_of("Absent", "true"))
    assert "is not a value such as" in said(property_of("After", "['a', "))


def test_without_systemd(oci: Runtime, bundle: Make, identity: str, bus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers for it on the bus; and there is no bus."""
    done = oci("--systemd-cgroup", "run", "--bundle", str(bundle("true")), identity)
    assert (done.returncode, "org.freedesktop.systemd1" in done.stderr) == (1, True)
    assert "use cgroupfs" in done.stderr
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/absent/bus")
    done = oci("--systemd-cgroup", "run", "--bundle", str(bundle("true")), identity)
    assert (done.returncode, "no D-Bus of the system" in done.stderr, "use cgroupfs" in done.stderr) == (1, True, True)
    assert not oci.root.exists() or not os.listdir(oci.root)


def test_systemd_that_has_gone_meanwhile(
    oci: Runtime, bundle: Make, identity: str, systemd: Systemd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What it made is removed all the same, and the log says that it did not answer."""
    oci.quietly("--systemd-cgroup", "run", "--detach", "--bundle", str(bundle("sleep", "1000")), identity)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/absent/bus")
    log = tmp_path / "log"
    oci("--log", str(log), "delete", "--force", identity, check=True, timeout=TIMEOUT)
    assert "level=warning" in log.read_text()
    assert groups_named(f"corten-{identity}.scope") == []
