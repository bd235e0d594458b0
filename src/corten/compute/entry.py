"""What a fork of a zygote does to become a process of a container, written down as a list of calls. Pure.

The list is made of the same plan as the container: the process gets the identity, limits, rights and filter that a
program started by its init would have had. Why a list of plain calls and not the plan's steps: it is also carried out
by the Python of an image, which knows nothing of Corten (`inside/entering`).

The order: control groups and what needs the host's /proc first, then namespaces, then rights, the filter last.
"""

from __future__ import annotations

from corten.errors import Unsupported
from corten.linux import capabilities, seccomp
from corten.linux.clone import NAMESPACES
from corten.linux.syscalls import NUMBERS
from corten.records import Record
from corten.runtime.plan import Plan
from corten.runtime.steps import identity, root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.runtime.step import Step

    Operation = tuple[Any, ...]

STREAMS = 4
"""Descriptors that come with every request before those counted here: the call's socket and the three streams."""

_KEYCTL_JOIN_SESSION_KEYRING = 1
_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 4, 8, 24, 38, 47
_AMBIENT_RAISE, _AMBIENT_CLEAR_ALL = 2, 4


class Entry(Record):
    """How to enter the containers of one plan.

    operations: for `inside/entering`; kinds: the namespaces whose descriptors are wanted, in order. Those of the
    `group_files` follow them.
    """

    operations: tuple[Operation, ...]
    kinds: tuple[str, ...]

    @property
    def pid_index(self) -> int:
        """Which descriptor of a request is the PID namespace."""
        return STREAMS + self.kinds.index("pid")


def entry(plan: Plan, last_capability: int) -> Entry:
    """The entry of a plan. last_capability: the highest number that the kernel knows.

    Raises `Unsupported` for a container without a PID namespace of its own.
    """
    kinds = tuple(kind for kind in NAMESPACES if kind in _kinds(plan) and kind != "user")
    if "pid" not in kinds:
        raise Unsupported("pid: a function's container needs a PID namespace of its own: leave pid out")
    joins = [("setns", STREAMS + at, NAMESPACES[kind][0]) for at, kind in enumerate(kinds) if kind != "pid"]
    group_count = len(plan.group.dirs) if plan.group else 0
    before: list[Operation] = [("group", STREAMS + len(kinds) + at) for at in range(group_count)]
    after: list[Operation] = []
    for step in (*plan.inside, *plan.payload):
        if isinstance(step, (identity.OomScore, identity.LimitResource)):
            before.append(_limit(step))
        else:
            after += _rights(step, last_capability)
    operations = (*before, *joins, *after)
    return Entry(operations, kinds)


def _kinds(plan: Plan) -> tuple[str, ...]:
    from corten.runtime.steps.namespaces import ShareNamespaces

    return next(step.kinds for step in plan.inside if isinstance(step, ShareNamespaces))


def group_files(plan: Plan) -> tuple[str, ...]:
    """The files to open for writing, one for each directory of the group, by which a thread joins it."""
    return tuple(own.join_file for own in plan.group.dirs) if plan.group else ()


def _limit(step: identity.OomScore | identity.LimitResource) -> Operation:
    if isinstance(step, identity.OomScore):
        return ("oom", step.value)
    import resource

    infinite = (1 << 64) - 1
    soft, hard = (resource.RLIM_INFINITY if value >= infinite else value for value in (step.soft, step.hard))
    return ("rlimit", getattr(resource, step.kind), soft, hard)


def _rights(step: Step, last_capability: int) -> list[Operation]:
    if isinstance(step, identity.NewSession):
        return [("call", NUMBERS["setsid"])]
    if isinstance(step, identity.NewKeyring):
        return [("call", NUMBERS["keyctl"], _KEYCTL_JOIN_SESSION_KEYRING, step.name.encode() + b"\0", 0, 0, 0)]
    if isinstance(step, root.WorkingDirectory):
        return [("chdir", step.path)]
    if isinstance(step, identity.BecomeUser):
        return _become(step, last_capability)
    if isinstance(step, identity.NoNewPrivileges):
        return [("call", NUMBERS["prctl"], _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)]
    if isinstance(step, identity.LoadFilter):
        flags = sum(seccomp.FLAGS[name] for name in step.flags)
        return [("seccomp", flags, step.program)]
    return []


def _become(step: identity.BecomeUser, last_capability: int) -> list[Operation]:
    """As `BecomeUser.run`, in the same order."""
    prctl = NUMBERS["prctl"]
    found: list[Operation] = []
    sets = step.sets
    if sets is not None:
        kept = capabilities.mask(sets.bounding)
        found += [
            ("call", prctl, _PR_CAPBSET_DROP, number, 0, 0, 0)
            for number in range(last_capability + 1)
            if not kept >> number & 1
        ]
        found.append(("call", prctl, _PR_SET_KEEPCAPS, 1, 0, 0, 0))
    if step.groups is not None:
        packed = b"".join(number.to_bytes(4, "little") for number in step.groups)
        found.append(("call", NUMBERS["setgroups"], len(step.groups), packed))
    found.append(("call", NUMBERS["setresgid"], step.gid, step.gid, step.gid))
    found.append(("call", NUMBERS["setresuid"], step.uid, step.uid, step.uid))
    if sets is not None:
        found.append(("call", prctl, _PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0))
        found.append(("call", NUMBERS["capset"], *capabilities.capset_data(sets)))
        found.append(("call", prctl, _PR_SET_KEEPCAPS, 0, 0, 0, 0))
        found += [
            ("call", prctl, _PR_CAP_AMBIENT, _AMBIENT_RAISE, capabilities.number(name), 0, 0) for name in sets.ambient
        ]
    if step.umask is not None:
        found.append(("umask", step.umask))
    # What it executes is a sealed copy of the interpreter, so that its own /proc need not be closed to it.
    found.append(("call", prctl, _PR_SET_DUMPABLE, 1, 0, 0, 0))
    return found
