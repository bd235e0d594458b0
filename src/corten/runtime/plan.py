"""The plan: everything that will be done to make a container, as data that can be printed, compared and sent.

The order of things: `host` steps in the launcher, the clone, `inside` steps in the child, `payload` steps in the
program's own process (usually none), the program; after its end the `undo` steps in the launcher.
"""

from __future__ import annotations

from corten.linux import clone
from corten.linux.cgroup.group import Group
from corten.linux.idmap import IdMapping
from corten.records import Record
from corten.runtime.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Program(Record):
    """The program to run: argv, its environment, and where to look for it (a search path like PATH)."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    search: str


class Plan(Record):
    """The whole plan.

    namespaces: kinds made new by the clone (a cgroup namespace, and one with time offsets, are made by steps);
    uid_maps, gid_maps: written by the launcher when `user` is among them;
    init: whether pid 1 is Corten's init with the program as its child; timeout: seconds, None for ever;
    group: the control group, None without one; keep_fds: descriptors from 3 on that the program inherits;
    joined: (kind, path) of namespaces that the clone joins, see `joining` (otherwise steps join them);
    held: nothing is run: the init waits, and others enter by the descriptors of its namespaces that it hands out;
    ahead: how many of the inside steps may be taken before anybody has asked for the container, 0 where nothing may.
    """

    host: tuple[Step, ...]
    namespaces: tuple[str, ...]
    uid_maps: tuple[IdMapping, ...]
    gid_maps: tuple[IdMapping, ...]
    inside: tuple[Step, ...]
    payload: tuple[Step, ...]
    program: Program
    undo: tuple[Step, ...]
    init: bool = True
    timeout: float | None = None
    group: Group | None = None
    keep_fds: int = 0
    joined: tuple[tuple[str, str], ...] = ()
    held: bool = False
    ahead: int = 0

    def stages(self) -> list[tuple[str, list[str]]]:
        """The plan as (who does it, what in order): `host`, `clone`, `inside`, `program`, `after`."""
        made = " ".join(self.namespaces) or "none"
        cloned = [f"clone with new namespaces: {made}"]
        cloned += [f"join {kind} namespace {path}" for kind, path in self.joined]
        if "user" in self.namespaces:
            for name, maps in (("uid", self.uid_maps), ("gid", self.gid_maps)):
                ranges = ", ".join(f"{m.container_id}->{m.host_id} ({m.size})" for m in maps)
                cloned.append(f"map {name}s {ranges}")
        runs = ["init: reap orphans, forward signals"] if self.init else []
        runs += [step.describe() for step in self.payload]
        runs.append("wait to be entered" if self.held else "run " + " ".join(self.program.args))
        if self.timeout is not None:
            runs.append(f"kill everything after {self.timeout:g} s")
        return [
            ("host", [step.describe() for step in self.host]),
            ("clone", cloned),
            ("inside", [step.describe() for step in self.inside]),
            ("program", runs),
            ("after", [step.describe() for step in self.undo]),
        ]

    def lines(self) -> list[str]:
        """The plan as numbered lines of text."""
        rows = [(who, what) for who, all_of_it in self.stages() for what in all_of_it]
        return [f"{number:3}  {who:8} {what}" for number, (who, what) in enumerate(rows, 1)]

    def to_json(self) -> list[dict[str, Any]]:
        """The plan as a list of objects: `stage`, `step` (class, or null), `does` (the line of text), `fields`."""
        by_stage = {"host": self.host, "inside": self.inside, "program": self.payload, "after": self.undo}
        out: list[dict[str, Any]] = []
        for who, all_of_it in self.stages():
            described = {step.describe(): step for step in by_stage.get(who, ())}
            for what in all_of_it:
                step = described.get(what)
                fields = None if step is None else {name: _plain(step.__dict__[name]) for name in step._fields}
                out.append({"stage": who, "step": step and type(step).__name__, "does": what, "fields": fields})
        return out


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return {name: _plain(value.__dict__[name]) for name in value._fields}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return value


def clone_flags(plan: Plan) -> int:
    """The flags of the clone."""
    return clone.flags_of(plan.namespaces)
