"""What systemd is told of a scope: names, limits, devices, and values in annotations."""

from __future__ import annotations

from typing import Any

import pytest

from corten.engine import systemd_properties as systemd
from corten.errors import InvalidInput
from corten.linux.cgroup.files import Write
from corten.linux.cgroup.resources import Device


@pytest.mark.parametrize(
    ("path", "user", "unit", "above"),
    [
        ("", False, "corten-one.scope", "system.slice"),
        ("", True, "corten-one.scope", "user.slice"),
        ("machine.slice:libpod:abc", False, "libpod-abc.scope", "machine.slice"),
        (":cri:abc", False, "cri-abc.scope", "system.slice"),
        ("a.slice::abc", False, "abc.scope", "a.slice"),
    ],
)
def test_scopes(path: str, user: bool, unit: str, above: str) -> None:
    assert systemd.scope_of(path, "one", user) == systemd.Scope(unit, above, user)


@pytest.mark.parametrize(
    "path",
    ["/a/b", "a:b", "a.slice:b:c:d", "a.slice:b:", "a.slice:b:c/d", "a:b:c", "-a.slice:b:c", "a.slice:b:c.slice"],
)
def test_what_is_no_scope(path: str) -> None:
    with pytest.raises(InvalidInput, match=r"linux\.cgroupsPath"):
        systemd.scope_of(path, "one")


@pytest.mark.parametrize(
    ("name", "path"),
    [("-.slice", ""), ("a.slice", "/a.slice"), ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice")],
)
def test_slices(name: str, path: str) -> None:
    assert systemd.slice_path(name) == path


def limits(**files: str) -> dict[str, Any]:
    writes = [Write("x", name.replace("__", "."), value, "") for name, value in files.items()]
    return dict(systemd.of_limits(writes))


def test_limits() -> None:
    assert limits(memory__max="max", pids__max="5") == {"MemoryMax": ("t", 2**64 - 1), "TasksMax": ("t", 5)}
    assert limits(memory__limit_in_bytes="-1") == {"MemoryLimit": ("t", 2**64 - 1)}
    assert limits(io__weight="default 40") == {"IOWeight": ("t", 40)}
    assert limits(cpu__max="25000 50000") == {
        "CPUQuotaPeriodUSec": ("t", 50000), "CPUQuotaPerSecUSec": ("t", 500_000),
    }  # fmt: skip
    # hundredths of a CPU, rounded up: what was asked for is not made less
    assert limits(cpu__cfs_quota_us="12345")["CPUQuotaPerSecUSec"] == ("t", 130_000)
    assert limits(cpu__max="max") == {"CPUQuotaPerSecUSec": ("t", 2**64 - 1)}
    assert limits(cpuset__cpus="0-2,9") == {"AllowedCPUs": ("ay", b"\x07\x02")}


def test_devices() -> None:
    known = systemd.device_groups("Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n259 blkext\n")
    assert known == {"c": {1: "mem", 136: "pts"}, "b": {259: "blkext"}}
    rules = (
        Device(True, "c", 5, 1), Device(False), Device(True, "c", 1, 3), Device(True, "c", 136, None, "rw"),
        Device(True, "b", None, None, "m"), Device(True, "c", 77, None), Device(True, "c", None, 4),
    )  # fmt: skip
    policy, allowed = systemd.of_devices(rules, known)
    assert policy == ("DevicePolicy", ("s", "strict"))
    assert allowed[1] == ("a(ss)", [("/dev/char/1:3", "rwm"), ("char-pts", "rw"), ("block-*", "m")])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", ("b", True)), ("false", ("b", False)), ("5", ("i", 5)), ("-5", ("i", -5)),
        ("uint64 5000000", ("t", 5_000_000)), ("'a b'", ("s", "a b")), ('"x"', ("s", "x")),
        ("['a', 'b']", ("as", ["a", "b"])),
    ],
)  # fmt: skip
def test_values(text: str, value: tuple[str, Any]) -> None:
    assert systemd.parse_value("key", text) == value


@pytest.mark.parametrize("text", ["", "a", "uint64 x", "uint64", "['a', 1]", "{}", "__import__('os')", "['a'"])
def test_what_is_no_value(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"annotations\.key: .* is not a value such as"):
        systemd.parse_value("key", text)


def test_annotations() -> None:
    asked = {"org.systemd.property.TimeoutStopSec": "uint64 7", "org.systemd.property.CPUWeight": "uint64 3", "x": "y"}
    given = dict(systemd.of_scope(systemd.Scope("u", "s"), "one", asked))
    assert (given["TimeoutStopUSec"], given["CPUWeight"]) == (("t", 7_000_000), ("t", 3))
    with pytest.raises(InvalidInput, match="expected a number of seconds"):
        systemd.of_scope(systemd.Scope("u", "s"), "one", {"org.systemd.property.TimeoutStopSec": "'7'"})
