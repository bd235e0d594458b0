"""Rights, names and limits of a plan, read back from the process."""

from __future__ import annotations

import os

from corten.linux import inspect
from corten.linux.capabilities import Sets
from corten.linux.idmap import to_host
from corten.runtime.plan import Plan
from corten.runtime.steps import identity, listener, namespaces, root
from corten.views.findings import Finding, Subject, found, unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.views.findings import Table

_LIMITS = {
    "RLIMIT_CPU": "max cpu time",
    "RLIMIT_FSIZE": "max file size",
    "RLIMIT_DATA": "max data size",
    "RLIMIT_STACK": "max stack size",
    "RLIMIT_CORE": "max core file size",
    "RLIMIT_RSS": "max resident set",
    "RLIMIT_NPROC": "max processes",
    "RLIMIT_NOFILE": "max open files",
    "RLIMIT_MEMLOCK": "max locked memory",
    "RLIMIT_AS": "max address space",
    "RLIMIT_LOCKS": "max file locks",
    "RLIMIT_SIGPENDING": "max pending signals",
    "RLIMIT_MSGQUEUE": "max msgqueue size",
    "RLIMIT_NICE": "max nice priority",
    "RLIMIT_RTPRIO": "max realtime priority",
    "RLIMIT_RTTIME": "max realtime timeout",
}
_INFINITE = (1 << 64) - 1
_FILTERS = (identity.LoadFilter, listener.LoadNotifyingFilter)


def standing(plan: Plan, subject: Subject) -> list[Finding]:
    """What holds for every plan: no_new_privs and filters are as many as it says, no fewer and no more."""
    ours = inspect.status(os.getpid())
    steps = (*plan.inside, *plan.payload)
    wanted = bool(ours.no_new_privs) or any(isinstance(step, identity.NoNewPrivileges) for step in steps)
    rows = [found("no_new_privs", wanted, subject.status(subject.program).no_new_privs)]
    base = ours.filters or 0
    inside, payload = (sum(isinstance(step, _FILTERS) for step in part) for part in (plan.inside, plan.payload))
    rows.append(
        found("system call filters of the program", base + inside + payload, subject.status(subject.program).filters)
    )
    if subject.is_init:
        rows.append(found("system call filters of the init", base + inside, subject.status().filters))
    return rows


def _user(step: identity.BecomeUser, subject: Subject) -> list[Finding]:
    status, plan = subject.status(), subject.plan
    new = "user" in plan.namespaces
    uid = to_host(step.uid, plan.uid_maps) if new else step.uid
    gid = to_host(step.gid, plan.gid_maps) if new else step.gid
    rows = [found("user", (uid,) * 4, status.uids), found("group", (gid,) * 4, status.gids)]
    if step.groups is not None:
        wanted = frozenset(to_host(one, plan.gid_maps) if new else one for one in step.groups)
        rows.append(found("further groups", wanted, frozenset(status.groups)))
    if step.umask is not None:
        rows.append(found("umask", f"{step.umask:04o}", None if status.umask is None else f"{status.umask:04o}"))
    if step.sets is not None:
        kept = step.sets if subject.is_init else after_exec(step.sets, step.uid)
        for name in Sets._fields:
            there = frozenset(getattr(status.capabilities, name))
            rows.append(found(f"{name} capabilities", frozenset(getattr(kept, name)), there))
    return rows


def after_exec(sets: Sets, uid: int) -> Sets:
    """The sets of a process after the exec of a plain program. Source: capabilities(7), transformation at execve()."""
    if uid == 0:
        held = tuple({*sets.inheritable, *sets.bounding, *sets.ambient})
        return sets.replace(permitted=held, effective=held)
    return sets.replace(permitted=sets.ambient, effective=sets.ambient)


def _rlimit(step: identity.LimitResource, subject: Subject) -> list[Finding]:
    about = _LIMITS.get(step.kind, "")
    there = inspect.limits(subject.pid).get(about)
    wanted = tuple(None if value >= _INFINITE else value for value in (step.soft, step.hard))
    return [found(step.kind, tuple("unlimited" if value is None else value for value in wanted),
                  there and tuple("unlimited" if value is None else value for value in there))]  # fmt: skip


def _oom_score(step: identity.OomScore, subject: Subject) -> list[Finding]:
    return [found("oom_score_adj", step.value, inspect.oom_score(subject.pid))]


def _session(_: identity.NewSession, subject: Subject) -> list[Finding]:
    return [found("a session of its own", True, inspect.session(subject.pid) != os.getsid(0))]


def _hostname(step: identity.SetHostname, subject: Subject) -> list[Finding]:
    def names() -> tuple[str, str]:
        with open("/proc/sys/kernel/domainname") as file:
            return os.uname().nodename, file.read().strip()

    host, domain = inspect.from_inside(_enterable(subject), ("uts",), names)
    rows = [found("host name", subject.own(step.name), host)] if step.name else []
    return [*rows, found("domain name", step.domain, domain)] if step.domain else rows


def _sysctl(step: identity.Sysctl, subject: Subject) -> list[Finding]:
    def value() -> str:
        with open(f"/proc/sys/{step.key}") as file:
            return " ".join(file.read().split())

    there = inspect.from_inside(_enterable(subject), ("ipc", "network", "uts"), value)
    return [found(f"sysctl {step.key}", " ".join(step.value.split()), there)]


def _loopback(_: identity.RaiseLoopback, subject: Subject) -> list[Finding]:
    """The local table has 127.0.0.1 only while `lo` is up."""

    def up() -> bool:
        with open("/proc/thread-self/net/fib_trie") as file:
            return "127.0.0.1" in file.read()

    return [found("loopback is up", True, inspect.from_inside(_enterable(subject), ("network",), up))]


def _enterable(subject: Subject) -> int:
    """The process whose namespaces may be opened: of an ordinary user's container not its init, which is shielded."""
    return subject.pid if os.access(f"/proc/{subject.pid}/ns/uts", os.R_OK) else subject.program


def _offsets(step: namespaces.TimeOffsets, subject: Subject) -> list[Finding]:
    there = {clock: seconds for clock, seconds, _ in inspect.time_offsets(subject.pid) or ()}
    return [
        found(f"{clock} clock, ahead by seconds", seconds, there.get(clock))
        for clock, seconds, _ in step.offsets
    ]


def _directory(step: root.WorkingDirectory, subject: Subject) -> list[Finding]:
    if not subject.is_init:
        return [unknown("working directory", step.path, "the program may have changed it")]
    return [found("working directory", step.path.rstrip("/") or "/", os.readlink(f"/proc/{subject.pid}/cwd"))]


def _spoken_for(_step: object, _subject: Subject) -> list[Finding]:
    """`standing` speaks of it."""
    return []


TABLE: Table = {
    identity.BecomeUser: _user,
    identity.LimitResource: _rlimit,
    identity.OomScore: _oom_score,
    identity.NewSession: _session,
    identity.SetHostname: _hostname,
    identity.Sysctl: _sysctl,
    identity.RaiseLoopback: _loopback,
    identity.NoNewPrivileges: _spoken_for,
    identity.LoadFilter: _spoken_for,
    listener.LoadNotifyingFilter: _spoken_for,
    namespaces.TimeOffsets: _offsets,
    root.WorkingDirectory: _directory,
}
