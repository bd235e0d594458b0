"""A clone whose child lives in namespaces of others: by way of a process that joins them and then makes the child.

Why a process between: who has joined a user, mount or PID namespace cannot come back, and the launcher has still to run
hooks and write files on the host. The child is made with CLONE_PARENT, so the launcher is its parent all the same.
Rule: whatever is in those namespaces is not trusted. The process between is not dumpable before it joins
(CVE-2016-9962), and nothing is imported from then on.
"""

from __future__ import annotations

import os

from corten.errors import Error, KernelError
from corten.linux import clone, pidfd, process, sockets, syscalls
from corten.linux.clone import Clone
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CLONE_PARENT = 0x8000
_NEW_PID = clone.NAMESPACES["pid"][0]


class Joins(Record):
    """Namespaces to join. opened: (kind, descriptor); of: descriptor of a process whose namespaces `kinds` are joined
    in one call, -1 for none; before: what the process between does first, as ourselves (`corten.Error` if it fails)."""

    opened: tuple[tuple[str, int], ...] = ()
    of: int = -1
    kinds: tuple[str, ...] = ()
    before: Callable[[], None] | None = None


def clone_into(joins: Joins, flags: int, cgroup_fd: int | None = None) -> Clone:
    """Clone into existing namespaces and, by `flags`, new ones; in the child the pid is 0, as from `clone3`.

    Errors: `KernelError` naming the namespace.
    """
    ours, theirs = sockets.pair()
    between = clone.clone3(0)
    if between.pid == 0:
        try:
            ours.close()
            if joins.before is not None:
                joins.before()
            process.set_dumpable(False)
            if cgroup_fd is not None and "cgroup" in (*joins.kinds, *(kind for kind, _ in joins.opened)):
                _join_group(cgroup_fd)
                cgroup_fd = None
            _join(joins)
            if flags & _NEW_PID and any(kind == "pid" for kind, _ in joins.opened):
                # A PID namespace below the joined one can be made only by a process that is in that (clone(2), EINVAL).
                further = clone.clone3(_CLONE_PARENT)
                if further.pid != 0:
                    sockets.send(theirs, b"between", (further.pidfd,))
                    os._exit(0)
            made = clone.clone3(flags | _CLONE_PARENT, cgroup_fd)
            if made.pid == 0:
                theirs.close()  # the launcher hears the end once all of us have let go of it
                return made
            sockets.send(theirs, b"made", (made.pidfd,))
            os._exit(0)
        except KernelError as error:
            sockets.send(theirs, f"!{error.errno} {error.step}".encode())
        except Error as error:
            sockets.send(theirs, f"!0 {error}".encode())
        except OSError as error:
            kinds = " ".join(kind for kind, (flag, _) in clone.NAMESPACES.items() if flags & flag)
            sockets.send(theirs, f"!{error.errno} clone with new namespaces {kinds or 'none'}".encode())
        os._exit(Error.exit_code)
    theirs.close()
    os.close(between.pidfd)
    said = _hear(ours)
    ours.close()
    os.waitpid(between.pid, 0)
    if "between" in said:
        os.waitpid(pidfd.pid_of(said["between"]), 0)
        os.close(said["between"])
    if "made" not in said:
        raise KernelError(*next(((what, number) for what, number in said.items() if what != "between"), ("clone", 0)))
    # By descriptor, for the number that the process between knows may be one of another PID namespace.
    return Clone(pidfd.pid_of(said["made"]), said["made"])


def _hear(sock: sockets.Socket) -> dict[str, int]:
    """All that the processes between say, in whichever order: `between` and `made` with a pidfd, or else what failed
    with its errno."""
    said: dict[str, int] = {}
    while True:
        data, descriptors = sockets.receive(sock)
        if not data:
            return said
        if data[:1] == b"!":
            number, _, what = data[1:].decode(errors="replace").partition(" ")
            said[what or "join namespaces"] = int(number or 0)
        else:
            said[data.decode()] = descriptors[0]


def _join_group(directory: int) -> None:
    """Go into a v2 group, which the child inherits. From within another's cgroup namespace CLONE_INTO_CGROUP would be
    refused (ENOENT): with the mount option nsdelegate only who is below the namespace's root already may move."""
    try:
        fd = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
        try:
            os.write(fd, b"0")
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError("join the control group", error.errno or 0) from None


def _join(joins: Joins) -> None:
    """First all but `user` with the rights that we have, then `user`, then with its rights what is left."""
    if joins.of >= 0 and joins.kinds:
        try:
            syscalls.call("setns", joins.of, clone.flags_of(joins.kinds))
        except OSError as error:
            raise KernelError(f"join the {' '.join(joins.kinds)} namespaces", error.errno or 0) from None
    left = []
    mount_last = sorted(joins.opened, key=lambda one: one[0] == "mount")
    for kind, fd in mount_last:
        if kind == "user":
            continue
        try:
            clone.join(fd, kind)
        except PermissionError:
            left.append((kind, fd))
        except OSError as error:
            raise KernelError(f"join the {kind} namespace", error.errno or 0) from None
    for kind, fd in [*(one for one in joins.opened if one[0] == "user"), *left]:
        try:
            clone.join(fd, kind)
        except OSError as error:
            raise KernelError(f"join the {kind} namespace", error.errno or 0) from None
