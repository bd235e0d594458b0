"""What builds keep for the next ones, taken away: results of steps, and the caches of RUN --mount=type=cache."""

from __future__ import annotations

import fcntl
import os

from corten.images.store import once
from corten.records import Record
from corten.runtime.removal import remove_all


class Pruned(Record):
    """What was removed: how many results, how many caches."""

    steps: int
    caches: int


def prune(home: str) -> Pruned:
    """Remove all results and all caches that no build is using. Layers that images have stay theirs."""
    steps = _listed(f"{home}/build/steps")
    once.sweep(f"{home}/build/steps")
    caches = 0
    for name in _listed(f"{home}/build/caches"):
        path = f"{home}/build/caches/{name}"
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Out of the way first: a build that comes now makes its own.
            doomed = f"{home}/build/caches/.{os.urandom(8).hex()}"
            os.rename(path, doomed)
            remove_all(doomed)
            caches += 1
        except BlockingIOError:
            continue
        finally:
            os.close(fd)
    return Pruned(sum(once.remove(f"{home}/build/steps", name) for name in steps), caches)


def _listed(directory: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if name[0] != ".")
    except FileNotFoundError:
        return []
