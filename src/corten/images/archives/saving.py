"""Images written to one archive that is both: an OCI layout, and what `docker load` reads. Or to a directory.

    oci-layout, index.json          for skopeo, umoci, containerd, podman
    manifest.json                   for docker
    blobs/sha256/HEX                manifests, configurations, layers: as they came

Rule: the same images give the same bytes.
Source: OCI image specification, image-layout.md; docker's image archive (moby, image/spec).
"""

from __future__ import annotations

import os

from corten.errors import Error, InvalidInput, NotFound
from corten.images import manifests
from corten.images.manifests import Index
from corten.images.references import parse
from corten.images.store.failures import complaint
from corten.json_text import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterator, Sequence

    from corten.images.store.images import Image, Store

_LAYOUT = '{"imageLayoutVersion":"1.0.0"}'
NAME = "org.opencontainers.image.ref.name"
FULL_NAME = "io.containerd.image.name"


def chosen(store: Store, texts: Sequence[str]) -> list[Image]:
    """The images that are meant. A text that is a name is the name to save; a digest means the image with all names."""
    found = []
    for text in texts:
        image = store.find(text)
        if image is None:
            raise NotFound(f"image {text!r}: is not in the store: see 'corten image ls'")
        found.append(image)
    return found


def save(store: Store, images: Sequence[Image], fd: int) -> None:
    """Write images to a descriptor as an archive. OSError: it cannot be written to."""
    import tarfile

    with os.fdopen(os.dup(fd), "wb") as out, store.using(), tarfile.open(fileobj=out, mode="w|") as tar:
        for name, text in _texts(images):
            _add(tar, name, len(text.encode()), text.encode())
        for digest in _digests(images):
            blob = store.blobs.open(digest)
            try:
                _add(tar, _place(digest), os.fstat(blob).st_size, blob)
            finally:
                os.close(blob)


def _add(tar: tarfile.TarFile, name: str, size: int, source: bytes | int) -> None:
    import io
    import tarfile

    entry = tarfile.TarInfo(name)
    entry.size = size
    if isinstance(source, bytes):
        tar.addfile(entry, io.BytesIO(source))
        return
    with open(source, "rb", closefd=False) as file:
        tar.addfile(entry, file)


def save_layout(store: Store, images: Sequence[Image], directory: str) -> None:
    """Write images to a directory as an OCI layout; one that is there must be empty. InvalidInput, Error."""
    try:
        if os.path.isdir(directory) and os.listdir(directory):
            raise InvalidInput(f"{directory}: is not empty")
        with store.using():
            os.makedirs(f"{directory}/blobs/sha256", exist_ok=True)
            for digest in _digests(images):
                _copy(store, digest, f"{directory}/{_place(digest)}")
            for name, text in _texts(images):
                with open(f"{directory}/{name}", "w", encoding="utf-8") as file:
                    file.write(text)
    except OSError as error:
        raise Error(complaint(error, "an OCI layout", directory)) from None


def _copy(store: Store, digest: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    blob = store.blobs.open(digest)
    try:
        with open(target, "xb") as out:
            while os.sendfile(out.fileno(), blob, None, 1 << 30):
                pass
    finally:
        os.close(blob)


def _place(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"


def _digests(images: Sequence[Image]) -> Iterator[str]:
    seen: dict[str, None] = {}
    for image in images:
        digests = image.digest, image.manifest.config.digest, *(layer.blob.digest for layer in image.layers)
        seen.update(dict.fromkeys(digests))
    yield from seen


def _texts(images: Sequence[Image]) -> list[tuple[str, str]]:
    """(name, content) of the files that say what there is."""
    listed, docker = [], []
    for image in images:
        for name in image.names or ("",):
            notes = {FULL_NAME: name, NAME: parse(name).tag} if name and parse(name).tag else {}
            listed.append(image.descriptor.replace(annotations=notes))
        docker.append(
            {
                "Config": _place(image.manifest.config.digest),
                "RepoTags": [name for name in map(_tagged, image.names) if name] or None,
                "Layers": [_place(layer.blob.digest) for layer in image.layers],
            }
        )
    index = manifests.serialise(Index(tuple(listed))).decode()
    return [("oci-layout", _LAYOUT), ("index.json", index), ("manifest.json", dumps(docker))]


def _tagged(name: str) -> str:
    # In full: podman takes a short name for one of its own (localhost/…).
    return str(parse(name).replace(digest="")) if parse(name).tag else ""
