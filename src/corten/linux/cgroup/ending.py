"""The slow ways out of a group: freezing, killing one by one, removing what is still busy.

Rule 1: wait for the kernel's own event where it has one (v2: cgroup.events); v1 has none, so look again every
millisecond.
Rule 2: every wait is bounded and its end is an error that says what is still there.
"""

from __future__ import annotations

import errno
import os
import select
import time

from corten.errors import KernelError, Unsupported
from corten.linux.cgroup import files
from corten.linux.cgroup.directories import children, procs, put

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.linux.cgroup.group import Group, GroupDir

_SIGKILL = 9
_POLL_S = 0.001


def set_frozen(group: Group, frozen: bool, timeout: float) -> None:
    """Freeze or thaw and wait until it is so; `KernelError` (ETIMEDOUT), and then thawed, after `timeout` seconds."""
    # v2 wherever there is one: a process that the v1 freezer holds cannot even be killed
    v2 = group.directory("cgroup")
    directory = v2 or group.directory("freezer")
    if directory is None:
        raise Unsupported("freeze: the group has neither a v1 freezer nor a v2 directory")
    deadline = time.monotonic() + timeout
    try:
        reached = (_freeze_v2 if v2 else _freeze_v1)(directory, frozen, deadline)
    except OSError as error:
        raise KernelError(f"{'freeze' if frozen else 'thaw'} control group {directory}", error.errno or 0) from error
    if not reached:
        if frozen:
            set_frozen(group, False, timeout)
        raise KernelError(f"{'freeze' if frozen else 'thaw'} control group {directory}", errno.ETIMEDOUT)


def _freeze_v2(directory: str, frozen: bool, deadline: float) -> bool:
    wanted = f"frozen {int(frozen)}"
    fd = os.open(f"{directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        put(f"{directory}/cgroup.freeze", b"1" if frozen else b"0")
        return _wait_for(fd, wanted, deadline)
    finally:
        os.close(fd)


def _wait_for(fd: int, line: str, deadline: float) -> bool:
    """Wait until an open cgroup.events has a line; False when the time is up. The kernel wakes us at each change of
    the file."""
    poll = select.poll()
    poll.register(fd, select.POLLPRI)
    while True:
        try:
            if line in os.pread(fd, 4096, 0).decode().splitlines():
                return True
        except OSError as error:
            if error.errno == errno.ENODEV:  # the group is gone
                return True
            raise
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        poll.poll(left * 1000 + 1)


def _freeze_v1(directory: str, frozen: bool, deadline: float) -> bool:
    path, wanted = f"{directory}/freezer.state", "FROZEN" if frozen else "THAWED"
    while True:
        # written again each time: a process that forks meanwhile leaves the state at FREEZING (kernel's
        # freezer-subsystem.rst)
        put(path, wanted.encode())
        if files.require(path).strip() == wanted:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)


def kill_each(group: Group, timeout: float) -> None:
    """Without cgroup.kill: freeze (so that nobody forks), SIGKILL to each, thaw; again until the group is empty."""
    deadline = time.monotonic() + timeout
    can_freeze = group.directory("freezer") is not None
    while pids := group.procs():
        if can_freeze:
            try:
                set_frozen(group, True, max(deadline - time.monotonic(), _POLL_S))
            except KernelError as error:
                if error.errno != errno.ENODEV:
                    raise
        try:
            for pid in group.procs() if can_freeze else pids:
                try:
                    os.kill(pid, _SIGKILL)
                except ProcessLookupError:
                    continue
        finally:
            if can_freeze:
                set_frozen(group, False, timeout)
        if time.monotonic() >= deadline:
            left = group.procs()
            if left:
                raise KernelError(f"kill control group {group.dirs[0].path}: {_name(left)} left", errno.ETIMEDOUT)
            return
        time.sleep(_POLL_S)


def remove_busy(busy: list[GroupDir], timeout: float) -> None:
    """Remove directories that rmdir called busy: groups below them first, then each again as its processes die."""
    deadline = time.monotonic() + timeout
    for own in busy:
        while not _remove_tree(own.path):
            if time.monotonic() >= deadline:
                left = procs(own.path)
                hint = f"{_name(left)} still in it" if left else "the kernel has not let go of it"
                raise KernelError(f"remove control group {own.path}", errno.EBUSY, hint)
            if own.version == 2:
                _wait_empty(own.path, deadline)
            else:
                time.sleep(_POLL_S)


def _remove_tree(path: str) -> bool:
    for child in children(path):
        if not _remove_tree(child):
            return False
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
            return False
        raise KernelError(f"remove control group {path}", error.errno or 0) from error
    return True


def _wait_empty(path: str, deadline: float) -> None:
    try:
        fd = os.open(f"{path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _wait_for(fd, "populated 0", deadline)
    finally:
        os.close(fd)


def _name(pids: list[int] | tuple[int, ...]) -> str:
    shown = ", ".join(map(str, pids[:5]))
    return f"{len(pids)} process{'es' if len(pids) != 1 else ''} (pid {shown}{', ...' if len(pids) > 5 else ''})"
