"""RUN: a command in a container on the layers so far, whose changes are the next layer.

Rule 1: it is an ordinary container, made the engine's way, with podman's capabilities and the default filter.
Rule 2: its network is the host's, unless it is told otherwise, and so are /etc/resolv.conf and /etc/hosts, as copies.
Rule 3: what was mounted leaves nothing in the layer (stubs.py).
"""

from __future__ import annotations

import os
import threading

from corten.build import inside
from corten.build.evaluate import DEFAULT_PATH
from corten.build.failures import Cancelled
from corten.engine.container import DEVNULL, Container, start_with
from corten.engine.mounts import MountOption
from corten.engine.options import RunOptions
from corten.images.root_source import RootSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from corten.build.evaluate import RunStep
    from corten.build.host_settings import HostSettings
    from corten.build.run_mounts import RunMounts

_MADE = ("/dev", "/proc", "/sys", "/etc/hostname", "/etc/hosts")
"""Places of the engine's own mounts."""
_SCRIPT = "/dev/corten-script"


class Running:
    """The containers of a build, so that all can be ended at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._containers: set[Container] = set()
        self.cancelled = False

    def add(self, container: Container) -> None:
        """One more. Cancelled: the build is being ended."""
        with self._lock:
            if self.cancelled:
                raise Cancelled
            self._containers.add(container)

    def remove(self, container: Container) -> None:
        """One less."""
        with self._lock:
            self._containers.discard(container)

    def cancel(self) -> None:
        """End all of them, and let no other begin."""
        with self._lock:
            self.cancelled = True
            for container in self._containers:
                container.kill()


class Failed(Exception):
    """The command has ended badly; the text says how."""


def run(
    step: RunStep,
    lowers: tuple[str, ...],
    draft: str,
    mounts: RunMounts,
    volumes: tuple[MountOption, ...],
    host: HostSettings | None,
    network: str,
    running: Running,
    output: Callable[[bytes], None],
) -> str:
    """Run it; the directory with what it changed, an overlay's upper. draft: a directory of its own with `layer`.

    Failed: it ended badly; Cancelled: another step did; Error: it could not be started.
    """
    mounts.prepare(draft)
    argv = step.argv
    options = [*mounts.options, *volumes, *(host.mounts if host else ())]
    texts = [*(host.texts if host else ()), *([(_SCRIPT, step.script)] if step.script else [])]
    for number, (place, text) in enumerate(texts):
        options.append(MountOption("bind", place, _text(f"{draft}/text-{number}", text), read_only=True))
    if step.script:
        argv = (_SCRIPT,)
    if network == "host":
        options += _host_names({option.target for option in options}, draft)
    variables = (("PATH", DEFAULT_PATH), *(host.env if host else ()), *step.proxies, *step.env, *mounts.env)
    settings = RunOptions(
        image="build",
        argv=argv,
        env=tuple(dict(variables).items()),
        user=step.user or None,
        workdir=step.workdir,
        mounts=tuple(options),
        network=network,
        hostname="build",
        writable=f"{draft}/layer",
        no_new_privileges=False,  # so that sudo and su work, as in other builders
    )
    targets = (*_MADE, *(option.target for option in options), *(layer.target for layer in mounts.layers))
    _run(settings, RootSource(lowers, layers=tuple(mounts.layers)), running, output)
    upper = f"{draft}/layer/upper"
    inside.call("corten.build.stubs:remove_stubs", (upper, lowers, targets))
    return upper


def _text(path: str, text: str, mode: int = 0o755) -> str:
    """A file that anybody in the container may read."""
    with open(path, "x", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    os.chmod(path, mode)
    return path


def _host_names(taken: set[str], draft: str) -> list[MountOption]:
    """What says how names are found, as copies: packages write to these files, and what they write goes."""
    found = []
    for name in ("/etc/resolv.conf", "/etc/hosts"):
        if os.path.exists(name) and name not in taken:
            with open(name, encoding="utf-8", errors="surrogateescape") as file:
                copy = _text(f"{draft}/{os.path.basename(name)}", file.read(), 0o644)
            found.append(MountOption("bind", name, copy))
    return found


def _run(settings: RunOptions, source: RootSource, running: Running, output: Callable[[bytes], None]) -> None:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            container = start_with(settings, (DEVNULL, writing, writing), source)
        finally:
            os.close(writing)
        with container:
            running.add(container)
            try:
                with os.fdopen(os.dup(reading), "rb") as file:
                    for line in file:
                        output(line if line.endswith(b"\n") else line + b"\n")
                result = container.wait()
            finally:
                running.remove(container)
    finally:
        os.close(reading)
    if running.cancelled:
        raise Cancelled
    if result.exit_code:
        raise Failed(result.reason or f"ended with exit code {result.exit_code}")


