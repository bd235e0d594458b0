"""`@corten.function`: a Python function whose calls run in containers."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections import deque
from typing import Generic, ParamSpec, TypeVar

from corten.compute import options as function_options
from corten.compute.call import Call, CallOptions
from corten.compute.inside import wire
from corten.compute.lanes import lanes
from corten.compute.options import FunctionOptions
from corten.compute.pickling import PackedFunction, names_of, pack_arguments, pack_function
from corten.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
    from typing import Any, Protocol, overload

    from corten.compute.lane import Lane
    from corten.compute.lanes import Lanes

    class Callee(Protocol):
        """What `Mapping` calls: a function, or a pool of one."""

        def spawn(self, *args: Any, **kwargs: Any) -> Call: ...  # noqa: D102
        def lane(self) -> Lane: ...  # noqa: D102


P = ParamSpec("P")
R = TypeVar("R")


class Twin:
    """A blocking method with its async twin as `.aio`: `f.remote(x)` and `await f.remote.aio(x)`."""

    def __init__(self, blocking: Callable[..., Any], aio: Callable[..., Any]) -> None:
        """blocking, aio: what they do."""
        self._blocking = blocking
        self.aio = aio
        functools.update_wrapper(self, blocking)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        return self._blocking(*args, **kwargs)


class Function(Generic[P, R]):
    """A function whose calls run in containers, each in a fresh one unless `reuse=True`.

    `f(x)` and `f.local(x)` call it here. `f.remote(x)` calls it in a container and waits; `f.spawn(x)` does not wait
    and gives a `Call`; `f.map(xs)` and `f.starmap(tuples)` call it for many inputs at once. `f.remote`, `f.map` and
    `f.starmap` have async twins: `await f.remote.aio(x)`, `async for y in f.map.aio(xs)`; a `Call` can be awaited.
    """

    def __init__(self, function: Callable[P, R], given: dict[str, Any]) -> None:
        self._function = function
        self._given = given
        self.name: str = getattr(function, "__qualname__", type(function).__qualname__)
        self.options: FunctionOptions = function_options.make(self.name, given)
        self.is_generator = inspect.isgeneratorfunction(function)
        self._lock = threading.Lock()
        self._packed: PackedFunction | None = None
        self._names: list[tuple[dict[str, Any], str, Any]] = []
        self._lane: Lane | None = None
        self._lane_owner: Lanes | None = None
        self.remote = Twin(self._remote, self._remote_aio)
        self.map = Twin(self._map, self._map_aio)
        self.starmap = Twin(self._starmap, self._starmap_aio)
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """As `local`."""
        return self._function(*args, **kwargs)

    def local(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it here, without a container."""
        return self._function(*args, **kwargs)

    def with_options(self, **options: Any) -> Function[P, R]:
        """The same function with some options changed; calls of it have containers of their own kind."""
        return Function(self._function, {**self._given, **options})

    def __reduce__(self) -> Any:
        return (_again, (self._function, self._given, self.name))

    # --- calls

    def spawn(self, *args: P.args, **kwargs: P.kwargs) -> Call:
        """Call it in a container, and do not wait. Errors of arguments and options are raised at once."""
        lane = self.lane()
        assert self._packed is not None
        return start(lane, self._packed, args, kwargs, self.is_generator)

    def _remote(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        call = self.spawn(*args, **kwargs)
        if self.is_generator:
            return iter(call)
        try:
            return call.get()
        except BaseException:
            if not call.done():
                call.cancel()  # Ctrl-C: nothing goes on without us
            raise

    def _remote_aio(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R] | AsyncIterator[Any]:
        call = self.spawn(*args, **kwargs)
        return call.__aiter__() if self.is_generator else call

    def _map(
        self, *inputs: Iterable[Any], ordered: bool = True, return_exceptions: bool = False, on: Any = None
    ) -> Iterator[Any]:
        return self._starmap(zip(*inputs, strict=False), ordered=ordered, return_exceptions=return_exceptions, on=on)

    def _starmap(
        self,
        inputs: Iterable[tuple[Any, ...]],
        *,
        ordered: bool = True,
        return_exceptions: bool = False,
        on: Any = None,
    ) -> Iterator[Any]:
        if on is not None:
            from corten.compute.dask.mapping import mapped

            return mapped(on, self.name, self._function, self._given, inputs, ordered, return_exceptions)
        return Mapping(self, inputs, ordered, return_exceptions)

    async def _map_aio(self, *inputs: Iterable[Any], **how: Any) -> AsyncIterator[Any]:
        async for item in _stepwise(self._map(*inputs, **how)):
            yield item

    async def _starmap_aio(self, inputs: Iterable[tuple[Any, ...]], **how: Any) -> AsyncIterator[Any]:
        async for item in _stepwise(self._starmap(inputs, **how)):
            yield item

    # --- where they run

    def lane(self) -> Lane:
        """The lane of its calls, opened at the first one."""
        with self._lock:
            packed = self._pack()
            own = lanes()
            if self._lane is None or self._lane.closed or self._lane_owner is not own:
                self._lane = own.open(self.name, self.options, (packed,))
                self._lane_owner = own
            return self._lane

    @property
    def packed(self) -> PackedFunction:
        """The function as it is sent."""
        with self._lock:
            return self._pack()

    def _pack(self) -> PackedFunction:
        """Packed when it is first needed, and again when what it refers to is something else, as in a notebook."""
        if self._packed is None:
            self.options = function_options.make(self.name, function_options.built(self._given))
        elif all(namespace.get(name) is value for namespace, name, value in self._names):
            return self._packed
        self._names = names_of(self._function)
        self._packed = pack_function(self._function, with_source=self.options.run.image != "host")
        return self._packed

    def __repr__(self) -> str:
        return f"<corten.function {self.name}>"


def start(
    lane: Lane, function: PackedFunction, args: tuple[Any, ...], kwargs: dict[str, Any], generator: bool = False
) -> Call:
    """Make a call of it and put it into the lane."""
    options = lane.options
    payload, buffers, by_value = pack_arguments(
        function.name, function.key, args, kwargs, options.run.image != "host"
    )
    call = Call(lane, function, None, call_options(options, generator))
    call.parcel = wire.Parcel(b"C", call.number, payload, buffers, lane.files)
    call.by_value = by_value
    lane.submit(call)
    return call


def call_options(options: FunctionOptions, generator: bool = False) -> CallOptions:
    """Those of one call."""
    forward = (_to("stdout"), _to("stderr")) if options.stream else (None, None)
    return CallOptions(options.timeout, options.retries, generator, forward)


def _to(name: str) -> Callable[[str], object]:
    def write(text: str) -> None:
        stream = getattr(sys, name)
        stream.write(text)
        stream.flush()

    return write


def _again(function: Callable[..., Any], given: dict[str, Any], name: str) -> Callable[..., Any]:
    """The function where it is unpickled: in a container, one that can be called there and no further."""
    import sys

    inside = sys.modules.get("corten_inside.work") or sys.modules.get("corten.compute.inside.work")
    if inside is not None and inside.IN_CONTAINER:
        return inside.only_here(function, name)  # type: ignore[no-any-return]
    from corten.compute.function import Function

    return Function(function, given)


# By value, as a function of a program would be: images need not have Corten.
_again.__module__ = "__main__"


class Mapping:
    """The results of a function for many inputs, as an iterator: inputs are taken and calls are made as results are
    taken, a few more than can run at once. Closing it, or letting go of it, cancels what still runs."""

    def __init__(
        self, function: Callee, inputs: Iterable[tuple[Any, ...]], ordered: bool, return_exceptions: bool
    ) -> None:
        """function: to be called; inputs: its positional arguments, taken as they are needed."""
        self._function, self._inputs = function, iter(inputs)
        self._ordered, self._return_exceptions = ordered, return_exceptions
        self._calls: deque[Call] = deque()
        self._done: deque[Call] = deque()
        self._news = threading.Condition()
        lane = function.lane()
        limit = lane.fleet.most or max(1, int(lane.limit()))
        self._window = limit * 4 + 4 if lane.options.reuse else limit * 2 + 4
        self._exhausted = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def _fill(self) -> None:
        while not self._exhausted and len(self._calls) < self._window:
            try:
                args = next(self._inputs)
            except StopIteration:
                self._exhausted = True
                return
            try:
                if not hasattr(args, "__iter__"):
                    raise InvalidInput(f"starmap: {args!r} is no tuple of arguments: use map for single ones")
                call = self._function.spawn(*args)
            except BaseException:
                self.close()
                raise
            self._calls.append(call)
            if not self._ordered:
                call.future.add_done_callback(functools.partial(self._note, call))

    def _note(self, call: Call, _: object) -> None:
        with self._news:
            self._done.append(call)
            self._news.notify()

    def __next__(self) -> Any:
        self._fill()
        if not self._calls:
            raise StopIteration
        try:
            if self._ordered:
                call = self._calls.popleft()
            else:
                with self._news:
                    self._news.wait_for(lambda: bool(self._done))
                    call = self._done.popleft()
                self._calls.remove(call)
            self._fill()
            return call.get()
        except Exception as error:
            if self._return_exceptions:
                return error
            self.close()
            raise
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Cancel what still runs."""
        while self._calls:
            self._calls.popleft().cancel()
        self._exhausted = True

    def __del__(self) -> None:
        for call in self._calls:
            if not call.done():
                call.post_cancel()


async def _stepwise(items: Iterator[Any]) -> AsyncIterator[Any]:
    import asyncio

    end = object()
    while True:
        item = await asyncio.to_thread(next, items, end)
        if item is end:
            return
        yield item


if TYPE_CHECKING:

    @overload
    def function(given: Callable[P, R], /) -> Function[P, R]: ...
    @overload
    def function(**options: Any) -> Callable[[Callable[P, R]], Function[P, R]]: ...


def function(given: Any = None, /, **options: Any) -> Any:
    """Make a function one whose calls can run in containers. With parentheses or without.

    image: "host" (default); cpus: CPUs of a call (1), or bounds such as (1, 4) between which it follows the load;
    memory: bytes or text ("1g"), bounds, or "auto" (what earlier calls needed; one that runs out is tried with more);
    timeout: seconds of a call; retries: further tries after a failure (0); network: "none" (default), "host"; mounts,
    env, ...: as of `corten.run`; imports: modules to keep loaded, so that no call has to import them (default: those
    that the function's code refers to); reuse: let containers serve many calls (each is then a guest of the ones
    before); trusted: the function may return anything that can be pickled, which lets it run code here: without, only
    plain data, numpy arrays, and instances of the classes in returns=[...]; output: "keep", or "stream" to see what
    calls write as it comes.

    Raises `InvalidInput` for options that make no sense.
    """
    if given is None:
        return lambda function: Function(function, options)
    if not callable(given):
        raise InvalidInput(f"corten.function: {given!r} cannot be called")
    return Function(given, options)
