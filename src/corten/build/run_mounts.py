"""`RUN --mount`: what is shown to one command and is no part of its layer.

Rule 1: a bind counts in the key by its contents; caches, temporary files and secrets do not count.
Rule 2: a bind is read-only, unless it says `rw`: then what a command writes to it goes with the command, and never
        reaches the context or another stage.
Rule 3: secrets are copied into the step's own directory, which only its owner can enter, and go with it.
"""

from __future__ import annotations

import fcntl
import os

from corten.build import inside
from corten.build.copying import Manner, Writer
from corten.build.ignore import Ignore
from corten.build.selection import Entry, SelectionError, digest, select
from corten.build.trees import Context, Tree, number_fields
from corten.build.views import View
from corten.engine.mounts import MountOption
from corten.errors import InvalidInput
from corten.images.root_source import Layer
from corten.linux import paths
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from corten.build.instructions import RunMount


class Secret(Record):
    """A value that a step may see: in a file of the host, or in a variable of the environment."""

    file: str = ""
    env: str = ""

    def read(self) -> bytes:
        """Its bytes. InvalidInput: there is no such file or variable."""
        if self.env:
            if self.env not in os.environ:
                raise InvalidInput(f"secret: the environment has no variable {self.env}")
            return os.fsencode(os.environ[self.env])
        try:
            with open(self.file, "rb") as file:
                return file.read()
        except OSError as error:
            raise InvalidInput(f"secret: {self.file}: {os.strerror(error.errno or 0).lower()}") from None


class RunMounts:
    """The mounts of one RUN, from the moment its key is wanted until it has ended."""

    def __init__(
        self,
        mounts: Sequence[RunMount],
        context: Context | None,
        source_of: Callable[[str], Tree | Context],
        secrets: Mapping[str, Secret],
        caches: str,
    ) -> None:
        self._mounts = [(mount.kind, dict(mount.fields)) for mount in mounts]
        self._context, self._source_of, self._secrets, self._caches = context, source_of, secrets, caches
        self._locks: list[int] = []
        self.options: list[MountOption] = []
        self.layers: list[Layer] = []
        self.env: list[tuple[str, str]] = []

    def digests(self) -> list[str]:
        """What is bound, for the key. SelectionError: it is not there."""
        found = []
        for kind, fields in self._mounts:
            if kind != "bind":
                found.append("")
                continue
            origin = self._origin(fields)
            if isinstance(origin, Tree):
                found.append(" ".join((*origin.diff_ids, fields.get("source", "/"))))
            else:
                found.append(digest(origin.fd, select(origin.fd, fields.get("source", "."), origin.ignore)))
        return found

    def _origin(self, fields: dict[str, str]) -> Tree | Context:
        if fields.get("from"):
            return self._source_of(fields["from"])
        if self._context is None:
            raise SelectionError("there is no build context to bind from")
        return self._context

    def prepare(self, draft: str) -> None:
        """Fill `options`, `layers` and `env`. draft: a directory of the step's own."""
        for number, (kind, fields) in enumerate(self._mounts):
            if kind == "bind":
                self._bind(fields, f"{draft}/bind-{number}")
            elif kind == "cache":
                self._cache(fields)
            elif kind == "tmpfs":
                self._tmpfs(fields)
            else:
                self._secret(fields, f"{draft}/secret-{number}")

    def close(self) -> None:
        """Let go of the caches."""
        for fd in self._locks:
            os.close(fd)
        self._locks.clear()

    def _bind(self, fields: dict[str, str], draft: str) -> None:
        target, source = fields["target"], fields.get("source", "/")
        origin = self._origin(fields)
        writable = fields.get("rw", "false").lower() in ("true", "1")
        writable = writable or fields.get("readonly", "true").lower() in ("false", "0")
        if isinstance(origin, Tree):
            try:
                place = inside.call("corten.build.trees:below", (origin, source))
            except OSError:
                raise SelectionError(f"{fields['from']} has no {source}") from None
            if not isinstance(place, str):
                self.layers.append(Layer(target, place, read_only=not writable))
                return
            if writable:  # a file has no overlay
                place = inside.call("corten.build.run_mounts:copied_from", (origin, source, draft))
            self.options.append(MountOption("bind", target, place, read_only=not writable))
            return
        context = origin
        entries = select(context.fd, source, context.ignore)
        if writable or context.ignore != Ignore():
            place = inside.call("corten.build.run_mounts:copied", (entries, draft), (context.fd,))
        else:
            place = _real(context.fd, entries[0].source)
        self.options.append(MountOption("bind", target, place, read_only=not writable))

    def _cache(self, fields: dict[str, str]) -> None:
        import hashlib

        sharing = fields.get("sharing", "shared")
        name = hashlib.sha256((fields.get("id") or fields["target"]).encode()).hexdigest()[:32]
        for number in range(1 << 16):
            path = f"{self._caches}/{name}-{number}"
            fd = self._locked_cache(path, fields, sharing)
            if fd >= 0:
                self._locks.append(fd)
                break
        read_only = fields.get("readonly", "false").lower() in ("true", "1")
        self.options.append(MountOption("bind", fields["target"], path, read_only=read_only))

    def _locked_cache(self, path: str, fields: dict[str, str], sharing: str) -> int:
        """A cache, made where it is missing, locked; -1 if it is to be private and somebody has it."""
        kind = fcntl.LOCK_SH if sharing == "shared" else fcntl.LOCK_EX
        while True:
            if not os.path.isdir(path):
                self._make_cache(path, fields)
            try:
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(fd, kind | (fcntl.LOCK_NB if sharing == "private" else 0))
                if os.path.samestat(os.stat(path), os.fstat(fd)):
                    return fd
            except FileNotFoundError:  # pruned meanwhile
                pass
            except BlockingIOError:
                os.close(fd)
                return -1
            os.close(fd)

    def _make_cache(self, path: str, fields: dict[str, str]) -> None:
        uid, gid, mode = number_fields(fields)
        os.makedirs(self._caches, 0o700, exist_ok=True)
        draft = f"{self._caches}/.{os.urandom(8).hex()}"
        os.mkdir(draft)
        inside.call("corten.build.run_mounts:give", (draft, uid, gid, 0o755 if mode is None else mode))
        try:
            os.rename(draft, path)
        except OSError:  # somebody else was first, and has put something in
            os.rmdir(draft)

    def _tmpfs(self, fields: dict[str, str]) -> None:
        from corten.engine.quantities import size

        bytes_ = size("--mount=type=tmpfs: size", fields["size"]) if "size" in fields else None
        self.options.append(MountOption("tmpfs", fields["target"], options=("nosuid", "nodev"), size=bytes_))

    def _secret(self, fields: dict[str, str], draft: str) -> None:
        name = fields.get("id") or os.path.basename(fields["target"])
        secret = self._secrets.get(name)
        if secret is None:
            if fields.get("required", "false").lower() in ("true", "1"):
                raise InvalidInput(f"secret {name}: was not given: add --secret id={name},src=FILE")
            return
        value = secret.read()
        if "env" in fields:
            if b"\0" in value:
                raise InvalidInput(f"secret {name}: has a zero byte, so it cannot be a variable")
            self.env.append((fields["env"], os.fsdecode(value)))
            if "target" not in fields:
                return
        uid, gid, mode = number_fields(fields)
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(value)
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
        inside.call("corten.build.run_mounts:give", (draft, uid, gid, 0o400 if mode is None else mode))
        target = fields.get("target") or f"/run/secrets/{name}"
        self.options.append(MountOption("bind", target, draft, read_only=True))


def _real(root: int, path: str) -> str:
    """A path of a root as the machine's own, without links: one such as /etc means another place there than here."""
    fd = paths.open_in_root(root, path or ".", os.O_PATH)
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def copied_from(tree: Tree, source: str, draft: str) -> str:
    """A file of a tree copied into a directory that is made for it; the path of the copy."""
    with View(tree.lowers) as view:
        return copied(select(view.fd, source), draft, view.fd, None)


def copied(entries: tuple[Entry, ...], draft: str, root: int, owner: tuple[int, int] | None = (0, 0)) -> str:
    """Entries of a root copied into a directory that is made for them; the path of the copy of what was selected."""
    os.mkdir(draft, 0o755)
    fd = os.open(draft, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        writer = Writer(fd, Manner(owner))
        directory = entries[0].is_directory
        writer.put(root, entries, "/tree" if directory else "/")
        writer.finish()
    finally:
        os.close(fd)
    return f"{draft}/tree" if directory else f"{draft}/{entries[0].target}"


def give(path: str, uid: int, gid: int, mode: int) -> None:
    """Make a file or directory somebody's, by the container's numbers."""
    os.chown(path, uid, gid)
    os.chmod(path, mode)
