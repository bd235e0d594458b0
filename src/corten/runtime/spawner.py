"""The spawner: a small process with one thread that launches containers for a library in a big, threaded one.

It is started once by the process that uses the library and ends with it: at the end of file on its socket, or when
its parent has ended, it kills its containers, reaps them, undoes what their plans made, and exits. So nothing is left
behind even by `kill -9` of the library's process.

A request is one message on the control socket with the descriptors of the container's standard streams and of a socket
for its reports:
    b"new SLOT ID" and a line end, then a plan: launch this, and keep it in the slot
    b"more SLOT ID" likewise: keep it, and launch it with a new id
    b"drop": end what was made ahead, and close the socket for reports when that is gone
    b"again SLOT": launch the plan of the slot once more, with a new id
Reports are tuples:
    ("started", pid, pid inside, id) with a pidfd, ("failed", kind, errno, text), ("terminal", path) with the master
    end, ("namespaces", kinds) with a descriptor for each, ("account", Account); then the socket is closed.
Both are pickled: only this program holds the other ends. Nothing from inside a container is ever unpickled.
"""

from __future__ import annotations

import gc
import os
import pickle
import select
import time

from corten import errors
from corten.linux import pidfd, process, sockets
from corten.records import Record
from corten.runtime import channel, compile  # noqa: A004, F401 - compile knows every step, and so must we
from corten.runtime.init import may_borrow
from corten.runtime.launcher import Launch
from corten.runtime.plan import Plan
from corten.runtime.stock import IDLE_S, Kind, MountTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    OnMessage = Callable[[Record, tuple[int, ...]], None]

# A plan that does not fit into one message comes in a file of its own.
INLINE = 60000


class _Client:
    """The reports of one container to the library."""

    def __init__(self, sock: sockets.Socket) -> None:
        self.sock = sock

    def report(self, *words: Any, descriptors: tuple[int, ...] = ()) -> None:
        try:
            sockets.send(self.sock, pickle.dumps(words, pickle.HIGHEST_PROTOCOL), descriptors)
        except OSError:
            pass  # nobody listens any more; the container goes on until its process or ours ends

    def close(self) -> None:
        self.sock.close()


class Spawner:
    """The loop: requests in, containers out, each step driven by a descriptor that became ready."""

    def __init__(self, control: sockets.Socket, parent: int) -> None:
        self.control = control
        self.poll = select.poll()
        self.handlers: dict[int, Callable[[], None]] = {}
        self.launches: dict[int, Launch] = {}
        self.kinds: dict[int, Kind] = {}
        self.wanted: Kind | None = None
        self.ahead: set[int] = set()
        self.dropped: list[_Client] = []
        self.mounts = MountTable()
        self.watch(control.fileno(), self.on_request)
        self.watch(parent, self.on_parent_end)
        self.live = True

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        """Call the handler whenever the descriptor is readable."""
        self.handlers[fd] = handler
        self.poll.register(fd, select.POLLIN)

    def forget(self, fd: int) -> None:
        """Stop watching a descriptor."""
        if self.handlers.pop(fd, None):
            self.poll.unregister(fd)

    def run(self) -> None:
        """Serve until the library's process has gone and its containers with it."""
        while self.live or self.launches:
            ready = self.poll.poll(0 if self.wanted else self.patience())
            for fd, _ in ready:
                handler = self.handlers.get(fd)
                if handler:
                    handler()
            if self.wanted and not ready:
                self.make_ahead(self.wanted)
            for launch in list(self.launches.values()):
                launch.expire_if_due()
            for kind in self.kinds.values():
                if (left := kind.patience()) is not None and left <= 0:
                    kind.end()

    def patience(self) -> int | None:
        """Milliseconds until the next deadline; None without one."""
        times = [ms for launch in self.launches.values() if (ms := launch.patience()) is not None]
        times += [max(0, int(s * 1000) + 1) for kind in self.kinds.values() if (s := kind.patience()) is not None]
        return min(times, default=None)

    def on_parent_end(self) -> None:
        """The library's process has ended, or closed its end: so do we."""
        self.live = False
        self.wanted = None
        for fd in [fd for fd, handler in self.handlers.items() if handler in (self.on_request, self.on_parent_end)]:
            self.forget(fd)
        for launch in self.launches.values():
            launch.kill()

    def on_request(self) -> None:
        """Read a request and launch what it asks for."""
        data, descriptors = sockets.receive(self.control, 1 << 18)
        if not data:
            self.on_parent_end()
            return
        *stdio, reports = descriptors[:4]
        client = _Client(sockets.Socket(fileno=reports))
        try:
            head, _, data = data.partition(b"\n")
            if len(descriptors) > 4:
                with os.fdopen(descriptors[4], "rb") as file:
                    data = file.read()
            word, *given = head.decode().split()
            streams = stdio[0], stdio[1], stdio[2]
            if word in ("new", "more"):
                self.keep(int(given[0]), given[1], data)
            if word == "drop":
                self.drop(client)
            elif word in ("again", "more"):
                self.launch_again(self.kinds[int(given[0])], streams, client)
            else:
                plan: Plan = pickle.loads(data)
                self.wire(given[1], client, lambda on_message: Launch(plan, streams, on_message))
        except errors.Error as error:
            client.report("failed", type(error).__name__, getattr(error, "errno", 0), str(error))
            client.close()
        except OSError as error:
            client.report("failed", "Error", error.errno or 0, f"cannot launch: {error}")
            client.close()
        finally:
            for fd in stdio:
                os.close(fd)

    def drop(self, client: _Client) -> None:
        """End all that was made ahead; the client hears the end of its socket when nothing of it is left."""
        self.dropped.append(client)
        self.wanted = None
        for kind in self.kinds.values():
            kind.end()
        self.tell_dropped()

    def tell_dropped(self) -> None:
        """Let those go who wait for what was made ahead to be gone, if it is."""
        if not self.ahead:
            while self.dropped:
                self.dropped.pop().close()

    def keep(self, slot: int, identity: str, data: bytes) -> None:
        """Keep a plan for more containers like it."""
        if slot in self.kinds:
            self.kinds[slot].end()
        self.kinds[slot] = Kind(data, identity)

    def launch_again(self, kind: Kind, stdio: tuple[int, int, int], client: _Client) -> None:
        """Launch another container of a kind: the one made ahead, or a new one."""
        if self.mounts.changed():
            for other in self.kinds.values():
                other.end()
        now = time.monotonic()
        again, kind.asked = now - kind.asked < IDLE_S, now
        launch = self._call(kind, stdio, client)
        if launch is None:
            identity, plan = kind.plan()
            launch = self.wire(identity, client, lambda on_message: Launch(plan, stdio, on_message))
        if again and launch.plan.ahead and self.live and not may_borrow(launch.plan):
            self.wanted = kind

    def _call(self, kind: Kind, stdio: tuple[int, int, int], client: _Client) -> Launch | None:
        """Let the one made ahead go on for somebody; None if there is none, or it has ended meanwhile."""
        taken = kind.take()
        if taken is None:
            return None
        identity, launch = taken

        self.ahead.discard(launch.pidfd)

        def call(on_message: OnMessage) -> Launch:
            launch.call(stdio, on_message)
            return launch

        try:
            return self.wire(identity, client, call)
        except OSError:
            launch.kill()
            return None

    def make_ahead(self, kind: Kind) -> None:
        """Make the next container of a kind, up to where it is needed who wants it."""
        self.wanted = None
        # A kind whose slot has been given to another meanwhile is nobody's: nobody would end what is made of it.
        if kind.ready is not None or kind not in self.kinds.values():
            return
        identity, plan = kind.plan()
        try:
            launch = Launch(plan, None, lambda _message, _descriptors: None)
        except (errors.Error, OSError):
            return  # whoever asks next will be told
        self.launches[launch.pidfd] = launch
        self.ahead.add(launch.pidfd)
        kind.ready, kind.since = (identity, launch), time.monotonic()

        def on_end() -> None:
            if kind.ready and kind.ready[1] is launch:
                kind.take()
            self.forget(launch.pidfd)
            del self.launches[launch.pidfd]
            self.ahead.discard(launch.pidfd)
            launch.discard()
            self.tell_dropped()

        self.watch(launch.pidfd, on_end)

    def wire(self, identity: str, client: _Client, begin: Callable[[OnMessage], Launch]) -> Launch:
        """Begin a launch with its events wired to reports."""
        made: list[Launch] = []

        def on_message(message: Record, descriptors: tuple[int, ...]) -> None:
            if isinstance(message, channel.Started):
                client.report("started", made[0].pid, message.pid, identity, descriptors=(made[0].pidfd,))
            elif isinstance(message, channel.Failed):
                client.report("failed", message.kind, message.errno, message.text)
            elif isinstance(message, channel.Terminal):
                client.report("terminal", message.path, descriptors=descriptors)
            elif isinstance(message, channel.Namespaces):
                client.report("namespaces", message.kinds, descriptors=descriptors)
            for fd in descriptors:
                os.close(fd)

        def on_channel() -> None:
            if not launch.read_channel():
                self.forget(launch.channel.fileno())

        def on_end() -> None:
            self.forget(launch.channel.fileno())
            self.forget(launch.pidfd)
            del self.launches[launch.pidfd]
            launch.settle(lambda account: client.report("account", account))
            client.close()

        launch = begin(on_message)
        made.append(launch)
        self.launches[launch.pidfd] = launch
        self.watch(launch.channel.fileno(), on_channel)
        self.watch(launch.pidfd, on_end)
        return launch


def main(control: int, parent: int) -> None:
    """Serve the library's process `parent` on the socket behind the descriptor `control`."""
    process.set_name("corten:spawner")
    try:
        watched = pidfd.open_pid(parent)
    except ProcessLookupError:  # it was killed while we were started
        return
    process.close_all_but((control, watched))
    gc.collect()
    gc.freeze()
    if os.getppid() == parent:  # otherwise it has ended before we could watch it
        Spawner(sockets.adopt(control), watched).run()
