"""A seccomp profile made into a BPF program by libseccomp.

What is decided here rather than by libseccomp, where not as the specification says then as runc does it:
- names that this libseccomp does not know are left out: the kernel's own newest calls must not break old systems;
- a rule that does what the default does anyway is left out (libseccomp refuses it);
- several conditions on one argument in one rule are alternatives (libseccomp refuses them);
- where the default is `SCMP_ACT_ERRNO` without an error number of its own, a call newer than all that the profile
  names is answered ENOSYS, not EPERM, so that libc falls back to an older one (runc pull request 2750); calls of
  Linux 5.0 and before never are, since every profile writer knew them;
- on x86 socketcall(2) and ipc(2) hide the arguments of many calls in memory, and libseccomp lets them pass where one of
  those calls is allowed on a condition; here they are then refused, unless the profile names them itself;
- a call by the numbers of an architecture that the profile does not list kills the process; the x32 numbers are
  answered ENOSYS where newer calls are, as by a kernel without x32.
Sources: seccomp(2), seccomp_rule_add(3), seccomp_attr_set(3), linux/bpf_common.h.
"""

from __future__ import annotations

import os

from corten.errors import InvalidInput, Unsupported, errno_words
from corten.linux.seccomp import Seccomp, SyscallArg, SyscallRule
from corten.linux.syscalls import MACHINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

_EPERM, _ENOSYS = 1, 38
_RET_ERRNO, _RET_TRACE = 0x00050000, 0x7FF00000
# linux/seccomp.h, SECCOMP_RET_*
ACTIONS = {
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": _RET_ERRNO,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": _RET_TRACE,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
# seccomp.h of libseccomp, enum scmp_compare
OPERATORS = {
    f"SCMP_CMP_{name}": number for number, name in enumerate("NE LT LE EQ GE GT MASKED_EQ".split(), 1)
}
ARCHITECTURES = tuple(
    f"SCMP_ARCH_{name}"
    for name in (
        "X86 X86_64 X32 ARM AARCH64 LOONGARCH64 M68K MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 "
        "PPC PPC64 PPC64LE S390 S390X PARISC PARISC64 RISCV64 SH SHEB"
    ).split()
)
_NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}[MACHINE]
# Only these can run here; libseccomp would silently make a filter that is too long of all others.
_RUNNABLE = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}[MACHINE]
# The first number that all architectures share (pidfd_send_signal, Linux 5.1).
_FIRST_SHARED = 424
_X32_BIT = 0x40000000
# x86 (linux/net.h, linux/ipc.h): call that has others behind it: (number, the others)
_MULTIPLEXERS = {
    "socketcall": (
        102,
        "socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom shutdown "
        "setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg",
    ),
    "ipc": (117, "semop semget semctl semtimedop msgsnd msgrcv msgget msgctl shmat shmdt shmget shmctl"),
}
_AUDIT_X86 = 0x40000003
_MAX_ERRNO = 4095
_MOST = 4096  # BPF_MAXINSNS
_PLACE = "linux.seccomp"

_UNKNOWN = -1  # __NR_SCMP_ERROR
_LOAD, _JUMP, _EQUAL, _GREATER, _RETURN = 0x20, 0x05, 0x15, 0x25, 0x06  # BPF_LD|W|ABS, BPF_JMP|..|K, BPF_RET|K
_NR_OFFSET, _ARCH_OFFSET = 0, 4  # struct seccomp_data


def _library() -> ModuleType:
    try:
        import pyseccomp
    except ImportError:
        raise Unsupported("a system call filter needs the Python package pyseccomp: pip install pyseccomp") from None
    except (RuntimeError, OSError, AttributeError) as error:
        raise Unsupported(
            f"a system call filter needs libseccomp 2.4 or newer ({error}): install the package libseccomp2 "
            "(Debian, Ubuntu) or libseccomp (Fedora, Alpine, Arch), or run with --security-opt seccomp=unconfined"
        ) from None
    found: ModuleType = pyseccomp
    return found


def library_path() -> str:
    """The file of the libseccomp that is loaded."""
    _library()
    with open("/proc/self/maps") as file:
        for line in file:
            path = line.rstrip("\n").partition("/")
            if "libseccomp" in path[2]:
                return path[1] + path[2]
    raise Unsupported("libseccomp is loaded, but /proc/self/maps does not show from where")


def to_bpf(profile: Seccomp) -> bytes:
    """The program for this machine. Errors: `InvalidInput` that names the field; `Unsupported` without libseccomp."""
    default = action_value(profile.default_action, profile.default_errno_ret, f"{_PLACE}.defaultAction")
    architectures = [name for name in _architectures(profile) if name in _RUNNABLE]
    rules = [_rule(number, rule) for number, rule in enumerate(profile.syscalls)]
    library = _library()
    made = library.SyscallFilter(default)
    # libseccomp's own choice is the thread alone, which would leave a program that hangs.
    made.set_attr(library.Attr.ACT_BADARCH, ACTIONS["SCMP_ACT_KILL_PROCESS"])
    for name in architectures:
        if name != _NATIVE:
            made.add_arch(_arch_value(library, name))
    _optimise(library, made)
    for number, (action, rule) in enumerate(rules):
        if action != default:
            _add(library, made, f"{_PLACE}.syscalls[{number}]", action, rule)
    program = _export(made)
    if profile.default_action == "SCMP_ACT_ERRNO" and profile.default_errno_ret is None:
        program = newer_calls(_newest(library, profile, architectures)) + program
    if "SCMP_ARCH_X86" in architectures:
        program = refused_calls(_AUDIT_X86, _evading(rules), default) + program
    if len(program) > _MOST * 8:
        raise InvalidInput(f"{_PLACE}: {len(program) // 8} instructions are more than the kernel's {_MOST}")
    return program


def _architectures(profile: Seccomp) -> list[str]:
    for number, name in enumerate(profile.architectures):
        if name not in ARCHITECTURES:
            raise InvalidInput(f"{_PLACE}.architectures[{number}]: unknown architecture {name!r}{_nearest(name)}")
    return list(dict.fromkeys((_NATIVE, *profile.architectures)))


def _nearest(name: str, known: tuple[str, ...] = ARCHITECTURES) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"


def action_value(action: str, errno_ret: int | None, place: str) -> int:
    """What the filter returns to the kernel for an action. Errors: `InvalidInput` at `place`."""
    if action not in ACTIONS:
        raise InvalidInput(f"{place}: unknown action {action!r}{_nearest(action, tuple(ACTIONS))}")
    takes = {"SCMP_ACT_ERRNO": _MAX_ERRNO, "SCMP_ACT_TRACE": 0xFFFF}
    if action not in takes:
        if errno_ret is not None:
            raise InvalidInput(f"{place}: {action} takes no error number; only {' and '.join(takes)} do")
        return ACTIONS[action]
    value = _EPERM if errno_ret is None else errno_ret
    if not 0 <= value <= takes[action]:
        raise InvalidInput(f"{place}: error number {value} is outside 0 to {takes[action]}")
    return ACTIONS[action] | value


def _rule(number: int, rule: SyscallRule) -> tuple[int, SyscallRule]:
    place = f"{_PLACE}.syscalls[{number}]"
    if not rule.names:
        raise InvalidInput(f"{place}.names: empty")
    for at, arg in enumerate(rule.args):
        here = f"{place}.args[{at}]"
        if arg.op not in OPERATORS:
            raise InvalidInput(f"{here}.op: unknown operator {arg.op!r}{_nearest(arg.op, tuple(OPERATORS))}")
        if not 0 <= arg.index <= 5:
            raise InvalidInput(f"{here}.index: {arg.index} is outside 0 to 5")
        for field, value in (("value", arg.value), ("valueTwo", arg.value_two)):
            if not 0 <= value < 1 << 64:
                raise InvalidInput(f"{here}.{field}: {value} is outside 0 to 2**64-1")
    return action_value(rule.action, rule.errno_ret, f"{place}.action"), rule


def _arch_value(library: ModuleType, name: str) -> int:
    value: int = getattr(library.Arch, name.removeprefix("SCMP_ARCH_"))
    return value


def _optimise(library: ModuleType, made: Any) -> None:
    try:
        made.set_attr(library.Attr.CTL_OPTIMIZE, 2)  # a binary tree instead of one comparison after another
    except OSError:
        pass  # libseccomp before 2.5: the same filter, only slower


def _add(library: ModuleType, made: Any, place: str, action: int, rule: SyscallRule) -> None:
    for name in rule.names:
        number = library.resolve_syscall(library.Arch.NATIVE, name)
        if number == _UNKNOWN:
            continue
        for args in _alternatives(rule.args):
            try:
                made.add_rule(action, number, *(_condition(library, arg) for arg in args))
            except OSError as error:
                raise InvalidInput(
                    f"{place}: {name}: libseccomp refuses the rule ({errno_words(error.errno or 0)}): "
                    "another rule for the same call may contradict it"
                ) from None


def _alternatives(args: tuple[SyscallArg, ...]) -> list[tuple[SyscallArg, ...]]:
    """Conditions as rules of which one must hold: all at once, unless some are on the same argument."""
    if len({arg.index for arg in args}) < len(args):
        return [(arg,) for arg in args]
    return [args]


def _condition(library: ModuleType, arg: SyscallArg) -> Any:
    return library.Arg(arg.index, OPERATORS[arg.op], arg.value, arg.value_two)


def _export(made: Any) -> bytes:
    fd = os.memfd_create("corten-filter", os.MFD_CLOEXEC)
    with open(fd, "rb+") as file:
        made.export_bpf(file)
        size = os.fstat(file.fileno()).st_size
        return os.pread(file.fileno(), size, 0)


# --- the part in front of libseccomp's program


def _newest(library: ModuleType, profile: Seccomp, architectures: list[str]) -> dict[int, int]:
    """The highest call number that the profile names, for each architecture."""
    found = {}
    for architecture in architectures:
        value = _arch_value(library, architecture)
        bit = _X32_BIT if architecture == "SCMP_ARCH_X32" else 0
        numbers = [library.resolve_syscall(value, name) for rule in profile.syscalls for name in rule.names]
        # libseccomp gives names that an architecture lacks negative numbers
        known = [number & ~bit for number in numbers if number >= 0]
        found[value] = max(_FIRST_SHARED - 1, *known, 0) | bit
    return found


def _evading(rules: list[tuple[int, SyscallRule]]) -> tuple[int, ...]:
    """Numbers of the multiplexers by which a condition of an allowing rule could be evaded on x86."""
    named = {name for _, rule in rules for name in rule.names}
    allows = (ACTIONS["SCMP_ACT_ALLOW"], ACTIONS["SCMP_ACT_LOG"])
    limited = {name for action, rule in rules if action in allows and rule.args for name in rule.names}
    return tuple(
        number
        for name, (number, behind) in _MULTIPLEXERS.items()
        if name not in named and not limited.isdisjoint(behind.split())
    )


def refused_calls(architecture: int, numbers: tuple[int, ...], action: int) -> bytes:
    """BPF that ends these calls of an audit architecture with an action; others go on behind it."""
    if not numbers:
        return b""
    code = [(_LOAD, 0, 0, _ARCH_OFFSET), (_EQUAL, 0, 2 * len(numbers) + 1, architecture), (_LOAD, 0, 0, _NR_OFFSET)]
    for number in numbers:
        code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, action)]
    return _assembled(code)


def newer_calls(newest: dict[int, int]) -> bytes:
    """BPF that answers ENOSYS to calls above the highest number of their architecture; others go on behind it.

    newest: audit architecture -> highest known number. That of x32 is the one of x86_64 in 32 bits, while its calls
    arrive as x86_64 with bit 30 set.
    """
    x86_64, x32 = 0xC000003E, 0x4000003E
    code = [(_LOAD, 0, 0, _ARCH_OFFSET)]
    for architecture, highest in newest.items():
        if architecture == x32:
            continue
        body = [(_LOAD, 0, 0, _NR_OFFSET)]
        if architecture == x86_64 and x32 in newest:
            # below bit 30: x86_64's own bound; above: that of x32
            body += [(_GREATER, 0, 2, _X32_BIT - 1), (_GREATER, 2, 0, newest[x32]), (_JUMP, 0, 0, 2)]
        body += [(_GREATER, 0, 1, highest), (_RETURN, 0, 0, _RET_ERRNO | _ENOSYS)]
        code += [(_EQUAL, 0, len(body) + 1, architecture), *body, (_JUMP, 0, 0, 0)]
    # Jumps to the end, which is known only now, were written as jumps by 0.
    end = len(code)
    code = [
        (op, yes, no, end - at - 1) if (op, k) == (_JUMP, 0) else (op, yes, no, k)
        for at, (op, yes, no, k) in enumerate(code)
    ]
    return _assembled(code)


def _assembled(code: list[tuple[int, int, int, int]]) -> bytes:
    """Instructions (operation, jump if true, jump if false, constant) as struct sock_filter."""
    return b"".join(
        op.to_bytes(2, "little") + bytes((yes, no)) + k.to_bytes(4, "little") for op, yes, no, k in code
    )
