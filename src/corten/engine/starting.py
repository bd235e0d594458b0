"""`start`: the container that waits at its fifo goes on, and becomes its program."""

from __future__ import annotations

import os
import select

from corten.engine import lifecycle, oci_state
from corten.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from corten.runtime.spec import Hooks


def start(root: str, identity: str, warn: Callable[[str], None]) -> None:
    """Start a created container and wait until its program runs. warn: hear of a poststart hook that failed.

    With a NOTIFY_SOCKET, as at `create`: until the program says that it is ready, or ends.
    Errors: `NotFound`, `WrongStatus`.
    """
    path = oci_state.directory(root, identity)
    if not os.environ.get("NOTIFY_SOCKET") or not os.path.isdir(f"{path}/notify"):
        _start(root, identity, path, warn)
        return
    from corten.engine import notifying

    with notifying.Listening(path, notifying.supervisor()) as listening:
        pid, process = _held(root, identity)
        try:
            _start(root, identity, path, warn)
            listening.await_ready(pid, process)
        finally:
            os.close(process)


def _held(root: str, identity: str) -> tuple[int, int]:
    """(pid, pidfd) of the first process."""
    from corten.linux import pidfd

    pid = lifecycle.find(root, identity).allow("start").pid
    fd = pidfd.open_pid(pid)
    try:
        lifecycle.find(root, identity).allow("start")  # it is still the same process
    except BaseException:
        os.close(fd)
        raise
    return pid, fd


def _start(root: str, identity: str, path: str, warn: Callable[[str], None]) -> None:
    lock = lifecycle.lock(path)
    assert lock is not None
    try:
        found = lifecycle.find(root, identity).allow("start")
        fifo = f"{path}/exec.fifo"
        try:
            fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:  # ENXIO: nobody reads it any more
            raise Error(f"cannot start container {identity}: its first process has gone: {error.strerror}") from None
        try:
            os.write(fd, b"s")
            os.unlink(fifo)
            # The waiting process is the fifo's only reader, and closes it by the exec or by its end.
            poll = select.poll()
            poll.register(fd, 0)
            poll.poll()
        finally:
            os.close(fd)
        if "poststart" in found.state["corten"]["hooks"]:
            from corten.engine.creating import run_hooks, state_for_hooks

            told = state_for_hooks(found.state, "running")
            run_hooks(stored_hooks(path).poststart, "poststart", told, warn)
    finally:
        os.close(lock)


def stored_hooks(path: str) -> Hooks:
    """The hooks in the configuration that a container was made from."""
    from corten.json_text import loads
    from corten.runtime.spec import Hooks
    from corten.runtime.spec.decoding import decode_as

    with open(f"{path}/config.json", encoding="utf-8") as file:
        data: dict[str, Any] = loads(file.read())
    return decode_as(Hooks, data.get("hooks") or {}, "hooks")
