"""The life of an OCI container: which command is allowed in which status, in one table.

    creating --create done--> created --start--> running --pause--> paused
                                 |                  |  <--resume--     |
                                 +------------------+---- its end -----+--> stopped --delete--> gone

Rule: whoever changes a container holds the lock of its directory; `state`, `list`, `kill`, `ps` only look.
"""

from __future__ import annotations

import fcntl
import os

from corten.engine import oci_state
from corten.errors import InvalidInput, NotFound
from corten.linux.cgroup.group import Group, GroupDir
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.engine.systemd_properties import Scope

# command: {status: why not}; a status that is not named allows the command. The words are those that callers of runc
# look for. `{id}` and `{status}` are filled in.
_NOT_RUNNING = "container not running"
REFUSALS: dict[str, dict[str, str]] = {
    "start": {
        "creating": "cannot start container {id}: it is still being created",
        "running": "cannot start an already running container",
        "paused": "cannot start a container in the paused state",
        "pausing": "cannot start a container in the paused state",
        "stopped": "cannot start a container that has stopped",
    },
    "kill": {"stopped": _NOT_RUNNING, "creating": _NOT_RUNNING},
    "pause": {
        "creating": _NOT_RUNNING,
        "stopped": _NOT_RUNNING,
        "paused": "container already paused",
        "pausing": "container already paused",
    },
    "resume": dict.fromkeys(("creating", "created", "running", "stopped"), "container not paused"),
    "exec": {
        "creating": "cannot exec in a container that is still being created",
        "stopped": "cannot exec in a stopped container",
        "paused": "cannot exec in a paused container (use --ignore-paused to override)",
        "pausing": "cannot exec in a paused container (use --ignore-paused to override)",
    },
    "update": {"stopped": _NOT_RUNNING, "creating": _NOT_RUNNING},
    "ps": {"stopped": _NOT_RUNNING, "creating": _NOT_RUNNING},
    "events": {"stopped": "container with id {id} is not running", "creating": _NOT_RUNNING},
    "checkpoint": dict.fromkeys(
        ("creating", "created", "stopped"), "container cannot be checkpointed in {status} state"
    ),
    "delete": dict.fromkeys(
        ("creating", "running", "paused", "pausing"), "cannot delete container {id} that is not stopped: {status}"
    ),
}


class WrongStatus(InvalidInput):
    """The container's status does not allow the command."""


def check(command: str, identity: str, status: str) -> None:
    """`WrongStatus` if a container of this status does not take the command."""
    refusal = REFUSALS[command].get(status)
    if refusal:
        raise WrongStatus(refusal.format(id=identity, status=status))


class Found(Record):
    """A container as it was found: directory, stored state, status."""

    path: str
    state: dict[str, Any]
    status: str

    @property
    def identity(self) -> str:
        """Its id."""
        return str(self.state["id"])

    @property
    def pid(self) -> int:
        """Of its first process; believe it only if the status says that it lives."""
        return int(self.state["pid"])

    @property
    def group(self) -> Group | None:
        """Its control group; None without one."""
        return group_of(self.state)

    def allow(self, command: str) -> Found:
        """Itself, or `WrongStatus`."""
        check(command, self.identity, self.status)
        return self


def find(root: str, identity: str) -> Found:
    """A container by its id. `NotFound`, `InvalidInput`."""
    path = oci_state.directory(root, identity)
    state = oci_state.read(path)
    return Found(path, state, oci_state.status(path, state))


def lock(path: str, wait: bool = True) -> int | None:
    """Lock a container's directory; the descriptor that holds the lock, None if another has it and `wait` is off.

    `NotFound` if it is gone, also if it went while we waited.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"container does not exist: {path.rpartition('/')[2]}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if not os.path.samestat(os.stat(path), os.fstat(fd)):
            raise FileNotFoundError
    except BlockingIOError:
        os.close(fd)
        return None
    except FileNotFoundError:
        os.close(fd)
        raise NotFound(f"container does not exist: {path.rpartition('/')[2]}") from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def group_of(state: dict[str, Any]) -> Group | None:
    """The control group in a stored state."""
    dirs = state["corten"]["group"]
    found = tuple(GroupDir(v, tuple(names.split(",")) if names else (), path) for v, names, path in dirs)
    return Group(found) if found else None


def scope_of(state: dict[str, Any]) -> Scope | None:
    """The systemd scope in a stored state; None without one."""
    stored = state["corten"].get("scope")
    if not stored:
        return None
    from corten.engine.systemd_properties import Scope

    return Scope(*stored)


def group_lines(group: Group | None) -> list[list[Any]]:
    """A control group as it is stored."""
    return [[own.version, ",".join(own.controllers), own.path] for own in group.dirs] if group else []
