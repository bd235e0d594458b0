"""Which parts of a root can be made aside, before anything of the root's own files is touched. Pure.

/proc, /dev and /sys of a container come from the kernel alone: they are put together in a place of their own and moved
into the root as they are. So they can be ready before it is known who will use them, and nothing in a root file system
can get in their way meanwhile.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from corten.runtime.spec import Mount

TOPS = ("/proc", "/dev", "/sys")
_KINDS = frozenset(("proc", "tmpfs", "devpts", "mqueue", "sysfs", "cgroup"))


def below(path: str, tops: Iterable[str]) -> bool:
    """Whether a path is one of the tops, or lies below one."""
    return any(path == top or path.startswith(f"{top}/") for top in tops)


def tops(mounts: Sequence[Mount]) -> tuple[str, ...]:
    """Those of /proc, /dev and /sys that these mounts make."""
    return tuple(top for top in TOPS if any(mount.destination == top for mount in mounts))


def count(mounts: Sequence[Mount]) -> int:
    """How many of the first mounts can be made aside; 0 where later ones would have to come between."""
    number = 0
    made: list[str] = []
    for mount in mounts:
        place = mount.destination
        words = set(mount.options)
        if mount.type not in _KINDS or words & {"bind", "rbind", "tmpcopyup"} or place != _plain(place):
            break
        if not (place in TOPS or below(place, made)):
            break
        made.append(place)
        number += 1
    # What is mounted there later could reach into it, or be meant to lie below it.
    late = [_plain(mount.destination) for mount in mounts[number:]]
    return 0 if any(place == "/" or below(place, TOPS) for place in late) else number


def _plain(path: str) -> str:
    """Without empty parts and dots."""
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
