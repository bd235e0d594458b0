"""The limit that holds: the tightest on the way from a group to the root of the tree that we can see.

Inside a cgroup namespace or a bind-mounted part of the tree, groups further up are out of sight, and so are their
limits.
"""

from __future__ import annotations

import os

from corten.linux.cgroup import files
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from corten.linux.cgroup.group import Group

_FILES = {
    ("memory", 1): "memory.limit_in_bytes",
    ("memory", 2): "memory.max",
    ("swap", 1): "memory.memsw.limit_in_bytes",
    ("swap", 2): "memory.swap.max",
    ("pids", 1): "pids.max",
    ("pids", 2): "pids.max",
}


def effective(group: Group, controller: str) -> float | None:
    """The tightest limit: `memory` in bytes, `swap` in bytes (v1: memory plus swap), `pids` in tasks, `cpu` in CPUs
    (1.5: one and a half).

    None: no limit, or the group has no such controller.
    """
    holds = holding(group, controller)
    return holds.value if holds else None


class Holding(Record):
    """A limit that holds, and the directory of the group that sets it: the group's own, or one above."""

    value: float
    directory: str


def holding(group: Group, controller: str) -> Holding | None:
    """The tightest limit as `effective` has it, with the group that sets it; the nearest of several that are equal."""
    serves = "memory" if controller == "swap" else controller
    directory, version = group.directory(serves), group.version(serves)
    if directory is None:
        return None
    if controller == "cpu":
        return _tightest(directory, _quota_v1 if version == 1 else _quota_v2)
    name = _FILES[controller, version]
    return _tightest(directory, lambda path: _number(f"{path}/{name}"))


def cpus(group: Group) -> str | None:
    """The CPUs that processes of the group may run on, as a list like `0-2,5`; None without a cpuset controller."""
    directory = group.directory("cpuset")
    if directory is None:
        return None
    name = "cpuset.effective_cpus" if group.version("cpuset") == 1 else "cpuset.cpus.effective"
    found = files.text(f"{directory}/{name}")
    return found.strip() if found is not None else None


def _tightest(directory: str, read: Callable[[str], float | None]) -> Holding | None:
    """The least of the limits read on the way up, until a directory does not have the file. `read` gives -1 for no
    limit, None for no file."""
    least = None
    while (value := read(directory)) is not None:
        if value >= 0 and (least is None or value < least.value):
            least = Holding(value, directory)
        directory = os.path.dirname(directory)
    return least


def _number(path: str) -> float | None:
    found = files.text(path)
    if found is None:
        return None
    value = found.strip()
    return -1 if value == "max" or int(value) >= files.UNLIMITED else int(value)


def _quota_v1(directory: str) -> float | None:
    quota = files.text(f"{directory}/cpu.cfs_quota_us")
    if quota is None:
        # the root group of the hierarchy has no quota file
        return None
    return -1 if int(quota) < 0 else int(quota) / int(files.require(f"{directory}/cpu.cfs_period_us"))


def _quota_v2(directory: str) -> float | None:
    found = files.text(f"{directory}/cpu.max")
    if found is None:
        return None
    quota, period = found.split()
    return -1 if quota == "max" else int(quota) / int(period)
