"""A step: one thing that is done to make a container, as data.

Rule 1: a step can be printed, compared and sent to another process; it decides nothing that the plan could decide.
Rule 2: what steps share while they run (descriptors, mostly) lies on the `Stage`; it is inherited by the clone.
Rule 3: a step that fails raises; `perform` names the step in the error. No step undoes itself: the plan lists `undo`.
"""

from __future__ import annotations

import errno
import os

from corten.errors import Error, KernelError
from corten.linux import paths
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from corten.linux.sockets import Socket


class Stage:
    """What the steps of one container share while they run.

    root: descriptor of the container's root, once there is one; trees: detached mounts opened ahead, by name;
    arguments: where the command line lies in memory, see `process.argument_area`;
    places: path of a layer with what will be mounted on, "" without one;
    claims: locked descriptors that say "in use" for as long as the launcher lives; channel: the child's end of the
    socket to the launcher; state: of an OCI container, as JSON for its hooks.
    """

    def __init__(self) -> None:
        self.root = -1
        self.places = ""
        self.trees: dict[str, int] = {}
        self.claims: dict[str, int] = {}
        self.arguments = (0, 0)
        self.channel: Socket | None = None
        self.state = b""

    def directory(self, path: str) -> int:
        """An O_PATH descriptor of a directory below the root, made if missing, and kept until the pivot: many things
        are made in the same."""
        name = f"{self.root}:{path}"
        if name not in self.trees:
            self.trees[name] = paths.directory_in_root(self.root, path)
        return self.trees[name]

    def copy(self) -> Stage:
        """One for a child in the same memory: what it opens and closes there is not ours."""
        made = Stage()
        made.__dict__.update(self.__dict__)
        made.trees = dict(self.trees)
        return made

    def close(self) -> None:
        """Close what the launcher opened for the child."""
        for fd in self.trees.values():
            os.close(fd)
        self.trees.clear()

    def release(self) -> None:
        """Let go of what is locked in this container's name."""
        for fd in self.claims.values():
            os.close(fd)
        self.claims.clear()


class Step(Record):
    """Base of all steps."""

    def run(self, stage: Stage) -> None:  # noqa: ARG002 - for those that need it
        """Do it; OSError or a `corten.Error` when it cannot be done."""
        raise TypeError(f"{type(self).__name__} does not say what it does")

    def describe(self) -> str:
        """What it will do, in one line: verb, object, means."""
        raise TypeError(f"{type(self).__name__} does not describe itself")


_HINTS = {errno.EMFILE: "to make a container takes some twenty: raise the limit (ulimit -n, --ulimit nofile)"}


def perform(steps: Iterable[Step], stage: Stage) -> None:
    """Run steps in order; a failure becomes a `KernelError` that names its step."""
    for step in steps:
        try:
            step.run(stage)
        except OSError as error:
            said = getattr(error, "said", "") or _HINTS.get(error.errno or 0, "")
            raise KernelError(step.describe(), error.errno or 0, said) from error
        except Error:
            raise
