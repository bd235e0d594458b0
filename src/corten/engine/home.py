"""Where Corten keeps what must outlive a process, and what a killed one left there.

    CORTEN_HOME, or /var/lib/corten for root, $XDG_DATA_HOME/corten (~/.local/share/corten) for others:
      containers/ID/   one directory for each live container, with its writable layer; locked by its launcher
      groups/KEY       where control groups of containers lie: one small file for each place that was ever used
      names/NAME       the id of the container of that name; locked by its launcher
      filters/         compiled system call filters
      and what images/ keeps there

Rule: in use means locked; a lock dies with its holder. So what nobody holds can be swept, by anybody, at any time.
"""

from __future__ import annotations

import fcntl
import os

from corten import output
from corten.errors import Error
from corten.linux.cgroup.group import Group, GroupDir
from corten.linux.locks import claim_left
from corten.runtime.removal import remove_all


def path() -> str:
    """Where the home directory is; it may not be there yet."""
    where = os.environ.get("CORTEN_HOME")
    if not where:
        if os.geteuid() == 0:
            where = "/var/lib/corten"
        else:
            own = os.path.expanduser("~")
            data = os.environ.get("XDG_DATA_HOME") or os.path.join(own, ".local/share")
            if not data.startswith("/"):
                remedy = "set HOME, or CORTEN_HOME to a directory of yours"
                raise Error(f"no home directory: {data} is not absolute: {remedy}")
            where = os.path.join(data, "corten")
    return os.path.abspath(where)


def directory() -> str:
    """The home directory, made if missing."""
    where = path()
    try:
        os.makedirs(where, 0o755, exist_ok=True)
    except OSError as error:
        raise Error(f"cannot make {where}: {error.strerror}: set CORTEN_HOME to a directory of yours") from None
    if not os.access(where, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        raise Error(f"{where} cannot be written to by this user: set CORTEN_HOME to a directory of yours")
    return where


def group_name(identity: str) -> str:
    """The last component of the path of a container's control group."""
    return f"corten-{identity}"


def places(home: str, group: Group | None) -> tuple[str, tuple[str, ...]]:
    """(file, lines) of the note that lets a sweeper find this group, and all others made in the same place."""
    if group is None:
        return "", ()
    lines = tuple(
        f"{own.version} {','.join(own.controllers) or '-'} {os.path.dirname(own.path)}" for own in group.dirs
    )
    import binascii

    return f"{home}/groups/{binascii.crc32(' '.join(lines).encode()):08x}", lines


def groups_of(home: str, identity: str) -> list[Group]:
    """The control groups that a container may have left, by the notes of where containers had theirs."""
    found = []
    try:
        notes = os.listdir(f"{home}/groups")
    except FileNotFoundError:
        return []
    for note in notes:
        dirs = []
        with open(f"{home}/groups/{note}") as file:
            for line in file:
                version, controllers, parent = line.rstrip("\n").split(" ", 2)
                path = f"{parent}/{group_name(identity)}"
                if os.path.isdir(path):
                    served = () if controllers == "-" else tuple(controllers.split(","))
                    dirs.append(GroupDir(int(version), served, path))
        if dirs:
            found.append(Group(tuple(dirs)))
    return found


def sweep(home: str) -> int:
    """Remove what launchers that were killed have left; the number of containers swept.

    Ends processes only in control groups named after a container whose launcher is dead. Does nothing while another
    process sweeps: one is enough.
    """
    try:
        mutex = os.open(f"{home}/containers", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        try:
            fcntl.flock(mutex, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        swept = sum(_sweep_container(home, name) for name in os.listdir(mutex))
        _sweep_names(f"{home}/names")
        return swept
    finally:
        os.close(mutex)


_swept: set[str] = set()


def sweep_once() -> None:
    """Sweep the home directory, once in a process: what others left behind does not grow meanwhile by our doing."""
    place = directory()
    if place not in _swept:
        _swept.add(place)
        sweep(place)


def _sweep_container(home: str, identity: str) -> int:
    path = f"{home}/containers/{identity}"
    fd = claim_left(path)
    if fd is None:
        return 0
    try:
        for group in groups_of(home, identity):
            if group.procs():
                group.kill()
            group.remove()
        remove_all(path)
        return 1
    except (OSError, Error, ValueError) as error:
        output.remark(f"corten: cannot sweep what a killed container left in {path}: {error}")
        return 0
    finally:
        os.close(fd)


def _sweep_names(names: str) -> None:
    try:
        found = os.listdir(names)
    except FileNotFoundError:
        return
    for name in found:
        fd = claim_left(f"{names}/{name}")
        if fd is not None:
            os.unlink(f"{names}/{name}")
            os.close(fd)
