"""The keyword arguments of `corten.run` and its kin, for type checkers: never imported at run time.

Each is an option of `corten run` by its docker name, as text (`memory="512m"`) or as a value (`memory=512 << 20`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Protocol, TypedDict

from corten.engine.mounts import MountOption
from corten.engine.option_values import DeviceLimit, DeviceOption, DeviceRule, PageLimit, RdmaLimit, Ulimit
from corten.linux.idmap import IdMapping

Path = str | PathLike[str]
Size = str | int
"""Bytes, or text such as `512m`."""


class RunnableImage(Protocol):
    """An image that is an object, such as a `corten.Image`."""

    def for_run(self) -> tuple[str, tuple[MountOption, ...]]:
        """The image as text, made if need be, and what is to be mounted besides."""
        ...


class RunKeywords(TypedDict, total=False):
    """Absent and None mean the same. Meanings and units: `corten.engine.options.RunOptions`."""

    entrypoint: str | list[str] | tuple[str, ...] | None
    name: str | None
    rootfs: Path | None
    writable: Path | None
    read_only: bool | None
    mounts: Iterable[str | MountOption] | None
    volumes: Iterable[str | MountOption] | None
    tmpfs: Iterable[str | MountOption] | None
    shm_size: Size | None
    memory: Size | None
    memory_swap: Size | None
    memory_reservation: Size | None
    memory_swappiness: int | None
    oom_kill_disable: bool | None
    cpus: float | str | None
    cpu_shares: int | None
    cpu_quota: int | None
    cpu_period: int | None
    cpu_burst: int | None
    cpu_idle: bool | None
    cpu_rt_runtime: int | None
    cpu_rt_period: int | None
    cpuset_cpus: str | None
    cpuset_mems: str | None
    pids: int | str | None
    blkio_weight: int | None
    blkio_weight_device: Iterable[str | DeviceLimit] | None
    device_read_bps: Iterable[str | DeviceLimit] | None
    device_write_bps: Iterable[str | DeviceLimit] | None
    device_read_iops: Iterable[str | DeviceLimit] | None
    device_write_iops: Iterable[str | DeviceLimit] | None
    hugetlb: Iterable[str | PageLimit] | Mapping[str, Size] | None
    rdma: Iterable[str | RdmaLimit] | None
    net_class: int | str | None
    net_priority: Iterable[str | tuple[str, int]] | Mapping[str, int] | None
    cgroup_conf: Iterable[str | tuple[str, str]] | Mapping[str, str | int] | None
    cgroup_parent: str | None
    best_effort: bool | None
    ulimits: Iterable[str | Ulimit] | Mapping[str, int | str] | None
    timeout: float | str | None
    env: Iterable[str | tuple[str, str]] | Mapping[str, str | None] | None
    env_file: Iterable[str | tuple[tuple[str, str], ...]] | None
    workdir: Path | None
    user: str | None
    group_add: Iterable[str] | None
    umask: int | str | None
    pull: str | None
    platform: str | None
    tty: bool | None
    init: bool | None
    stop_signal: int | str | None
    oom_score_adj: int | None
    cap_add: Iterable[str] | None
    cap_drop: Iterable[str] | None
    security_opt: Iterable[str] | None
    no_new_privileges: bool | None
    seccomp: Path | None
    mask: Iterable[str] | None
    unmask: Iterable[str] | None
    devices: Iterable[str | DeviceOption] | None
    device_cgroup_rules: Iterable[str | DeviceRule] | None
    hostname: str | None
    domainname: str | None
    network: str | None
    pid: str | None
    ipc: str | None
    uts: str | None
    cgroupns: str | None
    userns: str | None
    uidmap: Iterable[str | IdMapping] | None
    gidmap: Iterable[str | IdMapping] | None
    timens: str | None
    time_offset: Iterable[str | tuple[str, int, int]] | None
    sysctls: Iterable[str | tuple[str, str]] | Mapping[str, str | int] | None
