"""The options of a container, named as docker names them: the one form that the command line and Python share.

Rule 1: a `RunOptions` is normalised (bytes, seconds, absolute paths) and consistent with itself; `make` sees to it.
Rule 2: what depends on the host or on the image is not decided here but in `specs`.
Rule 3: None means "not asked for"; then no limit is written and no control group is needed.
"""

from __future__ import annotations

import os

from corten.engine.mounts import MountOption
from corten.engine.option_readers import MANY, ONE
from corten.engine.option_values import (
    DeviceLimit,
    DeviceOption,
    DeviceRule,
    PageLimit,
    RdmaLimit,
    Ulimit,
    is_text,
)
from corten.errors import InvalidInput
from corten.linux.idmap import IdMapping, check
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, Unpack

    from corten.engine.keywords import RunKeywords, RunnableImage


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
        if not is_text(word):
            raise InvalidInput(f"argv: {word!r} is not text without zero bytes")
    return words


def _nearest(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, [*ONE, *MANY], 1)
    return f": did you mean {near[0]}?" if near else ""


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
