"""A tar archive as an image: unpacked once below `home`, found again by a stat.

The name of an unpacked archive says which file it came from: device, inode, size and time of change. Another file of
the same path, or the same one written to, gets another name.
"""

from __future__ import annotations

import errno
import os
import stat

from corten.errors import InvalidInput, NotFound, errno_words
from corten.images.store import once
from corten.records import Record


class Limits(Record):
    """What an archive may become.

    total: bytes of all files together, holes included; ratio: unpacked to packed bytes, looked at from `ratio_from`
    unpacked bytes on; entries: files, directories and links; header: bytes that describe one of them.
    """

    total: int = 64 << 30
    ratio: int = 1000
    ratio_from: int = 64 << 20
    entries: int = 4_000_000
    header: int = 4 << 20


def unpacked(path: str, home: str, limits: Limits = Limits()) -> str:  # noqa: B008 - a record never changes
    """The directory that holds what is in an archive, unpacked now if it was not before.

    NotFound, InvalidInput: there is no such file, it is no archive, or a hostile one; Error: no space, no permission.
    Nothing half made is left, whatever happens.
    """
    fd = _open(path)
    try:
        about = os.fstat(fd)
        if stat.S_ISDIR(about.st_mode):
            raise InvalidInput(f"image {path!r}: is a directory: use --rootfs {path}")
        if not stat.S_ISREG(about.st_mode):
            raise InvalidInput(f"image {path!r}: is not a regular file")
        name = f"{about.st_dev:x}-{about.st_ino:x}-{about.st_size:x}-{about.st_mtime_ns:x}"

        def fill(draft: str) -> None:
            from corten.images import unpack

            os.mkdir(f"{draft}/root", 0o755)
            os.chmod(f"{draft}/root", 0o755)  # noqa: S103 - whatever the umask
            unpack.unpack(fd, path, f"{draft}/root", limits)

        # Not for others to look into: it may hold programs with the set-user-id bit, put there by a stranger.
        return once.make(f"{home}/archives", name, fill, f"a root from archive {path!r}", 0o700) + "/root"
    finally:
        os.close(fd)


def _open(path: str) -> int:
    try:
        # Not waiting for a writer, should it be a fifo.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotFound(f"image {path!r}: no such file") from None
    except OSError as error:
        number = error.errno or errno.EIO
        raise InvalidInput(f"image {path!r}: cannot be read: {errno_words(number)}") from None
    except ValueError:
        raise InvalidInput(f"image {path!r}: is not a path") from None
