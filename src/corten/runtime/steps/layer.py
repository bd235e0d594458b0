"""Steps about the container's directory on the host, and the writable layer in it."""

from __future__ import annotations

import os

from corten.errors import NameInUse, NotFound
from corten.linux import locks
from corten.runtime.removal import remove_all
from corten.runtime.step import Stage, Step
from corten.runtime.steps.root import listed, make_layer, remove_unused


class Claim(Step):
    """Make a directory or file of the host that says "in use": locked by the launcher for as long as that lives.

    what: what it stands for, for the error when somebody else holds it; says: what a file has in it.
    """

    path: str
    what: str
    directory: bool = True
    says: str = ""

    def run(self, stage: Stage) -> None:
        fd = locks.claim(self.path, self.directory)
        if fd is None:
            raise NameInUse(f"{self.what} is in use{self._by_whom()}")
        stage.claims[self.path] = fd
        if self.says:
            writing = os.open(self.path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
            os.write(writing, f"{self.says}\n".encode())
            os.close(writing)

    def _by_whom(self) -> str:
        if not self.says:
            return ""
        try:
            with open(self.path) as file:
                whose = file.read().strip()
        except OSError:  # it has just ended
            whose = ""
        return f" by container {whose}: choose another, or end that one first" if whose else ": try again"

    def describe(self) -> str:
        return f"claim {self.path}"


class Hold(Step):
    """Lock directories that others also use, so that they stay for as long as the launcher lives."""

    directories: tuple[str, ...]

    def run(self, stage: Stage) -> None:
        for path in self.directories:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise NotFound(f"{path}: was removed meanwhile: get the image again") from None
            stage.claims[f"hold:{path}"] = fd
            if not locks.share(fd, path):
                raise NotFound(f"{path}: is being removed: get the image again")

    def describe(self) -> str:
        return f"hold {listed(self.directories, ', ')}"


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
    names: tuple[str, ...] = ()
    """Of the layers in it."""

    def run(self, stage: Stage) -> None:
        if self.path in stage.claims and not remove_unused(self.path, self.names):
            remove_all(self.path)

    def describe(self) -> str:
        return f"remove {self.path}"
