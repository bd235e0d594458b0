"""Does a process really have what its plan promised? Each promise against what the kernel says, as data.

Rule 1: what is promised comes from the plan, what is there from /proc, the control groups and the process's own root:
        never from what the engine remembers.
Rule 2: a step that leaves nothing to be seen from outside is listed as such (`unseen`), not passed over.
Rule 3: kinds of namespaces and rights that the plan does not name are promises too: shared, unchanged.
"""

from __future__ import annotations

from corten.errors import InvalidInput, NotFound
from corten.linux import inspect
from corten.records import Record
from corten.runtime.plan import Plan
from corten.runtime.step import Step
from corten.runtime.steps import namespaces
from corten.views import compare_groups, compare_mounts, compare_process
from corten.views.findings import Finding, Subject, found, unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from corten.views.findings import Table


class Comparison(Record):
    """All findings about one process. unseen: steps of the plan that leave nothing to compare, a line each."""

    pid: int
    findings: tuple[Finding, ...]
    unseen: tuple[str, ...]

    @property
    def differences(self) -> tuple[Finding, ...]:
        """The promises that were not kept."""
        return tuple(one for one in self.findings if one.agrees is False)

    @property
    def unknown(self) -> tuple[Finding, ...]:
        """The promises that could not be checked."""
        return tuple(one for one in self.findings if one.agrees is None)

    def lines(self) -> list[str]:
        """For people: differences first, then what is unknown, then agreements; the sum at the end."""
        order = {False: 0, None: 1, True: 2}
        rows = [one.line() for one in sorted(self.findings, key=lambda one: order[one.agrees])]
        kept = len(self.findings) - len(self.differences) - len(self.unknown)
        return [
            *rows,
            f"process {self.pid}: {kept} promises kept, {len(self.differences)} not, {len(self.unknown)} unknown; "
            f"{len(self.unseen)} steps leave nothing to see",
        ]

    def to_json(self) -> dict[str, Any]:
        """The same as an object."""
        rows = [{name: one.__dict__[name] for name in one._fields} for one in self.findings]
        return {"pid": self.pid, "agrees": not self.differences, "findings": rows, "unseen": list(self.unseen)}


_TABLE: Table = {
    **compare_groups.TABLE,
    **compare_mounts.TABLE,
    **compare_process.TABLE,
}
# What these make, the namespaces' comparison or the last of several writes speaks of.
_SPOKEN_FOR = (namespaces.JoinNamespace, namespaces.NewCgroupNamespace)


def compare(plan: Plan, pid: int) -> Comparison:
    """Compare a process with a plan. pid: the first process of a container, or its program.

    `NotFound`: there is no such process. `InvalidInput`: it is not a process id.
    """
    if pid <= 0:
        raise InvalidInput(f"{pid} is not a process id")
    try:
        with Subject(plan, pid) as subject:
            return _compare(plan, subject)
    except ProcessLookupError:
        raise NotFound(f"process {pid}: there is none, or it ended while it was looked at") from None


def _compare(plan: Plan, subject: Subject) -> Comparison:
    findings = [*_namespaces(plan, subject), *_id_maps(plan, subject), *compare_process.standing(plan, subject)]
    unseen = []
    steps = (*plan.host, *plan.inside, *plan.payload)
    for step in steps:
        look = _TABLE.get(type(step))
        if look is None:
            if not isinstance(step, _SPOKEN_FOR):
                unseen.append(step.describe())
        elif not _overtaken(step, steps):
            findings += _looked(look, step, subject)
    return Comparison(subject.pid, tuple(findings), tuple(unseen))


def _looked(look: Callable[[Any, Subject], list[Finding]], step: Step, subject: Subject) -> list[Finding]:
    try:
        return look(step, subject)
    except PermissionError:
        return [unknown(subject.own(step.describe()), "as said", "no permission to look: run as root")]
    except FileNotFoundError as error:
        inspect.status(subject.pid)  # which says so if the process is gone, and its group with it
        return [unknown(subject.own(step.describe()), "as said", f"{error.filename} is gone")]


def _overtaken(step: Step, steps: tuple[Step, ...]) -> bool:
    """Whether a later step puts something else into the same place."""
    key = compare_mounts.place(step) or compare_groups.place(step)
    if not key:
        return False
    later = steps[steps.index(step) + 1 :]
    return any(key in (compare_mounts.place(other), compare_groups.place(other)) for other in later)


def _namespaces(plan: Plan, subject: Subject) -> list[Finding]:
    """For each kind: new, joined by path, or the one that we are in ourselves."""
    ours = inspect.namespaces("self")
    new = {*plan.namespaces}
    joined = dict(plan.joined)
    for step in plan.inside:
        if isinstance(step, namespaces.NewCgroupNamespace):
            new.add("cgroup")
        elif isinstance(step, namespaces.TimeOffsets):
            new.add("time")
        elif isinstance(step, namespaces.JoinNamespace):
            joined[step.kind] = step.path
    rows = []
    for kind, own in ours.items():
        about, there = f"{kind} namespace", subject.namespaces.get(kind)
        if kind in joined:
            wanted = inspect.namespace_at(joined[kind])
            rows.append(found(about, wanted, there) if wanted else unknown(about, joined[kind], "the path is gone"))
        elif kind in new:
            rows.append(found(about, "new", None if there is None else "the same as ours" if there == own else "new"))
        else:
            words = None if there is None else "the same as ours" if there == own else "another"
            rows.append(found(about, "the same as ours", words))
    return rows


def _id_maps(plan: Plan, subject: Subject) -> list[Finding]:
    if "user" not in plan.namespaces:
        return []
    rows = []
    for name, wanted, there in zip(
        ("uid map", "gid map"), (plan.uid_maps, plan.gid_maps), inspect.id_maps(subject.pid), strict=True
    ):
        words = [tuple(f"{m.container_id}->{m.host_id} ({m.size})" for m in maps) for maps in (wanted, there)]
        rows.append(found(name, tuple(sorted(words[0])), tuple(sorted(words[1]))))
    return rows
