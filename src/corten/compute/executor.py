"""`corten.ContainerExecutor`: the standard library's interface to a pool, with containers behind it.

Rule 1: what `concurrent.futures` promises of an executor holds here: a future that waits can be cancelled, one that
        runs cannot; what cannot be pickled is an exception of its future; the program waits for its futures at its end.
Rule 2: what ends a container ends one call. There is no broken pool.
Rule 3: a function goes with its call. Only one that comes again is learned by the containers, so that an executor
        that is given a new lambda a million times does not fill them with lambdas.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
import types
import weakref
from collections import OrderedDict, deque
from concurrent.futures import Executor, Future, InvalidStateError

from corten.compute import options as function_options
from corten.compute.call import Call
from corten.compute.function import call_options
from corten.compute.inside import wire
from corten.compute.lanes import lanes
from corten.compute.pickling import PackedFunction, pack_arguments, pack_function
from corten.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Any

    from corten.compute.call import CallOptions
    from corten.compute.lane import Lane
    from corten.compute.lanes import Lanes
    from corten.compute.options import FunctionOptions

_SEEN = 1024
"""Functions that are remembered as having come before."""
_FILES = 64
"""Calls with big arguments that wait packed, each with an open file; those after them are packed when they begin."""


class _Task(Call):
    """A call whose future can be cancelled for as long as it waits."""

    def __init__(
        self, lane: Lane, function: PackedFunction, options: CallOptions, payload: bytes, buffers: list[memoryview],
        later: bool,
    ) -> None:  # fmt: skip
        super().__init__(lane, function, None, options)
        self._contents: tuple[bytes, list[memoryview]] | None = (payload, buffers)
        if not later:
            self._pack()

    def _new_future(self) -> Future[Any]:
        return Future()

    def _pack(self) -> None:
        assert self._contents is not None
        self.parcel = wire.Parcel(b"C", self.number, *self._contents, self._lane.files)
        self._contents = None

    def begin(self) -> bool:
        if self.tries:  # once more, after a failure
            return not self.future.done()
        if not self.future.set_running_or_notify_cancel():
            return False
        try:
            if self.parcel is None:
                self._pack()
        except Exception as error:  # no memory or no descriptors for it
            self.future.set_exception(error)
            return False
        return True

    def finish(self, value: Any = None, error: BaseException | None = None) -> None:
        self._contents = None
        try:
            super().finish(value, error)
        except InvalidStateError:
            pass  # cancelled at this very moment


class _Work:
    """What an executor has under way. Apart from it, so that an executor that nobody holds can end."""

    def __init__(self) -> None:
        self.news = threading.Condition()
        self.pending: set[Future[Any]] = set()
        self.closed = False
        self.lane: Lane | None = None
        self.owner: Lanes | None = None

    def add(self, future: Future[Any]) -> None:
        with self.news:
            if self.closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self.pending.add(future)

    def done(self, future: Future[Any]) -> None:
        with self.news:
            self.pending.discard(future)
            if self.pending:
                return
            self.news.notify_all()
        self.let_go()

    def let_go(self) -> None:
        """Close the lane if nothing will come any more; without waiting for that."""
        with self.news:
            if not self.closed or self.pending or self.lane is None or self.owner is None:
                return
            lane, owner, self.lane = self.lane, self.owner, None
        owner.let_go(lane)

    def close(self) -> None:
        with self.news:
            self.closed = True
        self.let_go()

    def abandon(self) -> None:
        """End every call that waits or runs, without waiting for that."""
        with self.news:
            lane, owner, self.lane = self.lane, self.owner, None
        if lane is not None and owner is not None:
            owner.let_go(lane)

    def wait(self) -> None:
        with self.news:
            self.news.wait_for(lambda: not self.pending)


class ContainerExecutor(Executor):
    """An executor of the standard library whose calls run in containers.

    max_workers: containers with a call at once; None: as many as the free CPUs and memory allow, which also bound any
    other number. reuse: a container serves many calls (False: each call gets a fresh one); trusted: results may be
    anything that can be pickled, as with `ProcessPoolExecutor`: code that is not trusted needs trusted=False. The other
    options are those of `corten.function`: image, cpus, memory, timeout, retries, imports, mounts, env, ...

    A call whose container dies fails with `corten.OutOfMemory`, `corten.Timeout` or `corten.Killed`; the others go on.
    Callbacks of futures run in the thread that serves all containers of the process: they must not wait for a call.

    Raises `ValueError` for max_workers below 1, `InvalidInput` for options that make no sense or more workers than the
    machine has room for.
    """

    def __init__(
        self, max_workers: int | None = None, *, image: str = "host", cpus: Any = 1, memory: Any = "1g",
        reuse: bool = True, trusted: bool = True, **options: Any,
    ) -> None:  # fmt: skip
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        given = {"image": image, "cpus": cpus, "memory": memory, "reuse": reuse, "trusted": trusted, **options}
        self.options: FunctionOptions = function_options.make("ContainerExecutor", given)
        self._most = max_workers
        self._call_options = call_options(self.options)
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._packs: dict[Callable[..., Any], PackedFunction] = {}
        self._foreign = self.options.run.image != "host"  # its Python may be another one, and get functions as source
        self._lock = threading.Lock()
        self._work = _Work()
        room = function_options.limit(self.options)
        if max_workers is not None and max_workers > room:
            raise InvalidInput(f"max_workers={max_workers}: this machine has CPUs and memory for {room} at once")
        weakref.finalize(self, self._work.close).atexit = False

    # --- as the standard has it

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call fn in a container; the future of its result. RuntimeError after `shutdown`."""
        try:
            packed = self._pack(fn)
        except InvalidInput as error:
            return self._failed(error)
        return self._submit(packed, args, kwargs, again=self._foreign or self._comes_again(packed.key))

    def map(
        self, fn: Callable[..., Any], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:  # fmt: skip
        """The results of fn for all inputs, in their order.

        timeout: seconds from now until the last result (then `TimeoutError`); chunksize: inputs that go to a container
        at once; buffersize: chunks that are taken from the inputs ahead of the results, None: all, at once. Leaving
        the iteration cancels what still waits.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        deadline = None if timeout is None else time.monotonic() + timeout
        inputs: Iterator[tuple[Any, ...]] = zip(*iterables, strict=False)
        packed, parts = self._pack(fn), inputs
        if chunksize > 1:
            packed = self._pack(_each(fn)).replace(name=packed.name)
            parts = ((part,) for part in iter(lambda: [*itertools.islice(inputs, chunksize)], []))
        calls = (self._submit(packed, part, {}, again=True) for part in parts)
        ahead = deque(itertools.islice(calls, buffersize))
        results = _results(ahead, calls, deadline)
        return results if chunksize == 1 else itertools.chain.from_iterable(results)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No more calls. wait: until those that were made are done and their containers gone; cancel_futures: cancel
        those that wait."""
        work = self._work
        with work.news:
            work.closed = True
            waiting = list(work.pending) if cancel_futures else []
            lane, owner = work.lane, work.owner
        for future in waiting:
            future.cancel()
        if wait:
            work.wait()
        work.let_go()
        if wait and lane is not None and owner is not None:
            owner.drop(lane)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """As `shutdown`; on Ctrl-C, which ends the processes of a process pool, too, nothing is waited for."""
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._work.abandon()
        self.shutdown()

    # --- as others build on it

    def submit_packed(self, packed: PackedFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        """As `submit`, of a function that was packed before; containers learn it."""
        return self._submit(packed, args, kwargs, again=True)

    def resize(self, max_workers: int) -> None:
        """Another number of containers with a call at once, from now on."""
        with self._lock:
            self._most, lane = max_workers, self._work.lane
        if lane is not None:
            lane.post(lambda: lane.resize(0, max_workers))

    def abandon(self) -> None:
        """End every call that waits or runs, with `Cancelled`. Does not wait for that; the executor goes on."""
        self._work.abandon()

    # --- how

    def _failed(self, error: Exception) -> Future[Any]:
        future: Future[Any] = Future()
        self._work.add(future)
        self._work.done(future)
        future.set_exception(error)
        return future

    def _pack(self, fn: Callable[..., Any]) -> PackedFunction:
        """The function as it is sent. One that goes by name is packed once; another may have changed since."""
        kept = isinstance(fn, (types.FunctionType, types.BuiltinFunctionType))
        if kept and fn in self._packs:
            return self._packs[fn]
        packed = pack_function(fn, with_source=self._foreign)
        if kept and not packed.by_value:
            self._packs[fn] = packed
        return packed

    def _comes_again(self, key: str) -> bool:
        with self._lock:
            again = key in self._seen
            self._seen[key] = None
            self._seen.move_to_end(key)
            if len(self._seen) > _SEEN:
                self._seen.popitem(last=False)
            return again

    def _submit(
        self, packed: PackedFunction, args: tuple[Any, ...], kwargs: dict[str, Any], again: bool
    ) -> Future[Any]:
        work = self._work
        lane = self._lane(packed)
        try:
            payload, buffers, by_value = pack_arguments(
                packed.name, packed.key if again else packed.data, args, kwargs, self._foreign
            )
            later = (bool(buffers) or len(payload) > wire.INLINE) and len(work.pending) >= _FILES
            call = _Task(lane, packed if again else packed.replace(key=""), self._call_options, payload, buffers, later)
        except Exception as error:  # as the standard's: of the future
            return self._failed(error)
        call.by_value = by_value
        try:
            work.add(call.future)
        except RuntimeError:
            call.finish()
            work.let_go()
            raise
        call.future.add_done_callback(work.done)
        call.future.add_done_callback(lambda own: lane.post(lambda: lane.forget(call)) if own.cancelled() else None)
        lane.submit(call)
        return call.future

    def _lane(self, packed: PackedFunction) -> Lane:
        """The lane of its calls, opened at the first one: what that function uses is loaded once for all containers."""
        work = self._work
        with self._lock:
            if work.closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            own = lanes()
            if work.lane is None or work.lane.closed or work.owner is not own:
                work.pending = set()
                work.lane = own.open("ContainerExecutor", self.options, (packed,), most=self._most)
                work.owner = own
                _wait_at_exit(work)
            return work.lane


def _results(ahead: deque[Future[Any]], more: Iterator[Future[Any]], deadline: float | None) -> Iterator[Any]:
    try:
        while ahead:
            future = ahead.popleft()
            try:
                result = future.result(None if deadline is None else deadline - time.monotonic())
            finally:
                future.cancel()
            ahead.extend(itertools.islice(more, 1))
            yield result
            del result, future
    finally:
        for future in ahead:
            future.cancel()


def _each(fn: Callable[..., Any]) -> Callable[..., Any]:
    """fn for many inputs at once. Defined in here, for then it is pickled by value: images need not have Corten."""

    def call_each(many: list[tuple[Any, ...]]) -> list[Any]:
        return [fn(*args) for args in many]

    call_each.__module__ = getattr(fn, "__module__", None) or __name__
    return call_each


_unfinished: weakref.WeakSet[_Work] = weakref.WeakSet()
_registered = threading.Event()


def _wait_at_exit(work: _Work) -> None:
    """As the standard's executors: a program ends when its futures are done. After the loop has registered its own
    end, and so before that comes."""
    import atexit

    _unfinished.add(work)
    if not _registered.is_set():
        _registered.set()
        atexit.register(_wait_for_all)


def _wait_for_all() -> None:
    interrupted = getattr(sys, "last_type", None) is KeyboardInterrupt  # what the program ends of, if anything
    for work in list(_unfinished):
        with work.news:
            work.closed = True
        if interrupted:
            work.abandon()
        if work.owner is lanes():
            work.wait()
