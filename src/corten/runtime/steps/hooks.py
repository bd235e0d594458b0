"""Hooks of the OCI specification: programs that are told the container's state, at points of its life.

Rule 1: a hook is started with exactly the environment that it was given, and with the state as its whole input.
Rule 2: what a hook prints is kept for the error, should it fail. One that takes longer than its timeout is killed,
        with its process group.
"""

from __future__ import annotations

import os
import select

from corten.errors import Error, errno_words
from corten.linux import pidfd, signals, sockets
from corten.runtime.spec.hooks import Hook
from corten.runtime.step import Stage, Step

_TOLD = 2000  # bytes of a failed hook's output that are quoted


class HookFailed(Error):
    """A hook could not be run, failed, or took too long."""


def run_hook(hook: Hook, kind: str, state: bytes) -> None:
    """Run one hook to its end. kind: such as `createRuntime`, for the error; state: the JSON for its stdin."""
    reading = os.memfd_create("state", os.MFD_CLOEXEC)
    told = os.memfd_create("told", os.MFD_CLOEXEC)
    try:
        os.write(reading, state)
        os.lseek(reading, 0, os.SEEK_SET)
        actions = [(os.POSIX_SPAWN_DUP2, reading, 0), (os.POSIX_SPAWN_DUP2, told, 1), (os.POSIX_SPAWN_DUP2, told, 2)]
        try:
            pid = os.posix_spawn(
                hook.path, hook.args or (hook.path,), dict(entry.partition("=")[::2] for entry in hook.env),
                file_actions=actions, setpgroup=0, setsigmask=(), setsigdef=(signals.PIPE, signals.XFSZ),
            )  # fmt: skip
        except OSError as error:
            raise HookFailed(f"{kind} hook {hook.path}: cannot be run: {errno_words(error.errno or 0)}") from None
        in_time = _wait(pid, hook.timeout)
        if not in_time:
            os.killpg(pid, signals.KILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if in_time and status == 0:
            return
        how = f"took longer than {hook.timeout} s" if not in_time else _ending(status)
        words = " ".join(os.pread(told, _TOLD, 0).decode(errors="replace").split())
        raise HookFailed(f"{kind} hook {hook.path}: {how}" + (f": {words}" if words else ""))
    finally:
        os.close(reading)
        os.close(told)


def _wait(pid: int, timeout: int | None) -> bool:
    if timeout is None:
        return True
    fd = pidfd.open_pid(pid)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(timeout * 1000))
    finally:
        os.close(fd)


def _ending(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"killed by {signals.name(-status)}"


class AwaitRuntimeHooks(Step):
    """Let the launcher run the hooks of the host (prestart, createRuntime), now that the namespaces exist."""

    def run(self, stage: Stage) -> None:
        assert stage.channel is not None
        sockets.send(stage.channel, b"Hooks")
        if not stage.channel.recv(16):
            os._exit(Error.exit_code)  # the launcher says why

    def describe(self) -> str:
        return "let the runtime's hooks run (prestart, createRuntime)"


class RunHook(Step):
    """Run a hook of the host's files in the container's namespaces (createContainer)."""

    hook: Hook
    kind: str

    def run(self, stage: Stage) -> None:
        run_hook(self.hook, self.kind, stage.state)

    def describe(self) -> str:
        return f"run {self.kind} hook {self.hook.path}"
