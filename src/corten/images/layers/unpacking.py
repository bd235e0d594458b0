"""From the blob of a layer to its directory in the store, checked against its diff id."""

from __future__ import annotations

import os

from corten.errors import InvalidInput
from corten.images.layers.settling import IMPLIED
from corten.images.store.layers import SQUASHED
from corten.json_text import dumps
from corten.runtime import helper

_OWN_PROCESS = 1 << 20
"""Bytes of a packed layer from which on it is worth the start of a process."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.images.store.images import Layer, Store
    from corten.runtime.helper import Maps


def ensure(store: Store, layer: Layer, sync: bool = True) -> str:
    """The directory of a layer, unpacked from its blob if it is not there yet, or if that can be done better now.

    NotFound: the blob is not in the store either; InvalidInput: it is damaged, hostile, or unpacks to something else
    than the configuration says; Error: no space.
    """
    again = store.layers.is_squashed(layer.diff_id) and helper.own_maps() and store.layers.remove(layer.diff_id)
    if not again and store.layers.has(layer.diff_id):
        return store.layers.path(layer.diff_id)
    fd = store.blobs.open(layer.blob.digest)
    try:
        return store.layers.make(layer.diff_id, lambda tree: unpack_from(fd, layer, tree, sync))
    finally:
        os.close(fd)


def unpack_from(fd: int, layer: Layer, directory: str, sync: bool = True) -> None:
    """Unpack the packed layer that is read from a descriptor into an empty directory, with the owners that it says.

    An ordinary user's owners are those of its ranges in /etc/subuid and /etc/subgid, as in its containers; without
    ranges all is its own. sync: have it on disk; else a `Journal` sees to it. InvalidInput, OSError as `unpack`.
    """
    maps = helper.own_maps()
    implied: list[str]
    others: int
    if maps or layer.blob.size > _OWN_PROCESS:  # unpacking is work for one CPU: another layer may use another
        where = "corten.images.layers.unpacking:unpack_layer"
        implied, others = helper.call(where, (layer.diff_id, directory, maps, sync), (fd,), maps)
    else:
        implied, others = unpack_layer(layer.diff_id, directory, maps, sync, fd)
    if implied:
        with open(os.path.join(os.path.dirname(directory), IMPLIED), "w", encoding="utf-8") as file:
            file.write(dumps(implied))
    if others:
        with open(os.path.join(os.path.dirname(directory), SQUASHED), "w", encoding="ascii") as file:
            file.write(f"{others}\n")


def unpack_layer(diff_id: str, directory: str, maps: Maps | None, sync: bool, fd: int) -> tuple[list[str], int]:
    """The same in this process, which is root or in a user namespace with these maps.

    Gives the directories that the layer has, but does not list (their mode and owner are those of a lower layer), and
    how many of its files belong to others than root, but not here.
    """
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
    tree = LayerTree(root, directory, maps)
    unpack.fill(contents, name, tree, limits, sync)
    found = f"{seen.name}:{seen.hexdigest()}"
    if found != diff_id:
        raise InvalidInput(f"layer {diff_id}: unpacks to something else, {found}: refused")
    return sorted(tree.implied), tree.others
