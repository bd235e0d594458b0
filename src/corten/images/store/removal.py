"""Taking images away, and with them whatever nothing leads to any more.

Rule: garbage is only looked for while nobody makes anything (the store's lock, held alone), and what a container has
mounted is held and stays.
"""

from __future__ import annotations

import os

from corten.errors import Error, InvalidInput, NotFound
from corten.images import references
from corten.images.store.images import Image, Store, Using
from corten.linux import locks
from corten.records import Record


class Freed(Record):
    """What was removed. names: that were taken away; images: digests; size: bytes of blobs; layers: how many."""

    names: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    blobs: int = 0
    size: int = 0
    layers: int = 0


def remove(store: Store, text: str, force: bool = False) -> Freed:
    """Take a name away, or by its digest an image with all its names (several: only with `force`).

    NotFound; InvalidInput: it has several names. What only it needed is removed, unless somebody is making images just
    now: then the next `prune` does it.
    """
    try:
        record = store.record(text)
    except InvalidInput:
        if not store.names.remove(str(store.reference(text))):
            raise
        return _collected(store).replace(names=(str(store.reference(text)),))
    if record is None:
        raise NotFound(f"image {text!r}: not found")
    by_digest = references.is_prefix(text) and not (
        record.name and record.name == str(references.parse(text, store.default_registry))
    )
    names = [record.name]
    if by_digest or not record.name:
        names = [one.name for one in store.names.all() if one.manifest.digest == record.manifest.digest]
    if len(names) > 1 and not force:
        raise InvalidInput(f"image {text}: has {len(names)} names: {', '.join(names)}: name one, or give --force")
    for name in names:
        store.names.remove(name or record.manifest.digest)
    left = any(one.manifest.digest == record.manifest.digest for one in store.names.all())
    freed = _collected(store)
    return freed.replace(names=tuple(filter(None, names)), images=() if left else (record.manifest.digest,))


def _collected(store: Store) -> Freed:
    """What could be collected now; an image that is damaged is in the way until it is removed, too."""
    try:
        return collect(store, wanted=False) or Freed()
    except Error:
        return Freed()


def prune(store: Store, everything: bool = False) -> Freed:
    """Remove images without a name (everything: all that no container uses), and what nothing leads to.

    Error: others are making images just now.
    """
    names: list[str] = []
    digests: list[str] = []
    for image in list(store.images()):
        if image.names and not (everything and not in_use(store, image)):
            continue
        for name in image.names or ("",):
            store.names.remove(name or image.digest)
        names += image.names
        digests.append(image.digest)
    freed = collect(store, wanted=True)
    assert freed is not None
    return freed.replace(names=tuple(names), images=tuple(digests))


def in_use(store: Store, image: Image) -> bool:
    """Whether somebody has a layer of the image mounted that is there."""
    return any(locks.held(os.path.dirname(store.layers.path(diff_id))) for diff_id in image.config.diff_ids)


def collect(store: Store, wanted: bool) -> Freed | None:
    """Remove blobs and layers that no name leads to, and what killed processes left.

    While others are making images: an Error if `wanted` (the caller wants it done), else None.
    """
    try:
        with Using(f"{store.directory}/lock", alone=True):
            blobs, layers = reached(store)
            store.blobs.sweep()
            store.layers.sweep()
            store.names.sweep()
            count = size = 0
            for digest in [one for one in store.blobs.all() if one not in blobs]:
                size += store.blobs.size(digest)
                store.blobs.remove(digest)
                count += 1
            gone = [store.layers.remove(diff_id) for diff_id in list(store.layers.all()) if diff_id not in layers]
            return Freed(blobs=count, size=size, layers=sum(gone))
    except BlockingIOError:
        if wanted:
            raise Error("images are being pulled, built or loaded just now: prune when that is over") from None
        return None


def reached(store: Store) -> tuple[set[str], set[str]]:
    """(digests of blobs, diff ids of layers) that names lead to. Error: an image is damaged."""
    blobs: set[str] = set()
    layers: set[str] = set()
    for line in store.names.damaged():
        raise Error(line)
    for record in store.names.all():
        blobs.add(record.manifest.digest)
        if record.index:
            blobs.add(record.index.digest)
        try:
            image = store.image(record.manifest.digest)
        except (NotFound, InvalidInput) as error:
            raise Error(str(store.damage(record.name or record.manifest.digest, error))) from None
        blobs.add(image.manifest.config.digest)
        blobs.update(layer.digest for layer in image.manifest.layers)
        layers.update(image.config.diff_ids)
    return blobs, layers
