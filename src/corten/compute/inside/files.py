"""Files in memory for what is big in a message, and memory that lies in such a file.

Rule 1: a file that another process maps can be changed by nobody: it is a sealed memfd, or it lies in a file system
        that is read-only for good (the caller makes those, see `compute.memory_files`). Which of the latter are
        believed, and by whom, is a matter for the `Store` of each end.
Rule 2: what lies in a file that came and goes out again is not copied: its file is sent once more.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import weakref

_ADD_SEALS, _GET_SEALS = 1033, 1034
_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # F_SEAL_SEAL, SHRINK, GROW, WRITE
_PARALLEL = 64 << 20

_mapped: dict[int, tuple[int, int]] = {}
"""Address of a mapping: (its length, descriptor of its file)."""
_frozen: dict[int, int] = {}
"""Descriptors of ours that hold file systems which are read-only for good: the device of each. No other file system can
have the number of one that is held. (Finalizers are here too, in any thread: each change is one step.)"""


class Memfd:
    """A file for one message, written once. fd: to be sent, when it is finished."""

    granted = False

    def __init__(self) -> None:
        self.fd = os.memfd_create("corten-message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)

    def write(self, data: memoryview, offset: int) -> None:
        """Copy into the file; with a second thread where that is worth it (pwrite(2) lets go of Python's lock)."""
        if data.nbytes < _PARALLEL:
            write_at(self.fd, data, offset)
        else:
            _write_with_two(self.fd, data, offset)

    def finish(self) -> None:
        """From now on nobody can change it."""
        fcntl.fcntl(self.fd, _ADD_SEALS, _SEALS)

    def close(self) -> None:
        """Let go of it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Store:
    """What one end of a connection does with files. This one: sealed memfds, and nothing else."""

    def make(self, size: int) -> Memfd:  # noqa: ARG002
        """A file for a message of so many bytes."""
        return Memfd()

    def believes(self, fd: int) -> bool:  # noqa: ARG002
        """Whether a file that came without seals stays as it is."""
        return False

    def passes_on(self, fd: int) -> bool:
        """Whether the other end will believe a file that we did not make."""
        return is_sealed(fd)

    def granted(self) -> int:
        """The file that the other end wrote to with our leave, which nobody can change any more; its descriptor.

        `OSError`: there is none, or somebody can.
        """
        raise FileNotFoundError


def write_at(fd: int, data: memoryview, offset: int) -> None:
    """All of the data, at that place of the file."""
    while data:
        written = os.pwrite(fd, data[: 1 << 30], offset)
        data, offset = data[written:], offset + written


def _write_with_two(fd: int, data: memoryview, offset: int) -> None:
    import threading

    half = data.nbytes // 2 // mmap.PAGESIZE * mmap.PAGESIZE
    failed: list[OSError] = []

    def first() -> None:
        try:
            write_at(fd, data[:half], offset)
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    try:
        write_at(fd, data[half:], offset + half)
    finally:
        thread.join()
    if failed:
        raise failed[0]


def is_sealed(fd: int) -> bool:
    """Whether it is a file in memory with all the seals."""
    try:
        return fcntl.fcntl(fd, _GET_SEALS) & _SEALS == _SEALS
    except OSError:
        return False  # no file in memory


# --- descriptors, by which file systems that are frozen stay known


def device(fd: int) -> int:
    """Number of the file system in which a file lies."""
    return os.fstat(fd).st_dev


def hold_frozen(fd: int) -> None:
    """A descriptor of ours holds a frozen file system, until `close`."""
    _frozen[fd] = device(fd)


def is_held(fd: int) -> bool:
    """Whether it lies in a frozen file system that we hold."""
    return bool(_frozen) and device(fd) in list(_frozen.values())


def duplicate(fd: int) -> int:
    """One more descriptor of the file."""
    copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    if is_held(copy):
        hold_frozen(copy)
    return copy


def close(fd: int) -> None:
    """Close a descriptor of `duplicate`, `hold_frozen` or `map_checked`."""
    _frozen.pop(fd, None)
    os.close(fd)


# --- mappings


def map_checked(fd: int, store: Store) -> memoryview | None:
    """The file as read-only memory, once it is sure that it stays as it is; None: it may not. Takes the descriptor."""
    try:
        if is_held(fd):
            hold_frozen(fd)
        elif not is_sealed(fd) and not store.believes(fd):
            os.close(fd)
            return None
        size = os.fstat(fd).st_size
        mapping = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
    except (OSError, ValueError):  # it is empty, say
        close(fd)
        return None
    view = memoryview(mapping)
    address = _address(view)
    _mapped[address] = (size, fd)
    weakref.finalize(mapping, _forget, address, fd).atexit = False
    return view


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
    close(fd)


def origin(buffer: memoryview) -> tuple[int, int] | None:
    """(descriptor of the file, offset) of memory that lies in a mapping of ours; None for any other."""
    if not _mapped:
        return None
    address = _address(buffer)
    for start, (length, fd) in list(_mapped.items()):
        if start <= address and address + buffer.nbytes <= start + length:
            return fd, address - start
    return None
