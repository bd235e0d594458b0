"""Images read from an archive or a directory: OCI layouts, and what `docker save` writes, old and new.

Rule 1: what an archive calls a thing is only used to find it again; it is stored by the digest of its bytes.
Rule 2: names are given when all of an image is there, checked and unpacked.
"""

from __future__ import annotations

import os
import stat

from corten.errors import InvalidInput, NotFound, errno_words
from corten.images import manifests
from corten.images.archives.saving import FULL_NAME, NAME
from corten.images.manifests import LAYER, LAYER_GZIP, LAYER_ZSTD, Descriptor, Index, Manifest, Platform
from corten.images.store.images import Image, Layer, Store
from corten.linux import paths
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile
    from typing import Any

    from corten.images.references import Reference

_SMALL = manifests.LARGEST_CONFIG


class _Blob(Record):
    digest: str
    size: int


class Found:
    """The files of an archive that are in the store by now: name: blob, or for a link the name that it leads to."""

    def __init__(self, store: Store, source: str) -> None:
        self.store, self.source = store, source
        self._directory = -1
        self._blobs: dict[str, _Blob | str] = {}

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Take a member of the archive."""
        name = os.path.normpath(member.name)
        if member.islnk():
            self._blobs[name] = os.path.normpath(member.linkname)
        elif member.issym():
            self._blobs[name] = os.path.normpath(os.path.join(os.path.dirname(name), member.linkname))
        elif member.isfile():
            source = archive.extractfile(member)
            assert source is not None, "only called for files"
            self._blobs[name] = _Blob(*self.store.blobs.put(source))

    def add_directory(self, directory: str) -> None:
        """Take files of an OCI layout, each when it is asked for: who knows what else lies there."""
        self._directory = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of the directory."""
        if self._directory >= 0:
            os.close(self._directory)

    def _from_directory(self, name: str) -> _Blob | None:
        if self._directory < 0 or "\0" in name:
            return None
        try:
            # Links lead only inside: a layout from a stranger must not fetch files of this machine into an image.
            fd = paths.open_in_root(self._directory, name, os.O_RDONLY | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise InvalidInput(f"{self.source}: {name}: cannot be read: {errno_words(error.errno or 0)}") from None
        with open(fd, "rb") as source:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            self._blobs[name] = found = _Blob(*self.store.blobs.put(source))
        return found

    def get(self, name: str) -> _Blob:
        """A file. InvalidInput: it is not there."""
        name = os.path.normpath(name)
        for _ in range(8):
            found = self._blobs.get(name) or self._from_directory(name)
            if isinstance(found, _Blob):
                return found
            if found is None:
                break
            name = found
        raise InvalidInput(f"{self.source}: {name if name.isprintable() else ascii(name)} is missing")

    def has(self, name: str) -> bool:
        """Whether a file of that name came."""
        return name in self._blobs or self._from_directory(name) is not None

    def read(self, name: str) -> bytes:
        """A small file."""
        return self.store.blobs.read(self.get(name).digest, _SMALL)


def load(store: Store, source: str | int, platform: str = "") -> list[Image]:
    """The images of an archive (a path, or a descriptor that is read to its end) or of an OCI layout directory.

    platform: which of several, as for `pull`. NotFound: there is no such file; InvalidInput: it is no such archive,
    damaged or hostile; Error: no space.
    """
    wanted = manifests.parse_platform(platform) if platform else manifests.own_platform()
    label = f"archive {source!r}" if isinstance(source, str) else "archive"
    with store.using():
        found = Found(store, label)
        try:
            if isinstance(source, str) and os.path.isdir(source):
                found.add_directory(source)
            else:
                _read(found, source)
            if found.has("index.json"):
                return _load_layout(store, found, wanted)
            if found.has("manifest.json"):
                return _load_docker(store, found)
        finally:
            found.close()
    hint = "is it a root file system? see 'corten image import'"
    raise InvalidInput(f"{label}: holds no image: it has neither index.json nor manifest.json: {hint}")


def _read(found: Found, source: str | int) -> None:
    from corten.images import unpack
    from corten.images.archive import Limits
    from corten.images.decompress import Contents

    fd = open_archive(source)
    limits = Limits(ratio=100_000)  # blobs are packed already; those that are not are checked when they are unpacked
    try:
        name = source if isinstance(source, str) else "-"
        unpack.read(Contents(fd, name, limits), name, found, limits)
    finally:
        if fd != source:
            os.close(fd)


def open_archive(source: str | int) -> int:
    """A descriptor for reading; one that is given is passed through. NotFound, InvalidInput."""
    if isinstance(source, int):
        return source
    try:
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"archive {source!r}: no such file") from None
    except OSError as error:
        raise InvalidInput(f"archive {source!r}: cannot be read: {errno_words(error.errno or 0)}") from None
    except ValueError:
        raise InvalidInput(f"archive {source!r}: is not a path") from None
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidInput(f"archive {source!r}: is a directory")
    return fd


# --- OCI layouts


def _load_layout(store: Store, found: Found, wanted: Platform) -> list[Image]:
    index = manifests.parse(found.read("index.json"), f"{found.source}: index.json", manifests.INDEX)
    if not isinstance(index, Index):
        raise InvalidInput(f"{found.source}: index.json is no index")
    images: list[Image] = []
    for one in index.manifests:
        descriptor, data = one, _blob(found, one)
        parsed = manifests.parse(data, f"{found.source}: {one.digest}", one.media_type)
        outer: Descriptor | None = None
        if isinstance(parsed, Index):
            outer, descriptor = one, manifests.choose(parsed, wanted, found.source)
            parsed = manifests.parse(_blob(found, descriptor), f"{found.source}: {descriptor.digest}")
        if not isinstance(parsed, Manifest):
            raise InvalidInput(f"{found.source}: {descriptor.digest} is no image")
        _blob(found, parsed.config)
        for layer in parsed.layers:
            _check(found, layer)
        image = store.image(descriptor.digest)
        store.lowers(image)
        reference = _named(store, one.annotations)
        images.append(_name(store, image, [reference] if reference else [], outer))
    if not images:
        raise InvalidInput(f"{found.source}: index.json lists no image")
    return images


def _blob(found: Found, descriptor: Descriptor) -> bytes:
    _check(found, descriptor)
    return found.store.blobs.read(descriptor.digest, _SMALL)


def _check(found: Found, descriptor: Descriptor) -> None:
    """See that the blob of a descriptor is in the store. InvalidInput: it is missing, or has other bytes."""
    name, blobs = f"blobs/{descriptor.digest.replace(':', '/', 1)}", found.store.blobs
    blob = found.get(name)
    if not descriptor.digest.startswith("sha256:"):  # what it is stored by as yet
        with open(blobs.path(blob.digest), "rb") as file:
            blobs.put(file, descriptor.digest)
    elif blob.digest != descriptor.digest:
        raise InvalidInput(f"{found.source}: {name} has the digest {blob.digest}: refused")


def _named(store: Store, annotations: dict[str, str]) -> Reference | None:
    for text in (annotations.get(FULL_NAME, ""), annotations.get(NAME, "")):
        # A bare tag is what the specification allows, too: it names nothing.
        if text and ("/" in text or ":" in text):
            return store.reference(text)
    return None


def _name(store: Store, image: Image, references: list[Reference], index: Descriptor | None) -> Image:
    for reference in references:
        store.tag(image, reference, index)
    if not references:
        store.keep(image)
    return image.replace(names=tuple(map(str, references)))


# --- docker archives


def _load_docker(store: Store, found: Found) -> list[Image]:
    place = f"{found.source}: manifest.json"
    from corten.runtime.spec.files import parse

    listed = parse(found.read("manifest.json"), place)
    if not isinstance(listed, list) or not listed:
        raise InvalidInput(f"{place}: lists no image")
    return [_load_one(store, found, entry, f"{place}: [{number}]") for number, entry in enumerate(listed)]


def _load_one(store: Store, found: Found, entry: Any, place: str) -> Image:
    if not isinstance(entry, dict) or not isinstance(entry.get("Config"), str):
        raise InvalidInput(f"{place}: Config: missing")
    names, tags = entry.get("Layers") or [], entry.get("RepoTags") or []
    lists = isinstance(names, list) and isinstance(tags, list)
    if not lists or not all(isinstance(word, str) for word in (*names, *tags)):
        raise InvalidInput(f"{place}: Layers and RepoTags: expected lists of text")
    config = manifests.parse_config(found.read(entry["Config"]), f"{found.source}: {entry['Config']}")
    if len(config.diff_ids) != len(names):
        raise InvalidInput(f"{place}: has {len(names)} layers, but its configuration lists {len(config.diff_ids)}")
    layers = []
    for name, diff_id in zip(names, config.diff_ids, strict=True):
        blob = found.get(name)
        layers.append(Layer(Descriptor(_kind(store, blob.digest), blob.digest, blob.size), diff_id))
    made = found.get(entry["Config"])
    manifest = Manifest(Descriptor(manifests.CONFIG, made.digest, made.size), tuple(layer.blob for layer in layers))
    digest, _ = store.blobs.put(manifests.serialise(manifest))
    image = store.image(digest)
    store.lowers(image)
    return _name(store, image, [store.reference(tag) for tag in tags], None)


def _kind(store: Store, digest: str) -> str:
    """The media type of a layer by its first bytes. InvalidInput: it is packed with something else."""
    from corten.images.decompress import HEAD, packing

    fd = store.blobs.open(digest)
    head = os.read(fd, HEAD)
    os.close(fd)
    return {"gzip": LAYER_GZIP, "zstd": LAYER_ZSTD, "none": LAYER}[packing(head, f"layer {digest[:19]}")]
