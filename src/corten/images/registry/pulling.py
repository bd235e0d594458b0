"""An image from its registry into the store.

Rule 1: every byte is checked against the digest that asked for it: the manifest by the reference or the registry's own
        header, the rest by the manifest, unpacked layers by the configuration.
Rule 2: layers come at the same time. Of each, receiving, hashing, writing, decompressing and unpacking overlap: what
        arrives is written to its blob and goes through a pipe to whoever unpacks it.
Rule 3: the name is given last, and the disk is waited for once, before that. Whatever fails before leaves at most
        whole blobs and layers, and drafts that the next pull goes on with.
"""

from __future__ import annotations

from corten.errors import Error, InvalidInput, NotFound
from corten.images import manifests, references
from corten.images.layers.flow import Flow
from corten.images.manifests import Descriptor, Index, Manifest, Platform
from corten.images.references import Reference
from corten.images.registry import configuration, together
from corten.images.registry.client import Registry
from corten.images.registry.failures import Broken, reason
from corten.images.registry.halt import Halt
from corten.images.registry.watching import SILENT, Watcher
from corten.images.store.images import Layer, Store
from corten.images.store.journal import Journal

TYPE_CHECKING = False
if TYPE_CHECKING:
    import httpx

    from corten.images.store.blobs import Draft
    from corten.images.store.names import Name

_ACCEPT = ", ".join((*manifests.MANIFESTS, *manifests.INDEXES))


def pull(
    store: Store, text: str, platform: str = "", watcher: Watcher = SILENT, halt: Halt | None = None
) -> Name:
    """Fetch an image by its reference, and unpack it; what the store then has under its name.

    platform: `linux/arm64`; "" for this machine's; halt: ends it, with an Error. Mirrors are asked first. InvalidInput:
    the reference is none, or the image is damaged or not for this platform; NotFound: there is no such image; Error:
    the registry gives no answer, no space.
    """
    settings = configuration.load()
    reference = references.parse(text, settings.default)
    wanted = manifests.parse_platform(platform) if platform else manifests.own_platform()
    hosts = (*settings.settings(reference.registry).mirrors, reference.registry)
    try:
        for host in hosts:
            try:
                own = Halt(halt)
                with Registry(settings.settings(host), watcher.say, halt=own) as registry, store.using():
                    return _Pull(store, registry, reference, watcher, own).run(wanted)
            except Error as error:
                if host == reference.registry or (halt and halt.is_set()):
                    raise
                watcher.say(f"mirror {host}: {error}")
    finally:
        watcher.end()
    raise AssertionError("a registry is its own last mirror")


def fetch_manifest(registry: Registry, reference: Reference, name: str) -> tuple[bytes, Descriptor]:
    """The manifest or index that a reference stands for: its bytes, checked, and what it is. name: a tag or digest."""
    what = f"image {reference.short!r}"
    attempt = 0
    while True:
        answer = registry.request(
            "GET", f"/v2/{reference.repository}/manifests/{name}", what, reference.repository,
            headers={"Accept": _ACCEPT}, stream=True,
        )  # fmt: skip
        try:
            data = _read_small(answer, manifests.LARGEST, what, registry)
            break
        except Broken as broken:
            attempt += 1
            registry.wait(attempt, broken, what)
    import hashlib

    said = answer.headers.get("docker-content-digest", "")
    expected = name if references.is_digest(name) else said
    algorithm = expected.partition(":")[0] if references.is_digest(expected) else "sha256"
    digest = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    if references.is_digest(expected) and digest != expected:
        raise InvalidInput(f"{what}: manifest {expected}: what came has the digest {digest}: refused")
    parsed = manifests.parse(data, f"{what}: manifest", answer.headers.get("content-type", ""))
    return data, Descriptor(parsed.media_type, digest, len(data))


def _read_small(answer: httpx.Response, most: int, what: str, registry: Registry) -> bytes:
    """The body of an answer that must not be large. Broken."""
    import httpx

    data = b""
    try:
        for piece in answer.iter_bytes():
            data += piece
            if len(data) > most:
                raise InvalidInput(f"{what}: is larger than {most >> 20} MiB: refused")
    except httpx.HTTPError as error:
        raise reason(error, registry.settings) from None
    finally:
        answer.close()
    return data


class _Pull:
    """One pull from one registry."""

    def __init__(
        self, store: Store, registry: Registry, reference: Reference, watcher: Watcher, halt: Halt
    ) -> None:
        self.store, self.registry, self.reference, self.watcher = store, registry, reference, watcher
        self.halt = halt
        self.full = False  # the disk: then no half download is kept

    def run(self, wanted: Platform) -> Name:
        what = f"image {self.reference.short!r}"
        asked = self.reference.digest or self.reference.tag
        data, descriptor = self._manifest(asked)
        index: Descriptor | None = None
        parsed = manifests.parse(data, what, descriptor.media_type)
        if isinstance(parsed, Index):
            index = descriptor
            chosen = manifests.choose(parsed, wanted, what)
            data, descriptor = self._manifest(chosen.digest)
            parsed = manifests.parse(data, what, descriptor.media_type)
        if not isinstance(parsed, Manifest):
            raise InvalidInput(f"{what}: its index lists another index")
        config = self._config(parsed)
        other = (config.os, config.architecture) != (wanted.os, wanted.architecture)
        if index is None and other and config.architecture:
            raise InvalidInput(f"{what}: has nothing for {wanted}: there is {config}: give --platform {config}")
        image = self.store.image(descriptor.digest)
        made = [blob.digest for blob in parsed.layers]
        with Journal(self.store, made, image.config.diff_ids) as journal:
            self._layers(parsed)
            self.store.lowers(image)
            journal.settle()
        self.store.tag(image, self.reference, index)
        record = self.store.names.get(self.reference)
        if record is None:  # removed by somebody at this very moment
            raise NotFound(f"{what}: was removed while it was pulled")
        return record

    def _manifest(self, asked: str) -> tuple[bytes, Descriptor]:
        if references.is_digest(asked) and self.store.blobs.has(asked):
            data = self.store.blobs.read(asked, manifests.LARGEST)
            return data, Descriptor(manifests.parse(data, asked).media_type, asked, len(data))
        data, descriptor = fetch_manifest(self.registry, self.reference, asked)
        self.store.blobs.put(data, descriptor.digest)
        return data, descriptor

    def _config(self, manifest: Manifest) -> Platform:
        digest = manifest.config.digest
        if manifest.config.size > manifests.LARGEST_CONFIG:
            raise InvalidInput(f"config {digest}: is larger than {manifests.LARGEST_CONFIG >> 20} MiB: refused")
        if not self.store.blobs.has(digest):
            self._blob(manifest.config, None)
        config = self.store.config(digest)
        if len(config.diff_ids) != len(manifest.layers):
            raise InvalidInput(
                f"config {digest}: lists {len(config.diff_ids)} layers, but there are {len(manifest.layers)}"
            )
        return config.platform

    def _layers(self, manifest: Manifest) -> None:
        config = self.store.config(manifest.config.digest)
        # The same layer may be there twice.
        layers = {blob.digest: Layer(blob, own) for blob, own in zip(manifest.layers, config.diff_ids, strict=True)}
        for layer in layers.values():
            self.watcher.begin(layer.blob.digest, layer.blob.size, word="waiting")
        # The largest first: they decide when it is over.
        together.for_each(
            sorted(layers.values(), key=lambda one: -one.blob.size), self._layer, self.halt, "corten-pull"
        )

    def _layer(self, layer: Layer) -> None:
        try:
            self._fetch_layer(layer)
        except BaseException as error:
            self.full = self.full or _is_full(error)  # before the other layers hear of it, and keep what they have
            raise

    def _fetch_layer(self, layer: Layer) -> None:
        here, unpacked = self.store.blobs.has(layer.blob.digest), self.store.layers.has(layer.diff_id)
        if here and unpacked:
            self.watcher.begin(layer.blob.digest, layer.blob.size, layer.blob.size, "there")
            return
        if not here:
            self._blob(layer.blob, layer)
        if not self.store.layers.has(layer.diff_id):
            from corten.images.layers.unpacking import ensure

            self.watcher.phase(layer.blob.digest, "unpacking")
            ensure(self.store, layer, sync=False)
        self.watcher.phase(layer.blob.digest, "done")

    def _blob(self, blob: Descriptor, layer: Layer | None) -> None:
        while (draft := self.store.blobs.download(blob.digest)) is not None:
            with draft:
                if draft.size > blob.size:
                    draft.restart()
                before = draft.size
                try:
                    self._fill(blob, draft, layer)
                    return
                except InvalidInput:
                    if not before:
                        raise
                    # What was there from before was wrong, perhaps of a mirror that lies: nothing of it stays.

    def _fill(self, blob: Descriptor, draft: Draft, layer: Layer | None) -> None:
        if layer:
            self.watcher.begin(blob.digest, blob.size, draft.size)
        flow = Flow(self.store, layer) if layer and not self.store.layers.has(layer.diff_id) else None
        try:
            if flow and draft.size:
                flow.feed_file(draft.path, draft.size)
            self._receive(blob, draft, flow)
            draft.commit(blob.digest, sync=layer is None)
        except BaseException as error:
            if flow:
                flow.abandon()
            if not (isinstance(error, InvalidInput) or self.full or _is_full(error)):
                draft.keep()
            raise
        if flow:
            self.watcher.phase(blob.digest, "unpacking")
            flow.finish()

    def _receive(self, blob: Descriptor, draft: Draft, flow: Flow | None) -> None:
        """All bytes of a blob that are not there yet; a connection that breaks is taken up where it broke."""
        attempt = 0
        while draft.size < blob.size:
            before = draft.size
            try:
                self._receive_once(blob, draft, flow)
                continue
            except Broken as broken:
                attempt = attempt + 1 if draft.size == before else 1
                self.registry.wait(attempt, broken, f"blob {blob.digest}")

    def _ask_for(self, blob: Descriptor, start: int) -> tuple[httpx.Response, int]:
        """The bytes of a blob from `start` on; the answer, and how many bytes of it are to be skipped."""
        what, place = f"blob {blob.digest}", f"/v2/{self.reference.repository}/blobs/{blob.digest}"
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
        answer = self.registry.request(
            "GET", place, what, self.reference.repository, good=(200, 206, 416), headers=headers, stream=True
        )
        if answer.status_code == 200:
            return answer, start  # all of it, whatever was asked for
        begins = answer.headers.get("content-range", "").removeprefix("bytes ").partition("-")[0]
        if answer.status_code == 206 and begins == str(start):
            return answer, 0
        answer.close()
        if answer.status_code == 416:
            raise InvalidInput(f"{what}: is shorter than the {blob.size} bytes promised: refused")
        raise Broken("the registry sent another part than was asked for")

    def _receive_once(self, blob: Descriptor, draft: Draft, flow: Flow | None) -> None:
        import httpx

        answer, skip = self._ask_for(blob, draft.size)
        try:
            for piece in answer.iter_raw():  # in pieces as they come: larger ones are lost when it breaks
                data = piece
                if self.halt.is_set():
                    raise Error("another layer failed")
                if skip:
                    data, skip = data[skip:], max(0, skip - len(data))
                    if not data:
                        continue
                if draft.size + len(data) > blob.size:
                    raise InvalidInput(f"blob {blob.digest}: is longer than the {blob.size} bytes promised: refused")
                draft.write(data)
                if flow:
                    flow.feed(data)
                self.watcher.advance(blob.digest, len(data))
        except (httpx.TransportError, httpx.StreamError) as error:
            raise reason(error, self.registry.settings) from None
        finally:
            answer.close()
        if draft.size < blob.size:
            raise Broken(f"the connection ended after {draft.size} of {blob.size} bytes")


def _is_full(error: BaseException) -> bool:
    return "ENOSPC" in str(error) or "EDQUOT" in str(error)

