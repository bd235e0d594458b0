"""What happened to a group: out of memory, and limits that were hit. None where the kernel does not tell.

Sources: the kernel's cgroup-v2.rst (memory.events, pids.events), cgroup-v1/memory.rst (oom_control, section 10).
"""

from __future__ import annotations

import ctypes
import errno
import os

from corten.errors import KernelError, Unsupported
from corten.linux import syscalls
from corten.linux.cgroup import files
from corten.linux.cgroup.convert import PAGE
from corten.linux.cgroup.directories import children
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.linux.cgroup.group import Group

_IN_MODIFY, _IN_DELETE_SELF = 0x2, 0x400
# the most that one kernel allocation takes at once before the killer is called: order 3 (PAGE_ALLOC_COSTLY_ORDER)
_CHARGE_BYTES = 8 * PAGE


class OomEvents(Record):
    """Counts, of the group and the groups below it.

    oom: how often a limit here made the kernel look for a victim (None on v1, which does not count it); oom_kill:
    processes
    killed; group_kill: whole groups killed (memory.oom.group, v2); limit_hits: how often memory was refused at this
    group's
    own limit (reclaim may have helped; None where v1 does not count it, as Linux 6.18); oom_local: like `oom`, for this
    group's own limit alone (v2); own_limit: whether this group's own limit was ever reached.
    oom_kill without own_limit: the memory of a group below, of an ancestor, or of the machine ran out.
    """

    oom: int | None = None
    oom_kill: int | None = None
    group_kill: int | None = None
    limit_hits: int | None = None
    oom_local: int | None = None
    own_limit: bool | None = None


class Hits(Record):
    """How often a limit refused something. pids: forks refused; memory: as `OomEvents.limit_hits`."""

    pids: int | None = None
    memory: int | None = None


def kills(group: Group) -> int | None:
    """How many processes were killed for memory: `oom(group).oom_kill` with one file read where there were none."""
    directory = group.directory("memory")
    if directory is None:
        return None
    if group.version("memory") == 1:
        return _kills_v1(directory)
    return (files.pairs(f"{directory}/memory.events") or {}).get("oom_kill")


def forks_refused(group: Group) -> int | None:
    """How often the limit of processes refused a new one; None where the kernel does not tell."""
    directory = group.directory("pids")
    return None if directory is None else (files.pairs(f"{directory}/pids.events") or {}).get("max")


def oom(group: Group) -> OomEvents:
    """The out-of-memory events of a group so far; all None where it has no memory controller. `OSError`."""
    directory = group.directory("memory")
    if directory is None:
        return OomEvents()
    if group.version("memory") == 1:
        return _oom_v1(directory)
    total = files.pairs(f"{directory}/memory.events") or {}
    local = files.pairs(f"{directory}/memory.events.local") or {}
    hits = local.get("max")
    kills, groups = total.get("oom_kill"), total.get("oom_group_kill")
    return OomEvents(total.get("oom"), kills, groups, hits, local.get("oom"), None if hits is None else hits > 0)


def _oom_v1(directory: str) -> OomEvents:
    reached, hits = False, 0
    # with a limit on memory plus swap that is no higher than the one on memory, only the former is reached
    for name in ("memory", "memory.memsw"):
        limit, peak = (files.number(f"{directory}/{name}.{file}_in_bytes") for file in ("limit", "max_usage"))
        reached = reached or (limit is not None and peak is not None and peak + _CHARGE_BYTES >= limit)
        hits += files.number(f"{directory}/{name}.failcnt") or 0
    return OomEvents(
        oom_kill=_kills_v1(directory), limit_hits=None if reached and not hits else hits, own_limit=reached or hits > 0
    )


def _kills_v1(directory: str) -> int | None:
    """v1 counts a kill only in the victim's own group: add up the groups made below."""
    control = files.pairs(f"{directory}/memory.oom_control")
    if control is None or "oom_kill" not in control:
        return None
    return control["oom_kill"] + sum(_kills_v1(child) or 0 for child in children(directory))


def hits(group: Group) -> Hits:
    """How often the limits of a group were hit. `OSError`."""
    return Hits(forks_refused(group), oom(group).limit_hits)


class OomWatch:
    """A descriptor that becomes readable when something about the group's memory happens (`select`, `poll`, an event
    loop).

    v1: an eventfd on memory.oom_control; v2: inotify on memory.events. Both also wake when the group is removed, and
    v2 at other
    events of the file: read `oom(group)` to see. Close it, or use it in a `with`. `Unsupported`, `KernelError`.
    """

    def __init__(self, group: Group) -> None:
        directory = group.directory("memory")
        if directory is None:
            raise Unsupported("watch for out of memory: the group has no memory controller")
        try:
            self._fd = _watch_v1(directory) if group.version("memory") == 1 else _watch_v2(directory)
        except OSError as error:
            raise KernelError(f"watch for out of memory in {directory}", error.errno or 0) from error

    def fileno(self) -> int:
        """The descriptor; `ValueError` when closed."""
        if self._fd < 0:
            raise ValueError("the watch is closed")
        return self._fd

    def clear(self) -> None:
        """Take what was reported, so that the descriptor is quiet until the next event."""
        try:
            os.read(self.fileno(), 4096)
        except BlockingIOError:
            return

    def close(self) -> None:
        """Give the descriptor back; twice is the same as once."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> OomWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _watch_v1(directory: str) -> int:
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    control = -1
    try:
        control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        register = os.open(f"{directory}/cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(register, f"{event} {control}".encode())
        finally:
            os.close(register)
    except OSError:
        os.close(event)
        raise
    finally:
        if control >= 0:
            os.close(control)
    return event


def _watch_v2(directory: str) -> int:
    watch = syscalls.call("inotify_init1", os.O_CLOEXEC | os.O_NONBLOCK)
    path = ctypes.create_string_buffer(os.fsencode(f"{directory}/memory.events"))
    try:
        syscalls.call("inotify_add_watch", watch, path, _IN_MODIFY | _IN_DELETE_SELF)
    except OSError as error:
        os.close(watch)
        raise OSError(error.errno or errno.EINVAL, "inotify") from error
    return watch
