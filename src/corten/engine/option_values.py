"""Options whose argument has parts: ulimits, devices, variables, namespaces, security, sysctls.

Each reader takes the option's name as typed and the text, and gives a record or raises `InvalidInput`.
"""

from __future__ import annotations

import os

from corten.engine.quantities import LARGEST, offset, size, whole
from corten.errors import InvalidInput
from corten.linux.idmap import IdMapping
from corten.records import Record

UNLIMITED = 2**64 - 1
"""RLIM_INFINITY, as OCI writes it."""


def is_text(value: object) -> bool:
    """Whether it is text that can be handed to the kernel: no zero bytes, and nothing that stands for no bytes."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


class Ulimit(Record):
    """A resource limit of processes, setrlimit(2). Limits in the kernel's unit; `UNLIMITED` for none."""

    name: str
    """Lower case, without RLIMIT_: `nofile`."""
    soft: int
    hard: int


class DeviceOption(Record):
    """A device node of the host that the container gets."""

    source: str
    target: str
    access: str
    """Of `rwm`: read, write, make the node."""
    kind: str
    """`c` or `b`."""
    major: int
    minor: int
    mode: int
    uid: int
    gid: int


class DeviceRule(Record):
    """What a container may do with device nodes that it has or makes; -1 is any number."""

    kind: str
    major: int
    minor: int
    access: str


class DeviceLimit(Record):
    """A weight or a rate for one block device."""

    path: str
    major: int
    minor: int
    value: int


class PageLimit(Record):
    """The most bytes of huge pages of one size, named as the kernel does: `2MB`, `1GB`."""

    page_size: str
    limit: int


class RdmaLimit(Record):
    """Handles and objects of one RDMA device; None: unlimited."""

    device: str
    handles: int | None
    objects: int | None


_BYTES = ("as", "core", "data", "fsize", "memlock", "msgqueue", "rss", "stack")
_COUNTS = ("cpu", "locks", "nice", "nofile", "nproc", "rtprio", "rttime", "sigpending")


def ulimit(label: str, text: str) -> Ulimit:
    """`nofile=1024:4096`, `core=0`, `memlock=unlimited`, `stack=64m`."""
    name, equals, limits = text.partition("=")
    name = name.lower().removeprefix("rlimit_")
    if name not in (*_BYTES, *_COUNTS):
        raise InvalidInput(f"{label}: {name!r} is no resource limit: use one of {', '.join(sorted(_BYTES + _COUNTS))}")
    words = limits.split(":")
    if not equals or len(words) > 2:
        raise InvalidInput(f"{label}: {text!r}: write {name}=SOFT[:HARD]")
    numbers = [_rlimit(f"{label} {name}", word, name in _BYTES) for word in words]
    if numbers[0] > numbers[-1]:
        raise InvalidInput(f"{label}: {text!r}: the soft limit is above the hard one")
    return Ulimit(name, numbers[0], numbers[-1])


def _rlimit(label: str, word: str, in_bytes: bool) -> int:
    if word in ("-1", "unlimited", "infinity"):
        return UNLIMITED
    return size(label, word) if in_bytes else whole(label, word, 0)


def _node(label: str, path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise InvalidInput(f"{label}: {path}: {os.strerror(error.errno or 0).lower()}") from None


def device(label: str, text: str) -> DeviceOption:
    """`/dev/x[:/dev/y][:rwm]`; the node is looked at."""
    import stat

    parts = text.split(":")
    access = parts.pop() if len(parts) > 1 and not parts[-1].startswith("/") else "rwm"
    source, target = parts[0], parts[-1]
    if len(parts) > 2 or not source.startswith("/") or not target.startswith("/"):
        raise InvalidInput(f"{label}: {text!r}: write /dev/NAME[:/dev/NAME-INSIDE][:rwm]")
    found = _node(label, source)
    kind = "c" if stat.S_ISCHR(found.st_mode) else "b" if stat.S_ISBLK(found.st_mode) else ""
    if not kind:
        raise InvalidInput(f"{label}: {source} is not a device node")
    return DeviceOption(
        source,
        os.path.normpath(target),
        _access(label, access),
        kind,
        os.major(found.st_rdev),
        os.minor(found.st_rdev),
        stat.S_IMODE(found.st_mode),
        found.st_uid,
        found.st_gid,
    )


def _access(label: str, text: str) -> str:
    if not text or set(text) - set("rwm") or len(set(text)) != len(text):
        raise InvalidInput(f"{label}: {text!r} is no device access: use letters of rwm")
    return text


def device_rule(label: str, text: str) -> DeviceRule:
    """`c 1:3 rwm`, `b 8:* r`, `a *:* rwm`."""
    words = text.split()
    numbers = words[1].split(":") if len(words) == 3 else []
    if len(numbers) != 2 or words[0] not in ("a", "b", "c"):
        raise InvalidInput(f"{label}: {text!r}: write TYPE MAJOR:MINOR ACCESS, such as 'c 10:200 rw'")
    major, minor = (-1 if number == "*" else whole(label, number, 0, 2**32 - 1) for number in numbers)
    return DeviceRule(words[0], major, minor, _access(label, words[2]))


def _limit(label: str, text: str) -> tuple[str, int, int, str]:
    import stat

    path, colon, value = text.rpartition(":")
    if not colon or not path.startswith("/"):
        raise InvalidInput(f"{label}: {text!r}: write /dev/NAME:VALUE")
    found = _node(label, path)
    if not stat.S_ISBLK(found.st_mode):
        raise InvalidInput(f"{label}: {path} is not a block device")
    return path, os.major(found.st_rdev), os.minor(found.st_rdev), value


def device_bps(label: str, text: str) -> DeviceLimit:
    """`/dev/sda:10mb`: bytes per second."""
    path, major, minor, value = _limit(label, text)
    return DeviceLimit(path, major, minor, size(f"{label} {path}", value))


def device_iops(label: str, text: str) -> DeviceLimit:
    """`/dev/sda:1000`: operations per second."""
    path, major, minor, value = _limit(label, text)
    return DeviceLimit(path, major, minor, whole(f"{label} {path}", value, 0))


def device_weight(label: str, text: str) -> DeviceLimit:
    """`/dev/sda:200`: a weight between 10 and 1000."""
    path, major, minor, value = _limit(label, text)
    return DeviceLimit(path, major, minor, whole(f"{label} {path}", value, 10, 1000))


def hugetlb(label: str, text: str) -> PageLimit:
    """`2MB=64m`: at most 64 MiB of pages of 2 MiB."""
    name, equals, limit = text.partition("=")
    if not equals:
        raise InvalidInput(f"{label}: {text!r}: write PAGESIZE=LIMIT, such as 2MB=64m")
    page = size(f"{label}: page size", name)
    for power, unit in ((30, "GB"), (20, "MB"), (10, "KB")):
        if page >= 1 << power:
            return PageLimit(f"{page >> power}{unit}", size(f"{label} {name}", limit))
    raise InvalidInput(f"{label}: {name!r} is no size of huge pages")


def rdma(label: str, text: str) -> RdmaLimit:
    """`mlx5_0:handles=2,objects=2000`."""
    name, colon, rest = text.partition(":")
    limits: dict[str, int] = {}
    for word in rest.split(","):
        key, equals, value = word.partition("=")
        if not name or not colon or not equals or key not in ("handles", "objects"):
            raise InvalidInput(f"{label}: {text!r}: write DEVICE:handles=NUMBER,objects=NUMBER")
        limits[key] = whole(f"{label} {name} {key}", value, 0, 2**31 - 1)
    return RdmaLimit(name, limits.get("handles"), limits.get("objects"))


def pair(label: str, text: str) -> tuple[str, str]:
    """`KEY=VALUE`."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InvalidInput(f"{label}: {text!r}: write KEY=VALUE")
    return key, value


def group_file(label: str, text: str) -> tuple[str, str]:
    """`memory.high=100M`: a file of a v2 group and what is written to it."""
    file, value = pair(label, text)
    controller, dot, name = file.partition(".")
    if not controller or not dot or not name or "/" in file:
        raise InvalidInput(f"{label}: {file!r} is no file of a control group: write its name, such as memory.high=100M")
    return file, value


def priority(label: str, text: str) -> tuple[str, int]:
    """`eth0=5`: the priority of a network interface."""
    name, value = pair(label, text)
    return name, whole(f"{label} {name}", value, 0, 2**32 - 1)


def number(label: str, text: str | int) -> int:
    """A 32-bit number, decimal or hexadecimal with 0x (class identifiers of net_cls are written so)."""
    digits = text.lower().removeprefix("0x") if isinstance(text, str) else ""
    if digits and digits != str(text) and not set(digits) - set("0123456789abcdef"):
        text = int(digits, 16)
    return whole(label, text, 0, 2**32 - 1)


def time_offset(label: str, text: str) -> tuple[str, int, int]:
    """`boottime=7d` or `monotonic=-10s`: the clock, seconds, nanoseconds."""
    clock, value = pair(label, text)
    if clock not in ("boottime", "monotonic"):
        raise InvalidInput(f"{label}: {clock!r} is no clock with an offset: use boottime or monotonic")
    return (clock, *offset(f"{label} {clock}", value))


def environment(label: str, text: str) -> tuple[str, str] | None:
    """`KEY=VALUE`, or `KEY` for the value of our own environment (None when it is not set)."""
    key, equals, value = text.partition("=")
    if not key or not is_text(text):
        raise InvalidInput(f"{label}: {text!r}: write KEY=VALUE")
    if equals:
        return key, value
    own = os.environ.get(key)
    return None if own is None else (key, own)


def environment_file(label: str, path: str) -> tuple[tuple[str, str], ...]:
    """Variables of a file with lines `KEY=VALUE` or `KEY`; lines that begin with # are comments. Quotes are kept."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read().split("\n")  # not splitlines: a value may hold a form feed or U+2028
    except OSError as error:
        raise InvalidInput(f"{label}: {path}: {os.strerror(error.errno or 0).lower()}") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{label}: {path} is not UTF-8 text") from None
    variables = []
    for at, line in enumerate(lines, 1):
        text = line.lstrip()
        if text and not text.startswith("#"):
            key = text.partition("=")[0]
            if not key or any(c.isspace() for c in key):
                raise InvalidInput(f"{label}: {path} line {at}: {key!r} is no name of a variable")
            found = environment(label, text)
            if found:
                variables.append(found)
    return tuple(variables)


def id_map(label: str, text: str) -> IdMapping:
    """`CONTAINER:HOST[:SIZE]`, as podman's --uidmap."""
    words = text.split(":")
    if len(words) not in (2, 3):
        raise InvalidInput(f"{label}: {text!r}: write CONTAINER-ID:HOST-ID:COUNT")
    return IdMapping(*(whole(label, word, 0, 2**32 - 2) for word in (*words, "1")[:3]))


def sysctl(label: str, text: str) -> tuple[str, str]:
    """`net.core.somaxconn=1024`. Slashes are taken as dots."""
    key, value = pair(label, text)
    return (key if "/" not in key else key.replace("/", ".")), value


def cpu_list(label: str, text: str) -> str:
    """`0-3,7`: the form of cpuset(7) lists, checked."""
    count_cpus(label, text)
    return text.replace(" ", "")


def count_cpus(label: str, text: str) -> int:
    """How many numbers a list such as `0-3,7` names."""
    named: set[int] = set()
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        numbers = (low, high) if dash else (low,)
        if not all(one.isascii() and one.isdigit() for one in numbers) or int(numbers[-1]) < int(low):
            raise InvalidInput(f"{label}: {text!r} is no list of numbers such as 0-3,7")
        if int(high or low) > 65535:
            raise InvalidInput(f"{label}: {part.strip()} is beyond any machine")
        named.update(range(int(low), int(high or low) + 1))
    return len(named)


def namespace(label: str, text: str, words: tuple[str, ...]) -> str:
    """One of `words`, or `ns:/proc/PID/ns/...`, whose file must exist."""
    if text.startswith("ns:/"):
        _node(label, text[3:])
        return text
    if text in words:
        return text
    if text.startswith("container:"):
        raise InvalidInput(f"{label}: {text!r}: sharing by container name is not available yet: use ns:/proc/PID/ns/…")
    raise InvalidInput(f"{label}: {text!r} is not available: use {', '.join(words)} or ns:PATH")


def signal_number(label: str, text: str | int) -> int:
    """A signal from its number or its name, with or without SIG."""
    if isinstance(text, int) or text.isdigit():
        return whole(label, text, 1, 64)
    from corten.linux import signals  # with ctypes, which a look at the options alone does not need

    try:
        return signals.parse(text)
    except InvalidInput as error:
        raise InvalidInput(f"{label}: {error}") from None


def oom_score(label: str, text: str | int) -> int:
    """-1000 to 1000."""
    return whole(label, text, -1000, 1000)


def swappiness(label: str, text: str | int) -> int:
    """0 to 100, or -1 for the system's own."""
    return whole(label, text, -1, 100)


def weight(label: str, text: str | int) -> int:
    """10 to 1000; 0 for the default."""
    return 0 if str(text) == "0" else whole(label, text, 10, 1000)


def microseconds(label: str, text: str | int) -> int:
    """0 or more microseconds."""
    return whole(label, text, 0)


def count(label: str, text: str | int) -> int:
    """0 or more, or -1 for unlimited."""
    return whole(label, text, -1, LARGEST)
