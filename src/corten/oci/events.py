"""`corten-oci events`: resource use at intervals, out-of-memory as it happens: JSON lines as runc has them."""

from __future__ import annotations

import os
import select
import sys
import time

from corten.cli.parser import Option, UsageError
from corten.engine import lifecycle, signalling
from corten.errors import Unsupported
from corten.json_text import dumps
from corten.linux.cgroup import events as group_events
from corten.linux.cgroup import files, usage
from corten.oci.table import command, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from corten.linux.cgroup.group import Group
    from corten.oci.main import Settings

COMMAND = command(
    "events",
    "[OPTIONS] ID",
    "Print resource use at intervals, and when memory runs out, until the container ends.",
    Option(("--interval",), "TIME", "Time between two lines, such as 5s or 500ms (default: 5s)"),
    Option(("--stats",), "", "Print resource use once"),
)
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def run(settings: Settings, words: Sequence[str]) -> int:
    """Print them; 0."""
    parsed = parse(COMMAND, words)
    if parsed is None:
        return 0
    values, (identity,) = parsed
    interval = duration("--interval", values.get("interval", "5s"))
    found = lifecycle.find(settings.root, identity).allow("events")
    group = found.group
    if group is None:
        raise Unsupported(f"events: container {identity} has no control group")
    if values.get("stats"):
        _print("stats", identity, stats(group))
        return 0
    first = signalling.open_first(found)
    if first is not None:
        try:
            _stream(identity, group, first, interval)
        finally:
            os.close(first)
    return 0


def duration(name: str, text: str) -> float:
    """Seconds, from text as Go programs take it: `5s`, `1m30s`, `500ms`. `UsageError`; more than 0."""
    left, seconds = text, 0.0
    while left:
        digits = len(left) - len(left.lstrip("0123456789."))
        unit = digits
        while unit < len(left) and not left[unit].isdigit():
            unit += 1
        try:
            seconds += float(left[:digits]) * _UNITS[left[digits:unit]]
        except (ValueError, KeyError):
            raise UsageError(f"{name}: {text!r} is not a duration such as 5s") from None
        left = left[unit:]
    if seconds <= 0:
        raise UsageError(f"{name}: {text!r} is not above 0")
    return seconds


def _stream(identity: str, group: Group, first: int, interval: float) -> None:
    poll = select.poll()
    poll.register(first, select.POLLIN)
    watch = group_events.OomWatch(group) if group.directory("memory") else None
    kills = group_events.oom(group).oom_kill or 0
    if watch is not None:
        poll.register(watch.fileno(), select.POLLIN)
    following = time.monotonic() + interval
    while True:
        ready = [fd for fd, _ in poll.poll(max(0.0, following - time.monotonic()) * 1000)]
        if watch is not None:
            watch.clear()
            # Each time, and not only when told: v1 tells before it has counted the kill.
            now = group_events.oom(group).oom_kill or 0
            if now > kills:
                kills = now
                _print("oom", identity, None)
        if first in ready:
            return
        if time.monotonic() >= following:
            following += interval
            _print("stats", identity, stats(group))


def _print(kind: str, identity: str, data: dict[str, Any] | None) -> None:
    event: dict[str, Any] = {"type": kind, "id": identity}
    if data is not None:
        event["data"] = data
    sys.stdout.write(dumps(event) + "\n")
    sys.stdout.flush()


def stats(group: Group) -> dict[str, Any]:
    """Resource use in runc's shape: nanoseconds and bytes. What the kernel does not tell is left out."""
    now = usage.read(group)
    cpu = {
        "usage": _given(total=_ns(now.cpu_seconds), kernel=_ns(now.system_seconds), user=_ns(now.user_seconds)),
        "throttling": _given(throttledPeriods=now.throttled_periods, throttledTime=_ns(now.throttled_seconds)),
    }
    hits = group_events.hits(group)
    memory = {
        "usage": _given(limit=now.memory_limit, usage=now.memory_now, max=now.memory_peak, failcnt=hits.memory),
        "swap": _given(usage=now.swap),
        "raw": _raw(group),
    }
    return {
        "cpu": cpu,
        "memory": memory,
        "pids": _given(current=now.pids_now, limit=_pids_limit(group)),
        "blkio": {
            "ioServiceBytesRecursive": _io(Read=now.io_read_bytes, Write=now.io_write_bytes),
            "ioServicedRecursive": _io(Read=now.io_read_ops, Write=now.io_write_ops),
        },
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _given(**values: int | None) -> dict[str, int]:
    return {key: value for key, value in values.items() if value is not None}


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e9)


def _raw(group: Group) -> dict[str, int]:
    directory = group.directory("memory")
    return (files.pairs(f"{directory}/memory.stat") or {}) if directory else {}


def _pids_limit(group: Group) -> int | None:
    directory = group.directory("pids")
    return files.number(f"{directory}/pids.max") if directory else None


def _io(**values: int | None) -> list[dict[str, Any]]:
    return [{"op": op, "value": value} for op, value in values.items() if value is not None]
