"""Signals to a container, held by pidfd: a pid that has been reused is never signalled."""

from __future__ import annotations

import os

from corten.engine import oci_state
from corten.engine.lifecycle import Found, WrongStatus, check
from corten.linux import pidfd, signals


def kill(found: Found, number: int, everyone: bool = False) -> None:
    """Send a signal to the first process, or to everyone in the container's control group.

    Where the container shares its PID namespace, the end of its first process would not be that of the others: SIGKILL
    goes to everyone. `WrongStatus`: it does not run (which is no error for everyone).
    """
    if not everyone:
        check("kill", found.identity, found.status)
    shared = not found.state["corten"]["pid_namespace"]
    group = found.group
    if group and (everyone or (shared and number == signals.KILL)):
        if number == signals.KILL:
            group.kill()
            return
        for pid in group.procs():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        return
    fd = open_first(found)
    if fd is None:
        if everyone:
            return
        raise WrongStatus("container not running")
    try:
        if not pidfd.send_signal(fd, number) and not everyone:
            raise WrongStatus("container not running")
    finally:
        os.close(fd)


def open_first(found: Found) -> int | None:
    """A pidfd of the container's first process; None if it has ended. The start time is looked at after the opening."""
    try:
        fd = pidfd.open_pid(found.pid) if found.pid > 0 else None
    except ProcessLookupError:
        return None
    if fd is not None and not oci_state.alive(found.pid, found.state["corten"]["start"]):
        os.close(fd)
        return None
    return fd


def wait_for_end(fd: int, seconds: float) -> bool:
    """Wait until the process behind a pidfd has ended; False if it has not after so many seconds."""
    import select

    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
