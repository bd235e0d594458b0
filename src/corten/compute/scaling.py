"""How many containers a lane should have: decisions, made of figures. Pure.

Rule 1: a call begins only if its CPUs and memory are really free, or if nothing else runs at all.
Rule 2: containers that wait for a call cost next to nothing, and are made ahead while there is demand.
Rule 3: every decision says why.
"""

from __future__ import annotations

import math

from corten.records import Record


class View(Record):
    """A lane at one moment. backlog: calls that wait; busy, ready, making: its containers; fresh: each serves one call;
    least, most: bounds of its size; room: how many more calls may begin now, by what is free; active: it had a call
    within its idle time; limit: most that can run at once on this machine."""

    backlog: int
    busy: int
    ready: int
    making: int
    fresh: bool
    least: int
    most: int
    room: int
    active: bool
    limit: int


class Decision(Record):
    """start: containers to make; retire: waiting ones to end; reason: in words, empty if there is nothing to do."""

    start: int = 0
    retire: int = 0
    reason: str = ""


AHEAD = 2
"""Containers of a lane with fresh ones that wait for calls to come, while it is in use."""


def decide(view: View) -> Decision:
    """What to do about the size of a lane."""
    live = view.busy + view.ready + view.making
    # Those that the backlog can use soon: what may begin, and one more for each call that will end meanwhile.
    useful = min(view.backlog, max(view.room, 0) + (view.busy if view.fresh else 0))
    ahead = min(AHEAD, view.limit) if view.fresh and view.active else 0
    wanted = max(useful, ahead, view.least - view.busy)
    spare = view.ready + view.making
    if wanted > spare:
        most = view.most + (ahead if view.fresh else 0)
        start = min(wanted - spare, most - live)
        if start > 0:
            why = f"{view.backlog} calls wait" if view.backlog else "made ahead" if view.active else "the minimum"
            return Decision(start=start, reason=f"{why}: {live} containers, room for {view.room} more calls")
    if view.active:
        surplus = live - view.most - (ahead if view.fresh else 0)
    else:
        surplus = min(view.ready - max(0, view.least - view.busy), live - view.least)
    if view.backlog == 0 and surplus > 0 and view.ready:
        retire = min(surplus, view.ready)
        return Decision(retire=retire, reason=f"idle: {live} containers, at least {view.least}")
    return Decision()


class Capacity(Record):
    """What the machine has free for calls. cpus: of this process's share; memory: bytes that are available;
    brake: why nothing more should begin though it would fit, empty if it may."""

    cpus: float
    memory: int
    brake: str = ""


def room(capacity: Capacity, running: int, cpus_used: float, memory_reserved: int, cpus: float, memory: int) -> int:
    """How many more calls of `cpus` and `memory` each may begin, where so much is used by those that run."""
    if capacity.brake:
        return 0 if running else 1
    by_cpu = math.floor((capacity.cpus - cpus_used + 1e-9) / cpus) if cpus else 1 << 20
    by_memory = (capacity.memory - memory_reserved) // memory if memory else 1 << 20
    free = min(by_cpu, by_memory)
    return max(free, 0) if running else max(free, 1)
