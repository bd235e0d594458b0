"""`delete`: what is left of a container is removed; with force, whatever state it is in."""

from __future__ import annotations

import os

from corten.engine import lifecycle, oci_state, signalling
from corten.engine.creating import remove
from corten.engine.starting import stored_hooks
from corten.errors import Error, InvalidInput, NotFound
from corten.linux import pidfd, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PATIENCE = 10.0  # seconds for a killed process to end


def delete(root: str, identity: str, force: bool, warn: Callable[[str], None]) -> None:
    """Remove a stopped or created container, with `force` any, also one that was never finished or is not there.

    Errors: `NotFound`, `WrongStatus` (without force); `Error` if its processes do not end.
    """
    path = oci_state.directory(root, identity)
    try:
        if force:
            _end(root, identity)  # before the lock: a `start` that waits for a hook holds it
        lock = lifecycle.lock(path)
    except NotFound:
        if force:
            return
        raise
    assert lock is not None
    try:
        try:
            found = lifecycle.find(root, identity)
        except (NotFound, InvalidInput):
            # A `create` that was killed before it wrote anything, or damage: there is nothing that could run.
            if not force:
                raise
            from corten.runtime.removal import remove_tree

            remove_tree(path)
            return
        if not force:
            found.allow("delete")
        _end(root, identity)
        poststop = stored_hooks(path).poststop if "poststop" in found.state["corten"]["hooks"] else ()
        remove(path, found.state, poststop, warn)
    finally:
        os.close(lock)


def _end(root: str, identity: str) -> None:
    """Kill the container's first process, or the `create` that is at work on it, and wait for the end."""
    try:
        found = lifecycle.find(root, identity)
    except InvalidInput:  # damaged, or not there: the caller looks again
        return
    launcher, start = found.state["corten"]["launcher"]
    if found.state["status"] == "creating" and oci_state.alive(launcher, start) and launcher != os.getpid():
        fd = pidfd.open_pid(launcher)
        _kill_and_wait(fd, f"the create of {identity}")
    first = signalling.open_first(found)
    if first is not None:
        group = found.group
        if found.status in ("paused", "pausing") and group:
            group.kill()  # v1: a frozen process dies only when thawed
        _kill_and_wait(first, f"the first process of {identity}")


def _kill_and_wait(fd: int, what: str) -> None:
    try:
        pidfd.send_signal(fd, signals.KILL)
        if not signalling.wait_for_end(fd, _PATIENCE):
            raise Error(f"{what} does not end, {_PATIENCE:g} s after SIGKILL: it waits in the kernel")
    finally:
        os.close(fd)
