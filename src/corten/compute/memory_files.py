"""Files in memory for what is big in messages, on the caller's side: in huge pages, where the kernel lets us.

A memfd is made of small pages (memfds get huge ones only where an administrator has set `shmem_enabled`), and taking,
clearing and giving back 262,144 of them is most of the cost of sending 1 GiB: 0.55 s of CPU time, against 0.08 s in a
tmpfs with `huge=always`. That cannot be sealed. What makes it unchangeable is a file system of its own for each
message, with one file, that is made read-only when the file is written: the kernel refuses that while anybody anywhere
could still write to the file, and afterwards only root on the host could undo it.

Rule 1: every file system is used for one message at a time, and lives for as long as somebody holds the file. Only
        where containers serve many calls (`reuse=True`), and so are no secret to each other, is it used again: when
        the kernel says that nobody has the file open or mapped any more (fcntl(2), F_SETLEASE).
Rule 2: a result is written by the container to a file that we made, and is charged to it. It is mapped here after it
        was frozen, or never.
Rule 3: without the right to mount (no root), or without huge pages in the kernel, memfds do. So they do in a virtual
        machine whose host takes back free huge pages (the balloon's free page reporting): there each has to be asked
        for again, page by page, which was measured at 1.5 s for 1 GiB; but for files that will be used again.
"""

from __future__ import annotations

import fcntl
import functools
import glob
import os
from collections import deque

from corten.compute.inside import files
from corten.linux import mounts

_LARGE = 1 << 20
"""Bytes from which on making a file system (0.1 ms) is worth it."""
_OPTIONS = ("huge=always", "nr_blocks=0", "nr_inodes=2", "mode=0700")
_NAME = "d"
_SPARES, KEPT = 2, 10.0
"""Files of a lane that are kept to be used again, and for how many seconds."""
_REPORTING = 5
"""Bit of the virtio balloon's features (the Virtio specification, 5.5.3): VIRTIO_BALLOON_F_PAGE_REPORTING."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


@functools.cache
def host_takes_back() -> bool:
    """Whether this is a virtual machine whose host takes free huge pages back at once."""
    for path in glob.glob("/sys/bus/virtio/drivers/virtio_balloon/virtio*/features"):
        with open(path) as file:
            if file.read()[_REPORTING : _REPORTING + 1] == "1":
                return True
    return False


class HugeFile(files.Memfd):
    """A file for one message. fd: to write to; when it is finished, to read only. keep: what is done with it when it is
    closed, instead of letting go of its memory. `OSError`: it cannot be had."""

    def __init__(self, keep: Callable[[HugeFile], object] | None = None) -> None:
        self._keep = keep
        self._mount = mounts.new("tmpfs", _OPTIONS, mounts.NOSUID | mounts.NODEV | mounts.NOEXEC, "corten-message")
        try:
            self.fd = os.open(_NAME, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o400, dir_fd=self._mount)
        except BaseException:
            os.close(self._mount)
            raise

    def write(self, data: memoryview, offset: int) -> None:
        """Copy into the file."""
        files.write_at(self.fd, data, offset)

    def let_go(self) -> None:
        """Close our descriptor for writing."""
        os.close(self.fd)
        self.fd = -1

    def finish(self) -> None:
        """From now on nobody can change it. `OSError` (EBUSY): somebody else still has it open, or mapped, to write."""
        if self.fd >= 0:
            self.let_go()
        mounts.make_read_only(self._mount)
        self.fd = os.open(_NAME, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._mount)
        files.hold_frozen(self.fd)

    def take(self) -> int:
        """Its descriptor, which is now the taker's to close."""
        fd, self.fd = self.fd, -1
        return fd

    def reopen(self, size: int) -> bool:
        """Write to it again, for a message of so many bytes; False: somebody still has it open or mapped."""
        fd = os.open(_NAME, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._mount)
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        mounts.make_read_only(self._mount, False)
        self.fd = os.open(_NAME, os.O_RDWR | os.O_CLOEXEC, dir_fd=self._mount)
        if os.fstat(self.fd).st_size > size:
            os.ftruncate(self.fd, size)
        return True

    def close(self) -> None:
        """Let go of it."""
        if self.fd >= 0:
            files.close(self.fd)
            self.fd = -1
            if self._keep is not None:
                self._keep(self)
                return
        self.destroy()

    def destroy(self) -> None:
        """Let go of it, for good."""
        if self._mount >= 0:
            os.close(self._mount)
            self._mount = -1


def _huge() -> HugeFile | None:
    try:
        return None if host_takes_back() else HugeFile()
    except OSError:
        return None


class OurFiles(files.Store):
    """What we send is in huge pages where it is big; a file that comes back to us is believed if we have frozen it."""

    def make(self, size: int) -> files.Memfd:
        """For arguments."""
        return (_huge() if size >= _LARGE else None) or files.Memfd()

    def passes_on(self, fd: int) -> bool:
        """Whatever we hold."""
        return files.is_held(fd) or files.is_sealed(fd)

    def close(self) -> None:
        """Let go of what is kept: here, nothing."""


OURS = OurFiles()
"""For what is packed here."""


class Shelf(OurFiles):
    """For the arguments of a lane whose containers serve many calls: files are used again. From any thread.

    after: has something done in so many seconds.
    """

    def __init__(self, after: Callable[[float, Callable[[], None]], object]) -> None:
        self._after = after
        self._spares: deque[HugeFile] = deque()
        self._closed = False

    def make(self, size: int) -> files.Memfd:
        """For arguments."""
        if size < _LARGE:
            return files.Memfd()
        for _ in range(len(self._spares)):
            try:
                spare = self._spares.popleft()
                if spare.reopen(size):
                    return spare
                self._spares.append(spare)
            except IndexError:
                break  # another thread was faster
            except OSError:
                spare.destroy()
        try:
            return HugeFile(self._put)
        except OSError:
            return files.Memfd()

    def _put(self, file: HugeFile) -> None:
        if self._closed or len(self._spares) >= _SPARES:
            file.destroy()
            return
        self._spares.append(file)
        self._after(KEPT, lambda: self._drop(file))

    def _drop(self, file: HugeFile) -> None:
        try:
            self._spares.remove(file)
        except ValueError:
            return  # it is in use
        file.destroy()

    def close(self) -> None:
        """Let go of them."""
        self._closed = True
        while self._spares:
            self._spares.pop().destroy()


class WorkersFiles(OurFiles):
    """Of the connection to one container: with at most one file that it may write a result to."""

    def __init__(self) -> None:
        self._lent: HugeFile | None = None

    def lend(self) -> HugeFile | None:
        """A file for a result; None: there is none to be had."""
        self.close()
        self._lent = _huge()
        return self._lent

    def granted(self) -> int:
        """The result, frozen."""
        lent, self._lent = self._lent, None
        if lent is None:
            raise FileNotFoundError("none was asked for")
        try:
            lent.finish()
            return lent.take()
        finally:
            lent.close()

    def close(self) -> None:
        """Take back what was lent."""
        if self._lent is not None:
            self._lent.close()
            self._lent = None
