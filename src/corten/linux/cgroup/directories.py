"""The directories of groups: making them, what v2 parents hand down, and what is below.

Rule 1: making a directory of a group either gives one that can be joined, or leaves none.
"""

from __future__ import annotations

import errno
import os

from corten.errors import KernelError, NameInUse
from corten.linux.cgroup import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.linux.cgroup.group import GroupDir


def make(own: GroupDir) -> None:
    """Make a group's directory, and those above it that are missing. `NameInUse`, `KernelError`."""
    parent = os.path.dirname(own.path)
    cpuset = own.version == 1 and "cpuset" in own.controllers
    if own.enable and os.path.isdir(parent):
        enable(parent, own.enable)
    try:
        os.mkdir(own.path)
    except FileExistsError as error:
        raise NameInUse(f"control group {own.path} exists already") from error
    except FileNotFoundError:
        _make_parents(parent, own.enable, cpuset)
        os.mkdir(own.path)
    except OSError as error:
        raise KernelError(f"make control group {own.path}", error.errno or 0) from error
    if cpuset:
        inherit_cpuset(own.path)


def _make_parents(path: str, controllers: tuple[str, ...], cpuset: bool) -> None:
    above = os.path.dirname(path)
    if not os.path.isdir(above):
        _make_parents(above, controllers, cpuset)
    try:
        os.mkdir(path)
    except FileExistsError:
        return
    except OSError as error:
        raise KernelError(f"make control group {path}", error.errno or 0) from error
    if cpuset:
        inherit_cpuset(path)
    if controllers:
        enable(path, controllers)


def enable(path: str, controllers: tuple[str, ...]) -> None:
    """v2: hand controllers down to the children of `path`, from as far up as is needed."""
    file = f"{path}/cgroup.subtree_control"
    try:
        have = files.require(file).split()
        missing = [name for name in controllers if name not in have]
        if not missing:
            return
        offered = files.require(f"{path}/cgroup.controllers").split()
        above = tuple(name for name in missing if name not in offered)
        if above:
            enable(os.path.dirname(path), above)
        put(file, " ".join(f"+{name}" for name in missing).encode())
    except OSError as error:
        hint = (
            "the group has processes of its own, so it cannot have limited children"
            if error.errno == errno.EBUSY
            else ""
        )
        raise KernelError(f"enable {' '.join(controllers)} in {file}", error.errno or 0, hint) from error


def inherit_cpuset(path: str) -> None:
    """v1: a new cpuset has no CPUs and no memory nodes; nothing can join it until it and all above it have some."""
    try:
        for name in ("cpuset.cpus", "cpuset.mems"):
            _inherit(path, name)
    except OSError as error:
        os.rmdir(path)
        raise KernelError(f"copy cpuset.cpus and cpuset.mems to {path}", error.errno or 0) from error


def _inherit(path: str, name: str) -> str:
    """The value of a cpuset's file, which is filled from above where it is empty; the topmost never is."""
    value = files.require(f"{path}/{name}").strip()
    if not value:
        value = _inherit(os.path.dirname(path), name)
        put(f"{path}/{name}", value.encode())
    return value


def procs(path: str) -> list[int]:
    """The ids of the processes in a group's directory and below; none where it is gone."""
    try:
        ids = [int(pid) for pid in files.require(f"{path}/cgroup.procs").split()]
    except FileNotFoundError:
        return []
    for child in children(path):
        ids += procs(child)
    return ids


def children(path: str) -> list[str]:
    """The directories of the groups directly below a group's directory."""
    try:
        if os.stat(path).st_nlink == 2:  # kernfs counts sub-directories as links
            return []
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def put(path: str, value: bytes) -> None:
    """Write a value to a control file. `OSError`."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value)
    finally:
        os.close(fd)
