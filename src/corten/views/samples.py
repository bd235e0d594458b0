"""What containers use over time: readings, what lies between two of them, and what happened.

Rule 1: None is what the kernel does not tell. A container that goes while it is read ends its series; it is no error.
Rule 2: an event is what two readings differ in (a limit, the count of kills): nobody is asked to announce it.
"""

from __future__ import annotations

import os
import time

from corten.engine import listing
from corten.engine.listing import Live
from corten.engine.result import size_words
from corten.errors import NotFound
from corten.linux.cgroup import events, files, limits, pressure
from corten.linux.cgroup.group import Group
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

RESOURCES = ("cpu", "memory", "io")


class Reading(Record):
    """One look at a container. at: seconds since the epoch; cpu_seconds: used since it began; memory, memory_limit:
    bytes; cpu_limit: CPUs; pids, pids_limit: processes and threads; pressure: by resource, percent of the last ten
    seconds in which something waited for it; waited_us: microseconds of that since it began; oom_kills: processes
    killed for memory since it began. Limits are those that hold.
    """

    at: float
    cpu_seconds: float | None = None
    cpu_limit: float | None = None
    memory: int | None = None
    memory_limit: float | None = None
    pids: int | None = None
    pids_limit: float | None = None
    pressure: dict[str, float] = {}
    waited_us: dict[str, int] = {}
    oom_kills: int | None = None


class Event(Record):
    """Something that happened between two readings: kind `resize`, `oom` or `end`."""

    at: float
    kind: str
    words: str


class Series(Record):
    """The readings of one container, in order, and what happened."""

    id: str
    label: str
    readings: tuple[Reading, ...] = ()
    events: tuple[Event, ...] = ()

    def cpus(self) -> tuple[tuple[float, float], ...]:
        """(time, CPUs in use since the reading before)."""
        return tuple(
            (after.at, used) for before, after in zip(self.readings, self.readings[1:], strict=False)
            if (used := cpus_between(before, after)) is not None
        )  # fmt: skip

    def waits(self, resource: str) -> tuple[tuple[float, float], ...]:
        """(time, percent of the time since the reading before in which something waited for `resource`)."""
        found = []
        for before, after in zip(self.readings, self.readings[1:], strict=False):
            if resource in before.waited_us and resource in after.waited_us and after.at > before.at:
                waited = (after.waited_us[resource] - before.waited_us[resource]) / 1e6
                found.append((after.at, min(100.0, 100 * waited / (after.at - before.at))))
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """The same as an object."""
        readings = [{name: one.__dict__[name] for name in one._fields} for one in self.readings]
        happened = [{name: one.__dict__[name] for name in one._fields} for one in self.events]
        return {"id": self.id, "name": self.label, "readings": readings, "events": happened}


def cpus_between(before: Reading, after: Reading) -> float | None:
    """CPUs in use between two readings; None if it cannot be told."""
    if before.cpu_seconds is None or after.cpu_seconds is None or after.at <= before.at:
        return None
    return max(0.0, (after.cpu_seconds - before.cpu_seconds) / (after.at - before.at))


def read(one: Live) -> Reading | None:
    """Look at a container now; None if it is gone. Without a control group nothing is known but that it lives."""
    now = time.time()
    group = one.group
    if group is None:
        return Reading(now) if one.pid is None or os.path.exists(f"/proc/{one.pid}/status") else None
    try:
        used = _cpu_seconds(group)
        memory, pids = (_now(group, *names) for names in _NOW)
        held = [limits.effective(group, kind) for kind in ("cpu", "memory", "pids")]
        waits = pressure.read(group)
        kills = events.kills(group)
    except OSError:
        return None
    if used is None and memory is None and pids is None and not waits:
        return None
    shares = {name: one.some_avg10 for name, one in waits.items()}
    totals = {name: one.some_total_us for name, one in waits.items()}
    return Reading(now, used, held[0], memory, held[1], pids, held[2], shares, totals, kills)


_NOW = (("memory", "memory.usage_in_bytes", "memory.current"), ("pids", "pids.current", "pids.current"))


def _now(group: Group, controller: str, v1: str, v2: str) -> int | None:
    directory = group.directory(controller)
    return None if directory is None else files.number(f"{directory}/{v1 if group.version(controller) == 1 else v2}")


def _cpu_seconds(group: Group) -> float | None:
    """As `usage` has it, but from one file."""
    v1 = group.directory("cpuacct")
    if v1 is not None and group.version("cpuacct") == 1:
        value = files.number(f"{v1}/cpuacct.usage")
        return None if value is None else value / 1e9
    v2 = group.directory("cgroup")
    stat = files.pairs(f"{v2}/cpu.stat") if v2 else None
    return stat["usage_usec"] / 1e6 if stat and "usage_usec" in stat else None


def happened(before: Reading, after: Reading) -> list[Event]:
    """What two readings that follow one another differ in. Pure."""
    found = []
    for kind, unit in (("memory", size_words), ("cpu", _cpus), ("pids", _count)):
        old, new = before.__dict__[f"{kind}_limit"], after.__dict__[f"{kind}_limit"]
        if old != new:
            shown = " to ".join("no limit" if value is None else unit(value) for value in (old, new))
            found.append(Event(after.at, "resize", f"{kind}: {shown}"))
    kills = (after.oom_kills or 0) - (before.oom_kills or 0)
    if kills > 0:
        found.append(Event(after.at, "oom", f"{kills} killed for memory" if kills > 1 else "killed for memory"))
    return found


def _cpus(value: float) -> str:
    return f"{value:g} CPUs"


def _count(value: float) -> str:
    return f"{value:.0f}"


class Recorder:
    """Keeps the series of some containers. `take` reads each once; those that ended are left as they are."""

    def __init__(self, containers: Iterable[Live]) -> None:
        self._containers = {one.id: one for one in containers}
        self._series = {one.id: Series(one.id, one.label) for one in self._containers.values()}
        self.running = set(self._series)

    def take(self) -> bool:
        """One reading of each; False when all have ended."""
        for identity in sorted(self.running):
            series, now = self._series[identity], read(self._containers[identity])
            if now is None:
                self.running.discard(identity)
                ended = Event(time.time(), "end", "ended")
                self._series[identity] = series.replace(events=(*series.events, ended))
                continue
            more = happened(series.readings[-1], now) if series.readings else []
            self._series[identity] = series.replace(
                readings=(*series.readings, now), events=(*series.events, *more)
            )
        return bool(self.running)

    @property
    def series(self) -> tuple[Series, ...]:
        """What was recorded so far."""
        return tuple(self._series.values())


def chosen(words: Sequence[str]) -> tuple[Live, ...]:
    """The containers of these names or ids; all live ones for none. `NotFound`."""
    known = listing.live()
    return tuple(dict.fromkeys(listing.find(word, known) for word in words)) if words else known


def record(
    *containers: str,
    duration: float | None = None,
    interval: float = 0.5,
    wait: Callable[[float], object] = time.sleep,
) -> tuple[Series, ...]:
    """Read containers again and again until they have ended, at most `duration` seconds; their series.

    containers: names or ids, all that live now for none; interval: seconds between readings; wait: sleeps so long, and
    may end the recording by raising KeyboardInterrupt. `NotFound`: there are none.
    """
    found = chosen(containers)
    if not found:
        raise NotFound("no live containers: there is nothing to record")
    recorder = Recorder(found)
    start = following = time.monotonic()
    try:
        while recorder.take() and (duration is None or time.monotonic() - start < duration):
            following += interval
            left = following - time.monotonic()
            if duration is not None:
                left = min(left, start + duration - time.monotonic())
            wait(max(0.0, left))
    except KeyboardInterrupt:
        recorder.take()
    return recorder.series
