"""A root file system in a tar archive made an image, and the reverse."""

from __future__ import annotations

import os
import time

from corten.errors import InvalidInput, errno_words
from corten.images import manifests
from corten.images.archives.loading import open_archive
from corten.images.layers.commit import write_archive
from corten.images.manifests import LAYER_GZIP, LAYER_ZSTD, Descriptor
from corten.images.store.images import Layer, Store
from corten.runtime import helper
from corten.runtime.steps.root import in_user_namespace, overlay_of_many

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from corten.images.references import Reference
    from corten.images.store.images import Image

_CHUNK = 1 << 20
_DIGITS = 11  # of a time that has a year of four digits


def import_root(
    store: Store, source: str | int, tag: Reference | None, config: dict[str, Any] | None = None, message: str = ""
) -> Image:
    """An image of one layer: a tar archive (plain, gzip, zstd), given by path or as a descriptor read to its end.

    config: the `config` of the image, such as {"Cmd": ["sh"]}. NotFound, InvalidInput: there is no such archive, or it
    is damaged or hostile; Error: no space.
    """
    label = source if isinstance(source, str) else "-"
    with store.using():
        fd = open_archive(source)
        try:
            with store.blobs.draft() as draft:
                kind = _copy(fd, label, draft.write)
                digest, size = draft.commit(), draft.size
        finally:
            if fd != source:
                os.close(fd)
        layer = Layer(Descriptor(kind, digest, size), _diff_id(store, digest, label))
        store.lower(layer)
        epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
        seconds = int(epoch) if epoch.isdecimal() and len(epoch) <= _DIGITS else int(time.time())
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
        platform = manifests.own_platform()
        raw = {
            "created": created, "architecture": platform.architecture, "os": "linux", "config": config or {},
            "history": [{"created": created, "created_by": "corten image import", "comment": message or label}],
        }  # fmt: skip
        return store.make_image(raw, [layer], [tag] if tag else [])


def _copy(fd: int, label: str, write: Callable[[bytes], None]) -> str:
    """The archive as it is or, if it is plain, packed; its media type. InvalidInput: it cannot be read."""
    from corten.images.decompress import HEAD, Packed, packing
    from corten.images.layers.packing import packer

    source = Packed(fd)
    try:
        kind = packing(source.peek(HEAD), label)
        pack = packer("gzip" if kind == "none" else "none")
        while data := source.read(_CHUNK):
            write(pack.compress(data))
    except OSError as error:
        raise InvalidInput(f"archive {label!r}: cannot be read: {errno_words(error.errno or 0)}") from None
    write(pack.flush())
    return LAYER_ZSTD if kind == "zstd" else LAYER_GZIP


def _diff_id(store: Store, digest: str, label: str) -> str:
    """The digest of what a packed layer unpacks to. InvalidInput: it is damaged, or no archive."""
    import hashlib

    from corten.images.archive import Limits
    from corten.images.decompress import Contents

    seen = hashlib.sha256()
    fd = store.blobs.open(digest)
    try:
        contents = Contents(fd, label, Limits(), seen)
        while contents.read(_CHUNK):
            pass
    finally:
        os.close(fd)
    return f"sha256:{seen.hexdigest()}"


def export_root(store: Store, image: Image, fd: int) -> None:
    """Write the root file system of an image, all layers laid over each other, to a descriptor as a plain tar archive.

    InvalidInput: it has no layers; OSError: it cannot be written to.
    """
    if not image.layers:
        raise InvalidInput(f"image {(*image.names, image.digest)[0]}: has no layers, so no files")
    lowers = tuple(dict.fromkeys(store.lowers(image)))
    where = "corten.images.archives.root_archives:flatten"
    helper.call(where, (tuple(map(os.path.abspath, lowers)),), (fd,), helper.own_maps(), mounts=True)


def flatten(lowers: tuple[str, ...], fd: int) -> None:
    """The same in a process that has a mount namespace of its own, and the rights to mount."""
    mount, root = -1, lowers[0]
    if len(lowers) > 1:
        mount = overlay_of_many(lowers, ("userxattr",) if in_user_namespace() else ())
        root = f"/proc/self/fd/{mount}"
    with open(fd, "wb", 1 << 18) as out:
        write_archive(root, out.write, flat=True)
    if mount >= 0:
        os.close(mount)
