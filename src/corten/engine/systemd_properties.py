"""What systemd is told of a container's scope: its name, and its limits as properties of a unit. Pure.

A property is (name, (D-Bus signature, value)). systemd writes limits anew when it is reloaded, so it has to know them;
that they are in force is seen in the control files, which are written and read back besides.
Sources: systemd.resource-control(5), systemd.slice(5), org.freedesktop.systemd1(5).
"""

from __future__ import annotations

from corten.errors import InvalidInput
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from corten.linux.cgroup.files import Write
    from corten.linux.cgroup.resources import Device

    Property = tuple[str, tuple[str, Any]]

ANNOTATION = "org.systemd.property."
_UNLIMITED = (1 << 64) - 1
_INTEGERS = {"byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u", "int64": "x", "uint64": "t"}
# control file: property with one number; max is no limit
_NUMBERS = {
    "memory.max": "MemoryMax",
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
    "memory.limit_in_bytes": "MemoryLimit",
    "cpu.weight": "CPUWeight",
    "cpu.shares": "CPUShares",
    "pids.max": "TasksMax",
    "blkio.weight": "BlockIOWeight",
    "io.weight": "IOWeight",
}
_LISTS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}


class Scope(Record):
    """A transient scope. unit: its name with `.scope`; slice: the unit above it; user: of the user's own systemd."""

    unit: str
    slice: str
    user: bool = False


def scope_of(path: str, identity: str, user: bool = False) -> Scope:
    """The scope that `linux.cgroupsPath` names, `SLICE:PREFIX:NAME`, or one named for the id. `InvalidInput`."""
    if not path:
        parts = ["", "corten", identity]
    else:
        parts = path.split(":")
        if len(parts) != 3:
            raise InvalidInput(f'linux.cgroupsPath: "{path}" is not SLICE:PREFIX:NAME, as --systemd-cgroup needs it')
    above, prefix, name = parts
    above = above or ("user.slice" if user else "system.slice")
    unit = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    if not name or "/" in unit or name.endswith(".slice"):
        raise InvalidInput(f'linux.cgroupsPath: "{path}" does not name a scope')
    slice_path(above)
    return Scope(unit, above, user)


def slice_path(name: str) -> str:
    """Where a slice lies in the tree of control groups: `a-b.slice` is `/a.slice/a-b.slice`. `InvalidInput`."""
    if name == "-.slice":
        return ""
    stem = name.removesuffix(".slice")
    parts = stem.split("-")
    if stem == name or "/" in name or not all(parts):
        raise InvalidInput(f'linux.cgroupsPath: "{name}" is not the name of a slice')
    return "".join(f"/{'-'.join(parts[: end + 1])}.slice" for end in range(len(parts)))


def of_scope(scope: Scope, identity: str, annotations: dict[str, str]) -> list[Property]:
    """What a scope is made with, but its processes. `InvalidInput`.

    Annotations `org.systemd.property.NAME` are the caller's own.
    """
    made: list[Property] = [
        ("Description", ("s", f"corten-oci container {identity}")),
        ("Slice", ("s", scope.slice)),
        ("Delegate", ("b", True)),
        ("DefaultDependencies", ("b", False)),
        *((f"{name}Accounting", ("b", True)) for name in ("CPU", "Memory", "IO", "BlockIO", "Tasks")),
    ]
    own = [
        (key.removeprefix(ANNOTATION), parse_value(key, text))
        for key, text in annotations.items()
        if key.startswith(ANNOTATION)
    ]
    return [*made, *(_seconds(name, value) for name, value in own)]


def of_limits(writes: Iterable[Write]) -> list[Property]:
    """The limits that systemd has a property for."""
    found: dict[str, tuple[str, Any]] = {}
    quota, period = 0, 0
    for write in writes:
        value = write.value
        if write.file in _NUMBERS:
            number = _UNLIMITED if value in ("max", "-1") else int(value.split()[-1])
            found[_NUMBERS[write.file]] = ("t", number)
        elif write.file in _LISTS:
            found[_LISTS[write.file]] = ("ay", cpu_mask(value))
        elif write.file == "cpu.max":
            first, _, second = value.partition(" ")
            quota, period = -1 if first == "max" else int(first), int(second or period)
        elif write.file == "cpu.cfs_quota_us":
            quota = int(value)
        elif write.file == "cpu.cfs_period_us":
            period = int(value)
    if period:
        found["CPUQuotaPeriodUSec"] = ("t", period)
    if quota:
        a_second = _UNLIMITED if quota < 0 else -(-quota * 1_000_000 // (period or 100_000))
        if quota > 0:  # systemd keeps whole hundredths of a CPU
            a_second = -(-a_second // 10_000) * 10_000
        found["CPUQuotaPerSecUSec"] = ("t", a_second)
    return list(found.items())


def of_devices(rules: Iterable[Device], known: dict[str, dict[int, str]]) -> list[Property]:
    """The device list. known: names of device groups by kind and major, as /proc/devices has them.

    What systemd cannot say (a minor for every major, a group without a name) is left to the control files.
    """
    allowed: list[tuple[str, str]] = []
    for rule in rules:
        if not rule.allow:
            if rule.type in (None, "a") and rule.major is None:
                allowed.clear()
            continue
        for kind in ("b", "c") if rule.type in (None, "a") else (rule.type,):
            word = "block" if kind == "b" else "char"
            if rule.major is None:
                name = f"{word}-*" if rule.minor is None else ""
            elif rule.minor is None:
                group = known.get(kind, {}).get(rule.major, "")
                name = f"{word}-{group}" if group else ""
            else:
                name = f"/dev/{word}/{rule.major}:{rule.minor}"
            if name:
                allowed.append((name, rule.access or "rwm"))
    return [("DevicePolicy", ("s", "strict")), ("DeviceAllow", ("a(ss)", list(dict.fromkeys(allowed))))]


def device_groups(text: str) -> dict[str, dict[int, str]]:
    """/proc/devices, parsed: `c` and `b` to names by major number."""
    found: dict[str, dict[int, str]] = {"c": {}, "b": {}}
    kind = "c"
    for line in text.splitlines():
        if line.startswith(("Character", "Block")):
            kind = "c" if line.startswith("C") else "b"
        elif line.strip():
            major, name = line.split()
            found[kind][int(major)] = name
    return found


def cpu_mask(text: str) -> bytes:
    """`0-2,8` as a bit mask, the first CPU in the lowest bit of the first byte."""
    mask = 0
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        for number in range(int(first), int(last or first) + 1):
            mask |= 1 << number
    return mask.to_bytes(max(1, (mask.bit_length() + 7) // 8), "little")


def _seconds(name: str, value: tuple[str, Any]) -> Property:
    """systemd's bus knows times in microseconds only; as in runc `TimeoutStopSec` may be given all the same."""
    if not name.endswith("Sec") or name.endswith("USec"):
        return name, value
    if value[0] not in _INTEGERS.values():
        raise InvalidInput(f"annotations.{ANNOTATION}{name}: expected a number of seconds")
    return name.removesuffix("Sec") + "USec", ("t", value[1] * 1_000_000)


def parse_value(place: str, text: str) -> tuple[str, Any]:
    """A value in GVariant's text format, as far as units need it: `true`, `5`, `uint64 5`, `'text'`, `['a', 'b']`.

    `InvalidInput` naming the annotation.
    """
    wrong = InvalidInput(f"annotations.{place}: {text!r} is not a value such as true, uint64 5, 'text' or ['a', 'b']")
    word, _, rest = text.strip().partition(" ")
    if word in ("true", "false") and not rest:
        return "b", word == "true"
    signature, digits = (_INTEGERS[word], rest.strip()) if word in _INTEGERS else ("i", text.strip())
    if digits.lstrip("-").isdecimal():
        return signature, int(digits)
    if word in _INTEGERS:
        raise wrong
    import ast

    try:
        value = ast.literal_eval(text.strip())  # quotes and brackets are as Python has them
    except (ValueError, SyntaxError):
        raise wrong from None
    if isinstance(value, str):
        return "s", value
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return "as", value
    raise wrong
