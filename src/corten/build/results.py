"""What steps have come to, by key: a layer or nothing, and when.

    HOME/build/steps/KEY/result      JSON: the layer, if there is one, and the Unix time at which it was made

Rule 1: a step is carried out once (`once.make`), in a directory of its own, by whoever comes first; others wait.
Rule 2: a result whose layer has been removed from the store counts for nothing, and is made again.
"""

from __future__ import annotations

import os

from corten.images.manifests import Descriptor
from corten.images.store import once
from corten.images.store.images import Layer, Store
from corten.json_text import dumps, loads
from corten.records import Record
from corten.runtime.removal import remove_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Result(Record):
    """What a step has come to. layer: None if it changed nothing; created: Unix time, s; cached: it was there."""

    layer: Layer | None
    created: int
    cached: bool = True


class Results:
    """The results below a directory of ours."""

    def __init__(self, directory: str, store: Store) -> None:
        self.directory, self._store = directory, store

    def find(self, key: str) -> Result | None:
        """The result of a key, None if there is none that can be used."""
        try:
            with open(f"{self.directory}/{key}/result", "rb") as file:
                data = loads(file.read().decode())
            found = data["layer"]
            layer = _layer(found) if found else None
            created = int(data["created"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):  # written by another version: as good as none
            self._drop(key)
            return None
        if layer and not (self._store.layers.has(layer.diff_id) and self._store.blobs.has(layer.blob.digest)):
            self._drop(key)
            return None
        return Result(layer, created)

    def _drop(self, key: str) -> None:
        once.remove(self.directory, key)

    def make(self, key: str, do: Callable[[str], tuple[Layer | None, int]], what: str, again: bool = False) -> Result:
        """The result of a key; `do(directory)` carries the step out if there is none. again: even if there is one."""
        if again:
            self._drop(key)
        fresh = False

        def fill(draft: str) -> None:
            nonlocal fresh
            work = f"{draft}/work"
            os.mkdir(work, 0o700)
            layer, created = do(work)
            remove_all(work)
            data = {"layer": _plain(layer) if layer else None, "created": created}
            with open(f"{draft}/result", "x", encoding="utf-8") as file:
                file.write(dumps(data))
            fresh = True

        while True:
            once.make(self.directory, key, fill, what, 0o700)
            found = self.find(key)
            if found is not None:
                return found.replace(cached=not fresh)


def _layer(found: dict[str, Any]) -> Layer:
    return Layer(Descriptor(found["mediaType"], found["digest"], found["size"]), found["diffId"])


def _plain(layer: Layer) -> dict[str, object]:
    blob = layer.blob
    return {"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size, "diffId": layer.diff_id}
