"""Where Corten keeps what must outlive a process, and what a killed one left there.

    CORTEN_HOME, or /var/lib/corten for root, $XDG_DATA_HOME/corten (~/.local/share/corten) for others:
      containers/ID/   one directory for each live container: `record`, the writable layer; locked by its launcher
      names/NAME       locked by the launcher of the container of that name
      filters/         compiled system call filters
      and what images/ keeps there

Rule: in use means locked; a lock dies with its holder. So what nobody holds can be swept, by anybody, at any time.
"""

from __future__ import annotations

import os

from corten.errors import Error
from corten.linux.cgroup.group import Group, GroupDir
from corten.runtime.removal import remove_all
from corten.runtime.steps.layer import claim


def directory() -> str:
    """The home directory, made if missing."""
    path = os.environ.get("CORTEN_HOME")
    if not path:
        if os.geteuid() == 0:
            path = "/var/lib/corten"
        else:
            data = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local/share")
            path = os.path.join(data, "corten")
    path = os.path.abspath(path)
    try:
        os.makedirs(path, 0o755, exist_ok=True)
    except OSError as error:
        raise Error(f"cannot make {path}: {error.strerror}: set CORTEN_HOME to a directory of yours") from None
    return path


def record_lines(name: str | None, group: Group | None) -> tuple[str, ...]:
    """What a sweeper needs to know of a container, for its `record`."""
    lines = [f"name {name}"] if name else []
    if group:
        lines += [f"group {own.version} {','.join(own.controllers) or '-'} {own.path}" for own in group.dirs]
    return tuple(lines)


def _group_of(record: str) -> Group | None:
    dirs = []
    for line in record.splitlines():
        key, _, rest = line.partition(" ")
        if key == "group":
            version, controllers, path = rest.split(" ", 2)
            dirs.append(GroupDir(int(version), () if controllers == "-" else tuple(controllers.split(",")), path))
    return Group(tuple(dirs)) if dirs else None


def sweep(home: str) -> int:
    """Remove what launchers that were killed have left; the number of containers swept.

    Ends processes only in control groups named in a record whose launcher is dead.
    """
    containers = f"{home}/containers"
    swept = 0
    try:
        names = os.listdir(containers)
    except FileNotFoundError:
        return 0
    for name in names:
        path = f"{containers}/{name}"
        try:
            fd = claim(path, directory=True, make=False)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if fd is None:
            continue
        try:
            try:
                with open(f"{path}/record") as file:
                    group = _group_of(file.read())
            except FileNotFoundError:
                group = None
            if group:
                if group.procs():
                    group.kill()
                group.remove()
            remove_all(path)
            swept += 1
        except (OSError, Error, ValueError) as error:
            os.write(2, f"corten: cannot sweep what a killed container left in {path}: {error}\n".encode())
        finally:
            os.close(fd)
    return swept
