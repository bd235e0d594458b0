"""The containers that live now: those of `run` and of the library in the home directory, and OCI ones below their root.

Rule 1: in use means locked (`home`): a directory that nobody holds is garbage, and is not listed.
Rule 2: nothing is made, changed or swept here; a container that goes while it is looked at is left out.
Rule 3: what cannot be told is None, never a guess.
Rule 4: a container that is made ahead (`runtime/stock`) is nobody's yet, and is not listed.
"""

from __future__ import annotations

import os
import time

from corten.engine import home, lifecycle, oci_state
from corten.errors import Error, InvalidInput, NotFound
from corten.linux.cgroup.group import Group
from corten.linux.locks import claim_left
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Live(Record):
    """A live container.

    id; name: empty without one; kind: `run` (of the command line or the library) or `oci`; status: starting, running,
    paused, or as the OCI life cycle has it, and `ahead` where that was asked for; pid: of its first process on the
    host, None where that cannot be told; group: its control group, None without one; directory: what is kept of it.
    """

    id: str
    name: str
    kind: str
    status: str
    pid: int | None
    group: Group | None
    directory: str

    @property
    def label(self) -> str:
        """What people call it: its name, else its id."""
        return self.name or self.id

    def pids(self) -> tuple[int, ...]:
        """All its processes, on the host: by its group; without one those below its first process."""
        if self.group is not None:
            return self.group.procs()
        return () if self.pid is None else (self.pid, *_descendants(self.pid))


def live(place: str = "", oci_root: str = "", ahead: bool = False) -> tuple[Live, ...]:
    """All live containers, sorted by id. place: the home directory, oci_root: the root of OCI containers, if not the
    usual ones; ahead: also those that are made ahead, for whoever keeps the list.
    """
    place = place or home.path()
    found = [one for identity in _names(f"{place}/containers") if (one := _of_run(place, identity))]
    if not ahead:
        found = [one for one in found if one.status != _AHEAD]
    if not oci_root:
        try:
            oci_root = oci_state.default_root()
        except InvalidInput:  # an ordinary user without a runtime directory has none
            return tuple(_named(place, sorted(found, key=lambda one: one.id)))
    found += [one for identity in oci_state.containers(oci_root) if (one := _of_oci(oci_root, identity))]
    return tuple(_named(place, sorted(found, key=lambda one: one.id)))


def find(word: str, among: Iterable[Live] | None = None) -> Live:
    """The container of this name, id, or unique beginning of an id. `NotFound`; `InvalidInput`: several begin so."""
    known = tuple(live() if among is None else among)
    exact = [one for one in known if word in (one.id, one.name)]
    near = exact or [one for one in known if word and one.id.startswith(word)]
    if len(near) == 1:
        return near[0]
    if near:
        raise InvalidInput(f"container {word}: {len(near)} ids begin so: {', '.join(one.id for one in near[:4])}")
    others = ", ".join(one.label for one in known[:6])
    raise NotFound(f"no live container {word!r}; " + (f"there are: {others}" if others else "there are none"))


def process(word: str) -> tuple[int, Live | None]:
    """The process that a word names, and the container it belongs to, None for none.

    A container's name or id stands for its first process; a number that is none of those is a process id.
    `NotFound`, `InvalidInput`.
    """
    known = live()
    if word.isdecimal() and not any(word in (one.id, one.name) for one in known):
        pid = int(word)
        if not os.path.exists(f"/proc/{pid}/status"):
            raise NotFound(f"process {word}: there is none, and no container of that name")
        return pid, by_process(known).get(pid)
    one = find(word, known)
    if one.pid is None:
        raise Error(f"container {word}: its first process cannot be told: it starts, or has no control group")
    return one.pid, one


def by_process(among: Iterable[Live]) -> dict[int, Live]:
    """Which container each process belongs to."""
    return {pid: one for one in among for pid in one.pids()}


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        raise Error(f"cannot list the containers in {path}: {error.strerror}: they belong to another user") from None


def _of_run(place: str, identity: str) -> Live | None:
    path = f"{place}/containers/{identity}"
    fd = claim_left(path)
    if fd is not None:  # nobody holds it: what a killed launcher left, for the sweeper
        os.close(fd)
        return None
    try:
        about = os.stat(path)
        groups = home.groups_of(place, identity)
        group = max(groups, key=lambda one: len(one.dirs)) if groups else None
        pid = first_process(group.procs()) if group else _by_lock(path, about)
        stage = _stage(pid) if pid else "starting" if group else ""
        status = stage or oci_state.freezer(lifecycle.group_lines(group))
    except (OSError, ValueError):  # it went meanwhile
        return None
    return Live(identity, "", "run", status, pid, group, path)


_AHEAD = "ahead"
_STAGES = {b"corten:setup": "starting", b"corten:ahead": _AHEAD}
"""What the first process calls itself until it is an init or the program (`runtime/init`)."""
_YOUNG = 5.0
"""Seconds for which that is believed: a program can call itself anything, and may not hide so."""


def _stage(pid: int) -> str:
    """`starting`, `ahead`, or empty."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        head, _, tail = file.read().rpartition(b")")
    found = _STAGES.get(head.partition(b"(")[2], "")
    if not found:
        return ""
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(tail.split()[19]) / os.sysconf("SC_CLK_TCK")
    return found if age < _YOUNG else ""


def _of_oci(root: str, identity: str) -> Live | None:
    try:
        found = lifecycle.find(root, identity)
    except Error:
        return None
    if found.status == "stopped":
        return None
    return Live(identity, "", "oci", found.status, found.pid or None, found.group, found.path)


def _named(place: str, found: list[Live]) -> list[Live]:
    """Names, from the files that hold them: each says whose it is."""
    names = {}
    for name in _names(f"{place}/names"):
        try:
            with open(f"{place}/names/{name}") as file:
                names[file.read().strip()] = name
        except OSError:
            continue
    return [one.replace(name=names[one.id]) if one.kind == "run" and one.id in names else one for one in found]


def first_process(pids: Iterable[int]) -> int | None:
    """Of the processes of a container the one that all others come from: none of them is its parent, and it is the
    oldest such. None if there is none.
    """
    facts = {pid: stat for pid in pids if (stat := _stat(pid))}
    tops = [(start, pid) for pid, (parent, start) in facts.items() if parent not in facts]
    return min(tops)[1] if tops else None


def _stat(pid: int) -> tuple[int, int] | None:
    """(parent, start in clock ticks since boot) of a process; None if it is gone. Source: proc(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(fields[1]), int(fields[19])


def _descendants(pid: int) -> list[int]:
    found = []
    for child in _children(pid):
        found += [child, *_descendants(child)]
    return found


def _children(pid: int) -> list[int]:
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += [int(word) for word in file.read().split()]
    except OSError:
        return found
    return found


def _by_lock(path: str, about: os.stat_result) -> int | None:
    """The first process of a container without a control group: a child of whoever holds its directory's lock.

    A spawner has many children: then it is the one whose root writes into that directory.
    """
    launcher = _holder(about)
    children = _children(launcher) if launcher else []
    ours = [pid for pid in children if _writes_to(pid, path)]
    return ours[0] if len(ours) == 1 else children[0] if len(children) == 1 and not ours else None


def _holder(about: os.stat_result) -> int | None:
    """Who holds the one exclusive flock on a file; None if that cannot be told. Source: proc_locks(5)."""
    with open("/proc/locks") as file:
        rows = [line.split() for line in file]
    held = {(row[5], int(row[4])) for row in rows if row[1:4] == ["FLOCK", "ADVISORY", "WRITE"]}
    found = [(place, pid) for place, pid in held if int(place.rpartition(":")[2]) == about.st_ino]
    # Some file systems tell programs another device number than the kernel's own: then the inode must do.
    device = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:"
    holders = {pid for place, pid in found if place.startswith(device)} or {pid for _, pid in found}
    return holders.pop() if len(holders) == 1 else None


def _writes_to(pid: int, path: str) -> bool:
    try:
        with open(f"/proc/{pid}/mountinfo", errors="surrogateescape") as file:
            return f"upperdir={path}/upper" in file.read()
    except OSError:
        return False
