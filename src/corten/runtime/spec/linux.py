"""`linux`: what only Linux has. Source: OCI runtime specification 1.3, config-linux.md.

`resources`, `seccomp` and id mappings are typed on the floor below, where the kernel reads them.
"""

from __future__ import annotations

from corten.linux.cgroup.resources import Resources
from corten.linux.idmap import IdMapping
from corten.linux.seccomp import Seccomp
from corten.records import Record


class Namespace(Record):
    """A new namespace of a kind (`mount`, `network`, ...), or the one at `path`."""

    type: str
    path: str = ""


class Device(Record):
    """A node to make in the container: type `c`, `b`, `u` or `p` (a FIFO, which has no numbers)."""

    path: str
    type: str
    major: int | None = None
    minor: int | None = None
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class NetDevice(Record):
    """A host's network device to move into the container, under a new name if one is given."""

    name: str = ""


class TimeOffset(Record):
    """What is added to a clock inside: seconds (which may be negative) and nanoseconds."""

    secs: int = 0
    nanosecs: int = 0


class IntelRdt(Record):
    """Cache and memory bandwidth by resctrl. `enable_cmt` and `enable_mbm` ended with 1.2, for `enable_monitoring`."""

    clos_id: str = ""
    schemata: tuple[str, ...] = ()
    l3_cache_schema: str = ""
    mem_bw_schema: str = ""
    enable_monitoring: bool = False
    enable_cmt: bool = False
    enable_mbm: bool = False


class MemoryPolicy(Record):
    """set_mempolicy(2): `MPOL_BIND`, nodes as a list such as `0-1,3`, and flags."""

    mode: str
    nodes: str = ""
    flags: tuple[str, ...] = ()


class Personality(Record):
    """personality(2): `LINUX` or `LINUX32`."""

    domain: str
    flags: tuple[str, ...] = ()


class Linux(Record):
    """The Linux part. A namespace that is not listed is shared with the runtime."""

    namespaces: tuple[Namespace, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    time_offsets: dict[str, TimeOffset] = {}
    devices: tuple[Device, ...] = ()
    net_devices: dict[str, NetDevice] = {}
    cgroups_path: str = ""
    resources: Resources | None = None
    rootfs_propagation: str = ""
    seccomp: Seccomp | None = None
    sysctl: dict[str, str] = {}
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    mount_label: str = ""
    intel_rdt: IntelRdt | None = None
    memory_policy: MemoryPolicy | None = None
    personality: Personality | None = None
