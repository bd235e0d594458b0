"""What is kept on disk, and how much of it nothing needs."""

from __future__ import annotations

import os

from corten.errors import Error
from corten.images.store.images import Store
from corten.images.store.removal import in_use, reached
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Row(Record):
    """One kind of thing. used: how many are needed; size, unused: bytes on disk, of all and of those not needed."""

    what: str
    count: int
    used: int
    size: int
    unused: int


def usage(home: str, told: Callable[[str], None] | None = None) -> list[Row]:
    """Images (packed), layers (unpacked), containers, and what is kept of archives and of this machine.

    told: is given a line about each image that is damaged; what it needs cannot be told from what nothing needs.
    InvalidInput: there is one, and nobody wants to be told.
    """
    store = Store(home)
    images = list(store.images(told))
    mounted = [image for image in images if in_use(store, image)]
    running = {digest for image in mounted for digest in image.config.diff_ids}
    try:
        blobs, _ = reached(store)
    except Error:
        blobs = set(store.blobs.all())
    packed = {digest: store.blobs.size(digest) for digest in store.blobs.all()}
    layers = {diff_id: size(os.path.dirname(store.layers.path(diff_id))) for diff_id in store.layers.all()}
    containers = _each(f"{home}/containers")
    others = _each(f"{home}/archives") + _each(f"{home}/host")
    return [
        Row("images", len(images), len(mounted), sum(packed.values()),
            sum(size for digest, size in packed.items() if digest not in blobs)),
        Row("layers", len(layers), len(running & set(layers)), sum(layers.values()),
            sum(size for diff_id, size in layers.items() if diff_id not in running)),
        Row("containers", len(containers), len(containers), sum(containers), 0),
        Row("archives and host", len(others), len(others), sum(others), 0),
    ]  # fmt: skip


def _each(directory: str) -> list[int]:
    try:
        names = [name for name in os.listdir(directory) if name[0] != "."]
    except FileNotFoundError:
        return []
    return [size(f"{directory}/{name}") for name in names]


def size(path: str) -> int:
    """Bytes on disk of a directory and what lies below it, hard links counted once; what cannot be read counts as 0."""
    seen: set[tuple[int, int]] = set()
    return sum(_sizes(path, seen))


def _sizes(path: str, seen: set[tuple[int, int]]) -> Iterable[int]:
    for top, _, files in os.walk(path):
        for name in (".", *files):
            try:
                about = os.lstat(f"{top}/{name}")
            except OSError:  # removed meanwhile
                continue
            if (about.st_dev, about.st_ino) not in seen:
                seen.add((about.st_dev, about.st_ino))
                yield about.st_blocks * 512
