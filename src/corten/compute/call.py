"""One call of a function in a container, as its caller sees it."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator
    from typing import Any

    from corten.compute.inside.wire import Parcel
    from corten.compute.lane import Lane
    from corten.compute.pickling import PackedFunction
    from corten.compute.worker import Worker
    from corten.engine.result import Result, Usage

_numbers = itertools.count(1)
_MOST_OUTPUT = 16 << 20
"""Bytes of each stream of a call that are kept; what comes later is counted, and dropped."""
ITEMS_AHEAD = 16
"""Items of a generator that are taken in before somebody wants them; then its container waits."""
_END = object()


class Output:
    """What a call wrote to one of its streams, so far. news: of the call: told when there is more, and at the end."""

    __slots__ = ("_forward", "_news", "data", "dropped", "over")

    def __init__(self, news: threading.Condition, forward: Callable[[str], object] | None) -> None:
        self.data = bytearray()
        self.dropped = 0
        self.over = False
        self._forward = forward
        self._news = news

    def take(self, data: bytes) -> None:
        """More of it."""
        with self._news:
            fits = data[: _MOST_OUTPUT - len(self.data)]
            self.data += fits
            self.dropped += len(data) - len(fits)
            self._news.notify_all()
        if self._forward is not None:
            self._forward(data.decode(errors="replace"))

    def text(self) -> str:
        """All of it; with a last line that says so if some was dropped."""
        with self._news:
            note = f"\n[{self.dropped} more bytes were dropped]\n" if self.dropped else ""
            return self.data.decode(errors="replace") + note

    def lines(self) -> Iterator[str]:
        """Its lines, as they come, until the call is done."""
        at = 0
        while True:
            with self._news:
                while (end := self.data.find(b"\n", at)) < 0 and not self.over:
                    self._news.wait()
                line = bytes(self.data[at : end + 1] if end >= 0 else self.data[at:])
            if not line:
                return
            at += len(line)
            yield line.decode(errors="replace")


class Call:
    """A call that was spawned.

    get: its result, or its exception; cancel: end it; usage, result: what its container used, how that ended;
    stdout, stderr: what it wrote; update: change its limits while it runs. `await call` works in asyncio, and so does
    iterating over a call of a generator.
    """

    def __init__(self, lane: Lane, function: PackedFunction, parcel: Parcel | None, call: CallOptions) -> None:
        self.number = next(_numbers)
        self.name = function.name
        self.tries = 0
        self.parcel: Parcel | None = parcel
        self.function = function
        self.options = call
        self.memory: int | None = None
        self.by_value = False
        self.worker: Worker | None = None
        self.future: Future[Any] = self._new_future()
        self._lane = lane
        self._news = threading.Condition()  # one for all: making them is a good part of the cost of a call
        self._output = Output(self._news, call.forward[0]), Output(self._news, call.forward[1])
        self._settled = False
        self._account: Result | None = None
        self._items: list[Any] = []
        self._paused = False

    def _new_future(self) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()  # so that nobody cancels it behind our back
        return future

    # --- what the caller does

    def get(self, timeout: float | None = None) -> Any:
        """The result; of a generator, the list of its items. Waits at most `timeout` seconds (then `TimeoutError`; the
        call goes on).

        Raises what the function raised, with the traceback of the container as its cause; `OutOfMemory`, `Timeout`,
        `Killed` or another `ContainerFailed` whose `.result` says how the container ended; `Cancelled`.
        """
        try:
            return self.future.result(timeout)
        except TimeoutError:
            if self.future.done():
                raise
            raise TimeoutError(f"call {self.name} is not done after {timeout:g} s") from None

    def done(self) -> bool:
        """Whether there is a result or an exception."""
        return self.future.done()

    def cancel(self) -> bool:
        """End it: it never begins, or its container is killed; `get` raises `Cancelled`. False if it was done."""
        return bool(self._lane.ask(lambda: self._lane.cancel(self)))

    def post_cancel(self) -> None:
        """As `cancel`, without waiting for that."""
        self._lane.post(lambda: self._lane.cancel(self))

    def update(self, *, memory: int | str | None = None, cpus: float | str | None = None) -> None:
        """Change the limits of the container while the call runs. `Error` if it does not run."""
        self._lane.ask(lambda: self._lane.update(self, memory, cpus))

    @property
    def stdout(self) -> str:
        """What it wrote to standard output so far."""
        return self._output[0].text()

    @property
    def stderr(self) -> str:
        """What it wrote to standard error so far."""
        return self._output[1].text()

    def lines(self, stream: str = "stdout") -> Iterator[str]:
        """The lines of `stdout` or `stderr`, as they come, until the call is done."""
        return self._output[stream == "stderr"].lines()

    @property
    def result(self) -> Result | None:
        """How its container ended: waits for that. None for a call that never had one, or whose container lives on."""
        with self._news:
            self._news.wait_for(lambda: self._settled)
        return self._account

    @property
    def usage(self) -> Usage | None:
        """What its container used (with `reuse=True`: since the container was made, for it serves many calls)."""
        found = self.result
        return found.usage if found is not None else self._lane.usage_of(self)

    def __iter__(self) -> Iterator[Any]:
        """The items of a generator, as they come. Not taking them makes the generator wait."""
        while True:
            with self._news:
                self._news.wait_for(lambda: bool(self._items))
                item = self._items.pop(0)
                resume = self._paused and len(self._items) < ITEMS_AHEAD // 2
                self._paused = self._paused and not resume
            if resume:
                self._lane.post(lambda: self._lane.resume(self))
            if item is _END:
                self.future.result()
                return
            yield item

    async def __aiter__(self) -> AsyncIterator[Any]:
        """As `__iter__`, without blocking the event loop."""
        import asyncio

        items = iter(self)
        while True:
            item = await asyncio.to_thread(next, items, _END)
            if item is _END:
                return
            yield item

    def __await__(self) -> Generator[Any, None, Any]:
        """The result, in asyncio. Cancelling the task cancels the call."""
        import asyncio

        async def wait() -> Any:
            try:
                return await asyncio.shield(asyncio.wrap_future(self.future))
            except asyncio.CancelledError:
                self.post_cancel()
                raise

        return wait().__await__()

    def __repr__(self) -> str:
        state = "done" if self.future.done() else "running" if self.worker is not None else "waiting"
        return f"<Call {self.number} of {self.name}: {state}>"

    # --- what its lane does, in the loop's thread

    def begin(self) -> bool:
        """A container is there for it; False if nobody wants it any more."""
        return True

    def take_output(self, stream: int, data: bytes) -> None:
        """Something it wrote."""
        self._output[stream].take(data)

    def take_item(self, item: Any) -> bool:
        """An item that its generator yielded; False if the generator should wait."""
        with self._news:
            self._items.append(item)
            self._news.notify_all()
            self._paused = self.options.generator and len(self._items) >= ITEMS_AHEAD
            return not self._paused

    def collected(self) -> list[Any]:
        """The items of a generator that nobody iterates over."""
        with self._news:
            return [item for item in self._items if item is not _END]

    def finish(self, value: Any = None, error: BaseException | None = None) -> None:
        """It is done."""
        if self.parcel is not None:
            self.parcel.close()
            self.parcel = None
        first = not self.future.done()
        if first and error is not None:
            self.future.set_exception(error)
        elif first:
            self.future.set_result(value)
        with self._news:
            for output in self._output:
                output.over = True
            if first:
                self._items.append(_END)
            self._news.notify_all()

    def settle(self, result: Result | None) -> None:
        """The account of its container is here, or there will be none."""
        with self._news:
            if not self._settled:
                self._settled, self._account = True, result
                self._news.notify_all()


class CallOptions:
    """What a call is besides its function and arguments. timeout: seconds; forward: where stdout and stderr go as they
    come, besides being kept."""

    __slots__ = ("forward", "generator", "retries", "timeout")

    def __init__(
        self, timeout: float | None, retries: int, generator: bool,
        forward: tuple[Callable[[str], object] | None, Callable[[str], object] | None] = (None, None),
    ) -> None:  # fmt: skip
        self.timeout, self.retries, self.generator, self.forward = timeout, retries, generator, forward
