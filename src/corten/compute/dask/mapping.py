"""`f.map(xs, on=client)`: calls in containers on the workers of a Dask cluster, as seen by the one who wants them.

A task of Dask is one call: the worker that runs it makes the container on its machine (`serving`). Inputs are taken,
and tasks submitted, as results are taken: a few more than the cluster has threads.

Rule 1: a call whose worker or machine is lost is run again by Dask, elsewhere: no result is lost, but such a call may
        have been run twice. What fails in its container is not: it comes back as what it is, unless `retries` says.
Rule 2: closing the iterator, or letting go of it, cancels what still runs, on all machines.
"""

from __future__ import annotations

import queue
import time
import uuid
from collections import deque

from corten.compute import safe
from corten.compute.pickling import pack_function
from corten.errors import Cancelled, Error, InvalidInput, RemoteError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from distributed import Client, Future

    from corten.compute.dask.serving import Outcome

_FRESH = 2.0
"""Seconds for which the number of threads of the cluster is believed."""


def mapped(
    client: Any, name: str, function: Callable[..., Any], options: dict[str, Any], inputs: Iterable[tuple[Any, ...]],
    ordered: bool, return_exceptions: bool,
) -> Iterator[Any]:  # fmt: skip
    """The results of a function with these options for many inputs. `InvalidInput`: that is no client of Dask."""
    import sys

    if "distributed" not in sys.modules or not isinstance(client, sys.modules["distributed"].Client):
        raise InvalidInput(f"on={client!r}: not a client of Dask: give a distributed.Client")
    if client.asynchronous:
        raise InvalidInput("on: an asynchronous client of Dask: give a blocking one")
    if client.status != "running":
        raise InvalidInput(f"on: the client of Dask is {client.status}: connect it first")
    return ClientMapping(client, name, function, options, inputs, ordered, return_exceptions)


class ClientMapping:
    """See the module."""

    def __init__(
        self, client: Client, name: str, function: Callable[..., Any], options: dict[str, Any],
        inputs: Iterable[tuple[Any, ...]], ordered: bool, return_exceptions: bool,
    ) -> None:  # fmt: skip
        from corten.compute.dask.serving import Shipment

        self._client, self._name, self._inputs = client, name, iter(inputs)
        self._ordered, self._return_exceptions = ordered, return_exceptions
        self._batch = uuid.uuid4().hex[:12]
        self._count = 0
        self._futures: deque[Future[Any]] = deque()
        self._done: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._exhausted = False
        self._threads, self._seen = 1, 0.0
        packed = pack_function(function)
        shipment = Shipment(packed.key, name, packed.data, options)
        # A task and not scattered data: Dask makes it again if the workers that hold it are lost.
        self._shipment: Future[Any] | None = client.submit(_same, shipment, key=f"corten-function-{self._batch}")

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            self._fill()
            if not self._futures:
                raise StopIteration
            future = self._next()
            outcome = self._outcome(future)
            self._fill()
        except StopIteration:
            self._shipment = None
            raise
        except BaseException:
            self.close()
            raise
        if outcome.error is None:
            return outcome.value
        error = again(outcome)
        if self._return_exceptions and isinstance(error, Exception):
            return error
        self.close()
        raise error

    def close(self) -> None:
        """Cancel what still runs."""
        from corten.compute.dask import serving

        self._exhausted = True
        left, self._futures = list(self._futures), deque()
        if left and self._client.status == "running":
            try:
                self._client.cancel(left)
                self._client.run(serving.cancel, self._batch, on_error="ignore")
            except OSError:  # the scheduler is lost, and the workers end with it
                pass
        self._shipment = None

    def __del__(self) -> None:
        if getattr(self, "_futures", None) and self._client.status == "running":
            from corten.compute.dask import serving

            self._client.run(serving.cancel, self._batch, on_error="ignore", wait=False)

    def _window(self) -> int:
        """How many tasks may be there: twice what the cluster can run at once, and a few."""
        now = time.monotonic()
        if now - self._seen > _FRESH:
            self._seen = now
            self._threads = max(1, sum(self._asked(self._client.nthreads).values()))
        return self._threads * 2 + 4

    def _fill(self) -> None:
        from corten.compute.dask import serving

        while not self._exhausted and len(self._futures) < self._window():
            try:
                args = next(self._inputs)
            except StopIteration:
                self._exhausted = True
                return
            self._count += 1
            key = f"{self._name}-{self._batch}-{self._count}"
            future = self._asked(
                self._client.submit, serving.call, self._shipment, self._batch, tuple(args), key=key, pure=False
            )
            self._futures.append(future)
            if not self._ordered:
                future.add_done_callback(self._done.put)

    def _next(self) -> Future[Any]:
        if self._ordered:
            return self._futures.popleft()
        future = self._done.get()
        self._futures.remove(future)
        return future

    def _asked(self, work: Callable[..., Any], *args: Any, **how: Any) -> Any:
        """Have the client do something for which it needs its scheduler."""
        try:
            return work(*args, **how)
        except OSError as error:
            raise self._lost() from error

    def _lost(self) -> Error:
        return Error(f"{self._name}: the scheduler of Dask was lost, and the calls with it")

    def _outcome(self, future: Future[Any]) -> Outcome:
        from distributed.client import FutureCancelledError

        try:
            found: Outcome = future.result()
        except (FutureCancelledError, OSError) as error:
            if getattr(error, "reason", "") in ("scheduler-connection-lost", "scheduler-restart", "") or (
                self._client.status != "running"
            ):
                raise self._lost() from error
            raise Cancelled(f"{self._name} was cancelled: {error}") from error
        return found


def _same(shipment: Any) -> Any:
    return shipment


def again(outcome: Outcome) -> BaseException:
    """The exception of a call as itself, with the traceback of the container as its cause."""
    error = outcome.error
    assert error is not None
    if isinstance(error, RemoteError) and error.parts is not None:
        # Its class is not known where the container was made, but may be here.
        error = safe.again(*error.parts) or error
    if outcome.trail:
        error.__cause__ = safe.RemoteTraceback(outcome.trail)
    return error
