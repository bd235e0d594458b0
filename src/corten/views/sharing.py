"""Who shares what: for each kind of namespace the partition of the live processes.

Rule 1: what may not be read is unknown: such a process is in no class of that kind, and is counted apart.
Rule 2: a process that ends while it is read is left out as a whole; so all kinds speak of the same processes, but for
        the unknown ones.
Rule 3: a namespace without a process is shown only where it is an ancestor of one that has some.
"""

from __future__ import annotations

import os

from corten.engine import listing
from corten.errors import InvalidInput, NotFound
from corten.linux import namespaces as kernel
from corten.linux.namespaces import KINDS, NESTING
from corten.records import Record
from corten.views.partition import Partition, meet
from corten.views.processes import Process, describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

_ALIASES = {"mount": "mnt", "network": "net"}


class Namespace(Record):
    """One namespace: a class of its kind's partition.

    identity: its inode number; processes: their ids, empty for an ancestor in which no process is; first: the process
    with the lowest id, None without any; containers: whose processes are in it; parent (PID and user namespaces): the
    namespace around it, None where there is none within sight; owner: the user namespace that owns it, None outside
    our sight; creator (user namespaces): the user id that made it; unknown: those of the last three that may not be
    read, which then are None.
    """

    kind: str
    identity: int
    processes: frozenset[int]
    first: Process | None
    containers: tuple[str, ...] = ()
    parent: int | None = None
    owner: int | None = None
    creator: int | None = None
    unknown: tuple[str, ...] = ()


class Namespaces(Record):
    """The namespaces of all live processes, at about one moment.

    kinds: those that were looked at; namespaces: by kind, then by the first process; unknown: (kind, processes whose
    namespace of that kind may not be read); containers: (what a container is called, its processes).
    """

    kinds: tuple[str, ...]
    namespaces: tuple[Namespace, ...]
    unknown: tuple[tuple[str, frozenset[int]], ...] = ()
    containers: tuple[tuple[str, frozenset[int]], ...] = ()

    def of(self, kind: str) -> tuple[Namespace, ...]:
        """The namespaces of one kind."""
        return tuple(own for own in self.namespaces if own.kind == kind)

    def partition(self, kind: str) -> Partition:
        """The quotient of the processes by "is in the same namespace of this kind"; labels: namespace numbers."""
        return Partition.by({pid: own.identity for own in self.of(kind) for pid in own.processes})

    def common(self, kinds: Sequence[str] = ()) -> Partition:
        """The meet of several kinds (all that were looked at): the processes that share all of them."""
        return meet(self.partition(kind) for kind in kinds or self.kinds)

    def same(self, one: int, other: int) -> dict[str, bool | None]:
        """By kind: whether two processes share it; None where one of them is unknown. `NotFound`: no such process."""
        known = self.processes
        for pid in (one, other):
            if pid not in known:
                raise NotFound(f"process {pid}: there is none that lives")
        return {kind: self.partition(kind).same(one, other) for kind in self.kinds}

    @property
    def processes(self) -> frozenset[int]:
        """All processes, also those of which something is unknown."""
        return frozenset().union(*(own.processes for own in self.namespaces), *(pids for _, pids in self.unknown))

    def only(self, processes: Iterable[int]) -> Namespaces:
        """The same, but only the namespaces that hold one of these processes (with all that are in them)."""
        wanted = frozenset(processes)
        unknown = tuple((kind, pids & wanted) for kind, pids in self.unknown)
        return self.replace(
            namespaces=tuple(own for own in self.namespaces if own.processes & wanted),
            unknown=tuple((kind, pids) for kind, pids in unknown if pids),
        )

    def to_json(self) -> dict[str, Any]:
        """As data for other programs."""
        return {
            "kinds": list(self.kinds),
            "namespaces": [_namespace_json(own) for own in self.namespaces],
            "unknown": {kind: sorted(pids) for kind, pids in self.unknown},
            "containers": {name: sorted(pids) for name, pids in self.containers},
        }


def _namespace_json(own: Namespace) -> dict[str, Any]:
    first = own.first
    return {
        "type": own.kind,
        "ns": own.identity,
        "nprocs": len(own.processes),
        "pid": first.pid if first else None,
        "uid": first.uid if first else None,
        "user": first.user if first else None,
        "command": first.command if first else None,
        "containers": list(own.containers),
        "parent": own.parent,
        "owner": own.owner,
        "creator": own.creator,
        "unknown": list(own.unknown),
        "processes": sorted(own.processes),
    }


def kinds_of(words: str) -> tuple[str, ...]:
    """Kinds by a list such as `pid,net`, in the house's order. `InvalidInput`: not a kind."""
    wanted = set()
    for word in words.split(","):
        kind = _ALIASES.get(word.strip(), word.strip())
        if kind not in KINDS:
            raise InvalidInput(f"{word.strip()!r} is not a kind of namespace: use {', '.join(KINDS)}")
        wanted.add(kind)
    return tuple(kind for kind in KINDS if kind in wanted)


def read(kinds: Sequence[str] = KINDS) -> Namespaces:
    """The namespaces of all processes that this process can see.

    kinds: of KINDS. `InvalidInput`: not a kind. Takes some 50 µs for each process; nothing is changed.
    """
    kinds = kinds_of(",".join(kinds))
    members: dict[str, dict[int, list[int]]] = {kind: {} for kind in kinds}
    unknown: dict[str, set[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        pid = int(name)
        found = kernel.identities(pid, kinds)
        for kind, identity in (found or {}).items():
            if identity is None:
                unknown.setdefault(kind, set()).add(pid)
            else:
                members[kind].setdefault(identity, []).append(pid)
    containers = tuple(
        (one.label, frozenset(pids)) for one in listing.live() if (pids := one.pids()) or one.group is None
    )
    seen: dict[int, Process] = {}
    rows: list[Namespace] = []
    for kind in kinds:
        classes = {identity: sorted(pids) for identity, pids in members[kind].items()}
        whole = _with_ancestors(kind, classes)
        for identity in sorted(whole, key=lambda one: (whole[one].first is None, min(classes.get(one, [0])))):
            own = whole[identity]
            inside = classes.get(identity, [])
            rows.append(
                own.replace(
                    first=_first(inside, seen),
                    containers=tuple(label for label, theirs in containers if not theirs.isdisjoint(inside)),
                )
            )
    left = tuple((kind, frozenset(pids)) for kind, pids in unknown.items())
    return Namespaces(kinds, tuple(rows), left, containers)


def _first(pids: Sequence[int], seen: dict[int, Process]) -> Process | None:
    """The process with the lowest id; read once, though it may be the first of several namespaces."""
    if not pids:
        return None
    if pids[0] not in seen:
        seen[pids[0]] = describe(pids[0])
    return seen[pids[0]]


def _with_ancestors(kind: str, classes: dict[int, list[int]]) -> dict[int, Namespace]:
    """The namespaces of one kind with owner and parent, and those around them that have no process."""
    found: dict[int, Namespace] = {}
    for identity, pids in classes.items():
        if identity in found:  # met as an ancestor
            continue
        held = (fd for pid in pids if (fd := kernel.hold(pid, kind, identity)) is not None)
        fd = next(held, None)
        if fd is None:
            unread = ("owner", *(("parent",) if kind in NESTING else ()), *(("creator",) if kind == "user" else ()))
            found[identity] = Namespace(kind, identity, frozenset(pids), None, unknown=unread)
            continue
        while fd is not None:
            above = kernel.parent(fd) if kind in NESTING else None
            here = kernel.identity(fd)
            found[here] = _related(fd, kind, above, frozenset(classes.get(here, ())))
            os.close(fd)
            fd = above
            if fd is not None and kernel.identity(fd) in found:
                os.close(fd)
                fd = None
    return found


def _related(fd: int, kind: str, above: int | None, processes: frozenset[int]) -> Namespace:
    owner = kernel.owner(fd)
    try:
        return Namespace(
            kind,
            kernel.identity(fd),
            processes,
            None,
            parent=None if above is None else kernel.identity(above),
            owner=None if owner is None else kernel.identity(owner),
            creator=kernel.creator(fd) if kind == "user" else None,
        )
    finally:
        if owner is not None:
            os.close(owner)
