"""The options of a container, named as docker names them: the one form that the command line and Python share.

Rule 1: a `RunOptions` is normalised (bytes, seconds, absolute paths) and consistent with itself; `make` sees to it.
Rule 2: what depends on the host or on the image is not decided here but in `specs`.
Rule 3: None means "not asked for"; then no limit is written and no control group is needed.
"""

from __future__ import annotations

import os

from corten.engine import mounts, option_values
from corten.engine.mounts import MountOption
from corten.engine.option_values import (
    DeviceLimit,
    DeviceOption,
    DeviceRule,
    PageLimit,
    RdmaLimit,
    Ulimit,
    count,
    namespace,
)
from corten.engine.quantities import cpus, duration, octal, size, switch, whole
from corten.errors import InvalidInput
from corten.linux.idmap import IdMapping, check
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Unpack

    from corten.engine.keywords import RunKeywords, RunnableImage

MINIMUM_MEMORY = 6 << 20
"""Bytes; below it no container can start. docker's figure, so that it is no surprise."""

PULL = ("always", "missing", "never")
WRITABLE = ("throwaway", "tmpfs", "direct")


class RunOptions(Record):
    """What one container is to be. Sizes are bytes, times seconds unless said otherwise."""

    image: str = ""
    """Empty when `rootfs` is given."""
    argv: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    name: str | None = None
    # root file system
    rootfs: str | None = None
    writable: str | None = None
    """throwaway, tmpfs, direct, or the absolute path of a directory that keeps the changes; None: by the image."""
    read_only: bool = False
    mounts: tuple[MountOption, ...] = ()
    shm_size: int | None = None
    # memory
    memory: int | None = None
    memory_swap: int | None = None
    """Memory and swap together; -1: as much swap as the host has."""
    memory_reservation: int | None = None
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    # CPU
    cpus: float | None = None
    cpu_shares: int | None = None
    cpu_quota: int | None = None
    """Microseconds per period; -1: none."""
    cpu_period: int | None = None
    """Microseconds."""
    cpu_burst: int | None = None
    """Microseconds."""
    cpu_idle: bool = False
    cpu_rt_runtime: int | None = None
    cpu_rt_period: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    # other limits
    pids: int | None = None
    blkio_weight: int | None = None
    blkio_weight_device: tuple[DeviceLimit, ...] = ()
    device_read_bps: tuple[DeviceLimit, ...] = ()
    device_write_bps: tuple[DeviceLimit, ...] = ()
    device_read_iops: tuple[DeviceLimit, ...] = ()
    device_write_iops: tuple[DeviceLimit, ...] = ()
    hugetlb: tuple[PageLimit, ...] = ()
    rdma: tuple[RdmaLimit, ...] = ()
    net_class: int | None = None
    net_priority: tuple[tuple[str, int], ...] = ()
    cgroup_conf: tuple[tuple[str, str], ...] = ()
    """Files of cgroup v2, written as they stand."""
    cgroup_parent: str | None = None
    best_effort: bool = False
    ulimits: tuple[Ulimit, ...] = ()
    timeout: float | None = None
    # process
    env: tuple[tuple[str, str], ...] = ()
    workdir: str | None = None
    user: str | None = None
    """`NAME|UID[:GROUP|GID]`, of the container."""
    group_add: tuple[str, ...] = ()
    umask: int | None = None
    pull: str = "missing"
    """When the image is fetched from its registry: always, missing, never."""
    platform: str = ""
    """Of the image, as `linux/arm64`; empty: this machine's."""
    tty: bool = False
    init: bool = True
    stop_signal: int = 0
    """What it gets when SIGTERM asks `corten run` to end; 0: as the image says, else SIGTERM."""
    oom_score_adj: int | None = None
    # security
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = True
    seccomp: str = "default"
    """default, unconfined, or the absolute path of a profile."""
    mask: tuple[str, ...] = ()
    unmask: tuple[str, ...] = ()
    """Paths, or `ALL`."""
    # devices
    devices: tuple[DeviceOption, ...] = ()
    device_cgroup_rules: tuple[DeviceRule, ...] = ()
    # namespaces: private, host or ns:PATH
    hostname: str | None = None
    domainname: str | None = None
    network: str = "none"
    """none, host or ns:PATH."""
    pid: str = "private"
    ipc: str = "private"
    uts: str = "private"
    cgroupns: str = "private"
    userns: str | None = None
    """private, keep-id, host or ns:PATH; None: host for root, private for other users."""
    uidmap: tuple[IdMapping, ...] = ()
    gidmap: tuple[IdMapping, ...] = ()
    timens: str = "private"
    time_offset: tuple[tuple[str, int, int], ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()


def make(image: str | RunnableImage = "", argv: Sequence[str] = (), **given: Unpack[RunKeywords]) -> RunOptions:
    """Options from what a person or a program gave: text as on the command line, or values of the right kind.

    None means "not given". Raises `InvalidInput` in one line that names the option.
    """
    fields: dict[str, Any] = {}
    if not isinstance(image, str):
        if not hasattr(image, "for_run"):
            raise InvalidInput(f"image: {image!r} is neither the name of an image nor a corten.Image")
        image, fields["mounts"] = image.for_run()
    fields |= {"image": image, "argv": _argv(argv)}
    env: tuple[tuple[str, str], ...] = ()
    for name, value in given.items():
        if value is None:
            continue
        if name == "env_file":
            env = tuple(pair for file in _items(name, value) for pair in file)
        elif name in ("tmpfs", "volumes"):
            fields["mounts"] = (*fields.get("mounts", ()), *_items(name, value))
        elif name == "mounts":
            fields["mounts"] = (*_items(name, value), *fields.get("mounts", ()))
        elif name == "security_opt":
            for field, item in _items(name, value):
                fields[field] = (*fields.get(field, ()), *item) if isinstance(item, tuple) else item
        elif name in MANY:
            fields[name] = tuple(_items(name, value))
        elif name in ONE:
            fields[name] = ONE[name](name, value)
        else:
            raise InvalidInput(f"unknown option {name!r}{_nearest(name)}")
    fields["env"] = (*env, *(pair for pair in fields.get("env", ()) if pair))
    options = RunOptions(**fields)
    _consistent(options)
    return options


def _items(name: str, value: object) -> list[Any]:
    """What was given for an option that may be repeated: text is read, values pass."""
    read = MANY[name]
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise InvalidInput(f"{name}: {value!r} is not a list")
    if isinstance(value, dict):
        value = _lines(name, value)
    found = [read(name, item) if isinstance(item, str) else item for item in value]
    kinds = (str, Record, tuple) if name in _PAIRS else (str, Record)
    for item in found:
        unset = item is None and name == "env"  # a variable that is not set here, either
        if not isinstance(item, kinds) and not unset:
            raise InvalidInput(f"{name}: {item!r} is not text: write it as on the command line")
    return found


_MAPPINGS = ("env", "sysctls", "ulimits", "hugetlb", "net_priority", "cgroup_conf")
_PAIRS = (*_MAPPINGS, "env_file", "time_offset", "security_opt")


def _lines(name: str, value: dict[Any, Any]) -> list[str]:
    """A mapping as lines `KEY=VALUE`."""
    if name not in _MAPPINGS:
        raise InvalidInput(f"{name}: a mapping cannot say it: give a list of texts, as on the command line")
    for key in value:
        if not isinstance(key, str) or "=" in key:
            raise InvalidInput(f"{name}: {key!r} is no name: it is text without '='")
    return [key if item is None else f"{key}={item}" for key, item in value.items()]


def _argv(argv: Sequence[str]) -> tuple[str, ...]:
    if isinstance(argv, str) or not hasattr(argv, "__iter__"):
        raise InvalidInput(f"argv: {argv!r} is not a list: give one such as ['sh', '-c', 'echo hello']")
    words = tuple(os.fspath(word) if hasattr(word, "__fspath__") else word for word in argv)
    for word in words:
        if not option_values.is_text(word):
            raise InvalidInput(f"argv: {word!r} is not text without zero bytes")
    return words


def _nearest(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, [*ONE, *MANY], 1)
    return f": did you mean {near[0]}?" if near else ""


# --- readers: (name of the option, what was given) -> value


def _text(label: str, value: Any) -> str:
    text = os.fspath(value) if hasattr(value, "__fspath__") else value
    if not option_values.is_text(text) or not text:
        raise InvalidInput(f"{label}: {value!r} is not a text with something in it")
    return str(text)


def _limit(label: str, value: Any) -> int:
    return size(label, value, unlimited=True)


def _memory(label: str, value: Any) -> int | None:
    number = size(label, value, unlimited=True)
    if number in (0, -1):
        return None
    if number < MINIMUM_MEMORY:
        raise InvalidInput(f"{label}: {value} is less than a container needs to start: give at least 6m")
    return number


def _cpus(label: str, value: Any) -> float | None:
    return cpus(label, value) or None


def _cpu_shares(label: str, value: Any) -> int | None:
    number = whole(label, value, 0, 262144)
    if number == 1:
        raise InvalidInput(f"{label}: 1 is out of range: it must be between 2 and 262144, or 0 for the usual weight")
    return number or None


def _cpu_quota(label: str, value: Any) -> int | None:
    number = whole(label, value, -1)
    if 0 < number < 1000:
        raise InvalidInput(f"{label}: {number} is out of range: it must be 1000 or more, or -1 for no limit")
    return number or None


def _cpu_period(label: str, value: Any) -> int | None:
    number = whole(label, value, 0, 1_000_000)
    if 0 < number < 1000:
        raise InvalidInput(f"{label}: {number} is out of range: it must be between 1000 and 1000000")
    return number or None


def _pids(label: str, value: Any) -> int | None:
    number = whole(label, value, -1)
    return number if number > 0 else None


def _timeout(label: str, value: Any) -> float | None:
    return duration(label, value) or None


def _pull(label: str, value: Any) -> str:
    if value not in PULL:
        raise InvalidInput(f"{label}: {value!r} is none of {', '.join(PULL)}")
    return str(value)


def _platform(label: str, value: Any) -> str:
    from corten.images.manifests import parse_platform

    return str(parse_platform(_text(label, value), label))


def _mode(label: str, value: Any) -> int:
    return octal(label, value, 0o777)


def _entrypoint(label: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) and value.startswith("["):
        import json

        try:
            value = json.loads(value)
        except ValueError:
            raise InvalidInput(f"{label}: {value!r} is not a JSON list of words") from None
    if isinstance(value, str):
        return (value,) if value else ()
    if not isinstance(value, (list, tuple)) or not all(isinstance(word, str) for word in value):
        raise InvalidInput(f"{label}: {value!r} is neither a command nor a list of words")
    return tuple(value)


def _name(label: str, value: Any) -> str:
    text = _text(label, value)
    good = text[0].isalnum() and all(c.isalnum() or c in "_.-" for c in text) and text.isascii() and len(text) <= 128
    if not good:
        raise InvalidInput(f"{label}: {text!r}: use letters, digits, '_', '.' and '-', a letter or digit first")
    return text


def _host(label: str, value: Any) -> str:
    text = _text(label, value)
    bad = not text.isprintable() or any(c in " /" for c in text)  # it becomes a line of /etc/hosts
    if bad or len(text.encode()) > 64:
        raise InvalidInput(f"{label}: {text!r}: a name has at most 64 bytes, and no spaces or slashes (sethostname(2))")
    return text


def _workdir(label: str, value: Any) -> str:
    text = _text(label, value)
    if not text.startswith("/"):
        raise InvalidInput(f"{label}: {text!r} is not absolute: it is a directory in the container")
    return text


def _cgroup_parent(label: str, value: Any) -> str:
    text = _text(label, value)
    if any(part in (".", "..") for part in text.split("/")) or not text.isprintable():
        raise InvalidInput(f"{label}: {text!r} is no path of a control group: write one such as /jobs/mine")
    return text


def _rootfs(label: str, value: Any) -> str:
    path = _text(label, value)
    if not os.path.isdir(path):
        why = "is not a directory" if os.path.lexists(path) else "no such directory"
        raise InvalidInput(f"{label}: {path}: {why}")
    return os.path.abspath(path)


def _writable(label: str, value: Any) -> str:
    text = _text(label, value)
    if text in WRITABLE:
        return text
    if "/" not in text:
        raise InvalidInput(f"{label}: {text!r}: use {', '.join(WRITABLE)}, or a directory such as ./{text}")
    return _rootfs(label, text)


def security(label: str, text: str) -> tuple[str, Any]:
    """One `--security-opt` as (field of `RunOptions`, value); values that are tuples add up."""
    key, equals, value = text.partition("=" if "=" in text else ":")
    if key in ("no-new-privileges", "no_new_privileges"):
        return "no_new_privileges", switch(f"{label} {key}", value) if equals else True
    if key == "seccomp" and value:
        if value in ("default", "unconfined"):
            return "seccomp", value
        if not os.path.isfile(value):
            why = "is not a file" if os.path.exists(value) else "no such file"
            raise InvalidInput(f"{label}: seccomp profile {value}: {why}")
        return "seccomp", os.path.abspath(value)
    if key in ("mask", "unmask") and value:
        paths = tuple(value.split(":"))
        for path in paths:
            if not path.startswith("/") and not (key == "unmask" and path == "ALL"):
                raise InvalidInput(f"{label}: {key}: {path!r} is no absolute path")
        return key, paths
    if (key == "apparmor" and value == "unconfined") or (key == "label" and value == "disable"):
        return "mask", ()  # which is how every container of ours is
    if key in ("apparmor", "label", "proc-opts", "systempaths"):
        raise InvalidInput(f"{label}: {key} is not supported yet: seccomp, mask, unmask and no-new-privileges are")
    raise InvalidInput(f"{label}: {text!r} is unknown: use no-new-privileges, seccomp=, mask= or unmask=")


def _modes(*words: str) -> Callable[[str, Any], str]:
    return lambda label, value: namespace(label, _text(label, value), words)


def _network(label: str, value: Any) -> str:
    text = _text(label, value)
    if text in ("bridge", "default", "slirp4netns", "pasta"):
        raise InvalidInput(f"{label}: {text!r} networks come later: use none (only lo), host or ns:PATH")
    return "none" if text == "private" else namespace(label, text, ("none", "host"))


def _ipc(label: str, value: Any) -> str:
    return "private" if value == "shareable" else namespace(label, _text(label, value), ("private", "host"))


def _mount(label: str, text: str) -> MountOption:
    """Python's `mounts` takes both ways of writing them; `--mount` takes its own."""
    either = mounts.mount if label.startswith("-") or "=" in text.partition(",")[0] else mounts.volume
    return either(label, text)


ONE: dict[str, Callable[[str, Any], Any]] = {
    "entrypoint": _entrypoint,
    "name": _name,
    "rootfs": _rootfs,
    "writable": _writable,
    "read_only": switch,
    "shm_size": size,
    "memory": _memory,
    "memory_swap": _limit,
    "memory_reservation": _limit,
    "memory_swappiness": option_values.swappiness,
    "oom_kill_disable": switch,
    "cpus": _cpus,
    "cpu_shares": _cpu_shares,
    "cpu_quota": _cpu_quota,
    "cpu_period": _cpu_period,
    "cpu_burst": option_values.microseconds,
    "cpu_idle": switch,
    "cpu_rt_runtime": count,
    "cpu_rt_period": option_values.microseconds,
    "cpuset_cpus": option_values.cpu_list,
    "cpuset_mems": option_values.cpu_list,
    "pids": _pids,
    "blkio_weight": option_values.weight,
    "net_class": option_values.number,
    "cgroup_parent": _cgroup_parent,
    "best_effort": switch,
    "timeout": _timeout,
    "workdir": _workdir,
    "user": _text,
    "umask": _mode,
    "pull": _pull,
    "platform": _platform,
    "tty": switch,
    "init": switch,
    "stop_signal": option_values.signal_number,
    "oom_score_adj": option_values.oom_score,
    "no_new_privileges": switch,
    "seccomp": lambda label, value: security(label, f"seccomp={_text(label, value)}")[1],
    "hostname": _host,
    "domainname": _host,
    "network": _network,
    "pid": _modes("private", "host"),
    "ipc": _ipc,
    "uts": _modes("private", "host"),
    "cgroupns": _modes("private", "host"),
    "userns": _modes("private", "host", "keep-id"),
    "timens": _modes("private", "host"),
}
"""Options given once."""

MANY: dict[str, Callable[[str, Any], Any]] = {
    "mounts": _mount,
    "volumes": mounts.volume,
    "tmpfs": mounts.tmpfs,
    "env": option_values.environment,
    "env_file": option_values.environment_file,
    "blkio_weight_device": option_values.device_weight,
    "device_read_bps": option_values.device_bps,
    "device_write_bps": option_values.device_bps,
    "device_read_iops": option_values.device_iops,
    "device_write_iops": option_values.device_iops,
    "hugetlb": option_values.hugetlb,
    "rdma": option_values.rdma,
    "net_priority": option_values.priority,
    "cgroup_conf": option_values.group_file,
    "ulimits": option_values.ulimit,
    "group_add": _text,
    "cap_add": _text,
    "cap_drop": _text,
    "security_opt": security,
    "mask": _text,
    "unmask": _text,
    "devices": option_values.device,
    "device_cgroup_rules": option_values.device_rule,
    "uidmap": option_values.id_map,
    "gidmap": option_values.id_map,
    "time_offset": option_values.time_offset,
    "sysctls": option_values.sysctl,
}
"""Options that may be repeated; the reader is for one of them."""


def _consistent(o: RunOptions) -> None:
    """Refuse options that contradict each other."""
    if bool(o.image) == bool(o.rootfs):
        raise InvalidInput("give either an image or a rootfs" + (", not both" if o.image else ""))
    if o.platform and (o.rootfs or o.image == "host"):
        raise InvalidInput(f"platform: {o.rootfs or o.image} cannot be had for another: give the name of an image")
    _consistent_limits(o)
    conflicts = (
        (o.hostname and o.uts != "private", f"hostname: the host name belongs to uts {o.uts}, not to the container"),
        (o.domainname and o.uts != "private", f"domainname: the name belongs to uts {o.uts}, not to the container"),
        (o.shm_size is not None and o.ipc == "host", "shm-size: /dev/shm is the host's with ipc host"),
        (o.time_offset and o.timens != "private", f"time-offset: cannot be set in timens {o.timens}"),
        ((o.uidmap or o.gidmap) and o.userns not in (None, "private"), f"uidmap, gidmap: not with userns {o.userns}"),
        (bool(o.uidmap) != bool(o.gidmap), "uidmap and gidmap: give both"),
    )
    for wrong, words in conflicts:
        if wrong:
            raise InvalidInput(words)
    check(o.uidmap, "uidmap")
    check(o.gidmap, "gidmap")
    _once("mount", (mount.target for mount in o.mounts))


def _consistent_limits(o: RunOptions) -> None:
    swap, memory = o.memory_swap, o.memory
    own_quota = o.cpu_quota is not None or o.cpu_period is not None
    conflicts = (
        (swap is not None and swap > 0 and memory is None, "memory-swap: needs a memory limit, too"),
        (swap is not None and 0 < swap < (memory or 0), "memory-swap: is memory and swap together, so at least memory"),
        (memory and (o.memory_reservation or 0) > memory, "memory-reservation: is above the memory limit"),
        (o.oom_kill_disable and memory is None, "oom-kill-disable: needs a memory limit, or the host could hang"),
        (o.cpus and own_quota, "cpus: says the same as cpu-quota and cpu-period: give one or the other"),
        (o.cpu_idle and o.cpu_shares, "cpu-idle: has no shares"),
    )
    for wrong, words in conflicts:
        if wrong:
            raise InvalidInput(words)


def _once(what: str, places: Iterable[str]) -> None:
    seen: set[str] = set()
    for place in places:
        if place in seen:
            raise InvalidInput(f"{what}: {place} is given twice")
        seen.add(place)
