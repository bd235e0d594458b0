"""What a process in a container does with files of messages: it believes its caller's, and asks the caller for one that
lies in huge pages when a result is large. Those cost a tenth of a memfd's, and only the caller may make them.

    out: "W" bytes that are wanted      in: "G", and the file's descriptor, or none: then a memfd has to do

The file is ours alone, is charged to us, and is frozen by the caller when it hears that we have written it: so it has
to be closed before that.
"""

from __future__ import annotations

import os
import socket
import struct

from . import files, wire

LARGE = 4 << 20
"""Bytes of a result from which on it is worth to ask."""
SIZE = struct.Struct("<Q")


class Granted(files.Memfd):
    """A file that the caller made for one message."""

    granted = True

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def write(self, data: memoryview, offset: int) -> None:
        """Copy into the file."""
        files.write_at(self.fd, data, offset)

    def finish(self) -> None:
        """We cannot change it any more, and the caller can freeze it."""
        self.close()


class CallersFiles(files.Store):
    """See the module. sock: to the caller."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._current: set[int] = set()
        self.call = 0

    def begin(self) -> None:
        """Another message will come, and the caller need not know the files of the one before any more."""
        self._current.clear()

    def believes(self, fd: int) -> bool:
        """It is the caller's."""
        self._current.add(files.device(fd))
        return True

    def passes_on(self, fd: int) -> bool:
        """It is sealed, or the caller has sent it with this very call."""
        return files.device(fd) in self._current or files.is_sealed(fd)

    def make(self, size: int) -> files.Memfd:
        """For a result."""
        if size < LARGE:
            return files.Memfd()
        wire.send(self._sock, b"W", self.call, SIZE.pack(size))
        data, found = wire.receive_with(self._sock)
        if not data:
            os._exit(0)  # the caller has gone
        return Granted(found[0]) if found else files.Memfd()
