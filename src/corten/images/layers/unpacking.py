"""From the blob of a layer to its directory in the store, checked against its diff id."""

from __future__ import annotations

import os

from corten.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.images.store.images import Layer, Store


def ensure(store: Store, layer: Layer) -> str:
    """The directory of a layer, unpacked from its blob if it is not there yet.

    NotFound: the blob is not in the store either; InvalidInput: it is damaged, hostile, or unpacks to something else
    than the configuration says; Error: no space.
    """
    if store.layers.has(layer.diff_id):
        return store.layers.path(layer.diff_id)
    fd = store.blobs.open(layer.blob.digest)
    try:
        return store.layers.make(layer.diff_id, lambda tree: unpack_layer(fd, layer.diff_id, tree))
    finally:
        os.close(fd)


def unpack_layer(fd: int, diff_id: str, directory: str, in_userns: bool = False) -> None:
    """Unpack the packed layer behind a descriptor into an empty directory. InvalidInput, OSError as `unpack`."""
    import hashlib

    from corten.images import unpack
    from corten.images.archive import Limits
    from corten.images.decompress import Contents
    from corten.images.layers.tree import LayerTree

    name = f"layer {diff_id[:19]}"
    seen = hashlib.new(diff_id.partition(":")[0])
    limits = Limits()
    contents = Contents(fd, name, limits, seen)
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    unpack.fill(contents, name, LayerTree(root, directory, in_userns), limits)
    found = f"{seen.name}:{seen.hexdigest()}"
    if found != diff_id:
        raise InvalidInput(f"layer {diff_id}: unpacks to something else, {found}: refused")
