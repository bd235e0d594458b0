"""What a group and the groups below it have used. None where the kernel does not tell: never a guess.

Sources: the kernel's cgroup-v2.rst, cgroup-v1/{cpuacct,memory,blkio-controller,pids}.rst.
"""

from __future__ import annotations

from corten.linux.cgroup import files, limits
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.linux.cgroup.group import Group


class Usage(Record):
    """Seconds, bytes and counts since the group was made, and what it holds now.

    memory_working_set: memory in use less the file pages that have not been touched of late; memory_limit: the one
    that holds
    (`limits.effective`); swap: bytes swapped out; throttled_periods: periods in which the CPU quota ran out.
    """

    cpu_seconds: float | None = None
    user_seconds: float | None = None
    system_seconds: float | None = None
    throttled_seconds: float | None = None
    throttled_periods: int | None = None
    memory_now: int | None = None
    memory_peak: int | None = None
    memory_working_set: int | None = None
    memory_limit: int | None = None
    swap: int | None = None
    pids_now: int | None = None
    pids_peak: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None
    io_read_ops: int | None = None
    io_write_ops: int | None = None


def read(group: Group, live: bool = True) -> Usage:
    """Read the account of a group; everything None for one that is gone.

    live: read what is in use now, too; without it only totals, limits and peaks, with half the files: for a group
    whose processes have ended. `OSError` where a file is there and cannot be read.
    """
    limit = limits.effective(group, "memory")
    return Usage(
        **_cpu(group),
        **_memory(group, live),
        **_pids(group, live),
        **_io(group),
        memory_limit=None if limit is None else int(limit),
    )


def _cpu(group: Group) -> dict[str, Any]:
    found: dict[str, Any] = {}
    v2 = group.directory("cgroup")
    if v2 is not None and (stat := files.pairs(f"{v2}/cpu.stat")) is not None and "usage_usec" in stat:
        # every v2 group counts CPU time, also beside v1 controllers
        for name, key in (("cpu", "usage_usec"), ("user", "user_usec"), ("system", "system_usec")):
            found[f"{name}_seconds"] = stat[key] / 1e6
        if "nr_throttled" in stat:
            found["throttled_periods"] = stat["nr_throttled"]
            found["throttled_seconds"] = stat["throttled_usec"] / 1e6
    elif (v1 := group.directory("cpuacct")) is not None:
        for name, file in (("cpu", "usage"), ("user", "usage_user"), ("system", "usage_sys")):
            value = files.number(f"{v1}/cpuacct.{file}")
            found[f"{name}_seconds"] = None if value is None else value / 1e9
    if group.version("cpu") == 1 and (stat := files.pairs(f"{group.directory('cpu')}/cpu.stat")) is not None:
        found["throttled_periods"] = stat["nr_throttled"]
        found["throttled_seconds"] = stat["throttled_time"] / 1e9
    return found


def _memory(group: Group, live: bool) -> dict[str, int | None]:
    directory = group.directory("memory")
    if directory is None:
        return {}
    v1 = group.version("memory") == 1
    peak = files.number(f"{directory}/{'memory.max_usage_in_bytes' if v1 else 'memory.peak'}")
    if not live:
        return {"memory_peak": peak}
    now = files.number(f"{directory}/{'memory.usage_in_bytes' if v1 else 'memory.current'}")
    stat = files.pairs(f"{directory}/memory.stat") or {}
    inactive = stat.get("total_inactive_file" if v1 else "inactive_file")
    return {
        "memory_now": now,
        "memory_peak": peak,
        "memory_working_set": max(now - inactive, 0) if now is not None and inactive is not None else None,
        "swap": stat.get("total_swap") if v1 else files.number(f"{directory}/memory.swap.current"),
    }


def _pids(group: Group, live: bool) -> dict[str, int | None]:
    directory = group.directory("pids")
    if directory is None:
        return {}
    return {
        "pids_now": files.number(f"{directory}/pids.current") if live else None,
        "pids_peak": files.number(f"{directory}/pids.peak"),  # v2 since Linux 6.1, v1 since 6.12
    }


def _io(group: Group) -> dict[str, int | None]:
    directory = group.directory("io")
    if directory is None:
        return {}
    if group.version("io") == 2:
        return _io_v2(files.text(f"{directory}/io.stat"))
    return {
        **_io_v1(files.text(f"{directory}/blkio.throttle.io_service_bytes_recursive"), "bytes"),
        **_io_v1(files.text(f"{directory}/blkio.throttle.io_serviced_recursive"), "ops"),
    }


def _io_v2(stat: str | None) -> dict[str, int | None]:
    if stat is None:
        return {}
    total = {"rbytes": 0, "wbytes": 0, "rios": 0, "wios": 0}
    for word in stat.split():
        key, _, value = word.partition("=")
        if key in total and value:
            total[key] += int(value)
    return {
        "io_read_bytes": total["rbytes"],
        "io_write_bytes": total["wbytes"],
        "io_read_ops": total["rios"],
        "io_write_ops": total["wios"],
    }


def _io_v1(stat: str | None, what: str) -> dict[str, int | None]:
    """Lines `8:0 Read 4096`, one for each device and direction, and a total."""
    if stat is None:
        return {}
    total = {"Read": 0, "Write": 0}
    for line in stat.splitlines():
        words = line.split()
        if len(words) == 3 and words[1] in total:
            total[words[1]] += int(words[2])
    return {f"io_read_{what}": total["Read"], f"io_write_{what}": total["Write"]}
