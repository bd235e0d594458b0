"""The parts of the `host` image that are made ahead and kept: `HOME/host/DIGEST`.

    root/         the lowest layer: top-level links, empty directories, and a copy of what others can read of /etc
    hidden/       whiteouts: laid over /opt and /usr, they hide what others cannot read there
    blank/        an empty file and an empty directory, to mount over what no whiteout can hide
    index         what it was made from: signs of directories, hidden paths
    others        signs of files

Rule 1: an overlay cannot have `/` as a layer: a layer of ours below it would overlap (ELOOP), and in a user namespace
        the mounts below `/` are locked to it (EINVAL, CVE-2021-3732). So there is one overlay for each visible top.
Rule 2: /etc is a copy, so a secret written there later never shows. Its directories are compared with the copy each
        time, its files when the last comparison is older than `PATIENCE` seconds.
Rule 3: whoever uses a mask holds a shared lock on it for as long as the process lives; what nobody holds may go.
"""

from __future__ import annotations

import marshal
import os
import stat
import time

from corten.errors import Error
from corten.images.host_scan import scan, shown, sign, unchanged
from corten.images.store import once
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

VISIBLE = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "opt", "nix", "gnu")
"""Top-level names that show; `etc` shows as a copy. Everything else of the host does not."""
STAND_INS = {
    **dict.fromkeys(("boot", "dev", "home", "media", "mnt", "proc", "root", "run", "srv", "sys", "var"), 0o755),
    **dict.fromkeys(("var/cache", "var/lib", "var/local", "var/log", "var/mail", "var/opt", "var/spool"), 0o755),
    "tmp": 0o1777,
    "var/tmp": 0o1777,
}
"""Empty directories in place of what is hidden, with their modes."""
_LINKS = {"var/run": "/run", "var/lock": "/run/lock", "etc/mtab": "/proc/self/mounts"}
BLANK = ("hostname", "hosts", "machine-id", "resolv.conf")
"""Files of /etc that are about this machine: there, but empty."""
_PLACES = (("/etc", 64), ("/opt", 3), ("/usr/local/etc", 64))
PATIENCE = 10.0
_MEMORY = 2.0  # seconds for which one process believes what it has looked up
_TICK = 20_000_000  # ns, more than two ticks of a kernel with 100 Hz
_FORMAT = "1"


class Mask(Record):
    """A mask that is complete and held: its directory, the root it was made of, and what of it is hidden."""

    path: str
    tops: tuple[str, ...]
    hidden: tuple[str, ...]
    hidden_directories: tuple[str, ...]

    @property
    def root(self) -> str:
        """The lowest layer."""
        return f"{self.path}/root"


_known: dict[tuple[str, str], tuple[float, Mask]] = {}
_held: dict[str, int] = {}


def current(home: str, root: str = "/") -> Mask:
    """The mask for `root` as it is now, made if there is none yet. Error: it cannot be written.

    A new one costs some 100 ms, a ready one a stat for each directory of /etc.
    """
    now = time.monotonic()
    known = _known.get((home, root))
    if known and now - known[0] < _MEMORY:
        return known[1]
    directory = f"{home}/host"
    mask = _ready(directory, root) or _made(directory, root)
    _known[home, root] = now, mask
    return mask


def _ready(directory: str, root: str) -> Mask | None:
    """The mask that was used last, if nothing it was made from has changed."""
    try:
        path = f"{directory}/{os.readlink(f'{directory}/current')}"
    except (FileNotFoundError, NotADirectoryError):
        return None
    mine = path in _held
    if not _hold(path):
        return None
    mask = _checked(path, root)
    if not mask and not mine:
        os.close(_held.pop(path))
    return mask


def _checked(path: str, root: str) -> Mask | None:
    try:
        with open(f"{path}/index", "rb") as file:
            kind, boot, place, directories, tops, hidden, hidden_directories = marshal.loads(file.read())
    except (EOFError, ValueError, TypeError, FileNotFoundError):
        return None  # the machine crashed before it was on disk
    if (kind, boot, place) != (_FORMAT, _boot(), root) or not unchanged(root, directories):
        return None
    if not 0 <= time.time() - os.stat(f"{path}/others").st_mtime < PATIENCE:
        with open(f"{path}/others", "rb") as file:
            if not unchanged(root, marshal.loads(file.read())):
                return None
        os.utime(f"{path}/others")
    return Mask(path, tops, hidden, hidden_directories)


def _boot() -> str:
    """This boot of the machine. Masks are not synced, so one of an earlier boot may be incomplete, and is not used."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def _hold(path: str) -> bool:
    if path not in _held:
        fd = once.hold(path)
        if fd < 0:
            return False
        _held[path] = fd
    return True


def _made(directory: str, root: str) -> Mask:
    """A new mask, which becomes the current one; superseded ones that nobody holds are removed."""
    import hashlib

    base = root.rstrip("/")
    for _ in range(10):  # each time another process has removed it before we could hold it
        started = time.time_ns()
        found = scan(root, _PLACES)
        top = sign("/", os.lstat(root))
        tops = tuple(name for name in VISIBLE if stat.S_ISDIR(_mode(f"{base}/{name}")))
        directories = (top, *found.directories)
        index = marshal.dumps((_FORMAT, _boot(), root, directories, tops, found.hidden, found.hidden_directories))
        others = marshal.dumps(found.others)
        name = hashlib.blake2b(index + others, digest_size=12).hexdigest()

        fill = _filler(root, found.hidden, index, others)
        path = once.make(directory, name, fill, "the parts of image 'host'")
        if _hold(path):
            # A change in the same tick of the kernel's clock leaves no trace in a ctime: then look again next time.
            if all(changed < started - _TICK for _, _, _, changed in (*directories, *found.others)):
                _supersede(directory, name)
            return Mask(path, tops, found.hidden, found.hidden_directories)
    raise Error(f"image 'host': others keep removing what is made in {directory}: is something else cleaning up there?")


def _filler(root: str, hidden: tuple[str, ...], index: bytes, others: bytes) -> Callable[[str], None]:
    def fill(draft: str) -> None:
        _fill(draft, root, hidden)
        for part, content in (("index", index), ("others", others)):
            with open(f"{draft}/{part}", "xb") as file:
                file.write(content)

    return fill


def _supersede(directory: str, name: str) -> None:
    draft = f"{directory}/current-{os.urandom(6).hex()}"
    os.symlink(name, draft)
    os.rename(draft, f"{directory}/current")
    for other in os.listdir(directory):
        if other[0] != "." and other != name and not other.startswith("current"):
            once.remove(directory, other)


def _mode(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return 0


def _fill(draft: str, root: str, hidden: Iterable[str]) -> None:
    base = root.rstrip("/")
    _make_root(f"{draft}/root", base)
    os.mkdir(f"{draft}/hidden", 0o755)
    for path in hidden:
        if not path.startswith("/etc/"):
            _whiteout(f"{draft}/hidden", base, path)
    os.makedirs(f"{draft}/blank/directory", 0o755)
    with open(f"{draft}/blank/file", "xb"):
        pass


def _make_root(skeleton: str, base: str) -> None:
    os.mkdir(skeleton)
    os.chmod(skeleton, 0o755)  # noqa: S103 - the container's users live in it
    for name in VISIBLE:
        mode = _mode(f"{base}/{name}")
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(f"{base}/{name}"), f"{skeleton}/{name}")
        elif stat.S_ISDIR(mode):
            _directory(f"{skeleton}/{name}", 0o755)
    for name, mode in STAND_INS.items():
        _directory(f"{skeleton}/{name}", mode)
    _directory(f"{skeleton}/etc", 0o755)
    if stat.S_ISDIR(_mode(f"{base}/etc")):
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        source, target = os.open(f"{base}/etc", flags), os.open(f"{skeleton}/etc", flags)
        try:
            _copy(source, target, (*BLANK, "mtab"))
        finally:
            os.close(source)
            os.close(target)
    for name in BLANK:
        with open(f"{skeleton}/etc/{name}", "xb") as file:
            os.fchmod(file.fileno(), 0o644)
    for name, to in _LINKS.items():
        os.symlink(to, f"{skeleton}/{name}")


def _directory(path: str, mode: int) -> None:
    os.mkdir(path)
    os.chmod(path, mode)


def _copy(source: int, target: int, without: tuple[str, ...] = ()) -> None:
    """Copy what may be seen of one directory into another. What vanishes meanwhile is left out."""
    with os.scandir(source) as listing:
        names = [entry.name for entry in listing if entry.name not in without]
    for name in names:
        try:
            _copy_entry(source, target, name)
        except (FileNotFoundError, PermissionError):
            continue  # gone, or a secret from this user


def _copy_entry(source: int, target: int, name: str) -> None:
    about = os.stat(name, dir_fd=source, follow_symlinks=False)
    if not shown(about.st_mode):
        return
    if stat.S_ISLNK(about.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        return
    # Not waiting, should it have become a fifo; judged again by what was opened.
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
    try:
        about = os.fstat(reading)
        if not shown(about.st_mode):
            return
        if stat.S_ISDIR(about.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            writing = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            writing = os.open(name, flags, 0o600, dir_fd=target)
        try:
            if stat.S_ISDIR(about.st_mode):
                _copy(reading, writing)
            else:
                while os.sendfile(writing, reading, None, 1 << 24):
                    pass
            if os.geteuid() == 0 and (about.st_uid or about.st_gid):
                os.fchown(writing, about.st_uid, about.st_gid)
            os.fchmod(writing, about.st_mode & 0o1777)
            os.utime(writing, ns=(about.st_mtime_ns, about.st_mtime_ns))
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _whiteout(layer: str, base: str, path: str) -> None:
    """Hide a path in a layer; its parents look as they do below, for the upper of merged directories is shown."""
    parts = path.strip("/").split("/")
    above = ""
    for part in parts[:-1]:
        above = f"{above}/{part}"
        if not os.path.isdir(layer + above):
            about = os.stat(base + above)
            os.mkdir(layer + above)
            if os.geteuid() == 0:
                os.chown(layer + above, about.st_uid, about.st_gid)
            os.chmod(layer + above, about.st_mode & 0o7777)
    os.mknod(f"{layer}/{'/'.join(parts)}", stat.S_IFCHR | 0o600, 0)
