"""Archives that ADD unpacks: tar, plain or packed with gzip, zstd, bzip2 or xz, told by their first bytes.

What is in them is as hostile as any image: it is unpacked by `corten.images.unpack`, to a directory of the step's own,
and copied from there.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

from corten.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    class _Readable(Protocol):
        def read(self, size: int) -> bytes: ...


_STREAMED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
"""What `unpack` reads itself: gzip and zstd."""
_OTHERS = (b"BZh", b"\xfd7zXZ\0")
_CHUNK = 1 << 20


def is_archive(fd: int) -> bool:
    """Whether an open file is a tar archive, packed or not."""
    head = os.pread(fd, 512, 0)
    if not head.startswith((*_STREAMED, *_OTHERS)):
        return _is_header(head)
    try:
        return _is_header(_plain(fd, head).read(512))
    except (OSError, EOFError, ValueError, InvalidInput):
        return False


def _is_header(block: bytes) -> bool:
    """Whether a block begins a tar archive: by its mark, or, in the oldest form, by its checksum."""
    import tarfile

    if len(block) < 512 or not block.strip(b"\0"):
        return False
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def _plain(fd: int, head: bytes) -> _Readable:
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    if head.startswith(_STREAMED):
        from corten.images.archive import Limits
        from corten.images.decompress import Contents

        try:
            data = Contents(again, "", Limits()).read(512)
        finally:
            os.close(again)
        import io

        return io.BytesIO(data)
    file = os.fdopen(again, "rb")
    if head.startswith(b"BZh"):
        import bz2

        return bz2.open(file)
    import lzma

    return lzma.open(file)


@contextmanager
def unpacked(fd: int, word: str, directory: str) -> Iterator[int]:
    """An archive unpacked into a directory that is made for it; its descriptor. InvalidInput: damaged or hostile.

    fd: of the archive; it is closed here.
    """
    from corten.images.archive import Limits
    from corten.images.unpack import unpack

    try:
        os.mkdir(directory, 0o700)
        os.mkdir(f"{directory}/root", 0o755)
        os.lseek(fd, 0, os.SEEK_SET)
        head = os.pread(fd, 512, 0)
        if head.startswith(_OTHERS):
            _to_file(fd, head, word, f"{directory}/plain", Limits().total)
            os.close(fd)
            fd = os.open(f"{directory}/plain", os.O_RDONLY | os.O_CLOEXEC)
        unpack(fd, word, f"{directory}/root", Limits())
    finally:
        os.close(fd)
    root = os.open(f"{directory}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield root
    finally:
        os.close(root)


def _to_file(fd: int, head: bytes, word: str, path: str, most: int) -> None:
    plain, count = _plain(fd, head), 0
    with open(path, "xb") as file:
        try:
            while data := plain.read(_CHUNK):
                count += len(data)
                if count > most:
                    raise InvalidInput(f"archive {word!r}: unpacks to more than {most} bytes: refused")
                file.write(data)
        except (EOFError, ValueError, ArithmeticError) as error:
            raise InvalidInput(f"archive {word!r}: is damaged or truncated: {error}") from None
        except OSError as error:
            if error.errno:
                raise
            raise InvalidInput(f"archive {word!r}: is damaged or truncated: {error}") from None
