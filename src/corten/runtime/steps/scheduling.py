"""Steps about how the kernel schedules the process: CPU, disk, memory nodes, personality. All survive the exec.

Sources: sched_setattr(2), ioprio_set(2), set_mempolicy(2), personality(2), cpuset(7) for the list format.
"""

from __future__ import annotations

import os

from corten.errors import InvalidInput
from corten.linux import syscalls
from corten.runtime.step import Stage, Step

POLICIES = {"OTHER": 0, "FIFO": 1, "RR": 2, "BATCH": 3, "ISO": 4, "IDLE": 5, "DEADLINE": 6}
FLAGS = (
    "RESET_ON_FORK", "RECLAIM", "DL_OVERRUN", "KEEP_POLICY", "KEEP_PARAMS", "UTIL_CLAMP_MIN", "UTIL_CLAMP_MAX",
)  # fmt: skip
_IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_MODES = (
    "DEFAULT", "PREFERRED", "BIND", "INTERLEAVE", "LOCAL", "PREFERRED_MANY", "WEIGHTED_INTERLEAVE",
)  # fmt: skip
_MODE_FLAGS = {"MPOL_F_STATIC_NODES": 1 << 15, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_NUMA_BALANCING": 1 << 13}
_PERSONALITIES = {"LINUX": 0, "LINUX32": 8}
_IOPRIO_WHO_PROCESS = 1


def numbers(text: str) -> tuple[int, ...]:
    """The numbers of a list such as `0-3,7`. InvalidInput if it is none."""
    found: list[int] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()):
            raise InvalidInput(f"{text!r} is not a list of numbers such as 0-3,7")
        found += range(int(low), int(high or low) + 1)
    return tuple(found)


class SetScheduler(Step):
    """Set the CPU scheduling policy. runtime, deadline, period: nanoseconds."""

    policy: str
    flags: tuple[str, ...]
    nice: int
    priority: int
    runtime: int
    deadline: int
    period: int

    def run(self, stage: Stage) -> None:
        flags = sum(1 << FLAGS.index(flag.removeprefix("SCHED_FLAG_")) for flag in self.flags)
        attributes = b"".join((
            (48).to_bytes(4, "little"),
            POLICIES[self.policy.removeprefix("SCHED_")].to_bytes(4, "little"),
            flags.to_bytes(8, "little"),
            self.nice.to_bytes(4, "little", signed=True),
            self.priority.to_bytes(4, "little"),
            *(value.to_bytes(8, "little") for value in (self.runtime, self.deadline, self.period)),
        ))
        syscalls.call("sched_setattr", 0, attributes, 0)

    def describe(self) -> str:
        return f"schedule with {self.policy}"


class SetIOPriority(Step):
    """Set the class and priority of disk access."""

    kind: str
    priority: int

    def run(self, stage: Stage) -> None:
        syscalls.call("ioprio_set", _IOPRIO_WHO_PROCESS, 0, _IO_CLASSES[self.kind] << 13 | self.priority)

    def describe(self) -> str:
        return f"disk priority {self.kind} {self.priority}"


class SetMemoryPolicy(Step):
    """Say from which memory nodes to allocate."""

    mode: str
    nodes: str
    flags: tuple[str, ...]

    def run(self, stage: Stage) -> None:
        mode = _MODES.index(self.mode.removeprefix("MPOL_"))
        for flag in self.flags:
            mode |= _MODE_FLAGS[flag]
        bits = 0
        for node in numbers(self.nodes) if self.nodes else ():
            bits |= 1 << node
        words = [bits >> 64 * index & (1 << 64) - 1 for index in range(16)]
        # The kernel takes one bit less than it is told.
        syscalls.call("set_mempolicy", mode, syscalls.words(*words) if bits else None, 1025 if bits else 0)

    def describe(self) -> str:
        return f"memory policy {self.mode} {self.nodes}".rstrip()


class SetPersonality(Step):
    """Be a 32-bit program to uname(2), or not."""

    domain: str

    def run(self, stage: Stage) -> None:
        syscalls.call("personality", _PERSONALITIES[self.domain])

    def describe(self) -> str:
        return f"personality {self.domain}"


class SetAffinity(Step):
    """Run on these CPUs only."""

    cpus: str

    def run(self, stage: Stage) -> None:
        os.sched_setaffinity(0, numbers(self.cpus))

    def describe(self) -> str:
        return f"run on CPUs {self.cpus}"


