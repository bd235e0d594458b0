"""What a process is: its name, death, identity, limits, memory of being a copy.

Sources: prctl(2), credentials(7), getrlimit(2), proc(5).
"""

from __future__ import annotations

import os

from corten.errors import InvalidInput, Unsupported
from corten.linux import syscalls

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 4, 15, 36
_CLOSE_RANGE_CLOEXEC = 4
_MAX_FD = 0xFFFFFFFF
_KEYCTL_JOIN_SESSION_KEYRING = 1
AT_EMPTY_PATH = 0x1000


def set_name(name: str) -> None:
    """The name that `ps` shows (at most 15 bytes are kept)."""
    syscalls.call("prctl", _PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def argument_area() -> tuple[int, int]:
    """(address, length) of this process's command line, as /proc/PID/cmdline shows it to everybody."""
    with open("/proc/self/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, fields 48 and 49 of proc(5)
    return start, end - start


def set_command_line(area: tuple[int, int], text: str) -> None:
    """Overwrite the command line: a copy of the launcher must not show the caller's arguments inside."""
    import ctypes

    start, length = area
    if length:
        ctypes.memmove(start, text.encode()[: length - 1].ljust(length, b"\0"), length)


def die_with_parent(number: int) -> None:
    """Get this signal when the parent's thread ends. Forgotten at a change of identity: set it again after one."""
    syscalls.call("prctl", _PR_SET_PDEATHSIG, number, 0, 0, 0)


def set_dumpable(dumpable: bool) -> None:
    """Whether others of the same user may trace this process and read its /proc files (exe, mem, maps)."""
    syscalls.call("prctl", _PR_SET_DUMPABLE, int(dumpable), 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, as pid 1 is without asking."""
    syscalls.call("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def close_on_exec_from(first: int) -> None:
    """Mark every descriptor from `first` on close-on-exec."""
    syscalls.call("close_range", first, _MAX_FD, _CLOSE_RANGE_CLOEXEC)


def close_all_but(kept: tuple[int, ...]) -> None:
    """Close every descriptor above standard error but the kept ones."""
    start = 3
    for fd in sorted(kept):
        if fd > start:
            syscalls.call("close_range", start, fd - 1, 0)
        start = max(start, fd + 1)
    syscalls.call("close_range", start, _MAX_FD, 0)


def set_identity(uid: int, gid: int, groups: tuple[int, ...] | None) -> None:
    """Become a user: groups (None: they may not be set here), then group, then user; real, effective and saved."""
    if groups is not None:
        os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


# In the order of their numbers (asm-generic/resource.h). The module `resource` would be one more to load by a child
# that has left the host's files behind.
_LIMITS = (
    "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS", "RLIMIT_NPROC",
    "RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS", "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME",
)  # fmt: skip
INFINITE = 2**64 - 1


def limit_words(value: int) -> str:
    """A resource limit as people write it: `unlimited`, or its number."""
    return "unlimited" if value >= INFINITE else str(value)


def set_limit(kind: str, soft: int, hard: int) -> None:
    """Set a resource limit named as OCI names it (`RLIMIT_NOFILE`); values are unsigned, 2**64-1 is infinite."""
    if kind not in _LIMITS:
        raise InvalidInput(f"{kind}: no such resource limit")
    number = _LIMITS.index(kind)
    try:
        syscalls.call("prlimit64", 0, number, syscalls.words(soft, hard), None)
    except OSError as error:
        now = syscalls.words(0, 0)
        syscalls.call("prlimit64", 0, number, None, now)
        raise Unsupported(
            f"{kind}: cannot set {limit_words(soft)}:{limit_words(hard)} ({error.strerror}): the hard limit here is "
            f"{limit_words(now[1])}, and raising it needs CAP_SYS_RESOURCE"
        ) from None


def set_oom_score(value: int) -> None:
    """How soon the kernel kills this process when memory runs out: -1000 (never) to 1000."""
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(value))


def new_session_keyring(name: str) -> None:
    """Have a keyring of its own, so that the caller's keys are out of reach."""
    syscalls.call("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, name.encode(), 0, 0, 0)


def execute(fd: int, args: list[bytes], environment: list[bytes]) -> None:
    """Become the program behind a descriptor. environment: any words, also such as are no variables. `OSError`."""
    syscalls.call("execveat", fd, b"", syscalls.strings(args), syscalls.strings(environment), AT_EMPTY_PATH)


def real_cwd() -> str:
    """The working directory by the kernel's account: begins with `(unreachable)` if it lies outside the root."""
    import ctypes

    buffer = ctypes.create_string_buffer(4097)
    length = syscalls.call("getcwd", buffer, 4097)
    return os.fsdecode(buffer.raw[: length - 1])
