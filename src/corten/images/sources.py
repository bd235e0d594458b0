"""IMAGE made into what the runtime mounts: a `RootSource`.

Rule 1: resolving changes nothing that a container could see later; it only fills caches below `home`.
Rule 2: what is found ready costs stats, and imports neither tarfile nor a decompressor.
"""

from __future__ import annotations

import os

from corten.errors import InvalidInput, NotFound
from corten.images.root_source import Bind, Layer, RootSource

__all__ = ["Bind", "Layer", "RootSource", "directory", "resolve", "sweep"]

_ARCHIVE_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.zst")
_USUAL_PLACES = ("bin", "usr/bin", "sbin", "usr/sbin", "usr/local/bin")


def resolve(image: str, *, home: str) -> RootSource:
    """The root of an image: `host`, or the path of a tar archive (plain, gzip or zstd).

    home: a directory of ours, where unpacked archives and the parts of `host` are kept. NotFound: no such image;
    InvalidInput: the archive is damaged or hostile; Error: no space, no permission.
    """
    if image == "host":
        from corten.images import host

        return host.source(home)
    if "/" in image or image.endswith(_ARCHIVE_ENDINGS):
        from corten.images import archive

        return RootSource(lowers=(archive.unpacked(image, home),))
    raise NotFound(
        f"image {image!r}: not found: images come from 'host', a tar archive (./rootfs.tar.zst) or --rootfs DIR"
    )


def directory(path: str) -> str:
    """The absolute path of a --rootfs directory. NotFound, InvalidInput: it is missing, or cannot be a root."""
    where = os.path.realpath(path)
    try:
        with os.scandir(where) as entries:
            found = list(entries)
    except FileNotFoundError:
        raise NotFound(f"rootfs {path!r}: no such directory") from None
    except NotADirectoryError:
        raise InvalidInput(f"rootfs {path!r}: not a directory: give an archive as the image instead") from None
    except OSError as error:
        raise InvalidInput(f"rootfs {path!r}: cannot be read: {error.strerror}") from None
    if where == "/":
        raise InvalidInput("rootfs '/': the machine's own root is the image 'host'")
    if not found:
        raise InvalidInput(f"rootfs {path!r}: is empty: unpack a root file system there, or use the image 'host'")
    if any(entry.is_file() and os.access(entry.path, os.X_OK) for entry in found):
        return where
    for place in _USUAL_PLACES:
        # A link such as /bin -> /usr/bin is meant below the root; that it is there is enough here.
        if os.path.lexists(f"{where}/{place}"):
            return where
    raise InvalidInput(f"rootfs {path!r}: does not look like a root file system: it has no program and no bin, usr/bin")


def sweep(home: str) -> int:
    """Remove what killed commands have left half made below `home`; the number of directories removed."""
    from corten.images.store import once

    return sum(once.sweep(f"{home}/{name}") for name in ("archives", "host"))
