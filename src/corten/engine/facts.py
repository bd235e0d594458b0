"""What the spec of a container depends on besides its options: this user and this machine, looked at once."""

from __future__ import annotations

import os

from corten.errors import InvalidInput, Unsupported
from corten.linux import capabilities, idmap
from corten.linux.cgroup import layout as layouts
from corten.linux.idmap import IdMapping
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.engine.options import RunOptions


class HostFacts(Record):
    """This user and this machine, as far as the options ask."""

    uid: int = 0
    gid: int = 0
    uid_maps: tuple[IdMapping, ...] = ()
    """Of the container's own user namespace; empty when it gets none."""
    gid_maps: tuple[IdMapping, ...] = ()
    few_ids: str = ""
    """Why the maps have nothing but this user's own ids, and what to do about it; empty if they have more."""
    swap: bool = True
    """The kernel can limit swap."""
    hard_limits: tuple[tuple[str, int], ...] = ()
    """Resource limits that this process may not raise, by name; empty when it may raise all."""
    mqueue: bool = True
    """The host has /dev/mqueue mounted."""
    capabilities: tuple[str, ...] | None = None
    """What this process could give away; None if it was not asked for, or is all (in a user namespace of its own)."""
    term: str = "xterm"
    nodename: str = ""


def host_facts(options: RunOptions) -> HostFacts:
    """Look. Raises `InvalidInput` and `Unsupported` when the user namespace asked for cannot be had."""
    uid, gid = os.geteuid(), os.getegid()
    uid_maps, gid_maps = _maps(options, uid, gid)
    return HostFacts(
        uid,
        gid,
        uid_maps,
        gid_maps,
        idmap.subordinate_problem(uid) if uid and uid_maps and not options.uidmap else "",
        _swap_accounting() if options.memory is not None else True,
        _hard_limits(options) if options.ulimits else (),
        os.path.isdir("/dev/mqueue") if options.ipc == "host" else True,
        _capabilities(options) if not uid_maps else None,
        os.environ.get("TERM", "xterm"),
        os.uname().nodename,
    )


def _maps(options: RunOptions, uid: int, gid: int) -> tuple[tuple[IdMapping, ...], tuple[IdMapping, ...]]:
    mode = options.userns
    if options.uidmap:
        return options.uidmap, options.gidmap
    if mode == "keep-id":
        if uid == 0:
            raise InvalidInput("userns: keep-id is for ordinary users: root's own ids are 0 already")
        return idmap.rootless_maps(uid, gid, uid, gid)
    if uid != 0:
        if mode == "host":
            raise Unsupported("userns: only root can share the host's user namespace: leave --userns out")
        return idmap.rootless_maps(uid, gid) if mode in (None, "private") else ((), ())
    if mode != "private":
        return (), ()
    ranges = idmap.subordinate(0)
    if not ranges.uids or not ranges.gids:
        raise InvalidInput(
            "userns: root has no range in /etc/subuid and /etc/subgid to map: give --uidmap and --gidmap, "
            "such as 0:100000:65536"
        )
    return _from_zero(ranges.uids), _from_zero(ranges.gids)


def _from_zero(ranges: tuple[tuple[int, int], ...]) -> tuple[IdMapping, ...]:
    maps, inside = [], 0
    for start, size in ranges:
        maps.append(IdMapping(inside, start, size))
        inside += size
    return tuple(maps)


def _swap_accounting() -> bool:
    """Whether the group that ours would be made below has the file that limits swap."""
    for hierarchy in layouts.detect().hierarchies:
        if hierarchy.version == 1 and "memory" in hierarchy.controllers:
            return os.path.exists(f"{hierarchy.directory(hierarchy.own)}/memory.memsw.limit_in_bytes")
    # v2 has no such file in the root of the tree; since 5.8 it is there unless the kernel was built without swap.
    return os.path.exists("/proc/swaps")


def _capabilities(options: RunOptions) -> tuple[str, ...] | None:
    return capabilities.effective() if any(word.upper() in ("ALL", "CAP_ALL") for word in options.cap_add) else None


def _hard_limits(options: RunOptions) -> tuple[tuple[str, int], ...]:
    if "CAP_SYS_RESOURCE" in capabilities.effective():
        return ()
    import resource

    found = []
    for limit in options.ulimits:
        hard = resource.getrlimit(getattr(resource, f"RLIMIT_{limit.name.upper()}"))[1]
        found.append((limit.name, hard % 2**64))
    return tuple(found)
