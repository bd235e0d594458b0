"""A lane: calls that want the same kind of container, as they came, and the containers that serve them (its `Fleet`).

Rule 1: a call is given to a container once; again only where retries were asked for (or more memory is to be tried).
Rule 2: a fresh lane uses each container for one call. A reusing one gives it the next.
Rule 3: every decision becomes an `Event` with its reason.
Rule 4: only the loop's thread is here, but for `submit`, `ask`, `post` and what only reads.
"""

from __future__ import annotations

import time
from collections import deque

from corten.compute import ends, safe, scaling
from corten.compute.call import Call
from corten.compute.capacity import total_memory
from corten.compute.fleet import Fleet
from corten.compute.ledger import LEDGER
from corten.compute.limits import Limits
from corten.compute.memory_files import OURS, Shelf
from corten.errors import Cancelled, Error, InvalidInput, OutOfMemory
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from corten.compute.inside.wire import Message
    from corten.compute.keeper import Keeper
    from corten.compute.loop import Loop
    from corten.compute.options import FunctionOptions
    from corten.compute.pickling import PackedFunction
    from corten.compute.worker import Kind, Worker
    from corten.compute.zygotes import Kind as ZygoteKind
    from corten.compute.zygotes import Zygote
    from corten.engine.result import Usage

_LOOK_AGAIN = 0.3
"""Seconds between looks at the machine while calls wait."""


class Event(Record):
    """A decision of a pool. time: seconds since the epoch; what: start, retire, retry, resize, brake, learn, zygote."""

    time: float
    what: str
    reason: str


class Stats(Record):
    """A pool at one moment: calls that wait, containers by what they do, calls done since it was made."""

    backlog: int
    busy: int
    ready: int
    making: int
    done: int
    failed: int


class Lane:
    """See the module. name: for people; most: containers with a call at once, None for what the machine has."""

    def __init__(
        self, loop: Loop, keeper: Keeper, name: str, options: FunctionOptions, zygote_kind: ZygoteKind,
        least: int = 0, most: int | None = None, idle: float = 30.0,
    ) -> None:  # fmt: skip
        self.name, self.options = name, options
        self.events: deque[Event] = deque(maxlen=1000)
        self.done = self.failed = 0
        self.closed = False
        self.functions: tuple[PackedFunction, ...] = ()
        self.bare_kind: Kind | None = None
        self._loop, self._keeper, self.zygote_kind = loop, keeper, zygote_kind
        self.preparing = False
        self._backlog: deque[Call] = deque()
        self._last_call = 0.0
        self._stepping = False
        self._when_empty: list[Callable[[], object]] = []
        self._braked = ""
        self._looking = False
        self.fleet = Fleet(loop, keeper, self, least, most, idle)
        self._limits = Limits(loop, options, self.note)
        self.files = Shelf(self._after) if options.reuse else OURS

    # --- from any thread

    def post(self, work: Callable[[], object]) -> None:
        """Have it done in the loop's thread."""
        self._loop.post(work)

    def _after(self, seconds: float, work: Callable[[], None]) -> None:
        self._loop.post(lambda: self._loop.after(seconds, work))

    def ask(self, work: Callable[[], object]) -> object:
        """Have it done in the loop's thread, and wait."""
        return self._loop.ask(work)

    def submit(self, call: Call) -> None:
        """A call to be served."""
        self._loop.post(lambda: self._enqueue(call))

    def limit(self) -> int:
        """How many of its calls this machine could run at once, with nothing else on it."""
        by_cpu = int(LEDGER.capacity().cpus / (self.options.cpus[0] or 1.0))
        by_memory = total_memory() // (self.options.memory[0] or 1)
        return max(1, min(by_cpu, by_memory))

    def stats(self) -> Stats:
        """Its state now."""
        found = self._loop.ask(self._stats)
        assert isinstance(found, Stats)
        return found

    # --- calls

    def _enqueue(self, call: Call) -> None:
        if self.closed:
            call.finish(error=Cancelled(f"{call.name}: its pool was closed before it began"))
            call.settle(None)
            return
        self._last_call = time.monotonic()
        self._backlog.append(call)
        if not self._stepping:  # of many that come together, once
            self._stepping = True
            self._loop.post(self.step)

    def step(self) -> None:
        """Give calls to containers, and see to it that there are as many of these as there should be."""
        self._stepping = False
        room, ready = None, self.fleet.ready
        while self._backlog and ready:
            if room is None:
                room = self.room()
            if room <= 0 or self.fleet.is_full():
                break
            call = self._backlog.popleft()
            if not call.begin():
                call.finish()
                call.settle(None)
                continue
            if call.by_value and not ready[0].zygote.same_python:
                what = "its arguments hold byte code, and the image has another Python"
                self._finish(call, None, InvalidInput(f"{call.name}: {what}"))
                call.settle(None)
                continue
            room -= 1
            self._assign(ready.popleft(), call)
        if not self.closed:
            self.fleet.fit(len(self._backlog), room)
        self._wait_for_room()

    def _wait_for_room(self) -> None:
        """Calls may wait for what other lanes use, or other programs: the former is told, the latter looked for."""
        if not self._backlog or self.closed:
            LEDGER.short.discard(self)
            return
        LEDGER.short.add(self)
        if not self._looking:
            self._looking = True
            self._loop.after(_LOOK_AGAIN, self._look_for_room)

    def _look_for_room(self) -> None:
        self._looking = False
        self.step()

    def room(self) -> int:
        """How many more calls may begin."""
        now = LEDGER.capacity()
        if now.brake != self._braked:
            self._braked = now.brake
            self.note("brake", now.brake or "released")
        memory = self.options.memory[0] or 0
        cpus = self.options.cpus[0] or 0.0
        return scaling.room(now, LEDGER.running, LEDGER.cpus, LEDGER.memory, cpus, memory)

    def _assign(self, worker: Worker, call: Call) -> None:
        worker.state, worker.call, call.worker = "busy", call, worker
        worker.served += 1
        self.fleet.running.add(worker)
        call.tries += 1
        LEDGER.begin(worker, worker.cpus or 0.0, self.options.memory[0] or 0)
        try:
            self._limits.prepare(worker, call)
            assert call.parcel is not None
            if call.function.key and call.function.key not in worker.known:
                self._keeper.introduce(worker, call.function)
            worker.send(call.parcel)
        except (Error, OSError) as error:
            worker.trouble = str(error)
            worker.end()
            return
        if call.options.timeout is not None:
            worker.timer = self._loop.after(call.options.timeout, lambda: self._expire(worker, call))
        if self.options.follows:
            self._limits.follow(self.fleet.workers)

    def _expire(self, worker: Worker, call: Call) -> None:
        if worker.call is call and worker.state == "busy":
            worker.timed_out = True
            worker.end()

    def cancel(self, call: Call) -> bool:
        """End a call."""
        if call.future.done():
            return False
        if call in self._backlog:
            self._backlog.remove(call)
            call.settle(None)
        call.finish(error=ends.cancelled(call))
        if call.worker is not None:
            call.worker.end()
        return True

    def forget(self, call: Call) -> None:
        """Nobody wants a call any more that may still wait: let go of it."""
        if call in self._backlog:
            self._backlog.remove(call)
            call.begin()
            call.finish()
            call.settle(None)

    def resume(self, call: Call) -> None:
        """Its items are wanted again."""
        if call.worker is not None and call.worker.state == "busy":
            call.worker.pause_reading(False)

    def usage_of(self, call: Call) -> Usage | None:
        """What the container of a call has used, where that lives on."""
        from corten.engine.result import Usage

        worker = call.worker
        if worker is None or worker.state == "over":
            return None
        now = worker.container.stats()
        return Usage(now.cpu_seconds or 0.0, now.throttled_seconds, now.memory_peak, now.memory_limit,
                     now.io_read_bytes, now.io_write_bytes, now.pids_peak)  # fmt: skip

    # --- what workers say

    def on_ready(self, worker: Worker) -> None:
        """A container is ready for its (next) call."""
        self.fleet.on_ready(worker)
        self.step()

    def on_message(self, worker: Worker, message: Message) -> None:
        """A container sends something about its call."""
        call = worker.call
        if call is None or worker.state != "busy" or message.call != call.number:
            if worker.state == "busy":
                worker.trouble = "its process in the container broke the protocol: it answers what nobody asked"
                worker.end()
            return
        try:
            if message.kind == b"W":
                worker.lend_file(call.number)
                return
            if message.kind == b"Y":
                if not call.take_item(self._loaded(message)) and call.options.generator:
                    worker.pause_reading(True)
                return
            if message.kind == b"R":
                self._conclude(worker, call, self._loaded(message), None)
            elif message.kind == b"E":
                self._conclude(worker, call, call.collected(), None)
            elif message.kind == b"X":
                self._conclude(worker, call, None, self._exception(call, message))
            else:
                raise Error("its process in the container broke the protocol")
        except Error as error:
            self._conclude(worker, call, None, error)

    def _loaded(self, message: Message) -> Any:
        return safe.load(message, self.options.trusted, self.options.returns)

    def _exception(self, call: Call, message: Message) -> BaseException:
        kind, error = safe.load_exception(message)
        if kind == "unpicklable":
            return InvalidInput(f"{call.name}: {error}").with_traceback(None)
        return error

    def _conclude(self, worker: Worker, call: Call, value: Any, error: BaseException | None) -> None:
        """The call is over, and its container is well."""
        worker.drain()
        self._release(worker)
        failed = error is not None and not isinstance(error, InvalidInput)
        again = failed and self._again(call, f"{type(error).__name__}: {error}")
        if again or not self.options.reuse:
            if not again:
                self._finish(call, value, error)
            worker.end()
            self.step()
            return
        worker.call = None
        self._finish(call, value, error)
        call.settle(None)
        worker.state = "ready"
        self.on_ready(worker)

    def _finish(self, call: Call, value: Any, error: BaseException | None) -> None:
        if error is None:
            self.done += 1
        else:
            self.failed += 1
        call.finish(value, error)

    def _release(self, worker: Worker) -> None:
        LEDGER.end(worker)
        self.fleet.running.discard(worker)
        for lane in LEDGER.short - {self}:
            self._loop.post(lane.step)
        if worker.timer is not None:
            worker.timer.cancel()
            worker.timer = None

    def _again(self, call: Call, why: str) -> bool:
        """Try it once more, if that was asked for."""
        if call.tries > call.options.retries or call.future.done() or self.closed:
            return False
        self.note("retry", f"{call.name}, try {call.tries + 1} of {call.options.retries + 1}: {why}")
        call.worker = None
        self._backlog.appendleft(call)
        return True

    def on_over(self, worker: Worker) -> None:
        """A container is gone."""
        self._release(worker)
        self.fleet.on_over(worker)
        call, worker.call = worker.call, None
        result, error = ends.outcome(worker, call)
        if call is not None:
            self._limits.learn(call, result)
            if not call.future.done() and call.worker is worker:
                self._failed_in(worker, call, error)
            if call.worker in (worker, None) and call.future.done():
                call.settle(result)
        elif not worker.served:
            self.fleet.never_ready(worker, error)
        self.step()
        if self.closed and not self.fleet.workers:
            for callback in self._when_empty:
                callback()
            self._when_empty.clear()

    def _failed_in(self, worker: Worker, call: Call, error: Error) -> None:
        if isinstance(error, OutOfMemory) and not self.closed and self._limits.more_memory(call, worker):
            call.worker = None
            self._backlog.appendleft(call)
            return
        if not self._again(call, str(error)):
            self._finish(call, None, error)

    def fail_all(self, why: Error) -> None:
        """No container can be had: every call that waits fails."""
        while self._backlog:
            call = self._backlog.popleft()
            self._finish(call, None, ends.lost(call, why))
            call.settle(None)

    def update(self, call: Call, memory: int | str | None, cpus: float | str | None) -> None:
        """Change the limits of a call that runs."""
        self._limits.update(call, memory, cpus)

    # --- its size

    def note(self, what: str, reason: str) -> None:
        """Write down a decision."""
        self.events.append(Event(time.time(), what, reason))

    def active(self) -> bool:
        """Whether there was a call within the idle time."""
        if self.closed or not self._last_call:
            return False
        busy = bool(self._backlog) or bool(self.fleet.running)
        return busy or time.monotonic() - self._last_call < self.fleet.idle

    def on_zygote_lost(self, zygote: Zygote, why: Error | None) -> None:
        """Its zygote has ended, or could not load what it should."""
        self.fleet.lose(zygote)
        if why:
            self.fail_all(why)
        else:
            self.note("zygote", "it has ended: another one is started")
        self.step()

    def _stats(self) -> Stats:
        view = self.fleet.view(len(self._backlog), 0)
        return Stats(view.backlog, view.busy, view.ready, view.making, self.done, self.failed)

    def resize(self, least: int, most: int | None) -> None:
        """Other bounds."""
        self.fleet.least, self.fleet.most = least, most
        self.note("resize", f"the pool: at least {least}, at most {'what the machine has' if most is None else most}")
        self.step()

    def close(self) -> None:
        """No more calls: those that wait are cancelled, those that run are killed."""
        self.closed = True
        LEDGER.short.discard(self)
        while self._backlog:
            call = self._backlog.popleft()
            self._finish(call, None, Cancelled(f"{call.name}: its pool was closed before it began"))
            call.settle(None)
        for worker in list(self.fleet.workers):
            if worker.call is not None:
                worker.call.finish(error=Cancelled(f"{worker.call.name}: its pool was closed while it ran"))
        self.fleet.end()
        self.files.close()

    def when_empty(self, callback: Callable[[], object]) -> None:
        """Have it called as soon as nothing is left of a lane that was closed."""
        if self.closed and not self.fleet.workers:
            callback()
        else:
            self._when_empty.append(callback)
