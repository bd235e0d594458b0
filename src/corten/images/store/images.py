"""The images of one home: blobs, unpacked layers and names, and what makes images of them.

    HOME/images/blobs/     manifests, configurations, packed layers: by digest (store/blobs.py)
    HOME/images/layers/    unpacked layers: by diff id (store/layers.py)
    HOME/images/names/     what is called what (store/names.py)
    HOME/images/lock       held shared by whoever makes something that nothing refers to yet, alone by who removes

Rule 1: first blobs and layers, then the manifest, then the name. So what a name leads to is there and whole, whatever
        was killed when.
Rule 2: what no name leads to is garbage, except while somebody `using` the store may still refer to it.
"""

from __future__ import annotations

import fcntl
import os

from corten.errors import Error, InvalidInput, NotFound
from corten.images import manifests, references
from corten.images.manifests import Config, Descriptor, Manifest
from corten.images.references import Reference
from corten.images.store.blobs import Blobs
from corten.images.store.failures import complaint
from corten.images.store.journal import mend
from corten.images.store.layers import Layers
from corten.images.store.names import Name, Names
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType
    from typing import Any, Self


class Layer(Record):
    """One layer of an image: its blob, and the digest of what that unpacks to."""

    blob: Descriptor
    diff_id: str


class Image(Record):
    """An image that is in the store.

    digest: of its manifest, which is its id; names: its references as text, in full.
    """

    digest: str
    size: int
    manifest: Manifest
    config: Config
    names: tuple[str, ...] = ()

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, lowest first."""
        return tuple(map(Layer, self.manifest.layers, self.config.diff_ids))

    @property
    def descriptor(self) -> Descriptor:
        """What refers to it in an index."""
        return Descriptor(self.manifest.media_type, self.digest, self.size, self.config.platform)


class Using:
    """A lock on the store, for a `with` block: nothing that was made meanwhile is taken for garbage.

    alone: for who looks for garbage; BlockingIOError if others are making something. mend: is called when it is held.
    """

    def __init__(self, path: str, alone: bool = False, mend: Callable[[], None] = lambda: None) -> None:
        self._path, self._alone, self._mend = path, alone, mend

    def __enter__(self) -> Self:
        try:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise Error(complaint(error, "a lock", os.path.dirname(self._path))) from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB if self._alone else fcntl.LOCK_SH)
            self._mend()
        except BaseException:
            os.close(self._fd)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._fd)


class Store:
    """The images below a home directory of Corten (`corten.engine.home.directory()`). Making one costs nothing.

    Safe for any number of processes and threads at once; each may be killed at any moment. default_registry: what
    names without one mean; None: as the configuration says.
    """

    def __init__(self, home: str, default_registry: str | None = None) -> None:
        self._default = default_registry
        self.directory = f"{home}/images"
        self.blobs = Blobs(f"{self.directory}/blobs")
        self.layers = Layers(f"{self.directory}/layers")
        self.names = Names(f"{self.directory}/names")

    @property
    def default_registry(self) -> str:
        """What names without a registry mean."""
        if self._default is None:
            from corten.images.registry import configuration

            self._default = configuration.load().default
        return self._default

    def reference(self, text: str) -> Reference:
        """A reference that a person wrote. InvalidInput."""
        return references.parse(text, self.default_registry)

    def using(self) -> Using:
        """For a `with` block around making blobs, layers and images: what is made in it is not swept before its end."""
        return Using(f"{self.directory}/lock", mend=lambda: mend(self))

    # --- making

    def make_image(
        self,
        config: dict[str, Any],
        layers: Sequence[Layer],
        tags: Sequence[Reference] = (),
        annotations: dict[str, str] | None = None,
    ) -> Image:
        """An image of a configuration (OCI, as JSON data; its `rootfs` is filled in here) and layers, lowest first.

        The same input gives the same digest. tags: names that it gets; without any it is kept as an image without a
        name. Call it within `using()`, as all that makes its layers. InvalidInput: the configuration is malformed, or
        a layer is not in the store.
        """
        from corten.json_text import dumps

        for layer in layers:
            if not self.blobs.has(layer.blob.digest):
                raise InvalidInput(f"layer {layer.blob.digest}: is not in the store")
        raw = {**config, "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}}
        manifests.config_of(raw)
        digest, size = self.blobs.put(dumps(raw).encode())
        manifest = Manifest(
            Descriptor(manifests.CONFIG, digest, size),
            tuple(layer.blob.replace(platform=None) for layer in layers),
            annotations=annotations or {},
        )
        digest, size = self.blobs.put(manifests.serialise(manifest))
        image = self.image(digest)
        if not tags:
            self.keep(image)
        for tag in tags:
            self.tag(image, tag)
        return image.replace(names=tuple(map(str, tags)))

    def tag(self, image: Image, reference: Reference, index: Descriptor | None = None) -> None:
        """Give an image a name. An image that loses the name so, and has no other, is kept without one.

        InvalidInput: the name has the digest of something else in it.
        """
        import time

        if reference.digest and reference.digest not in (image.digest, index.digest if index else ""):
            raise InvalidInput(f"image {reference.short!r}: its digest is not that of image {image.digest}")
        try:
            old = self.names.get(reference)
        except InvalidInput:
            old = None  # damaged: this mends it
        config = image.manifest.config.digest
        self.names.set(Name(str(reference), image.descriptor, index, int(time.time()), config))
        self.names.remove(image.digest)  # it has a name now
        if old and old.manifest.digest != image.digest:
            self._keep_without_name(old)

    def _keep_without_name(self, record: Name) -> None:
        import time

        if not any(name.manifest.digest == record.manifest.digest for name in self.names.all()):
            self.names.set(record.replace(name="", index=None, since=int(time.time())))

    def keep(self, image: Image) -> None:
        """Keep an image that has no name from being garbage, until somebody prunes."""
        self._keep_without_name(Name("", image.descriptor, config=image.manifest.config.digest))

    def untag(self, reference: Reference) -> None:
        """Take a name away; an image without another is garbage now, and the next `prune` takes it. NotFound."""
        if not self.names.remove(str(reference)):
            raise NotFound(f"image {reference.short!r}: not found")

    # --- finding

    def image(self, digest: str) -> Image:
        """The image with a manifest of this digest, without its names. NotFound, InvalidInput: it is not whole."""
        data = self.blobs.read(digest, manifests.LARGEST)
        manifest = manifests.parse(data, f"manifest {digest}")
        if not isinstance(manifest, Manifest):
            raise InvalidInput(f"manifest {digest}: is an index of images, not an image")
        config = self.config(manifest.config.digest)
        if len(config.diff_ids) != len(manifest.layers):
            place = f"config {manifest.config.digest}"
            raise InvalidInput(f"{place}: lists {len(config.diff_ids)} layers, but there are {len(manifest.layers)}")
        return Image(digest, len(data), manifest, config)

    def find(self, text: str) -> Image | None:
        """The image that a person means by a reference, a digest or the first digits of one; None if there is none.

        Digests: of the manifest, of the index it came by, or of the configuration (docker's image id). InvalidInput:
        the text is no reference, several images begin so, or the image is damaged.
        """
        record = self.record(text)
        if record is None:
            return None
        try:
            return self.image(record.manifest.digest).replace(names=(record.name,) if record.name else ())
        except InvalidInput as error:
            raise self.damage(record.name or record.manifest.digest, error) from None

    def damage(self, name: str, error: InvalidInput) -> InvalidInput:
        """The error about an image that is not whole."""
        return InvalidInput(f"image {name}: is damaged: {error}: get it again, or remove it with 'corten image rm'")

    def record(self, text: str) -> Name | None:
        """The same without a look at the image itself."""
        record: Name | None = None
        if not references.is_digest(text):
            try:
                reference = self.reference(text)
            except InvalidInput:
                if not references.is_prefix(text):
                    raise
            else:
                record = self.names.get(reference) or self._by_digest(reference)
        if record is None and references.is_prefix(text):
            record = self._by_prefix(text if ":" in text else f"sha256:{text}")
        return record

    def _by_digest(self, reference: Reference) -> Name | None:
        """`name@digest` is also known if that content came under another tag of the same name."""
        if not reference.digest:
            return None
        for record in self.names.all():
            digests = record.manifest.digest, record.index.digest if record.index else ""
            if reference.digest in digests and record.name.startswith((f"{reference.name}:", f"{reference.name}@")):
                return record
        return None

    def _by_prefix(self, prefix: str) -> Name | None:
        found: dict[str, Name] = {}
        for record in self.names.all():
            digests = record.manifest.digest, record.index.digest if record.index else "", record.config
            if any(digest.startswith(prefix) for digest in digests):
                found[record.manifest.digest] = record
        if len(found) > 1:
            raise InvalidInput(f"image {prefix}: {len(found)} images begin so: give more digits")
        return next(iter(found.values()), None)

    def images(self, told: Callable[[str], None] | None = None) -> Iterator[Image]:
        """All images with their names, in no order.

        told: is given a line about each that is damaged. InvalidInput: one is, and nobody wants to be told.
        """
        names: dict[str, list[str]] = {}
        for record in self.names.all():
            names.setdefault(record.manifest.digest, []).append(record.name)
        damaged = list(self.names.damaged())
        for digest, found in names.items():
            try:
                image = self.image(digest)
            except InvalidInput as error:
                damaged.append(str(self.damage(found[0] or digest, error)))
            else:
                yield image.replace(names=tuple(name for name in found if name))
        for line in damaged:
            if told is None:
                raise InvalidInput(line)
            told(line)

    # --- running

    def config(self, digest: str) -> Config:
        """A configuration by its digest. NotFound, InvalidInput."""
        return manifests.parse_config(self.blobs.read(digest, manifests.LARGEST_CONFIG), f"config {digest}")

    def lowers(self, image: Image) -> tuple[str, ...]:
        """The directories of an image's layers, topmost first, as an overlay wants them. Missing ones are unpacked."""
        from corten.images.layers.settling import settle

        trees = [self.lower(layer) for layer in image.layers]
        settle(trees)
        return tuple(reversed(trees))

    def lower(self, layer: Layer) -> str:
        """The directory of one layer."""
        from corten.images.layers.unpacking import ensure

        return ensure(self, layer)
