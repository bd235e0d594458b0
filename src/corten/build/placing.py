"""COPY, ADD and WORKDIR: files put on the layers so far; what they change is the next layer.

Rule 1: what is copied is decided (`gather`) before anything is written, so that the key can be made of it.
Rule 2: from the context everything arrives as root's (or --chown's); from stages and images it keeps its owners.
"""

from __future__ import annotations

import os
import posixpath

from corten.build import downloads
from corten.build.copying import Manner, Writer
from corten.build.ignore import Ignore, read_ignore
from corten.build.selection import Entry, SelectionError, digest, select, sha256_of
from corten.build.trees import Context, Tree
from corten.build.views import View, make_layer
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import BinaryIO, Self

    from corten.build.evaluate import CopyStep, DirectoryStep


class Source(Record):
    """One source of a COPY: the entries it comes to, or a file to unpack or to put as it is.

    Of a stage or image the entries are looked for only when they are copied (`Gathered.entries`).
    """

    word: str
    entries: tuple[Entry, ...] = ()
    download: str = ""
    """The path of what was fetched."""
    archive: bool = False
    digest: str = ""


class Gathered:
    """All sources of a COPY or ADD, for a `with` block: their tree is open in it."""

    def __init__(self, step: CopyStep, context: Context | None, tree: Tree | None, downloads_at: str) -> None:
        self._step, self._context, self._tree, self._downloads = step, context, tree, downloads_at
        self._view: View | None = None
        self._fetched: list[BinaryIO] = []
        self._exclude = read_ignore("\n".join(step.exclude), "--exclude")
        self.root = -1
        self.sources: tuple[Source, ...] = ()

    def __enter__(self) -> Self:
        step = self._step
        try:
            if self._context is not None:
                self.root = self._context.fd
            elif self._tree is None and step.sources:
                raise SelectionError("there is no build context to copy from")
            self.sources = tuple(map(self._source, step.sources))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._view is not None:
            self._view.__exit__(kind, value, traceback)
            self._view = None
        for file in self._fetched:
            file.close()

    def _source(self, word: str) -> Source:
        step = self._step
        if step.add and downloads.is_url(word):
            file, found = downloads.fetch(word, step.checksum, self._downloads)
            self._fetched.append(file)
            return Source(word, download=f"/proc/self/fd/{file.fileno()}", archive=bool(step.unpack), digest=found)
        if self._tree is not None:
            # Layers say what is in them; to read every file of a stage again would tell nothing more.
            return Source(word, digest=" ".join((*self._tree.diff_ids, word, *step.exclude)))
        ignore = self._context.ignore if self._context is not None else Ignore()
        entries = select(self.root, word, ignore, self._exclude, step.parents)
        found = digest(self.root, entries)
        if step.checksum:
            downloads.check(word, step.checksum, self._file_digest(word, entries))
        archive = step.add and step.unpack is not False and len(entries) == 1 and self._is_archive(entries[0])
        return Source(word, entries, archive=archive, digest=found)

    def entries(self, source: Source) -> tuple[Entry, ...]:
        """What a source comes to, and `root` open to copy it from. SelectionError."""
        if self._tree is None:
            return source.entries
        if self._view is None:
            self._view = View(self._tree.lowers).__enter__()
            self.root = self._view.fd
        return select(self.root, source.word, exclude=self._exclude, parents=self._step.parents)

    def _file_digest(self, word: str, entries: tuple[Entry, ...]) -> str:
        if len(entries) != 1 or entries[0].is_directory:
            raise SelectionError(f"--checksum: {word} is no file")
        return sha256_of(self.root, entries[0])

    def _is_archive(self, entry: Entry) -> bool:
        from corten.build.archives import is_archive
        from corten.linux import paths

        if entry.is_directory or not entry.size:
            return False
        fd = paths.open_in_root(self.root, entry.source, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return is_archive(fd)
        finally:
            os.close(fd)


def place(
    step: CopyStep,
    gathered: Gathered,
    lowers: tuple[str, ...],
    draft: str,
    owner: tuple[int, int] | None,
    now: int,
    latest: int | None,
) -> str:
    """Put the files there; the upper directory with them. now: Unix time of what is written in place, s.

    SelectionError: something is in the way.
    """
    layer = make_layer(f"{draft}/layer")
    mode = int(step.chmod, 8) if step.chmod else None
    with View(lowers, layer) as view:
        about = os.fstat(view.fd)
        writer = Writer(view.fd, Manner(owner, mode, latest))
        target = writer.resolve(step.target) + ("/" if step.target.endswith("/") else "")
        for number, source in enumerate(gathered.sources):
            _one(step, target, source, gathered, writer, f"{draft}/archive-{number}")
        for name, content in step.files:
            to = target + posixpath.basename(name) if target.endswith("/") else target
            writer.write(to, content.encode("utf-8", "surrogateescape"), now * 1_000_000_000)
        writer.finish()
        os.utime(view.fd, ns=(about.st_mtime_ns, about.st_mtime_ns))
    return f"{layer}/upper"


def _one(step: CopyStep, target: str, source: Source, gathered: Gathered, writer: Writer, draft: str) -> None:
    inside = target.endswith("/") or writer.is_directory(target)
    clean = target.rstrip("/") or "/"
    if source.archive:
        from corten.build.archives import unpacked

        path = source.download or f"/proc/self/fd/{gathered.root}/{source.entries[0].source}"
        with unpacked(path, source.word, draft) as fd:
            entries = select(fd, "/")
            own = Writer(writer.root, writer.manner.replace(owner=None if not step.chown else writer.manner.owner))
            own.put(fd, entries, clean)
            own.finish()
    elif source.download:
        name = downloads.name_of(source.word)
        if inside and not name:
            raise SelectionError(f"{source.word}: has no file name: give one in the target")
        with open(source.download, "rb") as file:
            about = os.fstat(file.fileno())
            manner = writer.manner if writer.manner.mode is not None else writer.manner.replace(mode=0o600)
            own = Writer(writer.root, manner)
            own.write(posixpath.join(clean, name) if inside else clean, file.read(), about.st_mtime_ns)
            own.finish()
    else:
        entries = gathered.entries(source)
        directory = inside or step.parents or len(entries) != 1 or entries[0].is_directory
        writer.put(gathered.root, entries if directory else [entries[0].replace(target="")], clean)


def make_directory(
    step: DirectoryStep, lowers: tuple[str, ...], draft: str, owner: tuple[int, int], mtime: int
) -> str | None:
    """Make a WORKDIR; the upper directory with it, None if it was there. mtime: s."""
    with View(lowers) as below:
        if Writer(below.fd, Manner()).is_directory(step.path):
            return None
    layer = make_layer(f"{draft}/layer")
    with View(lowers, layer) as view:
        about = os.fstat(view.fd)
        writer = Writer(view.fd, Manner(owner))
        writer.directory(step.path, mtime * 1_000_000_000, owner)
        writer.finish()
        os.utime(view.fd, ns=(about.st_mtime_ns, about.st_mtime_ns))
    return f"{layer}/upper"
