"""`corten.Pool`: the containers of a function, with bounds of one's own."""

from __future__ import annotations

from corten.compute import options as function_options
from corten.compute.function import Function, start
from corten.compute.lane import Event, Stats
from corten.compute.lanes import lanes
from corten.engine.quantities import duration
from corten.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

    from corten.compute.call import Call


class Pool:
    """Containers for the calls of a function: more of them while calls wait, fewer when they are idle.

    min: containers that are always there; max: containers with a call at once, "auto": as many as the free CPUs and
    memory allow (they bound any other number, too); idle: seconds after which a container that waits is ended.
    Leaving a `with` block closes it: calls that wait or run are cancelled.
    """

    def __init__(
        self, function: Function[Any, Any], *, min: int = 0, max: int | str = "auto", idle: float | str = 30.0,  # noqa: A002
        **options: Any,
    ) -> None:  # fmt: skip
        if not isinstance(function, Function):
            raise InvalidInput(f"corten.Pool: {function!r} is not a corten.function")
        self._function = function.with_options(**options) if options else function
        least, most = _bounds(min, max)
        seconds = duration("idle", idle)
        packed = self._function.packed  # an image that has to be built is built before its options are looked at
        self._fit(least, most)
        self._generator = self._function.is_generator
        self._lanes = lanes()
        self._lane = self._lanes.open(
            self._function.name, self._function.options, (packed,), least=least, most=most, idle=seconds
        )

    def spawn(self, *args: Any, **kwargs: Any) -> Call:
        """Call the function in one of the containers; do not wait."""
        return start(self._lane, self._function.packed, args, kwargs, self._generator)

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function in one of the containers, and wait."""
        call = self.spawn(*args, **kwargs)
        try:
            return iter(call) if self._generator else call.get()
        except BaseException:
            if not call.done():
                call.cancel()
            raise

    def map(self, *inputs: Any, ordered: bool = True, return_exceptions: bool = False) -> Any:
        """As `Function.map`."""
        from corten.compute.function import Mapping

        return Mapping(self, zip(*inputs, strict=False), ordered, return_exceptions)

    def resize(self, min: int | None = None, max: int | str | None = None) -> None:  # noqa: A002
        """Other bounds, from now on. A pool that becomes smaller ends containers when they are idle."""
        least, most = _bounds(
            self._lane.fleet.least if min is None else min,
            ("auto" if self._lane.fleet.most is None else self._lane.fleet.most) if max is None else max,
        )
        self._fit(least, most)
        self._lane.ask(lambda: self._lane.resize(least, most))

    def _fit(self, least: int, most: int | None) -> None:
        room = function_options.limit(self._function.options)
        for name, number in (("min", least), ("max", most or 0)):
            if number > room:
                raise InvalidInput(
                    f"{self._function.name}: {name}={number}: this machine has CPUs and memory for {room} at once"
                )

    def stats(self) -> Stats:
        """Calls that wait, containers by what they do, calls done."""
        return self._lane.stats()

    @property
    def events(self) -> list[Event]:
        """What it decided, and why; the last 1,000."""
        return list(self._lane.events)

    def close(self) -> None:
        """End all containers; waits until they are gone."""
        self._lanes.drop(self._lane)

    def lane(self) -> Any:
        """Where its calls go."""
        return self._lane

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _bounds(least: Any, most: Any) -> tuple[int, int | None]:
    if not isinstance(least, int) or least < 0:
        raise InvalidInput(f"min: {least!r} is not a number of containers")
    if most == "auto":
        return least, None
    if not isinstance(most, int) or most < 1:
        raise InvalidInput(f'max: {most!r}: use a number of containers, or "auto"')
    if least > most:
        raise InvalidInput(f"min={least} is more than max={most}")
    return least, most
