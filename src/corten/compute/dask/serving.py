"""Calls in containers, made by a Dask worker for a client elsewhere.

The worker is an ordinary one (`dask worker`, `SSHCluster`, `LocalCluster`) with Corten installed, on a machine where
functions in containers work. Its process holds the containers: if it dies, they do.
"""

from __future__ import annotations

import pickle
import threading

from corten.compute.function import Function
from corten.compute.inside.work import unpickled
from corten.errors import RemoteError
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.compute.call import Call


class Shipment(Record):
    """A function on its way to workers. key: by its content; data: pickled; options: as it was given."""

    key: str
    name: str
    data: bytes
    options: dict[str, Any]


class Outcome(Record):
    """How a call ended. error: None for a value; trail: its traceback in the container."""

    value: Any = None
    error: BaseException | None = None
    trail: str = ""


_lock = threading.Lock()
_functions: dict[str, Function[Any, Any]] = {}
_running: dict[str, set[Call]] = {}


def call(shipment: Shipment, batch: str, args: tuple[Any, ...]) -> Outcome:
    """A task of Dask: the call of a function in a container on this machine."""
    try:
        one = _function(shipment).spawn(*args)
        with _lock:
            _running.setdefault(batch, set()).add(one)
        try:
            return Outcome(value=one.get())
        finally:
            with _lock:
                _running[batch].discard(one)
                if not _running[batch]:
                    del _running[batch]
    except Exception as error:
        return _failed(error)


def cancel(batch: str) -> None:
    """End the calls of one client's iteration. In the worker's event loop: waits for nothing."""
    with _lock:
        found = list(_running.get(batch, ()))
    for one in found:
        one.post_cancel()


def _function(shipment: Shipment) -> Function[Any, Any]:
    with _lock:
        key = f"{shipment.key} {sorted(shipment.options.items(), key=str)!r}"
        if key not in _functions:
            _functions[key] = Function(unpickled(shipment.data), shipment.options)
        return _functions[key]


def _failed(error: Exception) -> Outcome:
    trail = str(error.__cause__.args[0]) if error.__cause__ is not None and error.__cause__.args else ""
    error.__cause__ = error.__context__ = None
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # it must not fail on its way
        kind = f"{type(error).__module__}.{type(error).__qualname__}"
        return Outcome(error=RemoteError(kind, str(error)), trail=trail)
    return Outcome(error=error.with_traceback(None), trail=trail)
