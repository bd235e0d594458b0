"""Selected files put into a root that somebody else has filled.

Rule 1: parents are walked by the kernel below the root; the last name is used with its parent's descriptor.
Rule 2: what is there already and no directory is replaced, never written into; a directory never becomes a file.
Rule 3: a directory that was there before keeps its times, so that the same copy always makes the same layer.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat

from corten.build.selection import Entry, SelectionError
from corten.linux import paths
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_CHUNK = 1 << 20
_MOST_LINKS = 40  # as the kernel
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Manner(Record):
    """How files arrive. owner: (uid, gid), None: as in the source; mode: None: as in the source; latest: seconds since
    1970 that no file may be newer than, None: no bound."""

    owner: tuple[int, int] | None = (0, 0)
    mode: int | None = None
    latest: int | None = None


class Writer:
    """A root that files are put into. `finish` gives directories their times."""

    def __init__(self, root: int, manner: Manner) -> None:
        self.root, self.manner = root, manner
        self._times: dict[str, int] = {}
        self._first: dict[tuple[int, int], str] = {}

    def is_directory(self, path: str) -> bool:
        """Whether a path of the root is a directory, links followed."""
        try:
            os.close(paths.open_in_root(self.root, path, os.O_PATH | os.O_DIRECTORY))
        except OSError:
            return False
        return True

    def resolve(self, path: str) -> str:
        """A path without the links on its way, also where what they lead to is missing. SelectionError: in circles."""
        found, waiting, links = "/", path.strip("/").split("/"), 0
        while waiting:
            name = waiting.pop(0)
            if name in ("", "."):
                continue
            if name == "..":
                found = posixpath.dirname(found)
                continue
            link = self._link(posixpath.join(found, name))
            if link is None:
                found = posixpath.join(found, name)
                continue
            links += 1
            if links > _MOST_LINKS:
                raise SelectionError(f"{path}: its links lead in circles")
            found = "/" if link.startswith("/") else found
            waiting = [*link.split("/"), *waiting]
        return found

    def _link(self, path: str) -> str | None:
        """What a path of the root is a link to; None if it is none."""
        try:
            fd = paths.open_in_root(self.root, path, os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
        finally:
            os.close(fd)

    def put(self, source_root: int, entries: Iterable[Entry], target: str) -> None:
        """Copy entries to a target. SelectionError: something is in the way.

        A directory that is a source itself gives its contents only: the target is an ordinary directory.
        """
        self._first.clear()  # names of one file stay together within one source
        for entry in entries:
            where = posixpath.join(target, entry.target) if entry.target else target
            if entry.is_directory and not entry.target:
                self.directory(where.rstrip("/") or "/", entry.mtime, self.manner.owner or (0, 0))
                continue
            self._put(source_root, entry, where.rstrip("/") or "/")

    def write(self, path: str, content: bytes | int, mtime: int) -> None:
        """Make a file with a content, or with all that is in an open one. mtime: ns."""
        entry = Entry("", "", stat.S_IFREG | 0o644, 0, 0, mtime, 0)
        parent, name = self._parent(path, mtime)
        try:
            self._clear(parent, name, path)
            fd = os.open(name, _NEW, 0o600, dir_fd=parent)
            try:
                if isinstance(content, int):
                    os.lseek(content, 0, os.SEEK_SET)
                    _copy(content, fd)
                else:
                    view = memoryview(content)
                    while view:
                        view = view[os.write(fd, view) :]
                self._finish(fd, entry)
            finally:
                os.close(fd)
        finally:
            os.close(parent)

    def directory(self, path: str, mtime: int, owner: tuple[int, int] = (0, 0)) -> bool:
        """Make a directory with its parents; whether it was missing. mtime: ns, of what is made."""
        if self.is_directory(path):
            return False
        missing = [path]
        while (above := posixpath.dirname(missing[-1])) != "/" and not self.is_directory(above):
            missing.append(above)
        for one in reversed(missing):
            parent, name = self._parent(one, mtime)
            try:
                os.mkdir(name, 0o755, dir_fd=parent)
                os.chmod(name, 0o755, dir_fd=parent)  # noqa: S103 - whatever the umask
                os.chown(name, *owner, dir_fd=parent)
            except FileExistsError:
                raise SelectionError(f"{one}: is there, and no directory") from None
            finally:
                os.close(parent)
            self._times[one] = self._bounded(mtime)
        return True

    def finish(self) -> None:
        """Set the times of directories, the deepest first."""
        for path in sorted(self._times, key=lambda one: -one.count("/")):
            fd = paths.open_in_root(self.root, path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.utime(fd, ns=(self._times[path], self._times[path]))
            finally:
                os.close(fd)

    def _bounded(self, mtime: int) -> int:
        latest = self.manner.latest
        return mtime if latest is None else min(mtime, latest * 1_000_000_000)

    def _parent(self, path: str, mtime: int) -> tuple[int, str]:
        """The open parent of a path, made where it is missing, and the last name. Remembers the parent's time."""
        above, name = posixpath.split(path)
        if not self.is_directory(above):
            self.directory(above, mtime, self.manner.owner or (0, 0))
        fd = paths.open_in_root(self.root, above, os.O_RDONLY | os.O_DIRECTORY)
        self._times.setdefault(above, os.fstat(fd).st_mtime_ns)
        return fd, name

    def _put(self, source_root: int, entry: Entry, path: str) -> None:
        if entry.is_directory and self.is_directory(path):
            return
        if path == "/":
            raise SelectionError("/: is a directory, and cannot become a file")
        parent, name = self._parent(path, entry.mtime)
        try:
            self._clear(parent, name, path)
            if entry.is_directory:
                os.mkdir(name, 0o700, dir_fd=parent)
                fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
                try:
                    self._finish(fd, entry)
                finally:
                    os.close(fd)
                self._times[path] = self._bounded(entry.mtime)
            elif stat.S_ISREG(entry.mode):
                self._file(source_root, entry, parent, name, path)
            else:
                self._special(entry, parent, name)
        finally:
            os.close(parent)

    def _clear(self, parent: int, name: str, path: str) -> None:
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            raise SelectionError(f"{path}: is a directory, and cannot become a file") from None

    def _file(self, source_root: int, entry: Entry, parent: int, name: str, path: str) -> None:
        first = self._first.get(entry.inode) if entry.inode != (0, 0) else None
        if first is not None:
            above = paths.open_in_root(self.root, posixpath.dirname(first), os.O_PATH | os.O_DIRECTORY)
            try:
                os.link(posixpath.basename(first), name, src_dir_fd=above, dst_dir_fd=parent, follow_symlinks=False)
                return
            finally:
                os.close(above)
        if entry.inode != (0, 0):
            self._first[entry.inode] = path
        source = paths.open_in_root(source_root, entry.source, os.O_RDONLY | os.O_NONBLOCK)
        try:
            fd = os.open(name, _NEW, 0o600, dir_fd=parent)
            try:
                _copy(source, fd)
                self._finish(fd, entry)
            finally:
                os.close(fd)
        finally:
            os.close(source)

    def _special(self, entry: Entry, parent: int, name: str) -> None:
        if stat.S_ISLNK(entry.mode):
            os.symlink(entry.link, name, dir_fd=parent)
        else:
            os.mknod(name, stat.S_IFMT(entry.mode) | 0o600, entry.device, dir_fd=parent)
        os.chown(name, *self._owner(entry), dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISLNK(entry.mode):  # after the owner, whose change takes set-user-id away
            mode = stat.S_IMODE(entry.mode) if self.manner.mode is None else self.manner.mode
            os.chmod(name, mode, dir_fd=parent)
        time = self._bounded(entry.mtime)
        os.utime(name, ns=(time, time), dir_fd=parent, follow_symlinks=False)

    def _owner(self, entry: Entry) -> tuple[int, int]:
        return (entry.uid, entry.gid) if self.manner.owner is None else self.manner.owner

    def _finish(self, fd: int, entry: Entry) -> None:
        os.fchown(fd, *self._owner(entry))  # before the mode: it clears set-user-id and capabilities
        os.fchmod(fd, stat.S_IMODE(entry.mode) if self.manner.mode is None else self.manner.mode)
        for name, value in entry.xattrs:
            os.setxattr(fd, name, value)
        time = self._bounded(entry.mtime)
        os.utime(fd, ns=(time, time))


def _copy(source: int, target: int) -> None:
    """All bytes from one descriptor to another; by the kernel where both file systems can."""
    try:
        while os.copy_file_range(source, target, 1 << 30):
            pass
        return
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    while data := os.read(source, _CHUNK):
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]
