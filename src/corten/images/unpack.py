"""A hostile tar archive unpacked below one directory, and nowhere else.

Rule 1: every member's parent is opened below the root by the kernel (openat2, RESOLVE_IN_ROOT); its last name is then
        used with that descriptor and never followed. So no link in the archive leads out, whatever comes before it.
Rule 2: what already has the name is removed first; nothing is ever written into a file that is already there.
Rule 3: what cannot be taken is refused with the archive's and the member's name; nothing is guessed.
Rule 4: directories get their mode and times last, so that a read-only one can be filled.
"""

from __future__ import annotations

import errno
import math
import os
import stat
import tarfile
from typing import cast

from corten.errors import InvalidInput, errno_words
from corten.images.decompress import Contents
from corten.linux import paths, syscalls
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import BufferedReader
    from typing import BinaryIO, Protocol, Self

    from corten.images.archive import Limits

    class Taker(Protocol):
        """Takes the members of an archive."""

        def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
            """Take one. Refused: it is hostile; OSError: the file system does not want it."""

    class _Source(Protocol):
        def read(self, size: int) -> bytes: ...
        def seek(self, position: int) -> int: ...


_CHUNK = 1 << 20
_DEEPEST = 255  # directories below each other: an own limit, so that the tree can be walked and removed again
_XATTR = "SCHILY.xattr."
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Refused(Exception):
    """A member that is not taken, and why; becomes an InvalidInput with the names of archive and member."""


def components(name: str, absolute: bool = False) -> tuple[str, ...]:
    """The parts of a member's name below the root, none for the root itself. Refused: it is not below the root.

    absolute: take `/etc` for `etc`, as engines do with layers; some builders write them so.
    """
    if name.startswith("/") and not absolute:
        raise Refused("the name is absolute")
    if "\0" in name:
        raise Refused("the name has a zero byte")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise Refused("the name leads out with '..'")
    if len(parts) > _DEEPEST:
        raise Refused(f"the name is deeper than {_DEEPEST} directories")
    return parts


def unpack(fd: int, name: str, directory: str, limits: Limits) -> None:
    """Unpack the archive behind a descriptor into an empty directory. InvalidInput: damaged, hostile, too large.

    name: of the archive, for errors. As root, owners are kept as numbers; other users own all they
    unpack. What is below `dev` is left out: the runtime makes that. OSError: the file system's own refusals.
    """
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fill(Contents(fd, name, limits), name, Tree(root, directory), limits)


def fill(contents: Contents, name: str, tree: Tree, limits: Limits, sync: bool = True) -> None:
    """The same for contents that are being read, into a tree, whose root is closed in the end.

    sync: have all of it on disk; else the caller sees to that.
    """
    root = tree.root
    try:
        read(contents, name, tree, limits)
        tree.finish()
        if sync:
            # It gets its final name next: after a crash of the machine that must not stand for empty files.
            syscalls.call("syncfs", root)
    finally:
        tree.close()
        os.close(root)


def read(contents: Contents, name: str, tree: Taker, limits: Limits) -> None:
    """Hand the members of an archive, one after the other, to who takes them. InvalidInput: damaged, hostile."""
    damaged = f"archive {name!r}: is damaged or truncated: "
    try:
        contents.allow(limits.header)
        stream = cast("BinaryIO", contents)  # of which tarfile calls nothing but read
        archive = tarfile.TarFile.open(
            None, "r|", stream, tarinfo=_Member, encoding="utf-8", errors="surrogateescape"
        )
        count = total = 0
        while (member := archive.next()) is not None:
            contents.allow(None)
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
            count, total = count + 1, total + (member.size if _is_file(member) else 0)
            if count > limits.entries:
                raise InvalidInput(f"archive {name!r}: has more than {limits.entries} entries: refused")
            if total > limits.total:
                raise InvalidInput(f"archive {name!r}: unpacks to more than {limits.total} bytes: refused")
            try:
                tree.add(archive, member)
            except Refused as refused:
                raise InvalidInput(f"archive {name!r}: member {member.name!r}: {refused}: refused") from None
            except OSError as error:
                if error.errno in _NO_SPACE or not error.errno:
                    raise
                why = errno_words(error.errno)
                raise InvalidInput(f"archive {name!r}: member {member.name!r}: cannot be made: {why}") from None
            contents.allow(limits.header)
        contents.allow(None)
        while contents.read(_CHUNK):  # to the end: checksums and limits hold for all of it
            pass
    except tarfile.ReadError as error:
        if not contents.count:
            raise InvalidInput(f"archive {name!r}: is empty") from None
        raise InvalidInput(f"{damaged}{error}") from None
    except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as error:
        raise InvalidInput(f"{damaged}{error}") from None


class _Member(tarfile.TarInfo):
    """A header that must be whole: `tarfile` takes a broken one after the first for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """The next header. ReadError: there is none, and no end mark either."""
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            why = _BROKEN.get(type(error).__name__)
            if why is None:  # the end mark, or already on its way out
                raise
            raise tarfile.ReadError(why if archive.offset else "it is no tar archive") from None


# By name, for the library does not export them.
_BROKEN = {
    "EmptyHeaderError": "it ends without an end mark",
    "TruncatedHeaderError": "it ends in the middle of a header",
    "InvalidHeaderError": "a header is wrong",
}


def _is_file(member: tarfile.TarInfo) -> bool:
    """Whether a member has contents of its own."""
    return member.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE)


class About(Record):
    """What is set on a file beside its contents. mtime: ns; xattrs: (name, value)."""

    mode: int
    uid: int
    gid: int
    mtime: int
    xattrs: tuple[tuple[str, bytes], ...]


def _about(member: tarfile.TarInfo, privileged: bool) -> About:
    for number in (member.uid, member.gid):
        if not 0 <= number < 0xFFFFFFFF:
            raise Refused(f"the owner {number} is out of range")
    seconds = member.mtime
    mtime = int(seconds * 1_000_000_000) if math.isfinite(seconds) and abs(seconds) < 1 << 33 else 0
    xattrs = tuple(
        (key[len(_XATTR) :], value.encode("utf-8", "surrogateescape"))
        for key, value in member.pax_headers.items()
        if key.startswith(_XATTR) and _takes(key[len(_XATTR) :], privileged)
    )
    # Who is not root makes everything his own: a set-user-id bit would then say something else than was meant.
    mode = member.mode & (0o7777 if privileged else 0o1777)
    return About(mode, member.uid, member.gid, mtime, xattrs)


def _takes(name: str, privileged: bool) -> bool:
    # The overlay's own attributes would tell it to look elsewhere than where the file is.
    if name.startswith("user."):
        return not name.startswith("user.overlay.") and "\0" not in name
    return name == "security.capability" and privileged


class Tree:
    """The root being filled. absolute: whether names may begin with a slash."""

    absolute = False

    def __init__(self, root: int, directory: str) -> None:
        self.root = root
        self._above = os.path.realpath(directory).count("/")
        self.privileged = os.geteuid() == 0
        self._parent: tuple[tuple[str, ...], int] | None = None
        self._top = os.readlink(f"/proc/self/fd/{root}").rstrip("/")
        # By where they really are, whatever links their names went through: "a/b", "" for the root.
        self.directories: dict[str, About] = {}
        # Directories that no member lists, though they have members.
        self.implied: set[str] = {""}

    def close(self) -> None:
        """Let go of what is held open."""
        if self._parent:
            os.close(self._parent[1])
        self._parent = None

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Make one member. Refused: it is hostile; OSError: the file system does not want it."""
        parts = components(member.name, self.absolute)
        if self.leaves_out(parts):
            if _is_file(member):
                _copy(archive, member, -1)
            return
        about = _about(member, self.privileged)
        if member.isdir():
            self.make_directory(parts, about)
            return
        if not parts:
            raise Refused("the root is not a directory")
        if member.issym():
            if not member.linkname or "\0" in member.linkname:
                raise Refused("the link leads nowhere")
            parent = self.place(parts)
            os.symlink(member.linkname, parts[-1], dir_fd=parent)
            self.finish_special(parent, parts[-1], about)
        elif member.islnk():
            self._link(parts, member.linkname)
        elif _is_file(member):
            fd = os.open(
                parts[-1],
                os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600,
                dir_fd=self.place(parts),
            )
            try:
                _copy(archive, member, fd)
                self.finish_open(fd, about)
            finally:
                os.close(fd)
        else:
            self._make_node(parts, member, about)

    def leaves_out(self, parts: tuple[str, ...]) -> bool:
        """Whether a member is passed over, for it is made by others or means something else."""
        return parts[:1] == ("dev",) and len(parts) > 1

    def _make_node(self, parts: tuple[str, ...], member: tarfile.TarInfo, about: About) -> None:
        if member.isfifo():
            kind = stat.S_IFIFO
        elif member.ischr() and (member.devmajor, member.devminor) == (0, 0):
            kind = stat.S_IFCHR  # a whiteout: opens nothing, and hides a name when it lies in an overlay
        elif member.ischr() or member.isblk():
            self.make_device(parts, member, about)
            return
        else:
            raise Refused(f"its kind {member.type!r} is unknown")
        parent = self.place(parts)
        os.mknod(parts[-1], kind | 0o600, 0, dir_fd=parent)
        self.finish_special(parent, parts[-1], about)
        os.chmod(parts[-1], about.mode, dir_fd=parent)  # last: a change of owner clears set-user-id

    def make_device(self, parts: tuple[str, ...], member: tarfile.TarInfo, about: About) -> None:  # noqa: ARG002
        """Make a node of a device."""
        raise Refused("device nodes are not taken from archives")

    def make_directory(self, parts: tuple[str, ...], about: About) -> None:
        """Make a directory, or keep the one that is there; its mode and times come last."""
        where = ""
        if parts:
            parent = self.open_parent(parts[:-1])
            where = self.within(parent, parts[-1])
            try:
                kept = stat.S_ISDIR(os.stat(parts[-1], dir_fd=parent, follow_symlinks=False).st_mode)
            except FileNotFoundError:
                kept = False
            if not kept:
                os.mkdir(parts[-1], 0o700, dir_fd=self.place(parts))
        self.directories[where] = about
        self.implied.discard(where)

    def within(self, directory: int, name: str = "") -> str:
        """Where an open directory, or a name in it, really is below the root."""
        above = os.readlink(f"/proc/self/fd/{directory}")[len(self._top) :].strip("/")
        return f"{above}/{name}" if above and name else above or name

    def reopen(self, where: str) -> int:
        """The directory that is really there, -1 if there is none, for a later member has replaced it."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        try:
            fd = paths.open_in_root(self.root, f"/{where}", flags)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return -1
            raise
        if self.within(fd) == where:
            return fd
        os.close(fd)
        return -1

    def _link(self, parts: tuple[str, ...], target: str) -> None:
        try:
            there = components(target, self.absolute)
        except Refused as refused:
            raise Refused(f"it is a hard link to {target!r}: {refused}") from None
        if not there or there == parts:
            raise Refused(f"it is a hard link to {target!r}, which cannot be")
        parent = self.place(parts)
        try:
            beside = paths.open_in_root(self.root, "/" + "/".join(there[:-1]), os.O_PATH | os.O_DIRECTORY)
            try:
                os.link(there[-1], parts[-1], src_dir_fd=beside, dst_dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(beside)
        except (FileNotFoundError, NotADirectoryError):
            raise Refused(f"it is a hard link to {target!r}, which is not there") from None

    def place(self, parts: tuple[str, ...]) -> int:
        """The parent of a member, in which its name is free now."""
        parent = self.open_parent(parts[:-1])
        try:
            about = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return parent
        if not stat.S_ISDIR(about.st_mode):
            os.unlink(parts[-1], dir_fd=parent)
            if not stat.S_ISLNK(about.st_mode):
                return parent
        else:
            try:
                os.rmdir(parts[-1], dir_fd=parent)
            except OSError as error:
                if error.errno == errno.ENOTEMPTY:
                    raise Refused("it would replace a directory that is not empty") from None
                raise
            where = self.within(parent, parts[-1])
            self.directories.pop(where, None)
            self.implied.discard(where)
        # A name that led somewhere is gone, so what was found through it must be looked up again.
        self.close()
        return self.open_parent(parts[:-1])

    def open_parent(self, parts: tuple[str, ...]) -> int:
        """A directory below the root, made with its parents where they are missing. The last one is kept."""
        if self._parent and self._parent[0] == parts:
            return self._parent[1]
        self.close()
        path = "/" + "/".join(parts)
        try:
            fd = paths.open_in_root(self.root, path, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            above = self.open_parent(parts[:-1])
            os.mkdir(parts[-1], 0o755, dir_fd=above)
            self.implied.add(self.within(above, parts[-1]))
            os.chmod(parts[-1], 0o755, dir_fd=above)  # noqa: S103 - whatever the umask
            fd = paths.open_in_root(self.root, path, os.O_PATH | os.O_DIRECTORY)
            self.close()
        # Through links in the archive the real place can be deeper than the name.
        if os.readlink(f"/proc/self/fd/{fd}").count("/") > self._above + _DEEPEST:
            os.close(fd)
            raise Refused(f"the place is deeper than {_DEEPEST} directories")
        self._parent = parts, fd
        return fd

    def finish_open(self, fd: int, about: About) -> None:
        """Give an open file or directory its owner, mode, attributes and time."""
        if self.privileged:
            os.fchown(fd, about.uid, about.gid)  # before the mode: it clears set-user-id and capabilities
        os.fchmod(fd, about.mode)
        for name, value in about.xattrs:
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                if error.errno != errno.ENOTSUP or not name.startswith("user."):
                    raise
        os.utime(fd, ns=(about.mtime, about.mtime))

    def finish_special(self, parent: int, name: str, about: About) -> None:
        """The same for what cannot be opened."""
        if self.privileged:
            os.chown(name, about.uid, about.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=(about.mtime, about.mtime), dir_fd=parent, follow_symlinks=False)

    def finish(self) -> None:
        """Give the directories their owners, modes and times, the deepest first."""
        self.close()
        for where in sorted(self.directories, key=lambda where: -where.count("/") - bool(where)):
            fd = self.reopen(where)
            if fd >= 0:
                try:
                    self.finish_open(fd, self.directories[where])
                finally:
                    os.close(fd)


def _copy(archive: tarfile.TarFile, member: tarfile.TarInfo, fd: int) -> None:
    """The contents of a member into an open file, holes kept; nowhere for -1."""
    source = archive.extractfile(member)
    assert source is not None, "only called for files"
    reader: _Source = cast("BufferedReader", source).raw  # type: ignore[assignment]
    end = 0
    for offset, size in _extents(member):
        if offset < end or size < 0 or offset + size > member.size:
            raise Refused("its map of holes contradicts itself")
        end = offset + size
        reader.seek(offset)
        if fd >= 0:
            os.lseek(fd, offset, os.SEEK_SET)
        left = size
        while left:
            data = reader.read(min(left, _CHUNK))
            if not data:
                raise tarfile.ReadError("it ends in the middle of a file")
            left -= len(data)
            while data and fd >= 0:
                data = data[os.write(fd, data) :]
    if fd >= 0 and end < member.size:
        os.ftruncate(fd, member.size)


def _extents(member: tarfile.TarInfo) -> list[tuple[int, int]]:
    """Where a file has bytes; the rest are holes."""
    if member.size < 0:
        raise Refused("its size is negative")
    sparse = cast("list[tuple[int, int]] | None", member.sparse)
    # GNU tar pads its maps with empty places.
    return [(0, member.size)] if sparse is None else [place for place in sparse if place[1]]
