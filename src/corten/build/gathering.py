"""What the sources of a COPY or ADD come to, found out before anything is written: the key is made of it."""

from __future__ import annotations

import os

from corten.build import downloads
from corten.build.ignore import Ignore, read_ignore
from corten.build.selection import Entry, NothingMatches, SelectionError, digest, select, sha256_of
from corten.build.trees import Context, Tree
from corten.linux import paths
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import BinaryIO, Self

    from corten.build.instructions import Copy
    from corten.images.registry.halt import Halt


class Source(Record):
    """One source: the entries it comes to, or a file to unpack or to put as it is.

    Of a stage or image the entries are looked for only when they are copied; fetched: its number among the downloads.
    """

    word: str
    entries: tuple[Entry, ...] = ()
    fetched: int = -1
    archive: bool = False
    digest: str = ""
    nothing: str = ""
    """Why it comes to nothing, if it does: it is a pattern."""


class Gathered:
    """All sources of one step, for a `with` block, in which their files are open.

    descriptors: of the context, if there is one, then of what was fetched.
    """

    def __init__(
        self, step: Copy, context: Context | None, tree: Tree | None, downloads_at: str, halt: Halt
    ) -> None:
        self._step, self._context, self._tree = step, context, tree
        self._downloads, self._halt = downloads_at, halt
        self._fetched: list[BinaryIO] = []
        self._exclude = read_ignore("\n".join(step.exclude), "--exclude")
        self.sources: tuple[Source, ...] = ()

    def __enter__(self) -> Self:
        try:
            if self._context is None and self._tree is None and self._step.sources:
                raise SelectionError("there is no build context to copy from")
            self.sources = tuple(self._source(word) for word in self._step.sources)
            _check_matches(self.sources, self._step)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for file in self._fetched:
            file.close()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What `placing.place` is to be given."""
        context = () if self._context is None else (self._context.fd,)
        return (*context, *(file.fileno() for file in self._fetched))

    def _source(self, word: str) -> Source:
        step = self._step
        if step.add and downloads.is_url(word):
            file, found = downloads.fetch(word, step.checksum, self._downloads, self._halt)
            self._fetched.append(file)
            return Source(word, fetched=len(self._fetched) - 1, archive=bool(step.unpack), digest=found)
        if self._tree is not None:
            # Layers say what is in them; to read every file of a stage again would tell nothing more.
            return Source(word, digest=" ".join((*self._tree.diff_ids, word, *step.exclude)))
        root, ignore = (-1, Ignore()) if self._context is None else (self._context.fd, self._context.ignore)
        try:
            entries = select(root, word, ignore, self._exclude, step.parents)
        except NothingMatches as nothing:
            return Source(word, nothing=str(nothing))
        found = digest(root, entries)
        if step.checksum:
            if len(entries) != 1 or entries[0].is_directory:
                raise SelectionError(f"--checksum: {word} is no file")
            downloads.check(word, step.checksum, sha256_of(root, entries[0]))
        archive = step.add and step.unpack is not False and len(entries) == 1 and _is_archive(root, entries[0])
        return Source(word, entries, archive=archive, digest=found)


def _check_matches(sources: tuple[Source, ...], step: Copy) -> None:
    """People write `package.json yarn.lock*` for what may be missing; but something must be there."""
    if sources and not step.heredocs and all(source.nothing for source in sources):
        raise NothingMatches(sources[0].nothing)


def _is_archive(root: int, entry: Entry) -> bool:
    from corten.build.archives import is_archive

    if entry.is_directory or not entry.size:
        return False
    fd = paths.open_in_root(root, entry.source, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return is_archive(fd)
    finally:
        os.close(fd)
