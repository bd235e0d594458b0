"""Manifests, indexes and configurations of images: bytes to records and back. Pure.

Both families of media types are read (OCI image specification 1.1, Docker image manifest version 2, schema 2); what is
made here is OCI. An error is one line that names the field as JSON has it.
"""

from __future__ import annotations

import os

from corten.errors import InvalidInput
from corten.images.references import check_digest
from corten.json_text import loads
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TypeVar

    R = TypeVar("R", bound=Record)

OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker."
MANIFEST, INDEX, CONFIG = f"{OCI}manifest.v1+json", f"{OCI}index.v1+json", f"{OCI}config.v1+json"
LAYER, LAYER_GZIP, LAYER_ZSTD = f"{OCI}layer.v1.tar", f"{OCI}layer.v1.tar+gzip", f"{OCI}layer.v1.tar+zstd"
DOCKER_MANIFEST = f"{DOCKER}distribution.manifest.v2+json"
DOCKER_LIST = f"{DOCKER}distribution.manifest.list.v2+json"
DOCKER_CONFIG, DOCKER_LAYER = f"{DOCKER}container.image.v1+json", f"{DOCKER}image.rootfs.diff.tar.gzip"
MANIFESTS = (MANIFEST, DOCKER_MANIFEST)
INDEXES = (INDEX, DOCKER_LIST)

LARGEST = 4 << 20
"""Bytes of a manifest; registries refuse larger ones, too."""
LARGEST_CONFIG = 16 << 20
_LONGEST_SHOWN = 80  # characters of a wrong value in an error
_MOST_LAYERS = 500  # what an overlay takes (OVL_MAX_STACK)


class Platform(Record):
    """What an image runs on, in Go's words: `linux`, `arm64`, `v8`."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(word for word in (self.os, self.architecture, self.variant) if word)


class Descriptor(Record):
    """A reference to a blob: what it is, its digest, its size in bytes."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] = {}
    artifact_type: str = ""


class Manifest(Record):
    """One image for one platform. `layers`: lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = MANIFEST
    schema_version: int = 2
    annotations: dict[str, str] = {}


class Index(Record):
    """The same image for several platforms."""

    manifests: tuple[Descriptor, ...]
    media_type: str = INDEX
    schema_version: int = 2
    annotations: dict[str, str] = {}


def parse(data: bytes, place: str, media_type: str = "") -> Manifest | Index:
    """A manifest or index. place: begins the errors; media_type: what the sender called it, if anything.

    InvalidInput: damaged, or of a kind that is not known here.
    """
    found = _object(data, place)
    if found.get("schemaVersion") == 1 or "fsLayers" in found:
        raise InvalidInput(f"{place}: is of schema version 1, given up years ago: have the image built anew")
    kind = found.get("mediaType") or media_type.partition(";")[0].strip()
    if not kind:  # OCI makes the field optional
        kind = INDEX if "manifests" in found else MANIFEST if "layers" in found else ""
    if kind not in (*MANIFESTS, *INDEXES):
        raise InvalidInput(f"{place}: is of the unknown type {kind!r}: OCI and Docker schema 2 manifests can be read")
    if found.get("schemaVersion") not in (2, None):
        raise InvalidInput(f"{place}: schemaVersion: expected 2, got {found['schemaVersion']!r}")
    if kind in INDEXES:
        index = _decoded(Index, found, kind, place)
        _check(index.manifests, place, "manifests")
        return index
    manifest = _decoded(Manifest, found, kind, place)
    _check((manifest.config,), place, "config")
    _check(manifest.layers, place, "layers")
    if manifest.config.media_type not in (CONFIG, DOCKER_CONFIG):
        raise InvalidInput(f"{place}: holds {manifest.config.media_type!r}, which is no image to run")
    if len(manifest.layers) > _MOST_LAYERS:
        raise InvalidInput(f"{place}: has {len(manifest.layers)} layers: the kernel mounts {_MOST_LAYERS} at most")
    return manifest


def _decoded(record: type[R], found: dict[str, Any], kind: str, place: str) -> R:
    from corten.runtime.spec.decoding import decode_as

    try:
        return decode_as(record, {**found, "mediaType": kind})
    except InvalidInput as error:
        raise InvalidInput(f"{place}: {error}") from None


def _object(data: bytes, place: str) -> dict[str, Any]:
    if len(data) > LARGEST_CONFIG:
        raise InvalidInput(f"{place}: is larger than {LARGEST_CONFIG >> 20} MiB")
    try:
        found = loads(data.decode())
    except (ValueError, RecursionError):
        from corten.runtime.spec.files import parse  # it finds the words and the place; a start should not wait for it

        found = parse(data, place)
    if not isinstance(found, dict):
        raise InvalidInput(f"{place}: is no JSON object")
    if b"\\u" in data and _has_half_a_pair(found):
        raise InvalidInput(f"{place}: contains half of a surrogate pair, which is no character")
    return found


def _has_half_a_pair(value: Any) -> bool:
    """Whether a text somewhere in JSON data cannot be written as UTF-8."""
    if isinstance(value, str):
        return any("\ud800" <= c <= "\udfff" for c in value)
    if isinstance(value, dict):
        return any(_has_half_a_pair(key) or _has_half_a_pair(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_has_half_a_pair, value))


def _check(descriptors: Iterable[Descriptor], place: str, field: str) -> None:
    for number, one in enumerate(descriptors):
        where = f"{place}: {field}" + (f"[{number}]" if field != "config" else "")
        check_digest(one.digest, f"{where}.digest")
        if one.platform and not str(one.platform).isprintable():
            raise InvalidInput(f"{where}.platform: {str(one.platform)!r} is no platform")
        if one.size < 0:
            raise InvalidInput(f"{where}.size: {one.size} is negative")


def serialise(record: Manifest | Index) -> bytes:
    """The bytes to store and send; the same for equal records."""
    from corten.json_text import dumps
    from corten.runtime.spec.decoding import encode

    kind = record.media_type
    return dumps({"schemaVersion": 2, "mediaType": kind, **encode(record)}).encode()


# --- configurations


class Config(Record):
    """What an image says about running it. `raw`: all of it as JSON data, never to be changed in place."""

    raw: dict[str, Any]
    diff_ids: tuple[str, ...]
    platform: Platform
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    labels: dict[str, str] = {}


def parse_config(data: bytes, place: str) -> Config:
    """The configuration of an image. InvalidInput, beginning with `place`: damaged."""
    raw = _object(data, place)
    return config_of(raw, place)


def config_of(raw: dict[str, Any], place: str = "config") -> Config:
    """A configuration from parsed JSON. InvalidInput: a field of the wrong type."""
    inner = _typed(raw, "config", dict, place) or {}
    rootfs = _typed(raw, "rootfs", dict, place) or {}
    diff_ids = _words(rootfs, "diff_ids", f"{place}: rootfs")
    for number, digest in enumerate(diff_ids):
        check_digest(digest, f"{place}: rootfs.diff_ids[{number}]")
    inside = f"{place}: config"
    _typed(raw, "created", str, place)
    for number, entry in enumerate(_typed(raw, "history", list, place) or []):
        where = f"{place}: history[{number}]"
        if not isinstance(entry, dict):
            raise InvalidInput(f"{where}: expected object, got {_shown(entry)}")
        for key in ("created", "created_by", "comment"):
            _typed(entry, key, str, where)
    platform = Platform(
        _typed(raw, "os", str, place) or "linux",
        _typed(raw, "architecture", str, place) or "",
        _typed(raw, "variant", str, place) or "",
    )
    if not str(platform).isprintable():
        raise InvalidInput(f"{place}: {str(platform)!r} is no platform")
    return Config(
        raw=raw,
        diff_ids=diff_ids,
        platform=platform,
        env=_words(inner, "Env", inside),
        entrypoint=_words(inner, "Entrypoint", inside),
        cmd=_words(inner, "Cmd", inside),
        user=_typed(inner, "User", str, inside) or "",
        workdir=_typed(inner, "WorkingDir", str, inside) or "",
        volumes=tuple(_typed(inner, "Volumes", dict, inside) or {}),
        stop_signal=_typed(inner, "StopSignal", str, inside) or "",
        labels={str(key): str(value) for key, value in (_typed(inner, "Labels", dict, inside) or {}).items()},
    )


_WORDS = {"dict": "object", "str": "string", "list": "array"}


def _typed(found: dict[str, Any], key: str, kind: type, place: str) -> Any:
    value = found.get(key)
    if value is not None and not isinstance(value, kind):
        raise InvalidInput(f"{place}: {key}: expected {_WORDS[kind.__name__]}, got {_shown(value)}")
    texts = value if isinstance(value, dict) else [value] if isinstance(value, str) else []
    if any("\0" in text for text in texts):
        raise InvalidInput(f"{place}: {key}: contains a NUL character, which no program can receive")
    return value


def _words(found: dict[str, Any], key: str, place: str) -> tuple[str, ...]:
    values = _typed(found, key, list, place) or []
    for number, value in enumerate(values):
        if not isinstance(value, str) or "\0" in value:
            raise InvalidInput(f"{place}: {key}[{number}]: {_shown(value)} is not text")
    return tuple(values)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


# --- platforms

_MACHINES = {"x86_64": ("amd64", ""), "aarch64": ("arm64", "v8"), "armv7l": ("arm", "v7"), "i686": ("386", "")}


def own_platform() -> Platform:
    """The platform of this machine."""
    machine = os.uname().machine
    return Platform("linux", *_MACHINES.get(machine, (machine, "")))


def parse_platform(text: str, label: str = "--platform") -> Platform:
    """`linux/arm64/v8`, or `arm64` alone. InvalidInput."""
    words = text.lower().split("/")
    if len(words) == 1:
        words = ["linux", *words]
    if len(words) > 3 or not all(word.replace("-", "").replace(".", "").isalnum() for word in words):
        raise InvalidInput(f"{label}: {text!r} is not OS/ARCHITECTURE[/VARIANT], such as linux/arm64")
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(words[1], words[1])
    return Platform(words[0], architecture, words[2] if len(words) == 3 else "")


def choose(index: Index, wanted: Platform, place: str) -> Descriptor:
    """The manifest of an index for a platform. InvalidInput: there is none; it says which there are."""
    images = [one for one in index.manifests if one.platform is None or one.platform.os != "unknown"]
    fitting = [one for one in images if one.platform and fits(one.platform, wanted)]
    if fitting:
        # The exact variant first; else the index's own order, which is the builder's preference.
        return min(fitting, key=lambda one: (one.platform or wanted).variant != wanted.variant)
    if len(images) == 1 and images[0].platform is None:
        return images[0]
    there = ", ".join(dict.fromkeys(str(one.platform) for one in images if one.platform)) or "none"
    raise InvalidInput(f"{place}: has nothing for {wanted}: there is {there}: choose one with --platform")


def fits(offered: Platform, wanted: Platform) -> bool:
    """Whether what is for one platform is what was asked for."""
    if (offered.os, offered.architecture) != (wanted.os, wanted.architecture):
        return False
    implied = {"arm64": "v8"}.get(wanted.architecture, "")
    return not wanted.variant or (offered.variant or implied) == wanted.variant
