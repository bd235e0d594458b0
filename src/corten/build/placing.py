"""COPY, ADD and WORKDIR: files put on the layers so far; what they change is the next layer.

Rule 1: from a context everything arrives as root's (or --chown's); from stages and images it keeps its owners.
Rule 2: called through `inside.call`: arguments are data and descriptors.
"""

from __future__ import annotations

import os
import posixpath

from corten.build import downloads
from corten.build.copying import Manner, Writer
from corten.build.gathering import Source
from corten.build.ignore import read_ignore
from corten.build.selection import Entry, NothingMatches, SelectionError, select
from corten.build.views import View, make_layer
from corten.linux import paths
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.build.evaluate import DirectoryStep
    from corten.build.instructions import Copy


class Placing(Record):
    """What to put where. sources: of the context (if `has_context`), or of the stage or image with the layers `origin`.

    lowers: the layers so far, topmost first; draft: a directory of the step's own; owner: None, as in the source; now:
    Unix time of what is written in place; latest: of anything, None for no bound.
    """

    step: Copy
    sources: tuple[Source, ...]
    origin: tuple[str, ...]
    has_context: bool
    lowers: tuple[str, ...]
    draft: str
    owner: tuple[int, int] | None
    now: int
    latest: int | None


def place(wanted: Placing, *fds: int) -> str:
    """Put the files there; the upper directory with them. fds: see `Gathered.descriptors`.

    SelectionError: a source is not there, or something is in the way.
    """
    step = wanted.step
    layer = make_layer(f"{wanted.draft}/layer")
    mode = int(step.chmod, 8) if step.chmod else None
    with View(wanted.lowers, layer) as view:
        about = os.fstat(view.fd)
        writer = Writer(view.fd, Manner(wanted.owner, mode, wanted.latest))
        target = writer.resolve(step.target) + ("/" if step.target.endswith("/") else "")
        placer = _Placer(wanted, writer, target, fds)
        if wanted.origin:
            with View(wanted.origin) as origin:
                placer.all_from(origin.fd)
        else:
            placer.all_from(fds[0] if wanted.has_context else -1)
        for doc in step.heredocs:
            to = target + posixpath.basename(doc.name) if target.endswith("/") else target
            writer.write(to, doc.content.encode("utf-8", "surrogateescape"), wanted.now * 1_000_000_000)
        writer.finish()
        os.utime(view.fd, ns=(about.st_mtime_ns, about.st_mtime_ns))
    return f"{layer}/upper"


class _Placer:
    """The sources of one step on their way."""

    def __init__(self, wanted: Placing, writer: Writer, target: str, fds: tuple[int, ...]) -> None:
        self.wanted, self.writer, self.target = wanted, writer, target
        self.fetched = fds[1:] if wanted.has_context else fds

    def all_from(self, root: int) -> None:
        missing = ""
        came = len(self.wanted.step.heredocs)
        for number, source in enumerate(self.wanted.sources):
            inside = self.target.endswith("/") or self.writer.is_directory(self.target)
            clean = self.target.rstrip("/") or "/"
            if source.archive:
                self._archive(source, root, clean, f"{self.wanted.draft}/archive-{number}")
            elif source.fetched >= 0:
                self._download(source, clean, inside)
            else:
                try:
                    self._entries(self._found(source, root), root, clean, inside)
                except NothingMatches as nothing:
                    missing = missing or str(nothing)
                    continue
            came += 1
        if missing and not came:
            raise NothingMatches(missing)

    def _found(self, source: Source, root: int) -> tuple[Entry, ...]:
        if not self.wanted.origin:
            return source.entries
        exclude = read_ignore("\n".join(self.wanted.step.exclude), "--exclude")
        return select(root, source.word, exclude=exclude, parents=self.wanted.step.parents)

    def _entries(self, entries: tuple[Entry, ...], root: int, clean: str, inside: bool) -> None:
        directory = inside or self.wanted.step.parents or len(entries) != 1 or entries[0].is_directory
        self.writer.put(root, entries if directory else [entries[0].replace(target="")], clean)

    def _archive(self, source: Source, root: int, clean: str, draft: str) -> None:
        from corten.build.archives import unpacked

        if source.fetched >= 0:
            archive = os.dup(self.fetched[source.fetched])
        else:
            archive = paths.open_in_root(root, source.entries[0].source, os.O_RDONLY | os.O_NONBLOCK)
        owner = self.wanted.owner if self.wanted.step.chown else None
        with unpacked(archive, source.word, draft) as fd:
            own = Writer(self.writer.root, self.writer.manner.replace(owner=owner))
            own.put(fd, select(fd, "/"), clean)
            own.finish()

    def _download(self, source: Source, clean: str, inside: bool) -> None:
        name = downloads.name_of(source.word)
        if inside and not name:
            raise SelectionError(f"{source.word}: has no file name: give one in the target")
        fd = self.fetched[source.fetched]
        about = os.fstat(fd)
        manner = self.writer.manner
        own = Writer(self.writer.root, manner if manner.mode is not None else manner.replace(mode=0o600))
        own.write(posixpath.join(clean, name) if inside else clean, fd, about.st_mtime_ns)
        own.finish()


def make_directory(
    step: DirectoryStep, lowers: tuple[str, ...], draft: str, owner: tuple[int, int], mtime: int
) -> str | None:
    """Make a WORKDIR; the upper directory with it, None if it was there. mtime: Unix time, s."""
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
