"""How each option is read: two tables of functions that get the name as typed and what was given, and give the value.

Rule 1: text as on the command line, or a value of the right kind; anything else is an `InvalidInput` that names the
        option, the text, and what would be right.
"""

from __future__ import annotations

import os

from corten.engine import mounts, option_values
from corten.engine.mounts import MountOption
from corten.engine.option_values import count, namespace
from corten.engine.quantities import cpus, duration, octal, size, switch, whole
from corten.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MINIMUM_MEMORY = 6 << 20
"""Bytes; below it no container can start. docker's figure, so that it is no surprise."""

PULL = ("always", "missing", "never")
WRITABLE = ("throwaway", "tmpfs", "direct")


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
