"""What the live view shows, read with as little work as can be.

Rule: the list of containers is made anew only when something in its directories changed; a reading that fails means
that the container is gone.
"""

from __future__ import annotations

import os
import time

from corten.engine import home, lifecycle, listing, oci_state
from corten.engine.listing import Live
from corten.errors import InvalidInput
from corten.records import Record
from corten.views.samples import Reading, cpus_between, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_ANEW = 30.0
"""Seconds after which the list is made anew even if nothing seems to have changed."""
_PASSING = ("starting", "ahead")
"""What a container is for moments only, and nothing in its directory says when that is over."""


class Row(Record):
    """A container as it is shown: cpus: in use since the last look, None at the first."""

    live: Live
    status: str
    reading: Reading
    cpus: float | None


class ProcessRow(Record):
    """A process of the chosen container: memory in bytes; cpus as `Row`."""

    pid: int
    name: str
    memory: int
    cpus: float | None


class Reader:
    """Reads again and again and keeps what is needed for differences."""

    def __init__(self) -> None:
        self._live: tuple[Live, ...] = ()
        self._seen: object = None
        self._listed = float("-inf")
        self._before: dict[str, Reading] = {}
        self._times: dict[int, tuple[float, float]] = {}
        self._home = home.path()
        try:
            self._oci = oci_state.default_root()
        except InvalidInput:
            self._oci = ""

    def rows(self) -> tuple[Row, ...]:
        """All live containers now, in no particular order."""
        self._list()
        found, now = [], {}
        for one in self._live:
            if one.status == "ahead":
                continue
            reading = read(one)
            if reading is None or reading.pids == 0:
                self._listed = float("-inf")  # it is gone: look again next time
                continue
            now[one.id] = reading
            before = self._before.get(one.id)
            status = one.status if one.kind == "oci" else oci_state.freezer(lifecycle.group_lines(one.group))
            found.append(Row(one, status, reading, cpus_between(before, reading) if before else None))
        self._before = now
        return tuple(found)

    def _list(self) -> None:
        """Names in the directories, and the time of their last change, tell whether there is anything new."""
        seen = [self._directory(f"{self._home}/containers"), self._directory(f"{self._home}/names")]
        seen.append(self._directory(self._oci) if self._oci else None)
        now = time.monotonic()
        if seen != self._seen or now - self._listed > _ANEW or any(one.status in _PASSING for one in self._live):
            self._seen, self._listed = seen, now
            self._live = listing.live(ahead=True)
        elif any(one.kind == "oci" for one in self._live):
            self._live = listing.live(ahead=True)  # their status is in their files

    @staticmethod
    def _directory(path: str) -> object:
        try:
            return os.stat(path).st_mtime_ns, sorted(os.listdir(path))
        except OSError:
            return None

    def processes(self, one: Live) -> tuple[ProcessRow, ...]:
        """The processes of a container, the busiest first."""
        now, times, found = time.monotonic(), {}, []
        for pid in one.pids():
            facts = _stat(pid)
            if facts is None:
                continue
            name, seconds, memory = facts
            times[pid] = (now, seconds)
            before = self._times.get(pid)
            used = None if before is None or now <= before[0] else max(0.0, (seconds - before[1]) / (now - before[0]))
            found.append(ProcessRow(pid, name, memory, used))
        self._times = times
        return tuple(sorted(found, key=lambda row: (-(row.cpus or 0.0), -row.memory, row.pid)))


def _stat(pid: int) -> tuple[str, float, int] | None:
    """(name, CPU seconds, bytes in memory) of a process; None if it has ended. Source: proc_pid_stat(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            head, _, tail = file.read().rpartition(b")")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = tail.split()
    name = head.partition(b"(")[2].decode(errors="replace")
    return name, (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * _PAGE


def total(rows: Iterable[Row]) -> tuple[float, int, int]:
    """(CPUs, bytes, processes) of all of them together."""
    cpus, memory, pids = 0.0, 0, 0
    for row in rows:
        cpus += row.cpus or 0.0
        memory += row.reading.memory or 0
        pids += row.reading.pids or 0
    return cpus, memory, pids
