"""What a process is shut off from and what it shares with the host, gathered as data.

Rule 1: everything is asked of the kernel; what it does not tell this user is None, and shown as unknown.
Rule 2: of a container's init the program is looked at: it has the rights that count.
"""

from __future__ import annotations

import os

from corten.engine.listing import Live
from corten.errors import NotFound
from corten.linux import inspect
from corten.linux.cgroup import group as groups
from corten.linux.cgroup import limits
from corten.linux.cgroup.group import Group
from corten.linux.idmap import IdMapping, to_container
from corten.linux.inspect import MountPoint, Status
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIMITS = ("memory", "swap", "cpu", "pids")
# File systems that show the kernel and not somebody's files.
_OF_THE_KERNEL = ("proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "securityfs", "debugfs", "tracefs", "bpf")
_ENGINE_SOCKETS = ("docker.sock", "podman.sock", "containerd.sock", "crio.sock")

_USUAL_NODES = ("/null", "/zero", "/full", "/random", "/urandom", "/tty")


class Limit(Record):
    """A limit: value in bytes, CPUs or processes, None: there is none; source: the directory of the group that sets
    it; own: whether that is the process's own group.
    """

    kind: str
    value: float | None
    source: str
    own: bool
    counted: bool = True
    """False: the group has no such controller, so nothing is counted or held."""


class Window(Record):
    """A place inside that shows files of the host. source: their path on the host; socket: of a container engine."""

    target: str
    source: str
    writable: bool
    socket: bool = False


class Explanation(Record):
    """A process: identity, isolation, limits, rights, files.

    pid: what was asked for; looked_at: whose rights are shown; own, shared, unknown: kinds of namespaces; uid_map,
    gid_map: of its user namespace, None: the host's own; inside_uid: its user as it sees itself; root: kind and
    options of its root, None: not to be told; windows: files of the host that it sees; hidden, frozen: paths covered
    or read-only below /proc and /sys; writable_kernel: file systems of the kernel that it may write to.
    """

    pid: int
    looked_at: int
    container: Live | None
    command: tuple[str, ...]
    status: Status
    own: tuple[str, ...]
    shared: tuple[str, ...]
    unknown: tuple[str, ...]
    uid_map: tuple[IdMapping, ...] | None
    gid_map: tuple[IdMapping, ...] | None
    inside_uid: int | None
    limits: tuple[Limit, ...]
    group: str
    processes: int | None
    devices: str | None
    root: MountPoint | None
    windows: tuple[Window, ...]
    hidden: tuple[str, ...]
    frozen: tuple[str, ...]
    writable_kernel: tuple[str, ...]
    mounts_known: bool = True

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        plain: dict[str, Any] = _plain(self)
        plain["container"] = self.container and {"id": self.container.id, "name": self.container.name}
        return plain


def explain(pid: int, container: Live | None = None) -> Explanation:
    """Look at a process. `NotFound`: it is not there, or ended meanwhile."""
    try:
        return _explain(pid, container)
    except ProcessLookupError:
        raise NotFound(f"process {pid}: there is none, or it ended while it was looked at") from None


def _explain(pid: int, container: Live | None) -> Explanation:
    init = inspect.command(pid)[:1] == ("corten:init",)
    children = inspect.children(pid) if init else ()
    looked = children[0] if children else pid
    status = inspect.status(looked)
    ours, theirs = inspect.namespaces("self"), inspect.namespaces(looked)
    hosts = _hosts(ours)
    own = tuple(kind for kind, number in theirs.items() if number is not None and number != hosts.get(kind))
    unknown = tuple(kind for kind, number in theirs.items() if number is None or hosts.get(kind) is None)
    own = tuple(kind for kind in own if kind not in unknown)
    shared = tuple(kind for kind in theirs if kind not in own and kind not in unknown)
    maps = None if "user" in shared else inspect.id_maps(looked)
    group = groups.of_process(looked)
    mounts = _mounts(looked)
    table = mounts or ()
    root = next((mount for mount in reversed(table) if mount.target == "/"), None)
    return Explanation(
        pid=pid,
        looked_at=looked,
        container=container,
        command=inspect.command(looked) or (status.name,),
        status=status,
        own=own,
        shared=shared,
        unknown=unknown,
        uid_map=maps[0] if maps else None,
        gid_map=maps[1] if maps else None,
        inside_uid=to_container(status.uids[1], maps[0]) if maps else status.uids[1],
        limits=tuple(_limit(group, kind) for kind in LIMITS),
        group=_shown(group),
        processes=_processes(container, group),
        devices=_devices(group),
        root=root,
        windows=_windows(table) if "mount" in own else (),
        hidden=tuple(mount.target for mount in table if _covers(mount)),
        frozen=tuple(mount.target for mount in table if mount.kind == "proc" and mount.target != "/proc"
                     and "ro" in mount.options),
        writable_kernel=tuple(mount.target for mount in table if mount.kind in ("proc", "sysfs", "cgroup", "cgroup2")
                              and "rw" in mount.options),
        mounts_known=mounts is not None,
    )  # fmt: skip


def _hosts(ours: dict[str, int | None]) -> dict[str, int | None]:
    """The host's namespaces: those of process 1 where it may be looked at, else ours."""
    first = inspect.namespaces(1)
    return {kind: first.get(kind) if first.get(kind) is not None else number for kind, number in ours.items()}


def _mounts(pid: int) -> tuple[MountPoint, ...] | None:
    try:
        return inspect.mounts(pid)
    except PermissionError:
        return None


def _covers(mount: MountPoint) -> bool:
    """An empty read-only tmpfs over a directory of /proc or /sys, or the null device over a file."""
    if not mount.target.startswith(("/proc/", "/sys/")) or mount.target.startswith("/sys/fs/cgroup"):
        return False
    return (mount.kind == "tmpfs" and "ro" in mount.options) or mount.root == "/null"


def _windows(table: tuple[MountPoint, ...]) -> tuple[Window, ...]:
    """The mounts whose file system the host has mounted too: its path there, and whether it may be written to."""
    host: dict[str, MountPoint] = {}
    for mount in inspect.mounts(os.getpid()):
        host.setdefault(mount.device, mount)
    found = {}
    for mount in table:
        above = host.get(mount.device)
        if above is None or mount.kind in _OF_THE_KERNEL or _covers(mount) or _harmless(mount):
            continue
        below = mount.root.removeprefix(above.root.rstrip("/"))
        source = (above.target + below).rstrip("/").replace("//", "/") or "/"
        writable = "rw" in mount.options and "rw" in mount.super_options
        # Of several on one place the last one is seen.
        socket = os.path.basename(source) in _ENGINE_SOCKETS
        found[mount.target] = Window(mount.target, source, writable, socket)
    return tuple(found.values())


def _harmless(mount: MountPoint) -> bool:
    """A node of /dev that every container has: shown by a bind mount where nodes cannot be made."""
    return mount.kind == "devtmpfs" and mount.root in _USUAL_NODES


def _limit(group: Group, kind: str) -> Limit:
    serves = "memory" if kind == "swap" else kind
    directory = group.directory(serves)
    if directory is None:
        return Limit(kind, None, "", False, False)
    holds = limits.holding(group, kind)
    if holds is None:
        return Limit(kind, None, "", False)
    return Limit(kind, holds.value, holds.directory, holds.directory == directory)


def _shown(group: Group) -> str:
    """The directory that says most of where a process is: of v2 or the memory controller."""
    return group.directory("memory") or group.directory("cgroup") or (group.dirs[0].path if group.dirs else "")


def _processes(container: Live | None, group: Group) -> int | None:
    if container is not None:
        return len(container.pids())
    return len(group.procs()) or None


def _devices(group: Group) -> str | None:
    """Which devices the group lets open: `all`, `listed`; None: not to be told."""
    directory = group.directory("devices")
    if directory is None:
        return None
    try:
        if group.version("devices") == 1:
            with open(f"{directory}/devices.list") as file:
                return "all" if file.read().startswith("a *:* rwm") else "listed"
        return "listed" if _has_program(directory) else "all"
    except OSError:
        return None


def _has_program(directory: str) -> bool:
    """Whether a device program holds in a v2 group: its own or one of a group above."""
    from corten.linux.cgroup import devices

    while os.path.exists(f"{directory}/cgroup.procs"):
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if devices.attached(fd):
                return True
        finally:
            os.close(fd)
        directory = os.path.dirname(directory)
    return False


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return {name: _plain(value.__dict__[name]) for name in value._fields if name != "container"}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value
