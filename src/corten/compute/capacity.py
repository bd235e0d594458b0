"""What is really free on this machine for calls: CPUs of our share, memory that is available, pressure as the brake."""

from __future__ import annotations

import os

from corten.compute.scaling import Capacity
from corten.linux.cgroup import layout as layouts

_BRAKE = 40.0
"""Percent of the last ten seconds in which something waited for memory; above it nothing more is begun."""


def cpus() -> float:
    """CPUs that this process may use: its affinity, and the CPU limit of its control groups."""
    return min(float(len(os.sched_getaffinity(0))), _quota())


def _quota() -> float:
    least = float("inf")
    for hierarchy in layouts.detect().hierarchies:
        if hierarchy.version == 2 and "cpu" not in hierarchy.controllers:
            continue
        if hierarchy.version == 1 and "cpu" not in hierarchy.controllers:
            continue
        for path in _upwards(hierarchy.directory(hierarchy.own)):
            if hierarchy.version == 2:
                words = _words(f"{path}/cpu.max")
                quota, period = (words[0], words[1]) if len(words) == 2 else ("max", "1")
            else:
                quota = (_words(f"{path}/cpu.cfs_quota_us") or ["-1"])[0]
                period = (_words(f"{path}/cpu.cfs_period_us") or ["1"])[0]
            if quota.isdigit() and int(period):
                least = min(least, int(quota) / int(period))
    return least


def memory() -> int:
    """Bytes that can be had without swapping: of the machine, and within the limits of our control groups."""
    with open("/proc/meminfo") as file:
        free = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))
    for hierarchy in layouts.detect().hierarchies:
        if "memory" not in hierarchy.controllers:
            continue
        names = ("memory.max", "memory.current") if hierarchy.version == 2 else (
            "memory.limit_in_bytes", "memory.usage_in_bytes")  # fmt: skip
        for path in _upwards(hierarchy.directory(hierarchy.own)):
            limit, used = ((_words(f"{path}/{name}") or ["max"])[0] for name in names)
            if limit.isdigit() and used.isdigit() and int(limit) < 1 << 60:
                free = min(free, int(limit) - int(used))
    return max(free, 0)


def total_memory() -> int:
    """Bytes of the machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def brake() -> str:
    """Why nothing more should begin: memory is under pressure. Empty if it is not, or the kernel does not tell."""
    for line in _lines("/proc/pressure/memory"):
        if line.startswith("some "):
            share = float(line.split()[1].partition("=")[2])
            if share > _BRAKE:
                return f"memory pressure: something waited for memory in {share:.0f} % of the last 10 s"
    return ""


def capacity() -> Capacity:
    """All of it, as of now."""
    return Capacity(cpus(), memory(), brake())


def _upwards(path: str) -> list[str]:
    """The directory and those above it, up to the mount."""
    found = []
    while path.count("/") > 2 and os.path.isdir(path):
        found.append(path)
        path = os.path.dirname(path)
    return found


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().splitlines()
    except OSError:
        return []


def _words(path: str) -> list[str]:
    lines = _lines(path)
    return lines[0].split() if lines else []
