"""Zygotes by kind: made when a lane needs one, shared by lanes, replaced when they die, ended when they are idle."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import threading
import time

from corten.compute.entry import entry, group_files
from corten.compute.fleet import Home
from corten.compute.inside import wire
from corten.compute.worker import Kind, Worker
from corten.compute.zygote_bare import BareProcess
from corten.compute.zygote_contained import ContainedProcess, with_maps
from corten.compute.zygotes import Answer, Zygote
from corten.compute.zygotes import Kind as ZygoteKind
from corten.engine.prepare import prepare
from corten.errors import Cancelled, Error, InvalidInput
from corten.linux import capabilities

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.compute.lane import Lane
    from corten.compute.loop import Loop
    from corten.compute.options import FunctionOptions
    from corten.compute.pickling import PackedFunction
    from corten.engine.options import RunOptions

IDLE = 120.0
"""Seconds without a container after which a zygote ends."""
_PATIENCE = 120.0
"""Seconds that a zygote in a container has for its imports."""


class Keeper:
    """See the module. Loop's thread only, but for what makes a zygote in a container: that takes time, and a thread."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._by_kind: dict[ZygoteKind, Zygote] = {}
        self._left_out: dict[ZygoteKind, set[str]] = {}
        self._lanes: dict[ZygoteKind, set[Lane]] = {}
        self._idle_since: dict[ZygoteKind, float] = {}
        self._making = threading.Lock()
        self._closed = False
        self._unborn: Zygote | None = None
        self._threads: set[threading.Thread] = set()

    def home_of(self, lane: Lane) -> Home | None:
        """Where the containers of a lane come from; None: it is being made, and the lane will be stepped.

        Errors: it cannot be made.
        """
        kind = lane.zygote_kind
        self._lanes.setdefault(kind, set()).add(lane)
        if not kind.contained:
            found = self._by_kind.get(kind)
            if found is None or found.gone:
                path = [os.path.join(os.getcwd(), place) for place in sys.path]
                found = Zygote(self._trimmed(kind), BareProcess, path)
                self._adopt(kind, found)
            for function in lane.functions:
                found.teach(function)
            assert lane.bare_kind is not None
            return Home(found, lane.bare_kind)
        if not lane.preparing:
            lane.preparing = True
            thread = threading.Thread(target=self._prepare, args=(kind, lane), name="corten:zygote", daemon=True)
            self._threads.add(thread)
            thread.start()
        return None

    def _trimmed(self, kind: ZygoteKind) -> ZygoteKind:
        left_out = self._left_out.get(kind, set())
        return kind.replace(likely=tuple(name for name in kind.likely if name not in left_out))

    def _adopt(self, kind: ZygoteKind, zygote: Zygote) -> bool:
        if self._closed:
            return False
        self._by_kind[kind] = zygote
        self._loop.watch(zygote.fileno(), lambda: self._hear(kind, zygote))
        self._loop.after(IDLE / 2, lambda: self._look(kind, zygote))
        return True

    def _prepare(self, kind: ZygoteKind, lane: Lane) -> None:
        """In a thread of its own: a zygote in a container, and the containers of the lane below it."""
        try:
            with self._making:
                self._still_wanted(lane)
                zygote = self._by_kind.get(kind)
                if zygote is None or zygote.gone:
                    zygote = self._contained(kind, lane)
            process = zygote.process
            assert isinstance(process, ContainedProcess)
            home = Home(zygote, worker_kind(lane.options, process.options, process.pid))
            self._loop.post(functools.partial(self._deliver, lane, home, None))
        except Error as error:
            self._loop.post(functools.partial(self._deliver, lane, None, error))
        except Exception as error:  # whatever it is: those who wait must hear of it
            why = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            self._loop.post(functools.partial(self._deliver, lane, None, Error(why)))
        finally:
            self._threads.discard(threading.current_thread())

    def _still_wanted(self, lane: Lane) -> None:
        if self._closed or lane.closed:
            raise Cancelled("its pool was closed before it began")

    def _contained(self, kind: ZygoteKind, lane: Lane) -> Zygote:
        run = with_maps(lane.options.run)
        python = sys.executable if run.image == "host" else "python3"
        path = [os.path.join(os.getcwd(), place) for place in sys.path] if run.image == "host" else None
        while True:
            zygote = Zygote(self._trimmed(kind), lambda control: ContainedProcess(run, python, control), path)
            self._unborn = zygote  # from here on `close` ends its process, and with that the wait
            answer = zygote.wait_ready(0 if self._closed else _PATIENCE)
            self._unborn = None
            # Before anybody else may look for it.
            if answer.word == "ready" and self._loop.ask(functools.partial(self._adopt, kind, zygote)):
                return zygote
            zygote.end()
            self._still_wanted(lane)
            if answer.word == "threads" and answer.text in zygote.kind.likely:
                self._left_out.setdefault(kind, set()).add(answer.text)
                continue
            raise InvalidInput(f"image {run.image or run.rootfs}: {_why(answer)}")

    def _deliver(self, lane: Lane, home: Home | None, why: Error | None) -> None:
        lane.preparing = False
        try:
            if home is not None:
                for function in lane.functions:
                    home.zygote.teach(function)
        except Error as error:
            why = error
        if why is not None:
            lane.fail_all(why)
            return
        lane.fleet.home = home
        lane.step()

    def _hear(self, kind: ZygoteKind, zygote: Zygote) -> None:
        for answer in zygote.answers():
            if answer.word == "threads":
                # A process with threads cannot be forked: the other modules will do, unless this one was asked for.
                if answer.text in zygote.kind.likely:
                    self._left_out.setdefault(kind, set()).add(answer.text)
                    self._lose(kind, zygote, None)
                else:
                    self._lose(kind, zygote, InvalidInput(_why(answer)))
                return
            if answer.word == "failed":
                self._lose(kind, zygote, InvalidInput(_why(answer)))
                return
            if answer.word == "gone":
                self._lose(kind, zygote, None)
                return
            zygote.on_answer(answer)

    def _lose(self, kind: ZygoteKind, zygote: Zygote, why: Error | None) -> None:
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
        elif now - self._idle_since.setdefault(kind, now) >= IDLE / 2:
            self._idle_since.pop(kind, None)
            self._lose(kind, zygote, None)
            return
        self._loop.after(IDLE / 2, lambda: self._look(kind, zygote))

    def leave(self, lane: Lane) -> None:
        """A lane that is closed will need none."""
        self._lanes.get(lane.zygote_kind, set()).discard(lane)

    def introduce(self, worker: Worker, function: PackedFunction) -> None:
        """Let a process that was forked before the zygote knew a function know it, too."""
        import pickle

        parcel = wire.Parcel(b"F", 0, pickle.dumps((function.key, worker.zygote.form_of(function)), 4))
        try:
            worker.send(parcel)
        finally:
            parcel.close()
        worker.known.add(function.key)

    def join(self, seconds: float) -> None:
        """After `close`: wait for the threads that were making some. Not in the loop's thread."""
        for thread in list(self._threads):
            thread.join(seconds)

    def close(self) -> None:
        """End them all, also those that are being made."""
        self._closed = True
        unborn = self._unborn
        if unborn is not None:
            unborn.process.kill()
        for kind, zygote in list(self._by_kind.items()):
            self._lanes.pop(kind, None)
            self._lose(kind, zygote, None)


def worker_kind(options: FunctionOptions, run: RunOptions, within: int) -> Kind:
    """What the containers of a lane have in common. run: their options; within: the zygote whose user namespace they
    share, 0 for none."""
    prepared = prepare(run, held=True, within=within)
    plan = prepared.plan
    made = entry(plan, capabilities.last())
    key = hashlib.sha256(repr(made.operations).encode()).hexdigest()[:16]
    environment = dict(one.partition("=")[::2] for one in plan.program.env)
    upper = options.cpus[1]
    if upper is not None:
        environment.update({name: str(max(1, int(upper))) for name in environment if name.endswith("_NUM_THREADS")})
    return Kind(prepared, made, key, group_files(plan), environment, run)


def _why(answer: Answer) -> str:
    """What is wrong with a zygote that is not ready."""
    if answer.word == "threads":
        return f"imports: {answer.text} starts threads, which a fork would lose: leave it out"
    return answer.text or "its Python ended before it was ready"
