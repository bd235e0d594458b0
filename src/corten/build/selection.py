"""The files that a source of COPY names, below one root: the build context, a stage, or an image.

Rule 1: the way to a source is walked by the kernel below the root (openat2); links below a source stay links.
Rule 2: what is found is in one order on every machine: by name, byte by byte.
Rule 3: a digest covers names, kinds, modes, links, contents and attributes; not times and, for a context, not owners.
"""

from __future__ import annotations

import os
import posixpath
import stat

from corten.build.ignore import Ignore, compile_pattern, is_pattern
from corten.linux import paths
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NOTHING = Ignore()
_CHUNK = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class SelectionError(ValueError):
    """A source that cannot be used, and why; whoever knows the instruction makes a whole sentence of it."""


class NothingMatches(SelectionError):
    """A pattern that matches no file: wrong only if all sources of an instruction are such."""


class Entry(Record):
    """One file to copy.

    source: its path below the root; target: below the copy's target, empty for the target itself; link: of a symbolic
    link; inode: (device, inode) if it has several names, else (0, 0); sha256: of a file, empty until `digest` is asked.
    """

    source: str
    target: str
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    device: int = 0
    link: str = ""
    inode: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)


def select(
    root: int, source: str, ignore: Ignore = NOTHING, exclude: Ignore = NOTHING, parents: bool = False
) -> tuple[Entry, ...]:
    """What a source names: a file, what is in a directory, or all that matches a pattern.

    ignore: paths below the root that do not exist; exclude: paths below the source that are left out; parents: keep
    the way to the source in the target. NothingMatches; SelectionError: there is nothing, or it cannot be read.
    """
    path = posixpath.normpath("/" + source).lstrip("/")
    found: list[Entry] = []
    names = list(_matches(root, path, ignore)) if is_pattern(path) else [path]
    if not names:
        raise NothingMatches(f"{source}: nothing matches")
    for name in names:
        if name and ignore.ignores(name) and not ignore.takes_back:
            raise SelectionError(f"{source}: is left out by the ignore file")
        found += _source(root, name, ignore, exclude, source, name if parents else None)
    return tuple(found)


def _source(root: int, path: str, ignore: Ignore, exclude: Ignore, source: str, keep: str | None) -> list[Entry]:
    try:
        fd = paths.open_in_root(root, path or ".", os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        raise SelectionError(f"{source}: no such file or directory") from None
    except OSError as error:
        raise SelectionError(f"{source}: {os.strerror(error.errno or 0).lower()}") from None
    try:
        about = os.fstat(fd)
        if not stat.S_ISDIR(about.st_mode):
            name = posixpath.basename(path)
            if exclude.ignores(name):
                return []
            # Named by itself, it stays by itself, whatever other names it has.
            found = _entry(f"/proc/self/fd/{fd}", None, path, keep if keep is not None else name, about)
            return [found.replace(inode=(0, 0))]
        directory = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(fd)
    try:
        # The ignore file knows paths as they were written, not where links lead.
        base = keep or ""
        top = _entry(f"/proc/self/fd/{directory}", None, path, base, about)
        return [top, *_walk(directory, path, base, ignore, exclude, "")]
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) and "/proc/" not in error.filename else source
        raise SelectionError(f"{where}: cannot be read: {os.strerror(error.errno or 0).lower()}") from None
    finally:
        os.close(directory)


def _walk(fd: int, path: str, target: str, ignore: Ignore, exclude: Ignore, inside: str) -> Iterator[Entry]:
    """What is in an open directory. inside: the way from the source to it."""
    for name in sorted(os.listdir(fd), key=os.fsencode):
        where = f"{path}/{name}" if path else name
        within = f"{inside}/{name}" if inside else name
        ignored = ignore.ignores(where) or exclude.ignores(within)
        if ignored and not (ignore.takes_back or exclude.takes_back):
            continue
        about = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISDIR(about.st_mode):
            below = os.open(name, _DIRECTORY, dir_fd=fd)
            try:
                to = f"{target}/{name}" if target else name
                more = list(_walk(below, where, to, ignore, exclude, within))
                if not ignored or more:
                    yield _entry(f"/proc/self/fd/{below}", None, where, to, about)
                    yield from more
            finally:
                os.close(below)
        elif not ignored and not stat.S_ISSOCK(about.st_mode):
            yield _entry(name, fd, where, f"{target}/{name}" if target else name, about)


def _entry(name: str, fd: int | None, source: str, target: str, about: os.stat_result) -> Entry:
    is_link = stat.S_ISLNK(about.st_mode)
    several = about.st_nlink > 1 and not stat.S_ISDIR(about.st_mode)
    return Entry(
        source,
        target,
        about.st_mode,
        about.st_uid,
        about.st_gid,
        about.st_mtime_ns,
        about.st_size,
        about.st_rdev,
        os.readlink(name, dir_fd=fd) if is_link else "",
        (about.st_dev, about.st_ino) if several else (0, 0),
        () if is_link else _xattrs(name if fd is None else f"/proc/self/fd/{fd}/{name}"),
    )


def _xattrs(path: str) -> tuple[tuple[str, bytes], ...]:
    """Attributes that a copy keeps: capabilities of programs, and those of users, less the overlay's own."""
    try:
        names = os.listxattr(path)
    except OSError:
        return ()
    kept = [n for n in names if n == "security.capability" or (n[:5] == "user." and n[:13] != "user.overlay.")]
    return tuple((name, os.getxattr(path, name)) for name in sorted(kept))


def _matches(root: int, pattern: str, ignore: Ignore) -> Iterator[str]:
    """The paths below a root that match a pattern, in order."""
    try:
        if "**" in pattern:
            whole = compile_pattern(pattern)
            top = os.open(f"/proc/self/fd/{root}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                for entry in list(_walk(top, "", "", ignore, NOTHING, "")):
                    if whole.fullmatch(entry.source):
                        yield entry.source
            finally:
                os.close(top)
            return
        ways = [""]
        for part in pattern.split("/"):
            ways = [found for way in ways for found in _match_one(root, way, part)]
    except ValueError as error:
        raise SelectionError(f"{pattern}: {error}") from None
    for way in ways:
        if not ignore.ignores(way):
            yield way


def _match_one(root: int, way: str, part: str) -> Iterator[str]:
    prefix = f"{way}/" if way else ""
    if not is_pattern(part):
        yield prefix + part
        return
    wanted = compile_pattern(part)
    try:
        fd = paths.open_in_root(root, way or ".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        names = os.listdir(fd)
    finally:
        os.close(fd)
    for name in sorted(names, key=os.fsencode):
        if wanted.fullmatch(name):
            yield prefix + name


def digest(root: int, entries: Iterable[Entry], with_owners: bool = False) -> str:
    """The SHA-256 of what would be copied, in hexadecimal digits (rule 3). SelectionError: a file cannot be read."""
    import hashlib

    whole = hashlib.sha256()
    for entry in entries:
        kind = stat.S_IFMT(entry.mode)
        row = [entry.target, format(kind | stat.S_IMODE(entry.mode), "o"), entry.link, str(entry.device)]
        if with_owners:
            row += [str(entry.uid), str(entry.gid)]
        row += [part for name, value in entry.xattrs for part in (name, value.hex())]
        if stat.S_ISREG(entry.mode):
            row.append(sha256_of(root, entry))
        for part in row:
            data = os.fsencode(part)
            whole.update(len(data).to_bytes(8, "little") + data)
    return whole.hexdigest()


def sha256_of(root: int, entry: Entry) -> str:
    """The SHA-256 of a file's contents. SelectionError: it cannot be read."""
    import hashlib

    try:
        fd = paths.open_in_root(root, entry.source, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise SelectionError(f"{entry.source}: cannot be read: {os.strerror(error.errno or 0).lower()}") from None
    with open(fd, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
