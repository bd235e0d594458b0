"""How calls end that have no answer: the error for each way."""

from __future__ import annotations

from corten.errors import Cancelled, ContainerFailed, Error, InvalidInput, Killed, OutOfMemory, TimedOut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.compute.call import Call
    from corten.compute.worker import Worker
    from corten.engine.result import Result


def cancelled(call: Call) -> Cancelled:
    """Its caller wanted that."""
    return Cancelled(f"{call.name} was cancelled")


def lost(call: Call, why: Error) -> Error:
    """Its container could not be made."""
    if isinstance(why, InvalidInput):
        return InvalidInput(f"{call.name}: {why}")
    return Error(f"{call.name}: its container could not be made: {why}")


def outcome(worker: Worker, call: Call | None) -> tuple[Result | None, Error]:
    """How a container ended: its result, and the error that it is for a call that had no answer."""
    name = call.name if call is not None else "container"
    try:
        result = worker.result(call.options.timeout if call is not None else None)
    except Error as error:
        return None, error
    if worker.trouble:
        return result, Error(f"{name}: {worker.trouble}")
    limit = OutOfMemory if result.oom_killed else TimedOut if worker.timed_out else None
    if limit is not None:
        return result, limit(f"{name}: {result.reason}", result)
    kind = Killed if result.signal else ContainerFailed
    return result, kind(f"{name}: {result.reason} before it was done", result)
