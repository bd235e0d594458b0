"""Dask's scheduler, told by the kernel why a worker went.

Dask sees that a connection broke, and no more. We have the account of the container. So when a worker goes that is one
of ours, the scheduler first hears how its container ended, and the error of a task that took too many workers with it
says so. The same is an event: `client.get_events("corten")`.
"""

from __future__ import annotations

import asyncio
import sys

from distributed import KilledWorker, Scheduler
from distributed.protocol import pickle

from corten.compute.dask.end import End
from corten.errors import OutOfMemory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.compute.dask.worker import WorkerContainer
    from corten.engine.result import Result

TOPIC = "corten"
_PATIENCE = 5.0
"""Seconds to wait for a container's account when its worker has gone; it comes within some milliseconds, from another
machine within a round trip, and not at all if that machine is lost."""


class WorkerKilled(KilledWorker):
    """A task was given up because the workers that ran it died: Dask's `KilledWorker`, with the reason of the last.

    reason: how its container ended, in one sentence; result: the `corten.Result`, None if its machine was lost.
    """

    def __init__(self, task: Any, last_worker: Any, allowed_failures: int, end: End) -> None:
        Exception.__init__(self, task, last_worker, allowed_failures)  # not ContainerFailed's, which comes next
        self.reason = end.reason
        self.result: Result | None = end.result
        self._end = end

    def __reduce__(self) -> Any:
        return (type(self), (*self.args, self._end))

    def __str__(self) -> str:
        times = self.allowed_failures + 1
        last = "the worker that ran it" if times == 1 else f"the last of {times} workers that ran it"
        where = getattr(self.last_worker, "address", self.last_worker)
        return f"task {self.task!r} was given up: {last}, {where}: {self.reason}"


class WorkerOutOfMemory(WorkerKilled, OutOfMemory):
    """The memory limit of its container ended the last worker that ran the task."""


def killed(task: Any, last_worker: Any, allowed_failures: int, end: End) -> WorkerKilled:
    """The error of a task, after how the container of its last worker ended."""
    kind = WorkerOutOfMemory if end.result is not None and end.result.oom_killed else WorkerKilled
    return kind(task, last_worker, allowed_failures, end)


def _other_python(versions: Any) -> str:
    """What is wrong with the versions that a worker has told; empty if nothing."""
    try:
        theirs = str(versions["host"]["python"]).split(".")[:2]
    except (KeyError, TypeError):
        return ""
    ours = [str(number) for number in sys.version_info[:2]]
    if theirs == ours:
        return ""
    return f"it has Python {'.'.join(theirs)} and this is {'.'.join(ours)}: what Dask sends does not go between them"


class ContainerScheduler(Scheduler):
    """See the module. containers: of the workers, by name; the cluster's, and kept by it."""

    def __init__(self, *, containers: dict[Any, WorkerContainer], **options: Any) -> None:
        super().__init__(**options)
        self._containers = containers
        self._ends: dict[str, End] = {}

    async def add_worker(self, comm: Any, **facts: Any) -> None:
        """As Dask's; its container is then known to be of use."""
        container = self._containers.get(facts.get("name"))
        if container is not None:
            trouble = _other_python(facts.get("versions"))
            if trouble:
                container.refuse(trouble)
                await comm.close()
                return
            container.registered.set()
        await super().add_worker(comm, **facts)

    async def remove_worker(self, address: str, *, stimulus_id: str, expected: bool = False, **how: Any) -> Any:
        """As Dask's, once it is known how the container ended."""
        worker = self.workers.get(address)
        container = self._containers.get(worker.name) if worker is not None else None
        if container is None or expected:
            return await super().remove_worker(address, stimulus_id=stimulus_id, expected=expected, **how)
        end = await self._end_of(container)
        self._ends[address] = end
        try:
            return await super().remove_worker(address, stimulus_id=stimulus_id, expected=not end.killed, **how)
        finally:
            self._ends.pop(address, None)

    def close_worker(self, worker: str) -> None:
        """As Dask's: somebody wants it no longer, the adaptive scaling, say."""
        state = self.workers.get(worker)
        container = self._containers.get(state.name) if state is not None else None
        if container is not None:
            container.retired = True
        super().close_worker(worker)

    async def _end_of(self, container: WorkerContainer) -> End:
        try:
            await asyncio.wait_for(container.finished(), _PATIENCE)
        except TimeoutError:
            # Cut off, or hanging: no use to anybody, and it must not come back beside its replacement.
            container.kill()
        return container.end or End("the scheduler lost the connection to it")

    def transition(self, key: Any, finish: Any, stimulus_id: str, **how: Any) -> Any:
        """As Dask's, but that the error of a killed worker tells the reason."""
        end = self._ends.get(how.get("worker", ""))
        if end is not None and finish == "erred" and "exception" in how:
            error = pickle.loads(how["exception"])
            if isinstance(error, KilledWorker):
                how["exception"] = pickle.dumps(killed(error.task, error.last_worker, error.allowed_failures, end))
        return super().transition(key, finish, stimulus_id, **how)
