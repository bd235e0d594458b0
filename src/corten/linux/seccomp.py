"""System call filters: what a profile is, compiled filters kept as files, and loading one.

Rule 1: a compiled filter is plain bytes (8 per BPF instruction); making one is in `seccomp_rules`, needs libseccomp
        and takes tens of milliseconds; loading one needs nothing and takes microseconds.
Rule 2: a kept filter that is damaged, foreign, or made by another libseccomp than is installed now is made again.
Sources: seccomp(2); OCI runtime specification 1.3, config-linux.md, seccomp.
"""

from __future__ import annotations

import ctypes
import os

from corten.errors import InvalidInput, KernelError, Unsupported, errno_words
from corten.linux import syscalls
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class SyscallArg(Record):
    """A condition on argument `index` (0 to 5) of a call. For `SCMP_CMP_MASKED_EQ`: argument & value == value_two."""

    index: int
    value: int
    value_two: int = 0
    op: str = "SCMP_CMP_EQ"


class SyscallRule(Record):
    """What happens to these calls if all conditions hold. errno_ret: for `SCMP_ACT_ERRNO` and `SCMP_ACT_TRACE`."""

    names: tuple[str, ...]
    action: str
    errno_ret: int | None = None
    args: tuple[SyscallArg, ...] = ()


class Seccomp(Record):
    """A profile: OCI `linux.seccomp`. The machine's own architecture is always included."""

    default_action: str
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[SyscallRule, ...] = ()


FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
_NEW_LISTENER, _TSYNC_ESRCH = 8, 16
_SET_MODE_FILTER = 1
_PR_SET_NO_NEW_PRIVS = 38
_RETURN_NOTIFY = b"\x06\x00\x00\x00\x00\x00\xc0\x7f"  # BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF
_MOST = 4096  # BPF_MAXINSNS
_EPERM, _EACCES, _EINVAL, _EBUSY = 1, 13, 22, 16

# A kept filter: the program, which library made it (padded with spaces to 8), then this and what guards against damage.
# Its last digit is to be raised when seccomp_rules makes another program of the same profile.
_MAGIC = b"CORTENB1"
_FOOTER = len(_MAGIC) + 8


def compile(profile: Seccomp) -> bytes:  # noqa: A001 - as re.compile
    """The profile as a BPF program, with libseccomp. See `seccomp_rules`, also for what differs from libseccomp's own.

    Errors: `InvalidInput` that names the field; `Unsupported` where libseccomp is not installed.
    """
    from corten.linux import seccomp_rules

    return seccomp_rules.to_bpf(profile)


def read_profile(path: str, capabilities: Iterable[str] = ()) -> Seccomp:
    """A profile from a JSON file in OCI's format, or docker's and podman's, whose rules depend on `capabilities`.

    Errors: `InvalidInput` that names file and field.
    """
    from corten.linux import seccomp_profile

    return seccomp_profile.read(path, capabilities)


def set_no_new_privs() -> None:
    """No exec will ever give this thread more rights, for good. It may then load filters without CAP_SYS_ADMIN."""
    syscalls.call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


# --- kept filters


def cached(profile: Seccomp | Callable[[], Seccomp], directory: str, key: str = "") -> bytes:
    """The compiled profile, from `directory` if it was made before, else made now and kept there.

    key: a name (letters, digits, `-`, `.`) that changes whenever the profile would; without it the profile's own
    digest, which takes longer. A function as profile is then only called when there is something to compile.
    Errors: as `compile`; `KernelError` if the directory cannot be written.
    """
    if not key:
        import hashlib

        profile = profile if isinstance(profile, Seccomp) else profile()
        key = hashlib.sha256(repr(profile).encode()).hexdigest()
    path = f"{directory}/{key}.{syscalls.MACHINE}.bpf"
    found = _kept(path)
    if found is not None:
        return found
    program = compile(profile if isinstance(profile, Seccomp) else profile())
    try:
        _keep(path, program)
    except OSError as error:
        raise KernelError(
            f"keep the compiled system call filter {path}", error.errno or 0, "make the directory writable"
        ) from None
    return program


def _kept(path: str) -> bytes | None:
    """A kept filter that is whole, ours, and made by the library that is installed now; else None."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022 or status.st_size > _MOST * 16:
            return None  # somebody else may have written it, and it would be believed
        data = os.read(fd, status.st_size)
    finally:
        os.close(fd)
    program, library = unpack(data) or (b"", "")
    return program if program and library_state(library.partition(" ")[0]) == library else None


def unpack(data: bytes) -> tuple[bytes, str] | None:
    """(program, library) from the contents of a kept filter; None if it is damaged."""
    import binascii

    body, magic, numbers = data[:-_FOOTER], data[-_FOOTER:-8], data[-8:]
    length, check = int.from_bytes(numbers[:4], "little"), int.from_bytes(numbers[4:], "little")
    # The sum guards against truncation and rot; an enemy is kept out by the owner and mode of the file.
    if magic != _MAGIC or length % 8 or not 0 < length < len(body) or binascii.crc32(data[:-4]) != check:
        return None
    return body[:length], body[length:].decode("utf-8", "surrogateescape").rstrip(" ")


def pack(program: bytes, library: str) -> bytes:
    """The contents of the file that keeps a filter; the inverse of `unpack`. library: as `library_state` gives it."""
    import binascii

    name = library.encode("utf-8", "surrogateescape")
    data = program + name.ljust(-(-len(name) // 8) * 8) + _MAGIC + len(program).to_bytes(4, "little")
    return data + binascii.crc32(data).to_bytes(4, "little")


def library_state(path: str) -> str:
    """A library file by path, size and time: changes when another is installed. Empty if it is not there.

    Asking the library for its version would mean loading it, which takes 0.3 ms.
    """
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{path} {status.st_size} {status.st_mtime_ns}"


def _keep(path: str, program: bytes) -> None:
    from corten.linux import seccomp_rules

    directory = os.path.dirname(path)
    os.makedirs(directory, 0o700, exist_ok=True)
    temporary = f"{path}.{os.urandom(8).hex()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(pack(program, library_state(seccomp_rules.library_path())))
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


# --- loading


def needs_listener(program: bytes) -> bool:
    """Whether the filter asks a listener about some call (`SCMP_ACT_NOTIFY`)."""
    at = program.find(_RETURN_NOTIFY)
    while at >= 0 and at % 8:
        at = program.find(_RETURN_NOTIFY, at + 1)
    return at >= 0


def load(program: bytes, flags: tuple[str, ...] = ()) -> int | None:
    """Load a compiled filter into the calling thread (with TSYNC: all threads), for good, also through exec.

    Needs `set_no_new_privs` or CAP_SYS_ADMIN. flags: names as OCI has them. The result is the listener's descriptor
    (close-on-exec) if the filter notifies one, else None.
    Errors: `InvalidInput` for an unknown flag; `Unsupported`; `KernelError`.
    """
    if not program or len(program) % 8 or len(program) > _MOST * 8:
        raise InvalidInput(f"system call filter of {len(program)} bytes: not 1 to {_MOST} instructions of 8 bytes")
    listener = needs_listener(program)
    bits = _bits(flags, listener)
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: 16-bit length, padding, address
    try:
        result = syscalls.call(
            "seccomp", _SET_MODE_FILTER, bits, syscalls.words(len(program) // 8, ctypes.addressof(buffer))
        )
    except OSError as error:
        raise _refused(error.errno or 0, flags) from None
    if listener:
        return result
    if result:
        raise KernelError("load the system call filter", 0, f"thread {result} has another filter (TSYNC)")
    return None


def _bits(flags: tuple[str, ...], listener: bool) -> int:
    bits = _NEW_LISTENER if listener else 0
    for flag in flags:
        if flag not in FLAGS:
            raise InvalidInput(f"linux.seccomp.flags: unknown flag {flag!r}; known: {', '.join(FLAGS)}")
        bits |= FLAGS[flag]
    if bits & 32 and not listener:
        raise InvalidInput(
            "linux.seccomp.flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV has no meaning without SCMP_ACT_NOTIFY"
        )
    return bits | _TSYNC_ESRCH if listener and bits & 1 else bits


def _refused(number: int, flags: tuple[str, ...]) -> Unsupported | KernelError:
    what = "load the system call filter"
    if number in (_EACCES, _EPERM):
        return Unsupported(f"{what}: {errno_words(number)}: set no_new_privs before, or hold CAP_SYS_ADMIN")
    hints = {
        _EINVAL: f"the kernel does not know a flag of {', '.join(flags)}" if flags else "the filter is not valid",
        _EBUSY: "this process has a filter with a listener already",
    }
    return KernelError(what, number, hints.get(number, ""))
