"""What a process is and has, read from /proc.

Rule 1: None is "cannot be told here" (no permission, or the kernel does not have it): never a guess.
Rule 2: a process that is gone is a `ProcessLookupError`, whichever file told so.
Sources: proc_pid_status(5), proc_pid_mountinfo(5), proc_pid_stat(5), namespaces(7), time_namespaces(7).
"""

from __future__ import annotations

import errno
import os

from corten.linux import capabilities, clone, idmap, paths
from corten.linux.capabilities import Sets
from corten.linux.cgroup.layout import unescape
from corten.linux.idmap import IdMapping
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

SECCOMP = {0: "none", 1: "strict", 2: "filter"}


class Status(Record):
    """/proc/PID/status, the part that is about rights. uids, gids: real, effective, saved, of the file system, as this
    process's user namespace sees them; ns_pids: its pid in each PID namespace from ours inwards; seccomp: 0 none,
    1 strict, 2 filter, None: the kernel does not tell; filters: how many are loaded.
    """

    name: str
    state: str
    parent: int
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: tuple[int, ...]
    umask: int | None
    ns_pids: tuple[int, ...]
    threads: int
    capabilities: Sets
    no_new_privs: bool | None
    seccomp: int | None
    filters: int | None


class MountPoint(Record):
    """One line of mountinfo: what is mounted at `target` (as the process sees it) and how.

    device: number of the file system (`8:1`); options: of this mount (`ro`, `nosuid`); super_options: of the file
    system; root: which part of it is shown; propagation: `shared:1`, `master:2` and their kin; none of them: private.
    """

    id: int
    parent: int
    device: str
    root: str
    target: str
    options: tuple[str, ...]
    propagation: tuple[str, ...]
    kind: str
    source: str
    super_options: tuple[str, ...]


def status(pid: int) -> Status:
    """The rights of a process. `ProcessLookupError` if it is gone."""
    fields = {}
    for line in _text(pid, "status").splitlines():
        key, _, value = line.partition(":")
        fields[key] = value.strip()

    def numbers(key: str) -> tuple[int, ...]:
        return tuple(int(word) for word in fields.get(key, "").split())

    def one(key: str, base: int = 10) -> int | None:
        return int(fields[key], base) if key in fields else None

    held = [capabilities.names(fields[f"Cap{key}"]) for key in ("Bnd", "Eff", "Inh", "Prm", "Amb")]
    no_new = one("NoNewPrivs")
    return Status(
        name=fields["Name"],
        state=fields["State"],
        parent=int(fields["PPid"]),
        uids=numbers("Uid"),
        gids=numbers("Gid"),
        groups=numbers("Groups"),
        umask=one("Umask", 8),
        ns_pids=numbers("NSpid"),
        threads=int(fields.get("Threads", "0")),
        capabilities=Sets(*held),
        no_new_privs=None if no_new is None else bool(no_new),
        seccomp=one("Seccomp"),
        filters=one("Seccomp_filters"),
    )


def namespaces(pid: int | str) -> dict[str, int | None]:
    """The number of each of its namespaces, by kind as OCI names it; None where it may not be read."""
    found: dict[str, int | None] = {}
    for kind, (_, file) in clone.NAMESPACES.items():
        try:
            text = os.readlink(f"/proc/{pid}/ns/{file}")
        except PermissionError:
            found[kind] = None
            continue
        except FileNotFoundError:
            _alive(pid)
            continue  # this kernel has no such kind
        found[kind] = int(text.partition("[")[2].rstrip("]"))
    return found


def namespace_at(path: str) -> int | None:
    """The number of the namespace behind a path; None if it cannot be told."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def id_maps(pid: int) -> tuple[tuple[IdMapping, ...], tuple[IdMapping, ...]]:
    """(uid map, gid map) of its user namespace, as seen from ours."""
    return idmap.parse(_text(pid, "uid_map")), idmap.parse(_text(pid, "gid_map"))


def mounts(pid: int) -> tuple[MountPoint, ...]:
    """Its mount table, in the order in which the mounts were made. `PermissionError`."""
    return tuple(_mount(line) for line in _text(pid, "mountinfo").splitlines())


def _mount(line: str) -> MountPoint:
    left, _, right = line.partition(" - ")
    fields, tail = left.split(" "), right.split(" ")
    return MountPoint(
        id=int(fields[0]),
        parent=int(fields[1]),
        device=fields[2],
        root=unescape(fields[3]),
        target=unescape(fields[4]),
        options=tuple(fields[5].split(",")),
        propagation=tuple(fields[6:]),
        kind=tail[0],
        source=unescape(tail[1]),
        super_options=tuple(unescape(" ".join(tail[2:])).split(",")),
    )


def groups(pid: int) -> dict[str, str]:
    """Its control groups: path by controller; `` (empty) for the v2 tree. Paths as our cgroup namespace shows them."""
    found = {}
    for line in _text(pid, "cgroup").splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            found[name] = path
    return found


def limits(pid: int) -> dict[str, tuple[int | None, int | None]]:
    """Resource limits as (soft, hard), None: unlimited; by the title in /proc/PID/limits in lower case."""
    found: dict[str, tuple[int | None, int | None]] = {}
    for line in _text(pid, "limits").splitlines()[1:]:
        words = line[26:].split()
        pair = [None if word == "unlimited" else int(word) for word in words[:2]]
        found[line[:26].strip().lower()] = (pair[0], pair[1])
    return found


def oom_score(pid: int) -> int:
    """Its oom_score_adj."""
    return int(_text(pid, "oom_score_adj"))


def time_offsets(pid: int) -> tuple[tuple[str, int, int], ...] | None:
    """(clock, seconds, nanoseconds) by which the clocks of its time namespace differ from ours; None: unknown."""
    try:
        rows = [line.split() for line in _text(pid, "timens_offsets").splitlines()]
    except (PermissionError, FileNotFoundError):
        return None
    return tuple((row[0], int(row[1]), int(row[2])) for row in rows)


def command(pid: int) -> tuple[str, ...]:
    """Its command line; empty for a kernel thread or a zombie."""
    return tuple(word for word in _text(pid, "cmdline").split("\0") if word)


def session(pid: int) -> int:
    """Its session."""
    return int(_text(pid, "stat").rpartition(")")[2].split()[3])


def start_ticks(pid: int) -> int:
    """When it was started, in clock ticks since boot."""
    return int(_text(pid, "stat").rpartition(")")[2].split()[19])


def children(pid: int) -> tuple[int, ...]:
    """Its children, oldest first."""
    return tuple(sorted((int(word) for word in _text(pid, f"task/{pid}/children").split()), key=_age))


def _age(pid: int) -> int:
    try:
        return start_ticks(pid)
    except ProcessLookupError:
        return 0


def open_root(pid: int) -> int:
    """An O_PATH descriptor of its root directory, to be closed by the caller. `PermissionError`."""
    try:
        return os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:  # also of a zombie
        raise ProcessLookupError(errno.ESRCH, f"process {pid} has ended") from None


def mount_id(root: int, path: str) -> int | None:
    """The id of the mount in which `path` lies, resolved below the descriptor `root`; None where there is none."""
    try:
        fd = paths.open_in_root(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    try:
        with open(f"/proc/self/fdinfo/{fd}") as file:
            for line in file:
                if line.startswith("mnt_id:"):
                    return int(line.split()[1])
    finally:
        os.close(fd)
    return None


def from_inside(pid: int, kinds: tuple[str, ...], look: Callable[[], T]) -> T:
    """What `look` finds inside some namespaces of a process; by a thread of its own, which ends with them.

    kinds: of `ipc`, `network`, `uts`: a thread may join these alone. `PermissionError` without CAP_SYS_ADMIN.
    """
    import threading

    opened = [(clone.open_namespace(pid, kind), kind) for kind in kinds]
    found: list[T] = []
    failed: list[BaseException] = []

    def visit() -> None:
        try:
            for fd, kind in opened:
                clone.join(fd, kind)
            found.append(look())
        except BaseException as error:
            failed.append(error)

    try:
        thread = threading.Thread(target=visit, name="corten:visit")
        thread.start()
        thread.join()
    finally:
        for fd, _ in opened:
            os.close(fd)
    if failed:
        raise failed[0]
    return found[0]


def _text(pid: int | str, name: str) -> str:
    try:
        with open(f"/proc/{pid}/{name}", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        _alive(pid)
        raise
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EINVAL):  # mountinfo of a zombie says EINVAL
            raise ProcessLookupError(errno.ESRCH, f"process {pid} has ended") from None
        raise


def _alive(pid: int | str) -> None:
    if not os.path.exists(f"/proc/{pid}/stat"):
        raise ProcessLookupError(errno.ESRCH, f"process {pid} has ended")
