"""A layer unpacked while it arrives: its packed bytes go through a pipe to a thread that unpacks them.

Rule: the thread may end first (the layer is there by now, or it is refused); what is fed then is thrown away, and
`finish` says what became of it.
"""

from __future__ import annotations

import fcntl
import os
import threading

from corten.images.layers.unpacking import unpack_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.images.store.images import Layer, Store

_PIPE = 1 << 20  # bytes: what an ordinary user may ask for (pipe-max-size)


class Flow:
    """The way of one layer into the store, within a `Journal`. One thread feeds it."""

    def __init__(self, store: Store, layer: Layer) -> None:
        self._store, self._layer = store, layer
        self._failure: BaseException | None = None
        reading, self._writing = os.pipe2(os.O_CLOEXEC)
        try:
            fcntl.fcntl(self._writing, fcntl.F_SETPIPE_SZ, _PIPE)
        except OSError:
            pass  # the user has many pipes: a smaller one does as well
        self._thread = threading.Thread(target=self._unpack, args=(reading,), name="corten-unpack")
        self._thread.start()

    def _unpack(self, reading: int) -> None:
        try:
            layer = self._layer
            self._store.layers.make(layer.diff_id, lambda tree: unpack_from(reading, layer, tree, sync=False))
        except BaseException as error:  # it is raised again in the thread that waits for it
            self._failure = error
        finally:
            os.close(reading)

    def feed(self, data: bytes) -> None:
        """More bytes of the packed layer; waits while the unpacking is behind."""
        rest = memoryview(data)
        try:
            while rest and self._writing >= 0:
                rest = rest[os.write(self._writing, rest) :]
        except BrokenPipeError:
            self._close()
            if self._failure:
                self.finish()

    def feed_file(self, path: str, size: int) -> None:
        """The first `size` bytes of a file."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while size and (data := os.read(fd, min(size, _PIPE))):
                self.feed(data)
                size -= len(data)
        finally:
            os.close(fd)

    def _close(self) -> None:
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1

    def finish(self) -> None:
        """All has been fed: wait for the end. Raises what the unpacking raised."""
        self._close()
        self._thread.join()
        if self._failure:
            raise self._failure

    def abandon(self) -> None:
        """The rest will not come: wait for the end, whatever it is."""
        self._close()
        self._thread.join()


