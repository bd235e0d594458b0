"""Steps about namespaces: those that exist are joined, two kinds cannot be made by the clone itself."""

from __future__ import annotations

import errno
import os

from corten.errors import KernelError
from corten.linux import clone, sockets
from corten.runtime import channel
from corten.runtime.step import Stage, Step


class OpenNamespace(Step):
    """Open a namespace by path in the launcher, with the launcher's view of the file system."""

    kind: str
    path: str

    def run(self, stage: Stage) -> None:
        stage.trees[f"ns:{self.kind}"] = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    def describe(self) -> str:
        return f"open {self.kind} namespace {self.path}"


class JoinNamespace(Step):
    """Join a namespace that exists, by path, opened before anything changed."""

    kind: str
    path: str

    def run(self, stage: Stage) -> None:
        fd = stage.trees.pop(f"ns:{self.kind}", -1)
        if fd < 0:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            clone.join(fd, self.kind)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise KernelError(self.describe(), error.errno, f"it is not a {self.kind} namespace") from None
            raise
        os.close(fd)

    def describe(self) -> str:
        return f"join {self.kind} namespace {self.path}"


class NewCgroupNamespace(Step):
    """See the group just joined as the root of the tree."""

    def run(self, stage: Stage) -> None:
        clone.unshare("cgroup")

    def describe(self) -> str:
        return "new cgroup namespace"


class TimeOffsets(Step):
    """Enter a new time namespace whose clocks differ from the host's.

    offsets: (clock `monotonic` or `boottime`, seconds, nanoseconds). The offsets can be written only while nobody is
    in the namespace, so it is made, set, and then joined. Source: time_namespaces(7).
    """

    offsets: tuple[tuple[str, int, int], ...]

    def run(self, stage: Stage) -> None:
        clone.unshare("time")
        with open("/proc/self/timens_offsets", "w") as file:
            file.write("".join(f"{clock} {seconds} {nanoseconds}\n" for clock, seconds, nanoseconds in self.offsets))
        fd = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
        clone.join(fd, "time")
        os.close(fd)

    def describe(self) -> str:
        shifts = ", ".join(f"{clock} {seconds:+d} s" for clock, seconds, _ in self.offsets)
        return f"new time namespace{': ' + shifts if shifts else ''}"


class ShareNamespaces(Step):
    """Send the launcher descriptors of the namespaces that the child is in, so that others can enter them.

    By descriptor, since nobody else may open them by /proc/PID/ns of a process that cannot be traced. Runs when all of
    them are made, and the container's own /proc is there.
    """

    kinds: tuple[str, ...]

    def run(self, stage: Stage) -> None:
        opened = tuple(clone.open_namespace("self", kind) for kind in self.kinds)
        assert stage.channel is not None
        sockets.send(stage.channel, channel.encode(channel.Namespaces(" ".join(self.kinds))), opened)
        for fd in opened:
            os.close(fd)

    def describe(self) -> str:
        return f"hand out the namespaces {' '.join(self.kinds)}"
