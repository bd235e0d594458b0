"""The first process of a container as its launcher sees it: the clone, the talk with it, and whom to tell of it."""

from __future__ import annotations

import gc
import os

from corten.engine import oci_state
from corten.errors import Error, InvalidInput, KernelError, errno_words
from corten.linux import clone, process, signals, sockets
from corten.records import Record
from corten.runtime import channel, joining
from corten.runtime.plan import Plan, clone_flags
from corten.runtime.step import Stage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from corten.linux.clone import Clone
    from corten.linux.signals import Mask


class Outlets(Record):
    """Where a caller wants to hear of the new process: absolute paths, "" for none."""

    pid_file: str = ""
    console_socket: str = ""
    pidfd_socket: str = ""


class Failure(Error):
    """What a child could not do. kind: the class of its error; errno: 0 if no call failed."""

    def __init__(self, kind: str, errno: int, text: str) -> None:
        self.kind, self.errno = kind, errno
        super().__init__(text)


class Process:
    """A process of ours that is or will be the program: its pid (0 once it was reaped) and pidfd; master: the other
    end of its terminal, -1 without one, and its name inside."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid, self.pidfd = pid, pidfd
        self.master, self.terminal = -1, ""

    def leave(self, word: bytes) -> None:
        """Let it go its way; it does already."""

    def end(self) -> None:
        """Kill and reap it."""
        if self.pid:
            try:
                os.kill(self.pid, signals.KILL)
            except ProcessLookupError:
                pass
            os.waitpid(self.pid, 0)
            self.pid = 0

    def announce(self, outlets: Outlets) -> None:
        """Send the terminal, the pidfd and the pid to whoever wants them. `InvalidInput`: nobody listens."""
        if self.master >= 0 and outlets.console_socket:
            send_descriptor(outlets.console_socket, "--console-socket", self.terminal.encode(), self.master)
            os.close(self.master)
            self.master = -1
        if outlets.pidfd_socket:
            send_descriptor(outlets.pidfd_socket, "--pidfd-socket", b"pidfd", self.pidfd)
        if outlets.pid_file:
            try:
                oci_state.store(outlets.pid_file, str(self.pid), 0o644)
            except OSError as error:
                raise InvalidInput(f"--pid-file {outlets.pid_file}: {errno_words(error.errno or 0)}") from None


class Child(Process):
    """One that sets itself up, and the channel to it."""

    def __init__(
        self, plan: Plan, joins: joining.Joins, stage: Stage, become: Callable[[Mask], NoReturn],
        mask: Mask | None = None,
    ) -> None:  # fmt: skip
        stage.arguments = process.argument_area()
        self.channel, stage.channel = sockets.pair(1 << 18)
        cgroup_fd = plan.group.open_v2() if plan.group else None
        now = signals.block_all()
        gc.disable()  # a collection in the child would copy pages
        try:
            made = self._clone(plan, joins, cgroup_fd)
            if made.pid == 0:
                self.channel.close()
                become(mask or now)
        finally:
            gc.enable()
            signals.restore(now)
            stage.channel.close()
            stage.close()
            if cgroup_fd is not None:
                os.close(cgroup_fd)
        super().__init__(made.pid, made.pidfd)

    def _clone(self, plan: Plan, joins: joining.Joins, cgroup_fd: int | None) -> Clone:
        flags = clone_flags(plan)
        if joins != joining.Joins():
            return joining.clone_into(joins, flags, cgroup_fd)
        try:
            return clone.clone3(flags, cgroup_fd)
        except OSError as error:
            raise KernelError("clone with new namespaces " + " ".join(plan.namespaces), error.errno or 0) from None

    def converse(self, state: bytes, on_hooks: Callable[[], None], on_listener: Callable[[int], None]) -> None:
        """Give it the state, and serve it until all but the program is done. A terminal's master end is kept.

        Errors: `Failure` with its own words.
        """
        self.channel.send(state)
        while True:
            data, descriptors = sockets.receive(self.channel)
            if not data:
                raise Error(f"the container's first process was killed while setting up ({self._how_it_ended()})")
            if data == b"Hooks":
                on_hooks()
                self.channel.send(b"done")
            elif data == b"Listener":
                on_listener(descriptors[0])
                os.close(descriptors[0])
            else:
                message = channel.decode(data)
                if isinstance(message, channel.Failed):
                    raise Failure(message.kind, message.errno, message.text)
                if isinstance(message, channel.Started):
                    return
                if isinstance(message, channel.Terminal):
                    self.master, self.terminal = descriptors[0], message.path

    def _how_it_ended(self) -> str:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return "it closed its channel"
        self.pid = 0
        code = os.waitstatus_to_exitcode(status)
        return f"exit status {code}" if code >= 0 else signals.name(-code)

    def leave(self, word: bytes) -> None:
        """Let it go its way: `parked.GO` or `parked.PARK`, and wait until it has heard: it closes the channel.

        Before that it would die with us. Errors of the exec still come, as `Failure`.
        """
        self.channel.send(word)
        data, _ = sockets.receive(self.channel)
        message = channel.decode(data) if data else None
        if isinstance(message, channel.Failed):
            raise Failure(message.kind, message.errno, message.text)


def send_descriptor(path: str, option: str, payload: bytes, fd: int) -> None:
    """Connect to a stream socket and send one message with a descriptor. `InvalidInput` naming the option."""
    from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM

    sock = sockets.Socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        sock.connect(path)
        sockets.send(sock, payload, (fd,))
    except OSError as error:
        hint = ": nobody listens there" if error.errno == 111 else ""
        raise InvalidInput(f"{option} {path}: {errno_words(error.errno or 0)}{hint}") from None
    finally:
        sock.close()


def check_terminal(terminal: bool, outlets: Outlets, detach: bool) -> None:
    """`InvalidInput` for a console socket without a terminal, or a terminal that nobody would get."""
    if outlets.console_socket and not terminal:
        raise InvalidInput("--console-socket is for a container with a terminal: set process.terminal")
    if terminal and detach and not outlets.console_socket:
        raise InvalidInput("cannot leave a terminal behind: give --console-socket, or no process.terminal")


def check_preserved(count: int) -> None:
    """`InvalidInput` for descriptors that are to be kept but are not open: ours would take their numbers."""
    for fd in range(3, 3 + count):
        try:
            os.fstat(fd)
        except OSError:
            raise InvalidInput(f"--preserve-fds: descriptor {fd} is not open") from None
