"""What a comparison finds: one promise, what is there instead or as promised, and the process that is looked at."""

from __future__ import annotations

import os

from corten.linux import inspect
from corten.linux.inspect import MountPoint, Status
from corten.records import Record
from corten.runtime.plan import Plan
from corten.runtime.steps.layer import Claim
from corten.views.processes import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from corten.runtime.step import Step

    Table = dict[type[Step], Callable[[Any, "Subject"], list["Finding"]]]


class Finding(Record):
    """One promise of a plan. about: the thing; promised, found: in words; agrees: None where it cannot be told, and
    `found` says why.
    """

    about: str
    promised: str
    found: str
    agrees: bool | None

    def line(self) -> str:
        """For people."""
        mark = {True: "same   ", False: "DIFFERS", None: "unknown"}[self.agrees]
        if self.agrees:
            return printable(f"{mark}  {self.about}: {self.found}")
        return printable(f"{mark}  {self.about}: promised {self.promised}, found {self.found}")


def found(about: str, promised: object, there: object) -> Finding:
    """A promise against what is there: the same if they are equal; unknown where that is None."""
    if there is None:
        return unknown(about, promised, "no permission to read it")
    return Finding(about, _words(promised), _words(there), promised == there)


def unknown(about: str, promised: object, why: str) -> Finding:
    """A promise that cannot be checked."""
    return Finding(about, _words(promised), why, None)


def _words(value: object) -> str:
    if isinstance(value, (tuple, list)):
        return ", ".join(map(_words, value)) or "none"
    if isinstance(value, frozenset):
        return ", ".join(sorted(map(str, value))) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


class Subject:
    """The process that is looked at, each thing read once.

    pid: what is looked at; program: the process of the program where `pid` is its init, else the same.
    The plan's own id is another one than the running container's where the plan was made anew: `own` translates.
    """

    def __init__(self, plan: Plan, pid: int) -> None:
        self.plan = plan
        self.pid = pid
        self.is_init = plan.init and inspect.command(pid)[:1] == ("corten:init",)
        children = inspect.children(pid) if self.is_init else ()
        self.program = children[0] if children else pid
        self.groups = inspect.groups(pid)
        self.namespaces = inspect.namespaces(pid)
        self._status: dict[int, Status] = {}
        self._mounts: dict[int, MountPoint] | None = None
        self._root = -1
        self._ids = _planned_id(plan), _running_id(self.groups)

    def own(self, text: str) -> str:
        """A text of the plan with the running container's id."""
        planned, running = self._ids
        return text.replace(planned, running) if planned and running else text

    def status(self, pid: int = 0) -> Status:
        """The rights of a process, by default of `pid`."""
        pid = pid or self.pid
        if pid not in self._status:
            self._status[pid] = inspect.status(pid)
        return self._status[pid]

    @property
    def mounts(self) -> dict[int, MountPoint]:
        """Its mounts by their id."""
        if self._mounts is None:
            self._mounts = {mount.id: mount for mount in inspect.mounts(self.pid)}
        return self._mounts

    @property
    def root(self) -> int:
        """A descriptor of its root. `PermissionError` where neither its init nor its program may be looked into."""
        if self._root < 0:
            try:
                self._root = inspect.open_root(self.pid)
            except PermissionError:
                self._root = inspect.open_root(self.program)
        return self._root

    def close(self) -> None:
        """Let go of the root."""
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def __enter__(self) -> Subject:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _planned_id(plan: Plan) -> str:
    for step in plan.host:
        if isinstance(step, Claim) and step.directory:
            return step.path.rpartition("/")[2]
    return ""


def _running_id(groups: dict[str, str]) -> str:
    for path in groups.values():
        for part in path.split("/"):
            if part.startswith("corten-"):
                return part.removeprefix("corten-")
    return ""
