"""All lanes of this process, the zygotes they share, and the loop that serves them."""

from __future__ import annotations

import hashlib
import os
import threading
import time

from corten.compute import loop as loops
from corten.compute.entry import entry, group_files
from corten.compute.inside import wire
from corten.compute.lane import Lane
from corten.compute.worker import Kind, Worker
from corten.compute.zygotes import Kind as ZygoteKind
from corten.compute.zygotes import Zygote
from corten.engine import home
from corten.engine.template import Template
from corten.errors import Unsupported
from corten.linux import capabilities

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.compute.loop import Loop
    from corten.compute.options import FunctionOptions
    from corten.compute.pickling import PackedFunction

_ZYGOTE_IDLE = 120.0
"""Seconds without a container after which a zygote ends."""
_CLOSING = 10.0


class Zygotes:
    """Zygotes by kind. Loop's thread only."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._by_kind: dict[ZygoteKind, Zygote] = {}
        self._left_out: dict[ZygoteKind, set[str]] = {}
        self._lanes: dict[ZygoteKind, set[Lane]] = {}
        self._idle_since: dict[ZygoteKind, float] = {}

    def get(self, kind: ZygoteKind, lane: Lane) -> Zygote:
        """The zygote of that kind, started if there is none."""
        self._lanes.setdefault(kind, set()).add(lane)
        found = self._by_kind.get(kind)
        if found is None or found.gone:
            left_out = self._left_out.get(kind, set())
            found = Zygote(kind.replace(likely=tuple(name for name in kind.likely if name not in left_out)))
            self._by_kind[kind] = found
            zygote = found
            self._loop.watch(found.fileno(), lambda: self._hear(kind, zygote))
            self._loop.after(_ZYGOTE_IDLE / 2, lambda: self._look(kind, zygote))
        for function in lane.functions:
            found.teach(function)
        return found

    def _hear(self, kind: ZygoteKind, zygote: Zygote) -> None:
        for answer in zygote.answers():
            if answer.word == "threads":
                # A process with threads cannot be forked: the other modules will do, unless this one was asked for.
                if answer.text in zygote.kind.likely:
                    self._left_out.setdefault(kind, set()).add(answer.text)
                    self._lose(kind, zygote, "")
                else:
                    name = answer.text
                    self._lose(kind, zygote, f"imports: {name} starts threads, which a fork would lose: leave it out")
                return
            if answer.word == "failed":
                self._lose(kind, zygote, answer.text)
                return
            if answer.word == "gone":
                self._lose(kind, zygote, "")
                return
            zygote.on_answer(answer)

    def _lose(self, kind: ZygoteKind, zygote: Zygote, why: str) -> None:
        self._loop.forget(zygote.fileno())
        zygote.gone = True
        zygote.end()
        if self._by_kind.get(kind) is zygote:
            del self._by_kind[kind]
        for lane in list(self._lanes.get(kind, ())):
            lane.on_zygote_lost(zygote, why)

    def _look(self, kind: ZygoteKind, zygote: Zygote) -> None:
        """End a zygote that nobody has needed for a while."""
        if zygote.gone:
            return
        now = time.monotonic()
        if zygote.workers:
            self._idle_since.pop(kind, None)
        elif now - self._idle_since.setdefault(kind, now) >= _ZYGOTE_IDLE / 2:
            self._idle_since.pop(kind, None)
            self._lose(kind, zygote, "")
            return
        self._loop.after(_ZYGOTE_IDLE / 2, lambda: self._look(kind, zygote))

    def introduce(self, worker: Worker, function: PackedFunction) -> None:
        """Let a process that was forked before the zygote knew a function know it, too."""
        import pickle

        parcel = wire.Parcel(b"F", 0, pickle.dumps((function.key, function.data), 4))
        try:
            worker.send(parcel)
        finally:
            parcel.close()
        worker.known.add(function.key)

    def close(self) -> None:
        """End them all."""
        for kind, zygote in list(self._by_kind.items()):
            self._lanes.pop(kind, None)
            self._lose(kind, zygote, "")


class Lanes:
    """See the module."""

    def __init__(self) -> None:
        self.loop = loops.loop()
        self.zygotes = Zygotes(self.loop)
        self._lanes: set[Lane] = set()
        self.loop.closing.append(self.close)

    def open(
        self, name: str, options: FunctionOptions, functions: tuple[PackedFunction, ...] = (), *,
        least: int = 0, most: int | None = None, idle: float = 30.0,
    ) -> Lane:  # fmt: skip
        """A new lane. Decides what its containers will be: errors as of `corten.run`."""
        kind = _kind(options)
        likely = {module for function in functions for module in function.modules} if options.imports is None else set()
        zygote_kind = ZygoteKind(options.run.image, options.imports or (), tuple(sorted(likely)))
        lane = Lane(self.loop, self.zygotes, name, options, kind, zygote_kind, least, most, idle)
        lane.functions = functions
        self._lanes.add(lane)
        if least:
            self.loop.post(lane.step)
        return lane

    def drop(self, lane: Lane) -> None:
        """Close a lane, and wait until nothing of it is left."""
        self.loop.ask(lane.close)
        self._lanes.discard(lane)
        _until(lambda: bool(self.loop.ask(lane.empty)))

    def close(self) -> None:
        """At the end of the program: close all lanes. In the loop's thread; what remains dies with the process."""
        for lane in self._lanes:
            lane.close()
        self.zygotes.close()


def _until(condition: object, seconds: float = _CLOSING) -> None:
    pause = threading.Event()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not condition():  # type: ignore[operator]
        pause.wait(0.002)


def _kind(options: FunctionOptions) -> Kind:
    if options.run.image != "host":
        raise Unsupported(f"image {options.run.image or options.run.rootfs}: functions run in the image host so far")
    if os.geteuid() != 0:
        raise Unsupported("functions in containers need root so far")
    home.sweep_once()
    template = Template(options.run, held=True)
    plan = template.prepared.plan
    made = entry(plan, capabilities.last())
    key = hashlib.sha256(repr(made.operations).encode()).hexdigest()[:16]
    environment = dict(one.partition("=")[::2] for one in plan.program.env)
    upper = options.cpus[1]
    if upper is not None:
        environment.update({name: str(max(1, int(upper))) for name in environment if name.endswith("_NUM_THREADS")})
    return Kind(template, made, key, group_files(plan), environment, options.run)


_lock = threading.Lock()
_of_process: list[tuple[int, Lanes]] = []


def lanes() -> Lanes:
    """Those of this process; a forked copy of it has none of its parent's."""
    with _lock:
        if not _of_process or _of_process[0][0] != os.getpid():
            _of_process[:] = [(os.getpid(), Lanes())]
        return _of_process[0][1]
