"""All lanes of this process, the zygotes they share, and the loop that serves them."""

from __future__ import annotations

import atexit
import functools
import os
import threading
import time

from corten.compute.keeper import Keeper, worker_kind
from corten.compute.lane import Lane
from corten.compute.loop import Loop
from corten.compute.zygote_contained import with_maps
from corten.compute.zygotes import Kind as ZygoteKind
from corten.engine import home
from corten.runtime import spawner_client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.compute.options import FunctionOptions
    from corten.compute.pickling import PackedFunction

_CLOSING = 10.0
"""Seconds that containers have to be gone in."""


class Lanes:
    """See the module."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.keeper = Keeper(self.loop)
        self._lanes: set[Lane] = set()

    def open(
        self, name: str, options: FunctionOptions, functions: tuple[PackedFunction, ...] = (), *,
        least: int = 0, most: int | None = None, idle: float = 30.0,
    ) -> Lane:  # fmt: skip
        """A new lane. Decides what its containers will be: errors as of `corten.run`."""
        contained = options.run.image != "host" or os.geteuid() != 0
        home.sweep_once()
        # What cannot be is said now, and to whoever asks, not later in the loop.
        run = with_maps(options.run) if contained else options.run
        bare_kind = worker_kind(options, run, 0)
        likely = {module for function in functions for module in function.modules} if options.imports is None else set()
        # Variables lie in the zygote's memory: what is meant for one function's calls is not for another's.
        image = repr((run.image, run.rootfs, run.env, *((run.mounts, run.uidmap) if contained else ())))
        kind = ZygoteKind(image, contained, options.imports or (), tuple(sorted(likely)))
        lane = Lane(self.loop, self.keeper, name, options, kind, least, most, idle)
        lane.bare_kind = bare_kind
        lane.functions = functions
        self._lanes.add(lane)
        if least:
            self.loop.post(lane.step)
        return lane

    def drop(self, lane: Lane) -> None:
        """Close a lane, and wait until nothing of it is left."""
        self._end([lane])

    def let_go(self, lane: Lane) -> None:
        """As `drop`, without waiting. From any thread."""
        self.loop.post(lambda: self._close(lane))

    def _end(self, lanes: list[Lane]) -> None:
        """Close them, and wait until nothing of them is left."""
        over = []
        for lane in lanes:
            empty = threading.Event()
            over.append(empty)
            self.loop.ask(functools.partial(self._close, lane))
            self.loop.ask(functools.partial(lane.when_empty, empty.set))
        deadline = time.monotonic() + _CLOSING
        for empty in over:
            empty.wait(max(0.0, deadline - time.monotonic()))

    def _close(self, lane: Lane) -> None:
        lane.close()
        self.keeper.leave(lane)
        self._lanes.discard(lane)

    def close(self) -> None:
        """Close all lanes, end the zygotes, stop the loop; waits until the containers are gone."""
        self._end(list(self._lanes))
        self.loop.ask(self.keeper.close)
        self.keeper.join(_CLOSING)
        self.loop.stop()


_lock = threading.Lock()
_of_process: list[tuple[int, Lanes]] = []


def lanes() -> Lanes:
    """Those of this process; a forked copy of it has none of its parent's."""
    with _lock:
        if not _of_process or _of_process[0][0] != os.getpid():
            atexit.unregister(shutdown)
            atexit.register(shutdown)
            _of_process[:] = [(os.getpid(), Lanes())]
        return _of_process[0][1]


def shutdown() -> None:
    """End every container and zygote that this process keeps for what may come, and wait until they are gone.

    Calls that wait or run end with `Cancelled`. The next call makes new ones. Happens by itself at the end of the
    program.
    """
    with _lock:
        found = [own for pid, own in _of_process if pid == os.getpid()]
        _of_process.clear()
    for own in found:
        own.close()
    spawner_client.drop()
