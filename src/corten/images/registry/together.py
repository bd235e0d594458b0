"""Several blobs moved at the same time: the first that fails ends the others, and so does an interrupt."""

from __future__ import annotations

from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future
    from typing import TypeVar

    from corten.images.registry.halt import Halt

    T = TypeVar("T")

_AT_ONCE = 4


def for_each(things: Iterable[T], do: Callable[[T], None], halt: Halt, name: str) -> None:
    """Do it with each, in threads of that name, begun in this order; raises what the first failure was."""
    futures: list[Future[None]] = []
    with ThreadPoolExecutor(_AT_ONCE, name) as pool:
        try:
            # One by one: the first is at work already while others are still handed over.
            for one in things:
                futures.append(pool.submit(do, one))  # noqa: PERF401
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
        except BaseException:
            halt.set()
            for future in futures:
                future.cancel()
            raise
