"""What is in the store by name, but perhaps not on disk yet: so that a pull waits for the disk once, at its end.

    DIR/NAME   boot id, blobs and layers that its writer is making; locked (flock) while it lives

Rule 1: nothing gets an image's name before all of it is on disk (`settle`).
Rule 2: after a crash of the machine (another boot id) what a journal lists is removed by the next who makes something,
        before anybody looks whether it is there. Killed processes do no harm: what they wrote is in the kernel's hands.
"""

from __future__ import annotations

import ctypes
import fcntl
import os

from corten.errors import Error
from corten.images.store.failures import complaint
from corten.json_text import dumps, loads
from corten.linux import locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from corten.images.store.images import Store


class Journal:
    """Notes for a `with` block what is being made without waiting for the disk."""

    def __init__(self, store: Store, blobs: Sequence[str], layers: Sequence[str]) -> None:
        self._directory, self._store = f"{store.directory}/unsynced", store
        self._path = f"{self._directory}/{os.urandom(8).hex()}"
        self._text = dumps({"boot": boot_id(), "blobs": list(blobs), "layers": list(layers)})

    def __enter__(self) -> Self:
        try:
            os.makedirs(self._directory, exist_ok=True)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX)
                os.write(self._fd, self._text.encode())
                os.fsync(self._fd)
            except BaseException:
                os.close(self._fd)
                _unlink(self._path)
                raise
        except OSError as error:
            raise Error(complaint(error, "a note", self._directory)) from None
        return self

    def settle(self) -> None:
        """Have all that was written until now on disk. Error: the disk refuses."""
        dead = [path for path in _paths(self._directory) if path != self._path and locks.held(path) is False]
        _syncfs(self._fd)
        for path in (*dead, self._path):
            _unlink(path)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._fd)


def mend(store: Store) -> None:
    """After a crash of the machine remove what was perhaps not on disk yet."""
    for path in _paths(f"{store.directory}/unsynced"):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            text = os.read(fd, 1 << 20).decode(errors="replace")
            try:
                found = loads(text)
                boot, blobs, layers = found["boot"], found["blobs"], found["layers"]
            except (ValueError, KeyError, TypeError):
                boot, blobs, layers = "", [], []  # cut off before it was on disk, so nothing was made
            if boot == boot_id():
                continue
            fcntl.flock(fd, fcntl.LOCK_EX)  # another one may be at it; then it is done
            if os.path.exists(path):
                for digest in blobs:
                    store.blobs.remove(digest)
                for diff_id in layers:
                    store.layers.remove(diff_id)
                _unlink(path)
        finally:
            os.close(fd)


def boot_id() -> str:
    """Another one after each start of the machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _paths(directory: str) -> list[str]:
    try:
        return [f"{directory}/{name}" for name in os.listdir(directory)]
    except FileNotFoundError:
        return []


def _syncfs(fd: int) -> None:
    # Not by linux.syscalls, which keeps the interpreter's lock: this may take seconds.
    library = ctypes.CDLL(None, use_errno=True)
    if library.syncfs(fd):
        number = ctypes.get_errno()
        raise Error(complaint(OSError(number, os.strerror(number)), "sure that images are on disk", "the store"))


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
