"""NOTIFY_SOCKET: that the program is ready, told to whoever supervises us, as runc does it. Source: sd_notify(3).

The container gets a socket of its own in a directory that is mounted on /run/notify. `start`, or `run`, listens there
until the program says READY or ends, and passes that on with its process id on the host.

Rule: nothing else is passed on. What is written to the socket comes from the container.
"""

from __future__ import annotations

import os
import select
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM

from corten.errors import KernelError
from corten.linux import sockets

PLACE = "/run/notify"
ADDRESS = f"{PLACE}/notify.sock"
"""In the container."""
_BARRIER_MS = 30_000
"""Milliseconds to wait for the supervisor to have taken what it was told: what systemd's own library waits too."""


def supervisor() -> str:
    """The address of whoever wants to know; empty for nobody."""
    return os.environ.get("NOTIFY_SOCKET", "")


def directory(container: str) -> str:
    """Where the socket lies on the host. container: the container's own directory."""
    return f"{container}/notify"


def make(container: str) -> None:
    """Make that directory, as users of the container can enter it."""
    os.mkdir(directory(container))
    os.chmod(directory(container), 0o755)  # noqa: S103 - users of the container must reach the socket


class Listening:
    """The container's socket, and the supervisor behind it. A context; `KernelError`."""

    def __init__(self, container: str, address: str) -> None:
        self._address = address
        self._socket = sockets.Socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
        top = os.open(directory(container), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        path = f"/proc/self/fd/{top}/notify.sock"  # the address of a socket has 107 bytes, a path may have more
        try:
            if os.path.lexists(path):  # of a `start` that was killed
                os.unlink(path)
            self._socket.bind(path)
            os.chmod(path, 0o777)  # noqa: S103 - as above
        except OSError as error:
            self._socket.close()
            raise KernelError(f"listen on {directory(container)}/notify.sock", error.errno or 0) from None
        finally:
            os.close(top)

    def fileno(self) -> int:
        """For poll."""
        return self._socket.fileno()

    def ready(self) -> bytes:
        """What the message that is there says of being ready, `READY=1`; empty if it speaks of other things."""
        lines = self._socket.recv(4096).split(b"\n")
        return next((line for line in lines if line.startswith(b"READY=")), b"")

    def tell(self, ready: bytes, pid: int, wait: bool) -> None:
        """Tell the supervisor, and who the main process is. wait: until it has taken that, before this process ends:
        afterwards it could not see whose word it was. `KernelError`.
        """
        theirs = sockets.Socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
        address = self._address
        try:
            theirs.connect("\0" + address[1:] if address[:1] == "@" else address)
            theirs.send(ready + b"\n")
            theirs.send(b"MAINPID=%d\n" % pid)
            if wait:
                _barrier(theirs)
        except OSError as error:
            raise KernelError(f"tell NOTIFY_SOCKET {address}", error.errno or 0) from None
        finally:
            theirs.close()

    def await_ready(self, pid: int, pidfd: int) -> None:
        """Wait until the process says that it is ready, and tell that; or until it has ended."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        while True:
            found = {fd for fd, _ in poll.poll()}
            if self.fileno() in found:
                if ready := self.ready():
                    self.tell(ready, pid, wait=True)
                    return
            elif pidfd in found:
                return

    def close(self) -> None:
        """Listen no longer."""
        self._socket.close()

    def __enter__(self) -> Listening:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _barrier(theirs: sockets.Socket) -> None:
    """Send the end of a pipe, which the supervisor closes once it has come to it."""
    reading, writing = os.pipe()
    try:
        try:
            sockets.send(theirs, b"BARRIER=1", (writing,))
        finally:
            os.close(writing)
        poll = select.poll()
        poll.register(reading, 0)
        poll.poll(_BARRIER_MS)
    finally:
        os.close(reading)
