"""Messages between a caller and the process in a container that works for it: one datagram, at most a few descriptors.

Rule 1: a message is a header, a payload (pickled), and buffers that the pickle refers to (protocol 5, out of band).
Rule 2: what is small travels in the datagram. What is big lies in a file in memory that nobody can change any more when
        it is sent (`files`), so the receiver can map it without a copy.
Rule 3: a receiver believes nothing: sizes are checked against the file, and a file that could still change is refused.
"""

from __future__ import annotations

import mmap
import pickle
import socket
import struct

from . import files as memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Union

    Bytes = Union[bytes, memoryview]  # noqa: UP007

INLINE = 1 << 15
"""Bytes of payload and buffers that still go into the datagram."""
OUT_OF_BAND = 1 << 14
"""Bytes from which on a buffer is kept out of the pickle."""
MAX_DATAGRAM = 1 << 16
_MAX_FILES = 16
_MAX_BUFFERS = 1000
_HEADER = struct.Struct("<cBHIQ")  # kind, whether its file is one that was granted, number of buffers, call, payload
_PLACE = struct.Struct("<IxxxxQQ")  # index of the file, offset, size
_PAGE = mmap.PAGESIZE
_INLINE_FILE = 0xFFFFFFFF
_MEMFDS = memory.Store()
_NOSIGNAL = int(socket.MSG_NOSIGNAL)  # not as the enum, whose arithmetic costs more than the rest of sending
DONTWAIT = int(socket.MSG_DONTWAIT)


class Malformed(Exception):
    """The other end sent something that is not a message."""


class Message:
    """A message that has arrived. buffers: read-only; payload: pickled."""

    __slots__ = ("buffers", "call", "kind", "payload")

    def __init__(self, kind: bytes, call: int, payload: Bytes, buffers: list[Bytes]) -> None:
        self.kind, self.call, self.payload, self.buffers = kind, call, payload, buffers

    @property
    def size(self) -> int:
        """Bytes of payload and buffers."""
        return len(self.payload) + sum(len(buffer) for buffer in self.buffers)

    def forget(self) -> None:
        """Its contents are no longer wanted."""
        self.payload, self.buffers = b"", []


# --- sending


def dump(value: Any, dumps: Callable[..., bytes]) -> tuple[bytes, list[memoryview]]:
    """A value pickled, and its big buffers apart. dumps: `pickle.dumps`, or cloudpickle's."""
    buffers: list[memoryview] = []

    def apart(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < OUT_OF_BAND or len(buffers) >= _MAX_BUFFERS:
            return True
        buffers.append(raw)
        return False

    payload = dumps(value, protocol=5, buffer_callback=apart)
    return payload, buffers


class Parcel:
    """A message that is packed: the datagram, and descriptors to send with it. `close` when it has been sent."""

    def __init__(
        self, kind: bytes, call: int, payload: Bytes, buffers: Sequence[memoryview] = (), store: memory.Store = _MEMFDS
    ) -> None:
        self.files: list[int] = []
        self._own: memory.Memfd | None = None
        size = len(payload)
        if not buffers and size <= INLINE:
            self.data = _HEADER.pack(kind, 0, 0, call, size) + payload
            return
        if size + sum(buffer.nbytes for buffer in buffers) <= INLINE:
            places = [(_INLINE_FILE, 0, buffer.nbytes) for buffer in buffers]
            self.data = _head(kind, False, call, size, places) + bytes(payload) + b"".join(buffers)
            return
        try:
            places = self._write(payload, buffers, store)
        except BaseException:
            self.close()
            raise
        assert self._own is not None
        self.data = _head(kind, self._own.granted, call, size, places)

    def _write(
        self, payload: Bytes, buffers: Sequence[memoryview], store: memory.Store
    ) -> list[tuple[int, int, int]]:
        """Into a file of its own, but for what lies in one that can be sent; where each buffer is."""
        places: list[tuple[int, int, int]] = []
        copies: list[tuple[memoryview, int]] = [(memoryview(payload), 0)]
        others: dict[int, int] = {}
        end = len(payload)
        for buffer in buffers:
            origin = memory.origin(buffer)
            if origin and (origin[0] in others or (len(others) < _MAX_FILES - 1 and store.passes_on(origin[0]))):
                fd, offset = origin
                if fd not in others:
                    # Of our own: the mapping may be gone before this is sent.
                    self.files.append(memory.duplicate(fd))
                    others[fd] = len(self.files)
                places.append((others[fd], offset, buffer.nbytes))
            else:
                end = -(-end // _PAGE) * _PAGE
                copies.append((buffer, end))
                places.append((0, end, buffer.nbytes))
                end += buffer.nbytes
        self._own = store.make(end)
        for data, offset in copies:
            self._own.write(data, offset)
        self._own.finish()
        return places

    def send(self, sock: socket.socket, flags: int = 0) -> None:
        """Send it; `BlockingIOError` where the socket is full and does not wait."""
        own = [self._own.fd] if self._own is not None and not self._own.granted else []
        send_with(sock, self.data, [*own, *self.files], flags)

    def close(self) -> None:
        """Let go of its files."""
        if self._own is not None:
            self._own.close()
            self._own = None
        while self.files:
            memory.close(self.files.pop())


def _head(kind: bytes, granted: bool, call: int, size: int, places: list[tuple[int, int, int]]) -> bytes:
    return _HEADER.pack(kind, granted, len(places), call, size) + b"".join(_PLACE.pack(*place) for place in places)


def send_with(sock: socket.socket, data: bytes, files: Sequence[int], flags: int = 0) -> None:
    """Send a datagram and descriptors with it."""
    if not files:
        sock.send(data, flags | _NOSIGNAL)
        return
    rights = struct.pack(f"{len(files)}i", *files)
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], flags | _NOSIGNAL)


def send(
    sock: socket.socket, kind: bytes, call: int, payload: Bytes, buffers: Sequence[memoryview] = (),
    store: memory.Store = _MEMFDS,
) -> None:  # fmt: skip
    """Pack and send a message."""
    parcel = Parcel(kind, call, payload, buffers, store)
    try:
        parcel.send(sock)
    finally:
        parcel.close()


def grant(sock: socket.socket, call: int, fd: int | None) -> None:
    """Give the other end the file that it asked for, or none."""
    send_with(sock, _HEADER.pack(b"G", 0, 0, call, 0), [] if fd is None else [fd], DONTWAIT)


# --- receiving


def receive_with(sock: socket.socket, flags: int = 0) -> tuple[bytes, list[int]]:
    """A datagram, and the descriptors that came with it; nothing at the end of file."""
    data, ancillary, _, _ = sock.recvmsg(MAX_DATAGRAM, socket.CMSG_SPACE(4 * _MAX_FILES), flags | 0x40000000)  # CLOEXEC
    files: list[int] = []
    for level, kind, rights in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            files += struct.unpack(f"{len(rights) // 4}i", rights[: len(rights) // 4 * 4])
    return data, files


def receive(sock: socket.socket, flags: int = 0, store: memory.Store = _MEMFDS) -> Message | None:
    """The next message; None at the end of file. Raises `Malformed`."""
    data, files = receive_with(sock, flags)
    try:
        if not data:
            return None
        if len(data) < _HEADER.size:
            raise Malformed("a message without a header")
        kind, granted, count, call, size = _HEADER.unpack_from(data)
        if not count and not files and not granted:
            if size != len(data) - _HEADER.size:
                raise Malformed("the size of a message is wrong")
            return Message(kind, call, data[_HEADER.size :], [])
        if granted:
            try:
                files.insert(0, store.granted())
            except OSError as error:
                raise Malformed(f"a file that it was not granted, or that can still change: {error}") from None
        return _unpack(data, kind, count, call, size, files, store)
    finally:
        for fd in files:
            memory.close(fd)


def _unpack(
    data: bytes, kind: bytes, count: int, call: int, size: int, files: list[int], store: memory.Store
) -> Message:
    """files: those that are used are taken out of the list."""
    places_end = _HEADER.size + count * _PLACE.size
    if count > _MAX_BUFFERS or len(data) < places_end:
        raise Malformed("a message is cut off")
    places = [_PLACE.unpack_from(data, _HEADER.size + at * _PLACE.size) for at in range(count)]
    views: list[memoryview] = []
    while files:
        view = memory.map_checked(files.pop(0), store)
        if view is None:
            raise Malformed("a file of a message is not sealed")
        views.append(view)
    rest = memoryview(data)[places_end:]
    if views:
        payload: Bytes = views[0][:size]
    else:
        payload, rest = rest[:size], rest[size:]
    buffers: list[Bytes] = []
    for index, offset, length in places:
        if index == _INLINE_FILE:
            buffer, rest = rest[:length], rest[length:]
        elif index < len(views):
            buffer = views[index][offset : offset + length]
        else:
            raise Malformed("a buffer of a message has no file")
        if len(buffer) != length:
            raise Malformed("a buffer of a message is cut off")
        buffers.append(buffer)
    if len(payload) != size:
        raise Malformed("the payload of a message is cut off")
    return Message(kind, call, payload, buffers)
