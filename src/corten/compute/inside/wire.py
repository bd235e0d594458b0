"""Messages between a caller and the process in a container that works for it: one datagram, at most a few descriptors.

Rule 1: a message is a header, a payload (pickled), and buffers that the pickle refers to (protocol 5, out of band).
Rule 2: what is small travels in the datagram. What is big lies in a memfd that is sealed against every change before it
        is sent, so the receiver can map it without a copy, and can trust that it stays as it is.
Rule 3: a buffer that came in a sealed file and goes out again is not copied: its file is sent once more.
Rule 4: a receiver believes nothing: sizes are checked against the file, and a file without its seals is refused.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import pickle
import socket
import struct
import weakref

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
_HEADER = struct.Struct("<cxHIQ")  # kind, number of buffers, call, size of the payload
_PLACE = struct.Struct("<IxxxxQQ")  # index of the file, offset, size
_PAGE = mmap.PAGESIZE
_ADD_SEALS, _GET_SEALS = 1033, 1034
_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # F_SEAL_SEAL, SHRINK, GROW, WRITE
_INLINE_FILE = 0xFFFFFFFF
_PARALLEL = 64 << 20


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


# --- files in memory, and where what came from them lies

_mapped: dict[int, tuple[int, int]] = {}
"""Address of a mapping: (its length, descriptor of its file)."""


def _address(view: memoryview) -> int:
    import ctypes

    # A read-only buffer has no address for ctypes; this is the C structure that every buffer fills.
    raw = (ctypes.c_ssize_t * 16)()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), raw, 0)
    address = raw[0]
    ctypes.pythonapi.PyBuffer_Release(raw)
    return address


def _forget(address: int, fd: int) -> None:
    _mapped.pop(address, None)
    os.close(fd)


def _map(fd: int, size: int) -> memoryview:
    """A sealed file as read-only memory. Takes the descriptor."""
    mapping = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
    view = memoryview(mapping)
    address = _address(view)
    _mapped[address] = (size, fd)
    weakref.finalize(mapping, _forget, address, fd).atexit = False
    return view


def _origin(buffer: memoryview) -> tuple[int, int] | None:
    """(descriptor of the file, offset) of memory that lies in a mapping of ours; None for any other."""
    if not _mapped:
        return None
    address = _address(buffer)
    for start, (length, fd) in list(_mapped.items()):
        if start <= address and address + buffer.nbytes <= start + length:
            return fd, address - start
    return None


def _write_at(fd: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(fd, data[: 1 << 30], offset)
        data, offset = data[written:], offset + written


def _fill(fd: int, data: memoryview, offset: int) -> None:
    """Copy into the file; with a second thread where that is worth it (pwrite(2) lets go of the interpreter's lock)."""
    if data.nbytes < _PARALLEL:
        _write_at(fd, data, offset)
        return
    import threading

    half = data.nbytes // 2 // _PAGE * _PAGE
    failed: list[OSError] = []

    def first() -> None:
        try:
            _write_at(fd, data[:half], offset)
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    try:
        _write_at(fd, data[half:], offset + half)
    finally:
        thread.join()
    if failed:
        raise failed[0]


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

    def __init__(self, kind: bytes, call: int, payload: Bytes, buffers: Sequence[memoryview] = ()) -> None:
        self.files: list[int] = []
        self._own = -1
        size = len(payload)
        if not buffers and size <= INLINE:
            self.data = _HEADER.pack(kind, 0, call, size) + payload
            return
        total = size + sum(buffer.nbytes for buffer in buffers)
        inline = total <= INLINE
        places = []
        try:
            if not inline:
                self._own = os.memfd_create("corten-message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
                self.files.append(self._own)
                _write_at(self._own, memoryview(payload), 0)
            end = size
            for buffer in buffers:
                origin = None if inline or len(self.files) >= _MAX_FILES else _origin(buffer)
                if inline:
                    places.append((_INLINE_FILE, 0, buffer.nbytes))
                elif origin:
                    fd, offset = origin
                    if fd not in self.files:
                        self.files.append(fd)
                    places.append((self.files.index(fd), offset, buffer.nbytes))
                else:
                    end = -(-end // _PAGE) * _PAGE
                    _fill(self._own, buffer, end)
                    places.append((0, end, buffer.nbytes))
                    end += buffer.nbytes
            if not inline:
                fcntl.fcntl(self._own, _ADD_SEALS, _SEALS)
        except BaseException:
            self.close()
            raise
        self.data = _HEADER.pack(kind, len(buffers), call, size) + b"".join(_PLACE.pack(*place) for place in places)
        if inline:
            self.data += bytes(payload) + b"".join(buffers)

    def send(self, sock: socket.socket, flags: int = 0) -> None:
        """Send it; `BlockingIOError` where the socket is full and does not wait."""
        rights = struct.pack(f"{len(self.files)}i", *self.files)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
        sock.sendmsg([self.data], ancillary, flags | socket.MSG_NOSIGNAL)

    def close(self) -> None:
        """Let go of the file that was made for it (others belong to their mappings)."""
        if self._own >= 0:
            os.close(self._own)
            self._own = -1


def send(sock: socket.socket, kind: bytes, call: int, payload: Bytes, buffers: Sequence[memoryview] = ()) -> None:
    """Pack and send a message."""
    parcel = Parcel(kind, call, payload, buffers)
    try:
        parcel.send(sock)
    finally:
        parcel.close()


# --- receiving


def receive(sock: socket.socket, flags: int = 0) -> Message | None:
    """The next message; None at the end of file. Raises `Malformed`."""
    data, ancillary, _, _ = sock.recvmsg(MAX_DATAGRAM, socket.CMSG_SPACE(4 * _MAX_FILES), flags | 0x40000000)  # CLOEXEC
    files: list[int] = []
    for level, kind_, rights in ancillary:
        if level == socket.SOL_SOCKET and kind_ == socket.SCM_RIGHTS:
            files += struct.unpack(f"{len(rights) // 4}i", rights[: len(rights) // 4 * 4])
    if not data:
        for fd in files:
            os.close(fd)
        return None
    if len(data) < _HEADER.size:
        for fd in files:
            os.close(fd)
        raise Malformed("a message without a header")
    kind, count, call, size = _HEADER.unpack_from(data)
    if not count and not files:
        if size != len(data) - _HEADER.size:
            raise Malformed("the size of a message is wrong")
        return Message(kind, call, data[_HEADER.size :], [])
    return _unpack(data, kind, count, call, size, files)


def _unpack(data: bytes, kind: bytes, count: int, call: int, size: int, files: list[int]) -> Message:
    views: list[memoryview] = []
    try:
        places_end = _HEADER.size + count * _PLACE.size
        if count > _MAX_BUFFERS or len(data) < places_end:
            raise Malformed("a message is cut off")
        places = [_PLACE.unpack_from(data, _HEADER.size + at * _PLACE.size) for at in range(count)]
        while files:
            views.append(_checked(files.pop(0)))
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
    finally:
        for fd in files:
            os.close(fd)


def _checked(fd: int) -> memoryview:
    """The file mapped, once it is sure that nobody can change or shorten it."""
    try:
        sealed = fcntl.fcntl(fd, _GET_SEALS) & _SEALS == _SEALS
        size = os.fstat(fd).st_size
        if sealed and size:
            return _map(fd, size)
    except OSError:
        pass  # no memfd
    os.close(fd)
    raise Malformed("a file of a message is not sealed")
