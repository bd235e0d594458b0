"""IMAGE made into what the runtime mounts: a `RootSource`.

Rule 1: resolving changes nothing that a container could see later; it only fills caches below `home`.
Rule 2: what is found ready costs stats, and imports neither tarfile nor a decompressor.
"""

from __future__ import annotations

import os

from corten.errors import Error, InvalidInput, NotFound
from corten.images.root_source import Bind, Layer, RootSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from corten.images.manifests import Platform
    from corten.images.registry.watching import Watcher
    from corten.images.store.images import Store
    from corten.images.store.names import Name

__all__ = ["Bind", "Layer", "RootSource", "directory", "resolve", "sweep"]

_ARCHIVE_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.zst")
_USUAL_PLACES = ("bin", "usr/bin", "sbin", "usr/sbin", "usr/local/bin")


def resolve(
    image: str, *, home: str, pull: str = "missing", platform: str = "", watch: Callable[[], Watcher] | None = None
) -> RootSource:
    """The root of an image: `host`, the path of a tar archive (plain, gzip or zstd), or an image of a registry.

    home: a directory of ours, where images, unpacked archives and the parts of `host` are kept; pull: whether an image
    is fetched from its registry: always, missing (if it is not in the store) or never; platform: of the image that is
    wanted, "" for this machine's; watch: gives who is told how that goes. NotFound: no such image; InvalidInput: it is
    damaged or hostile; Error: no space, no permission, no answer from the registry.
    """
    if image == "host":
        from corten.images import host

        return host.source(home)
    if is_path(image):
        from corten.images import archive

        return RootSource(lowers=(archive.unpacked(image, home),))
    from corten.images.store.images import Store

    store = Store(home)
    record = store.record(image) if pull != "always" else None
    here = "is not in the store"
    if record and platform and not _is_for(store, record, platform):
        here = f"the one in the store is for {store.config(record.config).platform}, not {platform}"
        record = None
    if record is None:
        if pull == "never":
            raise NotFound(f"image {image!r}: {here}: leave --pull never out, or give an archive's path")
        from corten.images.registry.pulling import pull as fetch
        from corten.images.registry.watching import SILENT

        try:
            watcher = watch() if watch else SILENT
            record = fetch(store, image, platform, watcher)
            from corten.images.layers.owners import complaint

            line = complaint(store.layers, store.config(record.config).diff_ids, record.name)
            if line:
                watcher.say(line)
        except Error as error:
            if type(error) is not Error or pull == "always":
                raise
            raise NotFound(f"image {image!r}: {here}, and cannot be fetched: {error}") from None
    return _of_image(store, record)


def is_path(image: str) -> bool:
    """Whether a file is meant: its name begins like a path, or ends like an archive."""
    return image.startswith(("/", "./", "../")) or image.endswith(_ARCHIVE_ENDINGS)


def _is_for(store: Store, record: Name, platform: str) -> bool:
    from corten.images.manifests import fits, parse_platform

    return fits(store.config(record.config).platform, parse_platform(platform))


def _of_image(store: Store, record: Name) -> RootSource:
    try:
        config = store.config(record.config)
        if not all(map(store.layers.has, config.diff_ids)) or _owners_can_be_mended(store, config.diff_ids):
            store.lowers(store.image(record.manifest.digest))
    except InvalidInput as error:
        raise store.damage(record.name or record.manifest.digest, error) from None
    if config.platform.os != "linux":
        name = record.name or record.manifest.digest
        raise InvalidInput(f"image {name}: is for {config.platform}: only images for linux can be run")
    # An overlay refuses the same directory twice; the lower one of two equal layers shows nothing of its own.
    lowers = [store.layers.path(diff_id) for diff_id in dict.fromkeys(reversed(config.diff_ids))]
    if not lowers:
        raise InvalidInput(f"image {record.name or record.manifest.digest}: has no layers, so nothing that could run")
    env = dict(entry.split("=", 1) for entry in config.env if entry.find("=") > 0)
    return RootSource(
        tuple(lowers),
        env=env,
        workdir="/" + config.workdir.strip("/"),
        entrypoint=config.entrypoint,
        cmd=config.cmd,
        user=config.user,
        volumes=tuple("/" + path.strip("/") for path in config.volumes if path.strip("/")),
        stop_signal=config.stop_signal,
        holds=tuple(os.path.dirname(path) for path in lowers),
        foreign=_foreign(record.name, config.platform),
    )


def _owners_can_be_mended(store: Store, diff_ids: tuple[str, ...]) -> bool:
    if not os.geteuid() or not any(map(store.layers.is_squashed, diff_ids)):
        return False
    from corten.runtime import helper

    return helper.own_maps() is not None


def _foreign(name: str, platform: Platform) -> str:
    from corten.images.manifests import own_platform

    own = own_platform()
    if platform.architecture in ("", own.architecture):
        return ""
    return f"the image {name} is for {platform}, and this machine is {own}: see --platform"


def directory(path: str) -> str:
    """The absolute path of a --rootfs directory. NotFound, InvalidInput: it is missing, or cannot be a root."""
    where = os.path.realpath(path)
    try:
        with os.scandir(where) as entries:
            found = list(entries)
    except FileNotFoundError:
        raise NotFound(f"rootfs {path!r}: no such directory") from None
    except NotADirectoryError:
        raise InvalidInput(f"rootfs {path!r}: not a directory: give an archive as the image instead") from None
    except OSError as error:
        raise InvalidInput(f"rootfs {path!r}: cannot be read: {error.strerror}") from None
    if where == "/":
        raise InvalidInput("rootfs '/': the machine's own root is the image 'host'")
    if not found:
        raise InvalidInput(f"rootfs {path!r}: is empty: unpack a root file system there, or use the image 'host'")
    if any(entry.is_file() and os.access(entry.path, os.X_OK) for entry in found):
        return where
    for place in _USUAL_PLACES:
        # A link such as /bin -> /usr/bin is meant below the root; that it is there is enough here.
        if os.path.lexists(f"{where}/{place}"):
            return where
    raise InvalidInput(f"rootfs {path!r}: does not look like a root file system: it has no program and no bin, usr/bin")


def sweep(home: str) -> int:
    """Remove what killed commands have left half made below `home`; the number of directories removed."""
    from corten.images.store import once

    return sum(once.sweep(f"{home}/{name}") for name in ("archives", "host"))
