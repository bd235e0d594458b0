"""The account of a container's end: facts, as the launcher read them. What they mean is said by the engine."""

from __future__ import annotations

from corten.linux.cgroup.events import OomEvents
from corten.linux.cgroup.pressure import Pressure
from corten.linux.cgroup.usage import Usage
from corten.records import Record
from corten.runtime.channel import Failed


class Victim(Record):
    """A process that the kernel killed for memory. pid: on the host; group: path of the group that was full."""

    name: str
    pid: int
    group: str


class Account(Record):
    """How a container ended.

    failed: why it could not be started, None if it was; started: the program ran; status: the program's, as wait(2)
    gives it, None if its init was killed before it could tell;
    init_status: that of pid 1; program_pid, program_name: as inside, 0 and "" if
    unknown; timed_out: the timeout killed it; seconds: from start to end; cpu_seconds: of all its processes;
    usage, oom, pids_refused, pressure: of its group just before that was removed, None without one;
    victims: who was killed for memory, as far as the kernel's log may be read.
    """

    failed: Failed | None
    started: bool
    status: int | None
    init_status: int
    program_pid: int
    program_name: str
    timed_out: bool
    seconds: float
    cpu_seconds: float
    usage: Usage | None
    oom: OomEvents | None
    pids_refused: int | None
    pressure: dict[str, Pressure] | None
    victims: tuple[Victim, ...]
