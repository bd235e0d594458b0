"""A crowd to look at: 1,000 processes, some with namespaces of their own, and 500 control groups in every hierarchy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from contest import Contestant, Missing, contest
from rivals import CORTEN, Command

from corten.linux.cgroup import layout

if TYPE_CHECKING:
    from run import Row

PROCESSES, PARENTS, CHILDREN = 1000, 20, 24
KINDS = ("uts", "ipc", "network", "mount")
"""What every tenth process has of its own."""

FORKER = f"""
import os, signal, sys
from corten.linux import clone, process
for number in range({PROCESSES}):
    if os.fork() == 0:
        process.die_with_parent(signal.SIGKILL)
        if number % 10 == 0:
            for kind in {KINDS!r}:
                clone.unshare(kind)
        os.write(1, b"+")
        signal.pause()
sys.stdin.read()
"""


class Looker(Command):
    """Tried again where something vanished while it looked: lsns and find then fail, on a machine that is in use."""

    def once(self) -> float:
        for _ in range(9):
            try:
                return super().once()
            except Missing:
                continue
        return super().once()


def compare(row: Row, rounds: int) -> None:
    """Fill the row: each command against the standard one, with the crowd there."""
    contestants: list[Contestant] = [
        Looker("corten namespaces", [CORTEN, "namespaces"]),
        Looker("lsns", ["lsns"]),
        Looker("corten cgroups", [CORTEN, "cgroups"]),
        Looker("corten cgroups --controller memory", [CORTEN, "cgroups", "--controller", "memory"]),
        Looker("find /sys/fs/cgroup", ["find", "/sys/fs/cgroup"]),
        Looker("systemd-cgls (does not show empty groups)", ["systemd-cgls", "--no-pager"]),
    ]
    with _groups() as count, _processes():
        row.facts["crowd"] = f"{PROCESSES} processes, {count} groups in each hierarchy"
        row.times, row.missing = contest(contestants, rounds)
    row.compare("corten namespaces", "lsns", 1.5)
    row.compare("corten cgroups", "find /sys/fs/cgroup", 1.5)


@contextmanager
def _processes() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", FORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as crowd:
        assert crowd.stdout is not None
        if len(crowd.stdout.read(PROCESSES)) != PROCESSES:
            raise SystemExit("bench: the crowd of processes could not be made")
        yield


@contextmanager
def _groups() -> Iterator[int]:
    """Where the containers of this process would have theirs, or on v2 below the root, for our own may have none."""
    made: list[str] = []
    try:
        for hierarchy in layout.detect().hierarchies:
            own = hierarchy.own if hierarchy.version == 1 else "/"
            top = f"{hierarchy.directory(own)}/corten-crowd-{os.getpid()}"
            inner = [f"{top}/a{number}" for number in range(PARENTS)]
            leaves = [f"{path}/b{number}" for path in inner for number in range(CHILDREN)]
            for path in (top, *inner, *leaves):
                os.mkdir(path)
                made.append(path)
        yield 1 + PARENTS + PARENTS * CHILDREN
    finally:
        for path in reversed(made):
            os.rmdir(path)
