"""Which device nodes a group may open and make: v1 control file lines, v2 an eBPF program.

Rule 1: rules apply in their order; for each access bit the last rule that speaks of it decides; a bit of which none
speaks is allowed.
Rule 2: on v1 a list that the kernel cannot hold is an error, and what it holds is read back. On v2 the attached
program is asked for.
Source: config-linux.md (OCI), the kernel's security/device_cgroup.c, include/uapi/linux/bpf.h,
Documentation/bpf/prog_cgroup_device (types).
"""

from __future__ import annotations

import ctypes
import os
import struct

from corten.errors import InvalidInput, KernelError, Unsupported
from corten.linux import syscalls
from corten.linux.cgroup import files
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from corten.linux.cgroup.group import Group
    from corten.linux.cgroup.resources import Device

# include/uapi/linux/bpf.h: BPF_DEVCG_*
_TYPES = {"b": 1, "c": 2}
_BITS = {"m": 1, "r": 2, "w": 4}
_ALL = 7
_FIELD = "linux.resources.devices"


class Rule(Record):
    """A rule in the kernel's terms: type `b` or `c`, None: any; major, minor: None: any; access: bits m=1, r=2, w=4."""

    allow: bool
    type: str | None
    major: int | None
    minor: int | None
    access: int

    @property
    def total(self) -> bool:
        """Whether it speaks of every device and every access."""
        return self.type is None and self.major is None and self.minor is None and self.access == _ALL

    def covers(self, other: Rule) -> bool:
        """Whether every device of `other` is one of this rule."""
        return all(
            mine is None or mine == its
            for mine, its in ((self.type, other.type), (self.major, other.major), (self.minor, other.minor))
        )

    def meets(self, other: Rule) -> bool:
        """Whether some device belongs to both."""
        return all(
            mine is None or its is None or mine == its
            for mine, its in ((self.type, other.type), (self.major, other.major), (self.minor, other.minor))
        )


def rules(devices: tuple[Device, ...]) -> tuple[Rule, ...]:
    """The rules that matter: checked, and without those before the last that speaks of everything. `InvalidInput`."""
    found: list[Rule] = []
    for device in devices:
        kind = device.type or "a"
        if kind not in ("a", "b", "c", "u"):
            raise InvalidInput(f"{_FIELD}: {kind!r} is not a device type (a, b, c)")
        access = 0
        for letter in _ALL_LETTERS if device.access is None else device.access:
            if letter not in _BITS:
                raise InvalidInput(f"{_FIELD}: {device.access!r} is not an access (letters of rwm)")
            access |= _BITS[letter]
        if not access:
            raise InvalidInput(f"{_FIELD}: an access of no letters")
        numbers = [None if number == -1 else number for number in (device.major, device.minor)]
        if any(number is not None and not 0 <= number < 1 << 31 for number in numbers):
            raise InvalidInput(f"{_FIELD}: {device.major}:{device.minor} are not device numbers")
        # u: an unbuffered character device, mknod(1)
        rule = Rule(device.allow, {"a": None, "u": "c"}.get(kind, kind), numbers[0], numbers[1], access)
        if rule.total:
            found.clear()
        found.append(rule)
    return tuple(found)


_ALL_LETTERS = "rwm"


def apply(group: Group, devices: tuple[Device, ...]) -> None:
    """Put the rules in force on a group; none at all leaves it as it is.

    `InvalidInput`: not rules; `Unsupported`: the group has no devices controller, or v1 cannot hold the list;
    `KernelError`.
    """
    if not devices:
        return
    wanted: tuple[Rule, ...] = _once("rules", devices, rules)
    directory = group.directory("devices")
    if directory is None:
        raise Unsupported(f"{_FIELD}: the group has neither a v1 devices controller nor a v2 directory")
    if group.version("devices") == 1:
        _apply_v1(directory, wanted)
    else:
        attach(directory, program(wanted))


def _once(what: str, of: Any, decide: Callable[[Any], Any]) -> Any:
    """What is decided of something: once, as long as the very same is asked about (another container of a kind)."""
    if what not in _last or _last[what][0] is not of:
        _last[what] = of, decide(of)
    return _last[what][1]


_last: dict[str, tuple[Any, Any]] = {}


# --- v1


def exceptions(wanted: tuple[Rule, ...]) -> tuple[bool, tuple[Rule, ...]]:
    """The rules as v1 keeps them: what holds by default, and the rules that say otherwise, none of which meets another.

    `Unsupported`: an exception to an exception, which v1 cannot hold.
    """
    default = True
    held: dict[tuple[str | None, int | None, int | None], Rule] = {}
    for rule in wanted:
        if rule.total:
            default = rule.allow
            held.clear()
            continue
        for kind in ("b", "c") if rule.type is None else (rule.type,):
            one = rule.replace(type=kind)
            key = (kind, one.major, one.minor)
            if one.allow != default:
                old = held.get(key)
                held[key] = one.replace(access=one.access | old.access) if old else one
                continue
            for other_key, other in tuple(held.items()):
                if not one.meets(other) or not one.access & other.access:
                    continue
                if not one.covers(other):
                    raise Unsupported(
                        f"{_FIELD}: cgroup v1 cannot hold `{line(one)}` inside `{line(other)}` (devices.list)"
                    )
                left = other.access & ~one.access
                if left:
                    held[other_key] = other.replace(access=left)
                else:
                    del held[other_key]
    return default, tuple(held.values())


def line(rule: Rule) -> str:
    """A rule as a line of devices.allow and devices.list: `c 1:3 rwm`."""
    letters = "".join(letter for letter in _ALL_LETTERS if rule.access & _BITS[letter])
    major = "*" if rule.major is None else rule.major
    minor = "*" if rule.minor is None else rule.minor
    return f"{rule.type or 'a'} {major}:{minor} {letters}"


def _as_v1(wanted: tuple[Rule, ...]) -> tuple[bool, list[str]]:
    """What holds by default, and the lines that say otherwise."""
    default, others = exceptions(wanted)
    return default, [line(rule) for rule in others]


def _apply_v1(directory: str, wanted: tuple[Rule, ...]) -> None:
    default, lines = _once("v1", wanted, _as_v1)
    listed = f"{directory}/devices.list"
    have = files.require(listed).splitlines()
    if default:
        # the kernel does not list what is denied where all else is allowed, so start afresh
        _put_lines(f"{directory}/devices.allow", ["a"])
        _put_lines(f"{directory}/devices.deny", lines)
        lines = ["a *:* rwm"]
    elif have == ["a *:* rwm"]:
        _put_lines(f"{directory}/devices.deny", ["a"])
        _put_lines(f"{directory}/devices.allow", lines)
    else:
        _put_lines(f"{directory}/devices.deny", [old for old in have if old not in lines])
        _put_lines(f"{directory}/devices.allow", [new for new in lines if new not in have])
    held = files.require(listed).splitlines()
    if set(held) != set(lines):
        differ = ", ".join(sorted(set(held).symmetric_difference(lines)))
        raise KernelError(f"write device rules to {directory}: {listed} differs in {differ}", 0)


def _put_lines(path: str, lines: list[str]) -> None:
    if not lines:
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(f"open {path}", error.errno or 0) from error
    try:
        for one in lines:
            try:
                os.write(fd, one.encode())
            except OSError as error:
                hint = "the parent group does not allow it, or CAP_SYS_ADMIN is missing"
                raise KernelError(f"write {one} to {path}", error.errno or 0, hint) from error
    finally:
        os.close(fd)


# --- v2: the program

_LOAD_WORD, _MOVE, _SET, _AND, _SHIFT_RIGHT = 0x61, 0xBF, 0xB7, 0x57, 0x77
_JUMP, _IF_NOT_EQUAL, _IF_ANY_BIT, _EXIT = 0x05, 0x55, 0x45, 0x95


def _op(code: int, register: int, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """One `struct bpf_insn`."""
    return struct.pack("=BBhi", code, register | source << 4, offset, value)


def program(wanted: tuple[Rule, ...]) -> bytes:
    """The rules as a BPF_PROG_TYPE_CGROUP_DEVICE program, which returns 1 to allow and 0 to deny.

    Its argument is `struct bpf_cgroup_dev_ctx`: access bits << 16 | type, major, minor. From the last rule to the
    first: a denied bit
    ends it, allowed bits are taken off what is asked for, and it is allowed when nothing is left.
    """
    code = [
        _op(_LOAD_WORD, 2, 1, 0),
        _op(_MOVE, 3, 2),
        _op(_SHIFT_RIGHT, 3, value=16),  # r3: what is asked for
        _op(_AND, 2, value=0xFFFF),  # r2: type
        _op(_LOAD_WORD, 4, 1, 4),  # r4: major
        _op(_LOAD_WORD, 5, 1, 8),  # r5: minor
    ]
    answer = {allow: [_op(_SET, 0, value=int(allow)), _op(_EXIT, 0)] for allow in (True, False)}
    for rule in reversed(wanted):
        if rule.access == _ALL:
            then = answer[rule.allow]
        elif rule.allow:
            then = [_op(_AND, 3, value=_ALL & ~rule.access), _op(_IF_NOT_EQUAL, 3, offset=2), *answer[True]]
        else:
            then = [_op(_IF_ANY_BIT, 3, offset=1, value=rule.access), _op(_JUMP, 0, offset=2), *answer[False]]
        conditions = [
            (register, value)
            for register, value in ((2, _TYPES[rule.type] if rule.type else None), (4, rule.major), (5, rule.minor))
            if value is not None
        ]
        for place, (register, value) in enumerate(conditions):
            beyond = len(conditions) - place - 1 + len(then)
            code.append(_op(_IF_NOT_EQUAL, register, offset=beyond, value=value))
        code += then
        if rule.total:  # the verifier refuses a program with an end that cannot be reached
            return b"".join(code)
    return b"".join(code + answer[True])


# --- v2: the bpf system call (include/uapi/linux/bpf.h)

_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _FD_BY_ID, _INFO_BY_FD, _PROG_QUERY = 5, 8, 9, 13, 15, 16
_CGROUP_DEVICE_PROGRAM, _CGROUP_DEVICE_ATTACH = 15, 6
_ALLOW_MULTI, _REPLACE = 2, 4
_NAME = b"corten_devices"


def attach(directory: str, code: bytes) -> None:
    """Load a program and attach it to a v2 group, in place of the one that was attached here before. `Unsupported`,
    `KernelError`."""
    try:
        group_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(f"open control group {directory}", error.errno or 0) from error
    fds = [group_fd]
    try:
        fds.append(_load(directory, code))
        old = attached(group_fd)
        values = [group_fd, fds[1], _CGROUP_DEVICE_ATTACH, _ALLOW_MULTI]
        if old:
            fds.append(_bpf(_FD_BY_ID, struct.pack("=III", old[-1], 0, 0)))
            values[3] |= _REPLACE
            values.append(fds[2])
        _bpf(_PROG_ATTACH, struct.pack(f"={len(values)}I", *values))
        if len(attached(group_fd)) != max(len(old), 1) or attached(group_fd)[-1] == (old[-1] if old else 0):
            raise KernelError(f"attach device rules to {directory}: the kernel does not list the program", 0)
    except OSError as error:
        raise KernelError(f"attach device rules to {directory}", error.errno or 0) from error
    finally:
        for fd in fds:
            os.close(fd)


def _load(directory: str, code: bytes) -> int:
    try:
        return _load_with(code, 0)
    except PermissionError as error:
        raise Unsupported(
            f"{_FIELD}: loading the device program for {directory} needs CAP_BPF and CAP_NET_ADMIN"
            " outside any user namespace: run as root"
        ) from error
    except OSError as error:
        raise KernelError(f"load device rules for {directory}", error.errno or 0, _complaint(code)) from error


def _complaint(code: bytes) -> str:
    """What the kernel says of a program that it refuses. Asked apart: one whose log is too long is refused for that."""
    log = ctypes.create_string_buffer(1 << 16)
    try:
        os.close(_load_with(code, 1, log))
    except OSError:
        pass
    said = log.value.decode(errors="replace").strip().splitlines()
    return said[-1] if said else ""


def _load_with(code: bytes, log_level: int, log: ctypes.Array[ctypes.c_char] | None = None) -> int:
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    # prog_type insn_cnt insns license log_level log_size log_buf kern_version prog_flags prog_name[16]
    attr = struct.pack(
        "=IIQQIIQII16s",
        _CGROUP_DEVICE_PROGRAM,
        len(code) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(licence),
        log_level,
        len(log) if log else 0,
        ctypes.addressof(log) if log else 0,
        0,
        0,
        _NAME,
    )
    return _bpf(_PROG_LOAD, attr)


def attached(group_fd: int) -> tuple[int, ...]:
    """The ids of the device programs attached to a v2 group itself. `OSError`."""
    ids = (ctypes.c_uint32 * 64)()
    # target_fd attach_type query_flags attach_flags prog_ids prog_cnt
    attr = ctypes.create_string_buffer(
        struct.pack("=IIIIQI", group_fd, _CGROUP_DEVICE_ATTACH, 0, 0, ctypes.addressof(ids), len(ids)), 64
    )
    syscalls.call("bpf", _PROG_QUERY, attr, len(attr))
    count = struct.unpack_from("=I", attr, 24)[0]
    return tuple(ids[:count])


def _bpf(command: int, attr: bytes) -> int:
    return syscalls.call("bpf", command, ctypes.create_string_buffer(attr, len(attr)), len(attr))
