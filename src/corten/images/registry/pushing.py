"""An image from the store to a registry.

Rule 1: first the blobs, then the manifest, so that what a name leads to is there.
Rule 2: what the registry has is not sent: neither what lies in the repository, nor what it can mount from another one
        of the same registry that we know to have it.
Rule 3: blobs go in chunks; a chunk that failed goes again from where the registry says it is.
"""

from __future__ import annotations

import os

from corten.errors import Error, InvalidInput, NotFound
from corten.images import manifests, references
from corten.images.manifests import Descriptor
from corten.images.references import Reference
from corten.images.registry import configuration, together
from corten.images.registry.client import Registry
from corten.images.registry.failures import Broken
from corten.images.registry.halt import Halt
from corten.images.registry.watching import SILENT, Watcher
from corten.images.store.images import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    import httpx

CHUNK = 16 << 20
"""Bytes of a request with a part of a blob."""


def push(store: Store, text: str, destination: str, watcher: Watcher = SILENT) -> str:
    """Send an image to the registry and repository of `destination`; the digest of its manifest.

    NotFound: the image is not in the store; InvalidInput: the destination is no reference, or the registry does not let
    us; Error: the registry gives no answer.
    """
    settings = configuration.load()
    reference = references.parse(destination, settings.default)
    if reference.digest:
        raise InvalidInput(f"image {destination!r}: a push gives a tag, not a digest")
    image = store.find(text)
    if image is None:
        raise NotFound(f"image {text!r}: is not in the store: see 'corten image ls'")
    sources = _repositories(store, reference)
    try:
        halt = Halt()
        with Registry(settings.settings(reference.registry), watcher.say, halt=halt) as registry, store.using():
            sending = _Push(store, registry, reference, watcher, sources, halt)
            sending.blobs([*image.manifest.layers, image.manifest.config])
            data = store.blobs.read(image.digest, manifests.LARGEST)
            sending.manifest(data, image.manifest.media_type)
    finally:
        watcher.end()
    return image.digest


def _repositories(store: Store, reference: Reference) -> dict[str, str]:
    """Digest of a blob: another repository of the same registry that has it, by the names in the store."""
    found: dict[str, str] = {}
    for record in store.names.all():
        if not record.name:
            continue
        other = references.parse(record.name)
        if other.registry == reference.registry and other.repository != reference.repository:
            for layer in store.image(record.manifest.digest).manifest.layers:
                found[layer.digest] = other.repository
    return found


class _Push:
    """One push."""

    def __init__(
        self, store: Store, registry: Registry, reference: Reference, watcher: Watcher, sources: dict[str, str],
        halt: Halt,
    ) -> None:  # fmt: skip
        self.store, self.registry, self.reference = store, registry, reference
        self.watcher, self.sources = watcher, sources
        self.halt = halt
        self.path = f"/v2/{reference.repository}"

    def _ask(self, method: str, path: str, what: str, good: tuple[int, ...], **options: object) -> httpx.Response:
        return self.registry.request(
            method, path, what, self.reference.repository, actions="pull,push", good=good, **options  # type: ignore[arg-type]
        )

    def blobs(self, blobs: list[Descriptor]) -> None:
        once = {blob.digest: blob for blob in blobs}  # the same layer may be there twice
        for blob in once.values():
            self.watcher.begin(blob.digest, blob.size, word="waiting")
        together.for_each(once.values(), self._blob, self.halt, "corten-push")

    def _blob(self, blob: Descriptor) -> None:
        what = f"blob {blob.digest}"
        answer = self._ask("HEAD", f"{self.path}/blobs/{blob.digest}", what, (200, 404))
        if answer.status_code == 200:
            self.watcher.begin(blob.digest, blob.size, blob.size, "there")
            return
        answer = self._begin(blob)
        if answer.status_code == 201:
            self.watcher.begin(blob.digest, blob.size, blob.size, "mounted")
            return
        fd = self.store.blobs.open(blob.digest)
        self.watcher.begin(blob.digest, blob.size)
        try:
            self._send(fd, blob, answer)
        finally:
            os.close(fd)
        self.watcher.phase(blob.digest, "done")

    def _begin(self, blob: Descriptor) -> httpx.Response:
        """The blob mounted from another repository (201), or an upload that has begun (202)."""
        what, path = f"blob {blob.digest}", f"{self.path}/blobs/uploads/"
        source = self.sources.get(blob.digest)
        if source:
            query, scope = f"?mount={blob.digest}&from={source}", f"repository:{source}:pull"
            try:
                return self._ask("POST", f"{path}{query}", what, (201, 202), more_scopes=(scope,))
            except InvalidInput:  # we may not read there, or it is gone: then the blob is sent
                pass
        return self._ask("POST", path, what, (202,))

    def _place(self, answer: httpx.Response, what: str) -> str:
        """Where the upload goes on."""
        location = answer.headers.get("location", "")
        if not location:
            raise Error(f"{what}: registry {self.registry.host}: does not say where to send it")
        return str(answer.url.join(location))

    def _send(self, fd: int, blob: Descriptor, begun: httpx.Response) -> None:
        what = f"blob {blob.digest}"
        place = self._place(begun, what)
        least = begun.headers.get("oci-chunk-min-length", "")
        chunk = max(CHUNK, int(least) if least.isdigit() else 0)
        at, attempt = 0, 0
        while at < blob.size:
            if self.halt.is_set():
                raise Error("another layer failed")
            data = os.pread(fd, min(chunk, blob.size - at), at)
            headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{at}-{at + len(data) - 1}"}
            try:
                answer = self._ask("PATCH", place, what, (202, 204, 416), headers=headers, content=data, once=True)
                if answer.status_code == 416:
                    raise Broken("has not as much as it said")
                place, at, attempt = self._place(answer, what), at + len(data), 0
                self.watcher.advance(blob.digest, len(data))
            except Broken as broken:
                attempt += 1
                self.registry.wait(attempt, broken, what)
                place, at = self._resume(place, what)
        self._finish(blob, place)

    def _resume(self, place: str, what: str) -> tuple[str, int]:
        """Where an upload that broke goes on, and from which byte."""
        try:
            answer = self._ask("GET", place, what, (204, 200, 202))
        except NotFound:  # it is lost; to Debian's registry it is if it has a chunk whose answer we have not heard
            answer = self._ask("POST", f"{self.path}/blobs/uploads/", what, (202,))
            return self._place(answer, what), 0
        return self._place(answer, what), _reached(answer.headers.get("range", ""))

    def _finish(self, blob: Descriptor, place: str) -> None:
        what = f"blob {blob.digest}"
        url = f"{place}{'&' if '?' in place else '?'}digest={blob.digest}"
        try:
            self._ask("PUT", url, what, (201, 204), headers={"Content-Type": "application/octet-stream"})
        except NotFound:  # an attempt whose answer was lost may have ended the upload
            if self._ask("HEAD", f"{self.path}/blobs/{blob.digest}", what, (200, 404)).status_code != 200:
                raise

    def manifest(self, data: bytes, media_type: str) -> None:
        what = f"image {self.reference.short!r}"
        headers = {"Content-Type": media_type}
        self._ask("PUT", f"{self.path}/manifests/{self.reference.tag}", what, (201,), headers=headers, content=data)


def _reached(header: str) -> int:
    """How many bytes a registry has, by its Range header: `0-1023`, or `0-0` for none."""
    end = header.removeprefix("bytes=").rpartition("-")[2]
    return int(end) + 1 if end.isdigit() and int(end) > 0 else 0
