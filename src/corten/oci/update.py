"""`corten-oci update`: other limits for a container that runs. Each is read back; devices are not changed."""

from __future__ import annotations

import sys

from corten.cli.parser import Option, UsageError
from corten.engine import cgroup_path, lifecycle, oci_state
from corten.errors import InvalidInput, Unsupported
from corten.linux.cgroup import layout
from corten.linux.cgroup import resources as limits
from corten.linux.cgroup.resources import Resources
from corten.oci.table import command, parse
from corten.runtime.spec.decoding import decode_as

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from corten.oci.main import Settings

# option: (part of the resources, key in it, what it is)
_NUMBERS = {
    "--blkio-weight": ("blockIO", "weight", "Share of disk time, 10 to 1000"),
    "--cpu-period": ("cpu", "period", "CPU period in microseconds"),
    "--cpu-quota": ("cpu", "quota", "CPU time in each period, in microseconds; -1: no limit"),
    "--cpu-burst": ("cpu", "burst", "CPU time saved up from periods before, in microseconds"),
    "--cpu-share": ("cpu", "shares", "Share of the CPU against others"),
    "--cpu-rt-period": ("cpu", "realtimePeriod", "Period of real-time scheduling, in microseconds"),
    "--cpu-rt-runtime": ("cpu", "realtimeRuntime", "Real-time CPU time in each period, in microseconds"),
    "--cpu-idle": ("cpu", "idle", "1: run only when nothing else does"),
    "--pids-limit": ("pids", "limit", "Processes and threads; -1: no limit"),
}
_SIZES = {
    "--memory": ("memory", "limit", "Memory in bytes (or 512m); -1: no limit"),
    "--memory-reservation": ("memory", "reservation", "Memory to keep when it runs short, in bytes"),
    "--memory-swap": ("memory", "swap", "Memory and swap together, in bytes; -1: no limit"),
}
_TEXTS = {
    "--cpuset-cpus": ("cpu", "cpus", "CPUs to run on, such as 0-2"),
    "--cpuset-mems": ("cpu", "mems", "Memory nodes to use, such as 0"),
}
_REFUSED = "needs /sys/fs/resctrl, which this version does not manage"
COMMAND = command(
    "update",
    "[OPTIONS] ID",
    "Change the resources of a container.",
    Option(("-r", "--resources"), "FILE", "JSON (OCI `linux.resources`); -: standard input"),
    *(Option((name,), "N", words) for name, (_, _, words) in {**_NUMBERS, **_SIZES, **_TEXTS}.items()),
    Option(("--kernel-memory",), "N", hidden=True),
    Option(("--kernel-memory-tcp",), "N", hidden=True),
    Option(("--l3-cache-schema",), "TEXT", refuse=_REFUSED),
    Option(("--mem-bw-schema",), "TEXT", refuse=_REFUSED),
)
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


def run(settings: Settings, words: Sequence[str]) -> int:
    """Change them; 0."""
    parsed = parse(COMMAND, words)
    if parsed is None:
        return 0
    values, (identity,) = parsed
    lock = lifecycle.lock(oci_state.directory(settings.root, identity))
    assert lock is not None  # it goes with this process
    found = lifecycle.find(settings.root, identity).allow("update")
    resources = decode_as(Resources, _asked(values), "resources").replace(devices=())
    if resources == Resources():
        return 0
    group = found.group
    if group is None:
        raise Unsupported(f"update: container {identity} has no control group")
    wider = cgroup_path.widened(group, layout.detect(), limits.needs(resources))
    if wider != group:
        found.state["corten"]["group"] = lifecycle.group_lines(wider)
        oci_state.write(found.path, found.state)
        group = wider
    writes = limits.writes(resources, group, limits.now(group))
    scope = lifecycle.scope_of(found.state)
    if scope is not None:
        from corten.engine import systemd, systemd_properties

        with systemd.Manager(scope.user) as manager:
            manager.change(scope, systemd_properties.of_limits(writes))
    for write in writes:
        group.apply(write)
    return 0


def _asked(values: dict[str, Any]) -> dict[str, Any]:
    """The resources as JSON data: the file's, or those of the options."""
    if values.get("resources"):
        return _read(values["resources"])
    data: dict[str, dict[str, Any]] = {}
    for table, read in ((_NUMBERS, _number), (_SIZES, size), (_TEXTS, lambda _, text: text)):
        for name, (part, key, _) in table.items():
            given = values.get(name[2:].replace("-", "_"))
            if given:
                data.setdefault(part, {})[key] = read(name, given)
    return data


def _read(path: str) -> dict[str, Any]:
    from corten.engine.bundle import read_text
    from corten.runtime.spec.files import parse as parse_json

    text = sys.stdin.read() if path == "-" else read_text(path)
    data = parse_json(text.encode(), "resources")
    if not isinstance(data, dict):
        raise InvalidInput("resources: expected object")
    return data


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{name}: {text!r} is not a number") from None


def size(name: str, text: str) -> int:
    """Bytes, as runc takes them: `128M`, `1g`, `-1`. `UsageError`."""
    if text == "-1":
        return -1
    bare = text.lower().removesuffix("b") or "x"
    unit = bare[-1] if bare[-1] in _UNITS else ""
    number = bare.removesuffix(unit)
    try:
        return int(float(number) * _UNITS[unit])
    except ValueError:
        raise UsageError(f"{name}: {text!r} is not a size such as 512m") from None
