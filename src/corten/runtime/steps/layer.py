"""Steps about the container's directory on the host, and the writable layer in it."""

from __future__ import annotations

import fcntl
import os

from corten.errors import NameInUse
from corten.runtime.removal import remove_all
from corten.runtime.step import Stage, Step
from corten.runtime.steps.root import make_layer


class Claim(Step):
    """Make a directory or file of the host that says "in use": locked by the launcher for as long as that lives.

    what: what it stands for, for the error when somebody else holds it; says: what a file has in it.
    """

    path: str
    what: str
    directory: bool = True
    says: str = ""

    def run(self, stage: Stage) -> None:
        fd = claim(self.path, self.directory)
        if fd is None:
            raise NameInUse(f"{self.what} is in use")
        stage.claims[self.path] = fd
        if self.says:
            writing = os.open(self.path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
            os.write(writing, f"{self.says}\n".encode())
            os.close(writing)

    def describe(self) -> str:
        return f"claim {self.path}"


def claim(path: str, directory: bool) -> int | None:
    """Lock a directory or file, made if missing; its descriptor, or None if another launcher holds it.

    The lock is a flock: the kernel lets go of it when the holder dies. A sweeper (`claim_left`) holds a shared lock,
    for a moment: that is waited for. It may remove what it holds, hence the second look.
    """
    while True:
        os.makedirs(path if directory else os.path.dirname(path), 0o700, exist_ok=True)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECTORY if directory else os.O_CREAT), 0o600)
        except FileNotFoundError:
            continue
        if _lock(fd, fcntl.LOCK_EX):
            if _is_at(fd, path):
                return fd
        elif not _lock(fd, fcntl.LOCK_SH):
            os.close(fd)
            return None
        os.close(fd)
        os.sched_yield()


def claim_left(path: str) -> int | None:
    """Lock what a launcher that was killed has left; its descriptor, or None if it is in use, or gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    if _lock(fd, fcntl.LOCK_SH) and _is_at(fd, path):
        return fd
    os.close(fd)
    return None


def _lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


class Note(Step):
    """Write down once, for sweepers, something that many containers have in common. It stays."""

    path: str
    lines: tuple[str, ...]

    def run(self, stage: Stage) -> None:
        if os.path.exists(self.path):
            return
        os.makedirs(os.path.dirname(self.path), 0o755, exist_ok=True)
        draft = f"{self.path}.{os.getpid()}"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        os.write(fd, "".join(f"{line}\n" for line in self.lines).encode())
        os.close(fd)
        os.rename(draft, self.path)

    def describe(self) -> str:
        return f"note in {self.path} where control groups lie"


class Unclaim(Step):
    """Remove a file that said "in use"."""

    path: str

    def run(self, stage: Stage) -> None:
        if self.path in stage.claims:
            os.unlink(self.path)

    def describe(self) -> str:
        return f"give back {self.path}"


class MakeLayer(Step):
    """Make the writable layer of a root: its directories, owned by the container's root user."""

    path: str
    uid: int = 0
    gid: int = 0
    names: tuple[str, ...] = ()

    def run(self, stage: Stage) -> None:
        make_layer(self.path, self.names, self.uid, self.gid)

    def describe(self) -> str:
        return f"make writable layer {self.path}/upper"


class RemoveTree(Step):
    """Remove a directory of the host and all below it, whatever modes the container left there."""

    path: str

    def run(self, stage: Stage) -> None:
        if self.path in stage.claims:
            remove_all(self.path)

    def describe(self) -> str:
        return f"remove {self.path}"
