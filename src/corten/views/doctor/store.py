"""The file system below the home directory: what containers write to."""

from __future__ import annotations

import os

from corten.linux import inspect
from corten.views.doctor.abilities import DEGRADED, MISSING, OK, Ability, Trial
from corten.views.tables import bytes_text

_AREA = "Storage"
_SHARED = ("nfs", "nfs4", "cifs", "smb3", "9p", "lustre", "gpfs", "ceph", "beegfs", "glusterfs", "afs", "pvfs2")
_SCARCE = 1 << 30


def abilities(trials: dict[str, Trial], home: str) -> list[Ability]:
    """Kind, room, overlay, locks."""
    place = existing(home)
    kind = _kind(place)
    rows = [_sort(home, kind), _room(place)]
    overlay = trials["overlay on disk"]
    otherwise = DEGRADED if trials["overlay in memory"].worked else MISSING
    rows.append(
        Ability(_AREA, "overlay on disk", OK, overlay.words, needed=True) if overlay.worked else
        Ability(_AREA, "overlay on disk", otherwise, overlay.words,
                f"{kind} takes no writable layer: images need --writable tmpfs",
                "export CORTEN_HOME=DIR with a DIR on a local disk", True)
    )  # fmt: skip
    locks = trials["locks"]
    rows.append(
        Ability(_AREA, "locks", OK, locks.words, needed=True) if locks.worked else
        Ability(_AREA, "locks", MISSING, locks.words, "nobody can tell which containers are in use",
                "export CORTEN_HOME=DIR with a DIR on a local disk", True)
    )  # fmt: skip
    return rows


def existing(path: str) -> str:
    """The directory itself, or the nearest above that is there."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _kind(place: str) -> str:
    """The file system at a path of ours."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        number = inspect.mount_id(root, place)
    finally:
        os.close(root)
    return next((mount.kind for mount in inspect.mounts(os.getpid()) if mount.id == number), "unknown")


def _sort(home: str, kind: str) -> Ability:
    if kind in _SHARED or kind.startswith("fuse"):
        return Ability(_AREA, "file system", DEGRADED, f"{home} is on {kind}, a shared file system",
                       "machines that share it must not share one home; layers are slow or impossible",
                       "export CORTEN_HOME=DIR with a DIR on a local disk", True)  # fmt: skip
    if kind in ("tmpfs", "ramfs"):
        return Ability(_AREA, "file system", DEGRADED, f"{home} is on {kind}", "what containers write uses up memory",
                       "export CORTEN_HOME=DIR with a DIR on a disk")  # fmt: skip
    return Ability(_AREA, "file system", OK, f"{home} is on {kind}", needed=True)


def _room(place: str) -> Ability:
    about = os.statvfs(place)
    free = about.f_bavail * about.f_frsize
    if free < _SCARCE or (about.f_files and about.f_favail < 10_000):
        inodes = f", {about.f_favail} files" if about.f_files else ""
        return Ability(_AREA, "room", DEGRADED, f"{bytes_text(free)} free{inodes}", "layers and images may not fit",
                       "export CORTEN_HOME=DIR with a DIR where there is room")  # fmt: skip
    return Ability(_AREA, "room", OK, f"{bytes_text(free)} free")
