"""A directory in overlay form made into a layer: its tar archive, packed, and the directory itself go into the store.

Rule 1: the same tree gives the same bytes: entries sorted by name, whole seconds, numbers instead of user names, and
        nothing of the file system but what the image specification knows.
Rule 2: what is kept as the unpacked layer is what the archive says: times are cut to seconds there, too.
"""

from __future__ import annotations

import os
import stat

from corten.errors import Error, InvalidInput
from corten.images.layers.tree import OPAQUE, PREFIX, set_opaque
from corten.images.lookup import OPAQUE_NAMES
from corten.images.manifests import LAYER, LAYER_GZIP, LAYER_ZSTD, Descriptor
from corten.images.store.failures import complaint
from corten.images.store.images import Layer, Store
from corten.linux import syscalls
from corten.runtime import helper

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile
    from collections.abc import Callable, Iterator

    from corten.runtime.helper import Maps

_CHUNK = 1 << 20
_XATTR = "SCHILY.xattr."
_TYPES = {"none": LAYER, "gzip": LAYER_GZIP, "zstd": LAYER_ZSTD}


def commit(store: Store, upper: str, *, packing: str = "gzip", epoch: int | None = None) -> Layer:
    """Make a layer of a directory as an overlay has written it (`upper`), which is moved into the store.

    Deleted names are 0/0 character devices, replaced directories have an opaque attribute; sockets are left out.
    packing: gzip, zstd or none; epoch: later times become this one (SOURCE_DATE_EPOCH, Unix time, s). Owners are taken
    as this process sees them. Call it within `store.using()`. The directory has to be on the store's file system and
    closed to writers. If the same layer is in the store already, the directory is removed. InvalidInput: a name that no
    archive can hold; Error: no space, no permission.
    """
    import hashlib

    from corten.images.layers.packing import packer
    from corten.runtime.removal import remove_all

    seen = hashlib.sha256()
    try:
        with store.blobs.draft() as draft:
            pack = packer(packing)

            def write(data: bytes) -> None:
                seen.update(data)
                draft.write(pack.compress(data))

            maps = helper.own_maps()
            if maps:
                _write_in_helper(upper, write, epoch, maps)
            else:
                write_archive(upper, write, epoch, settle=True, trusted=os.geteuid() == 0)
            draft.write(pack.flush())
            digest, size = draft.commit(), draft.size
        diff_id = f"sha256:{seen.hexdigest()}"
        if not store.layers.has(diff_id):
            _sync(upper)
            store.layers.adopt(diff_id, upper)
        if os.path.isdir(upper):
            remove_all(upper)
    except OSError as error:
        raise Error(complaint(error, f"a layer of {upper}", store.directory)) from None
    return Layer(Descriptor(_TYPES[packing], digest, size), diff_id)


def _write_in_helper(upper: str, write: Callable[[bytes], None], epoch: int | None, maps: Maps) -> None:
    """An ordinary user's tree has files of its other ids: what reads it is root in a user namespace that has them."""
    from concurrent.futures import ThreadPoolExecutor

    reading, writing = os.pipe2(os.O_CLOEXEC)
    where = "corten.images.layers.commit:write_to"

    def work() -> None:
        try:
            helper.call(where, (os.path.abspath(upper), epoch), (writing,), maps)
        finally:
            os.close(writing)

    with ThreadPoolExecutor(1) as pool, open(reading, "rb", 0) as pieces:
        done = pool.submit(work)
        while data := pieces.read(_CHUNK):
            write(data)
        done.result()


def write_to(directory: str, epoch: int | None, fd: int) -> None:
    """`write_archive` into a descriptor, with times settled."""
    with open(fd, "wb", 1 << 16) as out:
        write_archive(directory, out.write, epoch, settle=True)


def _sync(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.call("syncfs", fd)
    finally:
        os.close(fd)


def write_archive(
    directory: str,
    write: Callable[[bytes], object],
    epoch: int | None = None,
    settle: bool = False,
    trusted: bool = False,
    flat: bool = False,
) -> None:
    """The tar archive of a directory in overlay form, in pieces.

    settle: make times and marks on disk what the archive says; trusted: we are root, so that marks can be for all kinds
    of overlays; flat: nothing lies below, so what stands for deleted names is left out.
    """
    import tarfile

    links: dict[tuple[int, int], str] = {}
    for path, name, about in _walk(directory, "", flat):
        seconds = int(about.st_mtime_ns // 1_000_000_000)
        if epoch is not None:
            seconds = min(seconds, epoch)
        entry = tarfile.TarInfo(name)
        entry.mtime = seconds
        if _is_whiteout(about):
            if flat:
                continue
            above, _, last = name.rpartition("/")
            entry.name = f"{above}/{PREFIX}{last}" if above else f"{PREFIX}{last}"
            entry.mode = 0o600
            write(_header(entry))
            continue
        entry.mode, entry.uid, entry.gid = stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid
        if settle and about.st_mtime_ns != seconds * 1_000_000_000:
            os.utime(path, ns=(seconds * 1_000_000_000,) * 2, follow_symlinks=False)
        first = links.setdefault((about.st_dev, about.st_ino), name) if about.st_nlink > 1 else name
        if first != name and not stat.S_ISDIR(about.st_mode):
            entry.type, entry.linkname = tarfile.LNKTYPE, first
            write(_header(entry))
            continue
        if _describe(entry, path, about, write) and not flat:
            if settle:
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                set_opaque(fd, trusted)
                os.close(fd)
            mark = tarfile.TarInfo(f"{name}/{OPAQUE}" if name != "." else OPAQUE)
            mark.mode, mark.mtime = 0o600, seconds
            write(_header(mark))
    write(b"\0" * (2 * tarfile.BLOCKSIZE))


def _describe(
    entry: tarfile.TarInfo, path: str, about: os.stat_result, write: Callable[[bytes], object]
) -> bool:
    """Write one entry; whether it is an opaque directory."""
    import tarfile

    kind = stat.S_IFMT(about.st_mode)
    attributes, opaque = _attributes(path, kind)
    entry.pax_headers = {f"{_XATTR}{name}": value.decode("utf-8", "surrogateescape") for name, value in attributes}
    if kind == stat.S_IFREG:
        entry.size = about.st_size
        write(_header(entry))
        _contents(path, about.st_size, write)
    elif kind == stat.S_IFDIR:
        entry.type = tarfile.DIRTYPE
        write(_header(entry))
    elif kind == stat.S_IFLNK:
        entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(path)
        write(_header(entry))
    elif kind == stat.S_IFIFO:
        entry.type = tarfile.FIFOTYPE
        write(_header(entry))
    else:
        entry.type = tarfile.CHRTYPE if kind == stat.S_IFCHR else tarfile.BLKTYPE
        entry.devmajor, entry.devminor = os.major(about.st_rdev), os.minor(about.st_rdev)
        write(_header(entry))
    return opaque


def _header(entry: tarfile.TarInfo) -> bytes:
    import tarfile

    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _walk(directory: str, above: str, mounted: bool) -> Iterator[tuple[str, str, os.stat_result]]:
    """(path, name in the archive, stat) of everything below, a directory before what is in it, sorted by name.

    mounted: it may be an overlay, and not one layer of it.
    """
    if not above:
        yield f"{directory}/.", ".", os.stat(directory)  # which may be a link of /proc
    with os.scandir(directory) as entries:
        found = sorted((entry.name for entry in entries), key=os.fsencode)
    for own in found:
        path, name = f"{directory}/{own}", f"{above}/{own}" if above else own
        if own.startswith(PREFIX):
            raise InvalidInput(f"layer of {directory}: {own!r}: names that begin with {PREFIX} stand for deleted ones")
        try:
            about = os.lstat(path)
        except FileNotFoundError:
            if not mounted:
                raise
            continue  # an overlay lists also what deletes nothing, where only one layer has the directory
        if stat.S_ISSOCK(about.st_mode):
            continue
        yield path, name, about
        if stat.S_ISDIR(about.st_mode):
            yield from _walk(path, name, mounted)


def _is_whiteout(about: os.stat_result) -> bool:
    return stat.S_ISCHR(about.st_mode) and about.st_rdev == 0


def _attributes(path: str, kind: int) -> tuple[list[tuple[str, bytes]], bool]:
    """Extended attributes that belong to an image, sorted, and whether the directory is opaque."""
    if kind not in (stat.S_IFREG, stat.S_IFDIR):
        return [], False
    names = os.listxattr(path, follow_symlinks=False)
    opaque = any(name in names and os.getxattr(path, name) in (b"y", b"x") for name in OPAQUE_NAMES)
    kept = [name for name in sorted(names) if name == "security.capability" or _is_users(name)]
    return [(name, os.getxattr(path, name)) for name in kept], opaque


def _is_users(name: str) -> bool:
    return name.startswith("user.") and not name.startswith("user.overlay.")


def _contents(path: str, size: int, write: Callable[[bytes], object]) -> None:
    """Exactly `size` bytes of a file, and what fills up its last block."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        left = size
        while left:
            data = os.read(fd, min(left, _CHUNK))
            if not data:
                raise InvalidInput(f"{path}: became shorter while it was read: something still writes to it")
            write(data)
            left -= len(data)
    finally:
        os.close(fd)
    if size % 512:
        write(b"\0" * (512 - size % 512))
