"""Blobs: files named by the digest of what is in them.

    DIR/sha256/HEX        complete: it was checked, synced, and got its name by a rename
    DIR/drafts/NAME       being written, by the holder of its lock (flock); NAME is the digest where it is known

Rule 1: what has its final name is whole. Half written means a draft.
Rule 2: a draft that nobody holds is garbage, and anybody may sweep it. One that is named for a digest is kept for a
        day, so that a broken download goes on where it stopped.
"""

from __future__ import annotations

import fcntl
import os
import time

from corten.errors import Error, InvalidInput, NotFound
from corten.images.references import check_digest
from corten.images.store.failures import complaint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType
    from typing import BinaryIO, Self

_CHUNK = 1 << 20
_KEPT = 24 * 3600  # seconds


class Blobs:
    """The blobs below one directory, which is made when it is first written to."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def path(self, digest: str) -> str:
        """Where the blob of a digest is, or would be. InvalidInput: it is no digest."""
        check_digest(digest, "blob")
        algorithm, _, digits = digest.partition(":")
        return f"{self.directory}/{algorithm}/{digits}"

    def has(self, digest: str) -> bool:
        """Whether it is there, whole."""
        return os.path.exists(self.path(digest))

    def size(self, digest: str) -> int:
        """Bytes. NotFound."""
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            raise NotFound(f"blob {digest}: is not in the store") from None

    def open(self, digest: str) -> int:
        """A descriptor for reading, which the caller closes. NotFound."""
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"blob {digest}: is not in the store") from None

    def read(self, digest: str, most: int) -> bytes:
        """All of a small blob. NotFound; InvalidInput: it has more than `most` bytes."""
        fd = self.open(digest)
        try:
            data = os.read(fd, most + 1)
        finally:
            os.close(fd)
        if len(data) > most:
            raise InvalidInput(f"blob {digest}: is larger than {most} bytes")
        return data

    def put(self, source: bytes | BinaryIO | Iterable[bytes], expected: str = "") -> tuple[str, int]:
        """Store bytes, a binary file or pieces; (digest, bytes).

        expected: the digest that it must have. InvalidInput: it has another; Error: no space, no permission. Nothing is
        kept then.
        """
        if expected and self.has(expected):
            return expected, self.size(expected)
        with self.draft(expected.partition(":")[0] or "sha256") as draft:
            for piece in _pieces(source):
                draft.write(piece)
            return draft.commit(expected), draft.size

    def draft(self, algorithm: str = "sha256") -> Draft:
        """An empty blob to write to. Use it in a `with` block: without `commit` nothing of it stays."""
        return Draft(self, os.urandom(8).hex(), algorithm=algorithm)

    def download(self, digest: str) -> Draft | None:
        """The blob of a known digest to write to, None if it is there already.

        While another process or thread writes the same blob, this waits. `Draft.size` bytes may be there from a
        download that broke off: go on after those (or `restart`).
        """
        while not self.has(digest):
            draft = Draft(self, digest.replace(":", "-"), digest)
            if not self.has(digest):
                return draft
            draft.close()
        return None

    def adopt(self, path: str, digest: str) -> None:
        """Take over a file of the same file system, whose digest the caller has computed, by a hard link."""
        target = self.path(digest)
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.link(path, target)
        except FileExistsError:
            return
        except OSError as error:
            raise Error(complaint(error, f"blob {digest}", self.directory)) from None

    def link(self, digest: str, path: str) -> None:
        """Give a blob a second name outside of the store: a hard link. OSError where that cannot be."""
        os.link(self.path(digest), path)

    def remove(self, digest: str) -> None:
        """Remove a blob; a missing one is fine."""
        try:
            os.unlink(self.path(digest))
        except FileNotFoundError:
            pass

    def all(self) -> Iterator[str]:
        """The digests of all that are there."""
        for algorithm in ("sha256", "sha512"):
            try:
                names = os.listdir(f"{self.directory}/{algorithm}")
            except FileNotFoundError:
                continue
            yield from (f"{algorithm}:{name}" for name in sorted(names))

    def sweep(self, kept: float = _KEPT) -> int:
        """Remove drafts that nobody writes; how many. kept: seconds for which a broken download stays."""
        swept = 0
        drafts = f"{self.directory}/drafts"
        try:
            names = os.listdir(drafts)
        except FileNotFoundError:
            return 0
        for name in names:
            try:
                fd = os.open(f"{drafts}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                old = "-" not in name or time.time() - os.fstat(fd).st_mtime >= kept
                if old and os.path.samestat(os.stat(f"{drafts}/{name}"), os.fstat(fd)):
                    os.unlink(f"{drafts}/{name}")
                    swept += 1
            except (BlockingIOError, FileNotFoundError):
                pass
            finally:
                os.close(fd)
        return swept


def _pieces(source: bytes | BinaryIO | Iterable[bytes]) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
    elif hasattr(source, "read"):
        while data := source.read(_CHUNK):
            yield data
    else:
        yield from source


class Draft:
    """A blob being written. `size`: bytes so far."""

    def __init__(self, blobs: Blobs, name: str, digest: str = "", algorithm: str = "sha256") -> None:
        self._blobs, self._expected = blobs, digest
        self._algorithm = digest.partition(":")[0] or algorithm
        self.path = f"{blobs.directory}/drafts/{name}"
        try:
            self.fd = self._locked()
        except OSError as error:
            raise Error(complaint(error, f"blob {digest}".strip(), blobs.directory)) from None
        self.size = 0
        self._keep = False
        try:
            self._begin()
        except BaseException:
            os.close(self.fd)
            raise

    def _locked(self) -> int:
        while True:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if os.path.samestat(os.stat(self.path), os.fstat(fd)):
                    return fd
            except FileNotFoundError:  # the holder before us has finished, or given up
                pass
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _begin(self) -> None:
        import hashlib

        self._hash = hashlib.new(self._algorithm, usedforsecurity=True)
        while data := os.read(self.fd, _CHUNK):
            self._hash.update(data)
            self.size += len(data)

    def restart(self) -> None:
        """Forget what is there."""
        os.ftruncate(self.fd, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)
        self.size = 0
        self._begin()

    def write(self, data: bytes) -> None:
        """Append. Error: no space."""
        self._hash.update(data)
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self.fd, rest) :]
        except OSError as error:
            raise Error(complaint(error, f"blob {self._expected}".strip(), self._blobs.directory)) from None
        self.size += len(data)

    def keep(self) -> None:
        """On leaving without a commit keep what is there, for a later `download` of the same digest."""
        self._keep = bool(self._expected)

    def commit(self, expected: str = "", sync: bool = True) -> str:
        """Give it its name; the digest. InvalidInput: it is not the expected one; nothing stays then.

        sync: have it on disk first, so that a crash of the machine cannot leave an empty file of that name. Without,
        the caller sees to it (`syncfs`) before anything refers to the blob.
        """
        expected = expected or self._expected
        algorithm = self._hash.name
        if expected and not expected.startswith(f"{algorithm}:"):
            raise InvalidInput(f"blob {expected}: was written as {algorithm}")
        digest = f"{algorithm}:{self._hash.hexdigest()}"
        if expected and digest != expected:
            self._keep = False
            raise InvalidInput(f"blob {expected}: what came has the digest {digest}: refused")
        target = self._blobs.path(digest)
        try:
            if sync:
                os.fsync(self.fd)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.rename(self.path, target)
        except OSError as error:
            raise Error(complaint(error, f"blob {digest}", self._blobs.directory)) from None
        os.close(self.fd)
        self.fd = -1
        return digest

    def close(self) -> None:
        """Let go of it: without a `commit` or `keep` before, nothing of it stays."""
        if self.fd < 0:
            return
        if not self._keep:
            try:
                os.unlink(self.path)
            except FileNotFoundError:
                pass
        os.close(self.fd)
        self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
