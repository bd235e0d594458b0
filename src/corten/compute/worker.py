"""A container and the one process in it that works for us, from being made to being gone.

    making    the spawner makes the container            -> entering, over
    entering  a zygote forks into it                      -> ready, ending, over
    ready     it waits for a call                         -> busy, ending, over
    busy      it works on a call                          -> ready, ending, over
    ending    it was killed; the account is not here yet  -> over
    over      nothing is left of it

Rule: only the loop's thread is here.
"""

from __future__ import annotations

import os
import socket

from corten.compute.inside import wire
from corten.compute.memory_files import WorkersFiles
from corten.engine.container import DEVNULL, Container
from corten.engine.result import Result, result_of
from corten.errors import Error
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from corten.compute.call import Call
    from corten.compute.entry import Entry
    from corten.compute.loop import Loop, Timer
    from corten.compute.zygotes import Answer, Zygote
    from corten.engine.options import RunOptions
    from corten.engine.prepare import Prepared

    class Listener(Protocol):
        """Who wants to know."""

        def on_ready(self, worker: Worker) -> None: ...  # noqa: D102
        def on_message(self, worker: Worker, message: wire.Message) -> None: ...  # noqa: D102
        def on_over(self, worker: Worker) -> None: ...  # noqa: D102


_CHUNK = 1 << 16


class Kind(Record):
    """What all workers of a lane have in common. key: of the entry, for the zygote; group_files: by which the process
    joins the control groups, with the id of `prepared` in them; environment: of the process."""

    prepared: Prepared
    entry: Entry
    key: str
    group_files: tuple[str, ...]
    environment: dict[str, str]
    options: RunOptions


class Worker:
    """See the module."""

    def __init__(self, loop: Loop, number: int, kind: Kind, zygote: Zygote, listener: Listener) -> None:
        self.number, self.kind, self.zygote = number, kind, zygote
        self.state = "making"
        self.container = Container(kind.prepared)
        self.call: Call | None = None
        self.known: set[str] = set()
        self.timer: Timer | None = None
        self.served = 0
        self.throttled = 0.0
        self.trouble = ""
        self.timed_out = False
        self.retired = False
        self.memory = kind.options.memory
        self.cpus = kind.options.cpus
        self.status: int | None = None
        self._loop, self._listener = loop, listener
        self._socket: socket.socket | None = None
        self._streams: list[int] = []
        self._files = WorkersFiles()
        self.container.begin((DEVNULL, DEVNULL, DEVNULL))
        loop.watch(self.container.fileno(), self._on_report)

    # --- the container

    def _on_report(self) -> None:
        alive = self.container.advance()
        if not alive:
            self._container_over()
        elif self.state == "ending":
            self.container.kill()  # it had no pid yet when it was to end
        elif self.state == "making" and self.container.pid:
            try:
                self._enter()
            except (Error, OSError) as error:
                self.trouble = str(error)
                self.end()

    def _enter(self) -> None:
        """The container waits: have the zygote fork into it."""
        self.state = "entering"
        kind, container = self.kind, self.container
        opened: list[int] = []
        try:
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            opened.append(theirs.detach())
            opened.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
            for _ in range(2):
                reading, writing = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(reading, False)
                self._streams.append(reading)
                opened.append(writing)
            streams = opened[0], opened[1], opened[2], opened[3]
            old = kind.prepared.id
            opened += [
                os.open(path.replace(old, container.id), os.O_WRONLY | os.O_CLOEXEC) for path in kind.group_files
            ]
            spaces = tuple(container.namespaces[name] for name in kind.entry.kinds)
            self.known = set(self.zygote.functions)
            self.zygote.fork(self.number, kind.key, kind.entry, kind.environment, streams, (*spaces, *opened[4:]))
        finally:
            for fd in opened:
                os.close(fd)
            container.let_go_of_namespaces()
        self._loop.watch(self._socket.fileno(), self._on_message)
        for at, fd in enumerate(self._streams):
            self._loop.watch(fd, (self._on_stdout, self._on_stderr)[at])

    def on_answer(self, answer: Answer) -> None:
        """What the zygote says of its fork."""
        if answer.word == "refused":
            self.trouble = answer.text
            self.end()
        elif answer.word == "ended":
            self.status = int(answer.text)
            if self.state != "ending":
                self.end()

    # --- its process

    def send(self, parcel: wire.Parcel) -> None:
        """Give it something to do."""
        assert self._socket is not None
        parcel.send(self._socket, wire.DONTWAIT)

    def _on_message(self) -> None:
        assert self._socket is not None
        try:
            message = wire.receive(self._socket, wire.DONTWAIT, self._files)
        except (BlockingIOError, ConnectionResetError):
            return  # reset: it ended with something unread; what it had sent before, and its end, are read next
        except (OSError, wire.Malformed) as error:
            self.trouble = f"its process in the container broke the protocol: {error}"
            self.end()
            return
        if message is None:
            # Its status comes by way of the zygote; what else is in the container must not live on.
            self._loop.forget(self._socket.fileno())
            self.end()
        elif message.kind == b"H" and self.state == "entering":
            self.state = "ready"
            self._listener.on_ready(self)
        elif message.kind == b"!" and self.state == "entering":
            self.trouble = bytes(message.payload).decode(errors="replace")
            self.end()
        else:
            self._listener.on_message(self, message)

    def lend_file(self, call: int) -> None:
        """Give it a file for a large result, if there is one to be had."""
        assert self._socket is not None
        lent = self._files.lend()
        wire.grant(self._socket, call, lent.fd if lent else None)
        if lent:
            lent.let_go()

    def pause_reading(self, pause: bool) -> None:
        """Let what it sends wait in the socket: then it waits, too."""
        if self._socket is None:
            return
        self._loop.forget(self._socket.fileno())
        if not pause:
            self._loop.watch(self._socket.fileno(), self._on_message)

    def _on_stdout(self) -> None:
        self._read(0)

    def _on_stderr(self) -> None:
        self._read(1)

    def _read(self, at: int) -> bool:
        """Hand on what it wrote; False if there is no more for now."""
        if at >= len(self._streams) or self._streams[at] < 0:
            return False
        try:
            data = os.read(self._streams[at], _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._loop.forget(self._streams[at])
            os.close(self._streams[at])
            self._streams[at] = -1
            return False
        if self.call is not None:
            self.call.take_output(at, data)
        return True

    def drain(self) -> None:
        """Hand on all that it has written so far."""
        for at in range(2):
            while self._read(at):
                pass

    # --- the end

    def end(self) -> None:
        """Kill whatever is in the container. `on_over` follows."""
        if self.state in ("ending", "over"):
            return
        self.state = "ending"
        self.container.kill()

    def _container_over(self) -> None:
        self._loop.forget(self.container.fileno())
        for answer in self.zygote.answers():
            self.zygote.on_answer(answer)
        self.drain()
        self.state = "over"
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
        self._files.close()
        for at, fd in enumerate(self._streams):
            if fd >= 0:
                self._loop.forget(fd)
                os.close(fd)
                self._streams[at] = -1
        self._listener.on_over(self)
        self.container.close()

    def result(self, timeout: float | None = None) -> Result:
        """How it ended, of one that is over. timeout: that the call had. Raises the `corten.Error` if it never came to
        life."""
        account = self.container.account
        if account is None:
            return self.container.wait()  # raises what is known
        account = account.replace(timed_out=self.timed_out)
        if self.status is not None:
            account = account.replace(status=self.status, program_pid=2, program_name="corten:call")
        options = self.kind.options.replace(timeout=timeout, memory=self.memory)
        return result_of(account, options, self.container.not_applied)
