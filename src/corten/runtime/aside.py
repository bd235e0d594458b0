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


def places(tops: Sequence[str], mounts: Sequence[Mount], files: Sequence[str]) -> tuple[tuple[str, str | None], ...]:
    """(path, what it is made after) of what will be mounted on: a source of the host, "" for a directory, None for a
    file that we provide. Only those that can be found without a look at the root."""
    found: list[tuple[str, str | None]] = [(top, "") for top in tops]
    found += [(mount.destination, mount.source if mount.type in ("bind", "") else "") for mount in mounts]
    found += [(path, None) for path in files]
    return tuple((path, what) for path, what in found if path == plain(path) != "/")


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
        if mount.type not in _KINDS or words & {"bind", "rbind", "tmpcopyup"} or place != plain(place):
            break
        if not (place in TOPS or below(place, made)):
            break
        made.append(place)
        number += 1
    # What is mounted there later could reach into it, or be meant to lie below it.
    late = [plain(mount.destination) for mount in mounts[number:]]
    return 0 if any(place == "/" or below(place, TOPS) for place in late) else number


def plain(path: str) -> str:
    """Without empty parts and dots."""
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
