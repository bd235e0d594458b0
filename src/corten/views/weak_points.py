"""What an attacker in a process would look at first: judged from what `explaining` found. Pure.

Rule: the order is that of how directly a thing leads out. 3: it gives the host away by itself; 2: it leads to the
host's files, processes or network; 1: it makes somebody else's next mistake worse, or lets the process starve the host.
Sources: capabilities(7); the kernel's cgroup-v1 release_agent; CIS Docker Benchmark, section 5.
"""

from __future__ import annotations

from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.views.explaining import Explanation

_GIVES_ALL = {
    "CAP_SYS_ADMIN": "mount file systems and much else: nearly root of the host",
    "CAP_SYS_MODULE": "load code into the kernel",
    "CAP_SYS_RAWIO": "reach memory and disks past the kernel",
    "CAP_BPF": "load programs into the kernel",
    "CAP_PERFMON": "watch the kernel and other processes",
    "CAP_DAC_READ_SEARCH": "open any file of the host by its number (open_by_handle_at)",
    "CAP_MAC_ADMIN": "change the security policy",
    "CAP_SYS_BOOT": "restart the machine or boot another kernel",
    "CAP_SYS_TIME": "set the machine's clock",
    "CAP_SYSLOG": "read kernel addresses",
    "CAP_MKNOD": "make nodes of any device that the device list lets it open",
}
_WITH = {"CAP_SYS_PTRACE": "pid", "CAP_NET_ADMIN": "network", "CAP_NET_RAW": "network", "CAP_IPC_OWNER": "ipc"}
_SHARED = {
    "mount": (3, "it sees the host's files, as the host does"),
    "pid": (2, "it sees the host's processes, and may signal those of its user"),
    "network": (2, "it reaches every service on the host's loopback, and abstract sockets"),
    "ipc": (1, "it sees the host's shared memory and message queues"),
    "uts": (1, "it sees the host's name, and with CAP_SYS_ADMIN changes it"),
    "cgroup": (1, "it sees where in the host's tree of control groups it is"),
}
_DELICATE = ("/", "/etc", "/root", "/home", "/usr", "/boot", "/dev", "/var", "/run", "/bin", "/lib", "/sbin")


class WeakPoint(Record):
    """rank: 3 worst to 1; about: the part of the explanation it belongs to; words: one sentence."""

    rank: int
    about: str
    words: str


def weak_points(seen: Explanation) -> tuple[WeakPoint, ...]:
    """The weak points, worst first."""
    found = [*_namespaces(seen), *_rights(seen), *_files(seen), *_limits(seen)]
    return tuple(sorted(found, key=lambda one: -one.rank))


def _namespaces(seen: Explanation) -> list[WeakPoint]:
    found = [WeakPoint(*_SHARED[kind][:1], kind, f"the {kind} namespace is the host's: {_SHARED[kind][1]}")
             for kind in seen.shared if kind in _SHARED]  # fmt: skip
    if "user" in seen.shared and seen.status.uids[1] == 0:
        found.append(WeakPoint(2, "user", "its root is the host's root (no user namespace): whoever gets out is root"))
    return found


def _rights(seen: Explanation) -> list[WeakPoint]:
    found = []
    status = seen.status
    rank = 3 if "user" in seen.shared else 1  # within a user namespace they count for what that owns
    held = status.capabilities.effective or status.capabilities.permitted
    for name in held:
        if name in _GIVES_ALL:
            found.append(WeakPoint(rank, "capabilities", f"{name}: it may {_GIVES_ALL[name]}"))
        elif _WITH.get(name) in seen.shared:
            found.append(WeakPoint(rank, "capabilities", f"{name} in the host's {_WITH[name]} namespace"))
    if status.seccomp == 0:
        found.append(WeakPoint(2, "seccomp", "no system call filter: the whole kernel is in reach"))
    if status.no_new_privs is False:
        found.append(WeakPoint(1, "no_new_privs", "no_new_privs is off: set-user-id programs give more rights"))
    if seen.devices == "all":
        found.append(WeakPoint(2, "devices", "no list of allowed devices: with a node of one it reads the disks"))
    return found


def _files(seen: Explanation) -> list[WeakPoint]:
    found = []
    for window in seen.windows:
        where = window.target if window.target == window.source else f"{window.source} as {window.target}"
        if window.socket:
            words = f"the socket of a container engine, {where}: it may start any container"
            found.append(WeakPoint(3, "files", words))
        elif window.writable and window.source in _DELICATE:
            found.append(WeakPoint(3, "files", f"it may write to the host's {where}"))
        elif window.writable:
            found.append(WeakPoint(1, "files", f"it may write to the host's {where}"))
    if "mount" in seen.own and seen.inside_uid == 0:
        for target in seen.writable_kernel:
            if target.startswith("/sys"):
                rank = 3 if "user" in seen.shared else 2
                found.append(WeakPoint(rank, "files", f"{target} is writable: settings of the host's kernel"))
        if "/proc/sys" not in seen.frozen and "/proc" in seen.writable_kernel and "user" in seen.shared:
            found.append(WeakPoint(3, "files", "/proc/sys is writable: core_pattern runs a program as the host's root"))
    return found


def _limits(seen: Explanation) -> list[WeakPoint]:
    words = {"memory": "take all memory", "pids": "fill the process table", "cpu": "take all CPUs"}
    return [
        WeakPoint(1, limit.kind, f"no {limit.kind} limit: it may {words[limit.kind]}")
        for limit in seen.limits
        if limit.value is None and limit.kind in words
    ]
