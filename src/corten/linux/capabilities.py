"""Capabilities: the pieces that root's power is cut into; their names, sets and masks, and giving them up for good.

Rule 1: names are the kernel's, in capitals with `CAP_`; tuples of names are ordered by number.
Rule 2: the acting functions are called in this order around a change of user, since each needs what the next takes:
        drop_bounding (needs CAP_SETPCAP), keep_across_setuid, the change of user, set_sets, raise_ambient.
Rule 3: what is asked for and not held is an error that names it, or, with `available_only`, left out.
Sources: capabilities(7), capset(2), prctl(2), linux/capability.h.
"""

from __future__ import annotations

from corten.errors import InvalidInput, Unsupported
from corten.linux import syscalls
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# In the order of their numbers, from 0.
ALL = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
        "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
        "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL "
        "SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)
_NUMBERS = {name: number for number, name in enumerate(ALL)}
_MOST = 64  # two 32-bit words in version 3 of capset(2)

_PR_SET_KEEPCAPS, _PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT = 8, 23, 24, 47
_AMBIENT_RAISE, _AMBIENT_CLEAR_ALL = 2, 4
_EINVAL = 22
_VERSION_3 = 0x20080522
_LOW = 0xFFFFFFFF


class Sets(Record):
    """The five sets of a thread, as OCI `process.capabilities` has them."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


def number(name: str) -> int:
    """The number of a capability. `CAP_41` and up name those that are newer than this table. `InvalidInput`."""
    found = _NUMBERS.get(name)
    if found is not None:
        return found
    digits = name.removeprefix("CAP_")
    if digits != name and digits.isascii() and digits.isdigit() and len(ALL) <= int(digits) < _MOST:
        return int(digits)
    raise InvalidInput(f"there is no capability {name!r}{_suggestion(name)}")


def name_of(position: int) -> str:
    """The name of a capability by its number; `CAP_41` and up for those that are newer than this table."""
    return ALL[position] if position < len(ALL) else f"CAP_{position}"


def mask(names: Iterable[str]) -> int:
    """Names as the bits that the kernel uses."""
    bits = 0
    for name in names:
        bits |= 1 << number(name)
    return bits


def names(bits: int | str) -> tuple[str, ...]:
    """The inverse of `mask`; also for the hexadecimal text of /proc/PID/status."""
    value = int(bits, 16) if isinstance(bits, str) else bits
    return tuple(name_of(position) for position in range(value.bit_length()) if value >> position & 1)


# What podman gives (containers-common, containers.conf.5): docker's list has also MKNOD, NET_RAW and AUDIT_WRITE.
_DEFAULT = names(
    mask(
        f"CAP_{name}"
        for name in (
            "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT".split()
        )
    )
)
# Nothing inheritable: a file's inheritable capabilities would become real ones (CVE-2022-24769).
DEFAULT = Sets(bounding=_DEFAULT, effective=_DEFAULT, permitted=_DEFAULT)


# --- what people ask for


def parse(word: str, label: str = "capability") -> str:
    """A capability as docker takes it (`sys_ptrace`, `CAP_SYS_PTRACE`) by its full name, or `ALL`.

    label: where the word stood, such as `--cap-add`. Errors: `InvalidInput` with the nearest name.
    """
    name = word.strip().upper()
    if name in ("ALL", "CAP_ALL"):
        return "ALL"
    name = name if name.startswith("CAP_") else f"CAP_{name}"
    if name not in _NUMBERS:
        raise InvalidInput(f"{label}: there is no capability {word!r}{_suggestion(name)}")
    return name


def _suggestion(name: str) -> str:
    import difflib

    # without the prefix, which makes everything alike
    near = difflib.get_close_matches(name.upper().removeprefix("CAP_"), [known[4:] for known in ALL], 1)
    return f"; did you mean CAP_{near[0]}?" if near else "; see capabilities(7) for the names"


def combine(default: Iterable[str], add: Iterable[str] = (), drop: Iterable[str] = ()) -> tuple[str, ...]:
    """The default set, less what is dropped, plus what is added; both as words for `parse`, also `ALL`.

    As docker and podman do: dropping ALL leaves only what is added; adding ALL gives everything but what is dropped.
    Errors: `InvalidInput` for an unknown name, or one that is both added and dropped (docker lets the addition win
    silently, podman refuses).
    """
    added = {parse(word, "--cap-add") for word in add}
    dropped = {parse(word, "--cap-drop") for word in drop}
    for name in ("ALL", *ALL):
        if name in added and name in dropped:
            raise InvalidInput(f"capability {name} is both added and dropped: choose one")
    base = () if "ALL" in dropped else ALL if "ALL" in added else tuple(default)
    return names(mask({*base, *added} - dropped - {"ALL"}))


def check(sets: Sets) -> None:
    """The kernel's rules between sets: effective lies in permitted, ambient in permitted and inheritable.

    Errors: `InvalidInput` that names the field as OCI does.
    """
    for field in sets._fields:
        mask(getattr(sets, field))
    for field, limits in (("effective", ("permitted",)), ("ambient", ("permitted", "inheritable"))):
        for limit in limits:
            extra = mask(getattr(sets, field)) & ~mask(getattr(sets, limit))
            if extra:
                raise InvalidInput(
                    f"process.capabilities.{field}: {', '.join(names(extra))} must be in {limit} as well"
                )


def available(sets: Sets, held: Sets, available_only: bool = False) -> Sets:
    """The sets as a process that holds `held` can give them; nothing is done.

    Errors: `Unsupported` that names what it lacks, unless that is to be left out (`available_only`).
    """
    limits = {field: mask(held.permitted) for field in ("effective", "permitted", "ambient")}
    limits["bounding"] = mask(held.bounding)
    limits["inheritable"] = _inheritable_limit(*(mask(getattr(held, field)) for field in held._fields[:4]))
    given = {}
    for field in sets._fields:
        asked = mask(getattr(sets, field))
        if asked & ~limits[field] and not available_only:
            raise _lacking(names(asked & ~limits[field]), field)
        given[field] = names(asked & limits[field])
    if available_only:
        given["ambient"] = names(mask(given["ambient"]) & mask(given["permitted"]) & mask(given["inheritable"]))
    return Sets(**given)


def _inheritable_limit(bounding: int, effective: int, inheritable: int, permitted: int) -> int:
    """capset(2): the inheritable set may gain what the bounding set has, and without CAP_SETPCAP only the permitted."""
    may_gain = bounding if effective >> number("CAP_SETPCAP") & 1 else bounding & permitted
    return inheritable | may_gain


def _lacking(lacking: tuple[str, ...], field: str) -> Unsupported:
    return Unsupported(
        f"capabilities: cannot give {', '.join(lacking)} ({field} set): this process does not hold "
        f"{'it' if len(lacking) == 1 else 'them'}; run as a user who does, or do not ask for "
        f"{'it' if len(lacking) == 1 else 'them'}"
    )


# --- what is


def last() -> int:
    """The highest capability number that this kernel knows."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        return int(file.read())


_STATUS = {"CapBnd": "bounding", "CapEff": "effective", "CapInh": "inheritable", "CapPrm": "permitted",
           "CapAmb": "ambient"}  # fmt: skip


def of_process(pid: int | str) -> Sets:
    """The sets of a process (or of `thread-self`), from its /proc/PID/status. Errors: `OSError` if it is gone."""
    found = {}
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key in _STATUS:
                found[_STATUS[key]] = names(value)
    return Sets(**found)


def current() -> Sets:
    """The sets of the calling thread."""
    return of_process("thread-self")


def effective() -> tuple[str, ...]:
    """The effective set of the calling thread; needs no /proc."""
    return names(_get()[0])


def _get() -> tuple[int, int, int]:
    """(effective, permitted, inheritable) as masks: capget(2), two triples of 32-bit words."""
    import ctypes

    buffer = ctypes.create_string_buffer(24)
    syscalls.call("capget", _header(), buffer)
    raw = buffer.raw
    low, high = ([int.from_bytes(raw[at : at + 4], "little") for at in range(base, base + 12, 4)] for base in (0, 12))
    return low[0] | high[0] << 32, low[1] | high[1] << 32, low[2] | high[2] << 32


def capset_data(sets: Sets) -> tuple[bytes, bytes]:
    """The two arguments of capset(2) that set effective, permitted and inheritable, for a process that makes the call
    elsewhere."""
    return _capset([mask(sets.effective), mask(sets.permitted), mask(sets.inheritable)])


def _capset(wanted: list[int]) -> tuple[bytes, bytes]:
    data = b"".join((bits & _LOW).to_bytes(4, "little") for bits in wanted)
    return _header(), data + b"".join((bits >> 32).to_bytes(4, "little") for bits in wanted)


def _header() -> bytes:
    return _VERSION_3.to_bytes(4, "little") + bytes(4)  # pid 0: the calling thread


# --- acts


def drop_bounding(keep: Iterable[str], available_only: bool = False) -> None:
    """Remove from the bounding set everything but these names: no exec can ever give the rest again.

    Needs CAP_SETPCAP if there is something to remove. Errors: `Unsupported` for that, and for a name that is to be
    kept but is not in the bounding set (unless `available_only`).
    """
    kept = mask(keep)
    lacking = []
    for position in range(_MOST):
        try:
            if kept >> position & 1:
                if not _bounds(position):
                    lacking.append(name_of(position))
            else:
                _drop(position)
        except OSError as error:
            if error.errno != _EINVAL:
                raise
            lacking += names(kept >> position << position)  # beyond what this kernel knows
            break
    if lacking and not available_only:
        raise _lacking(tuple(lacking), "bounding")


def _bounds(position: int) -> bool:
    return syscalls.call("prctl", _PR_CAPBSET_READ, position, 0, 0, 0) == 1


def _drop(position: int) -> None:
    try:
        syscalls.call("prctl", _PR_CAPBSET_DROP, position, 0, 0, 0)
    except PermissionError:  # also for what is not in the set, or does not exist: then nothing is to be done
        if _bounds(position):
            raise Unsupported(
                f"capabilities: cannot drop {name_of(position)} from the bounding set: "
                "this process does not hold CAP_SETPCAP, which that needs"
            ) from None


def keep_across_setuid() -> None:
    """Let the next change from user 0 to another keep the permitted set; `set_sets` ends this, and so does an exec."""
    syscalls.call("prctl", _PR_SET_KEEPCAPS, 1, 0, 0, 0)


def set_sets(sets: Sets, available_only: bool = False) -> None:
    """Set effective, permitted and inheritable of the calling thread, empty the ambient set, end keep_across_setuid.

    Errors: `InvalidInput` if the sets contradict each other; `Unsupported` for a name that is not held, unless those
    are to be left out (`available_only`).
    """
    check(sets)
    wanted = [mask(sets.effective), mask(sets.permitted), mask(sets.inheritable)]
    if available_only:
        effective, permitted, inheritable = _get()
        limit = _inheritable_limit(_bounding(), effective, inheritable, permitted)
        wanted = [wanted[0] & permitted, wanted[1] & permitted, wanted[2] & limit]
    # Lowering the permitted and inheritable sets takes the ambient one down; a kept bit would be unasked for.
    syscalls.call("prctl", _PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)
    try:
        syscalls.call("capset", *_capset(wanted))
    except PermissionError:
        held = Sets(names(_bounding()), *(names(_get()[place]) for place in (0, 2, 1)))
        available(sets.replace(bounding=(), ambient=()), held)
        raise
    syscalls.call("prctl", _PR_SET_KEEPCAPS, 0, 0, 0, 0)


def _bounding() -> int:
    bits = 0
    for position in range(_MOST):
        try:
            bits |= _bounds(position) << position
        except OSError:
            break
    return bits


def raise_ambient(names: Iterable[str], available_only: bool = False) -> None:
    """Add to the ambient set, which a program that is not set-user-id keeps through its exec.

    Errors: `Unsupported` for a name that is not both permitted and inheritable, unless `available_only`.
    """
    lacking = []
    for name in names:
        try:
            syscalls.call("prctl", _PR_CAP_AMBIENT, _AMBIENT_RAISE, number(name), 0, 0)
        except PermissionError:
            lacking.append(name)
    if lacking and not available_only:
        raise _lacking(tuple(lacking), "ambient")
