"""A container with a Dask worker in it, on this machine, as Dask's `SpecCluster` wants a worker to be.

Rule: whatever ends it is known from the container itself, at once; nobody polls. `on_end` is told, in the loop.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque

from distributed.core import Status
from distributed.deploy.spec import ProcessInterface

from corten.compute.dask.end import End
from corten.engine.container import DEVNULL, Container, start
from corten.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_LINES = 40
"""Last lines that a worker wrote and that are kept, to say why it did not start."""
_DEATH_TIMEOUT = 60
"""Seconds in which a worker must have reached its scheduler, else it ends itself."""


def command(scheduler: str, name: Any, nthreads: int, memory_limit: int, more: tuple[str, ...]) -> list[str]:
    """The arguments of Python for a worker. memory_limit: bytes. The nanny's work is done by the container."""
    return [
        "-m", "distributed.cli.dask_worker", scheduler, "--name", str(name), "--nthreads", str(nthreads),
        "--memory-limit", str(memory_limit), "--no-nanny", "--no-dashboard", "--dashboard-address", "127.0.0.1:0",
        "--death-timeout", str(_DEATH_TIMEOUT), *more,
    ]  # fmt: skip


class WorkerContainer(ProcessInterface):
    """See the module. image, options: of the container; name: of the worker, for Dask; python: to run, None: by the
    image; containers: where the scheduler finds it by name; on_end: called with it when it has ended by itself.
    retired: the scheduler has told it to end."""

    def __init__(
        self, scheduler: str, *, name: Any, image: str, options: dict[str, Any], python: str | None, nthreads: int,
        memory_limit: int, arguments: tuple[str, ...], containers: dict[Any, WorkerContainer],
        on_end: Callable[[WorkerContainer], None],
    ) -> None:  # fmt: skip
        super().__init__(scheduler=scheduler, name=name)
        self.name = name
        self.end: End | None = None
        self.registered = asyncio.Event()
        self.image, self.options, self.python = image, options, python
        self.argv = command(scheduler, name, nthreads, memory_limit, arguments)
        self.lines: deque[str] = deque(maxlen=_LINES)
        self._containers, self._on_end = containers, on_end
        self._container: Container | None = None
        self._output = -1
        self._partial = b""
        self._refusal = ""
        self.retired = False
        containers[name] = self

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return "this machine"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} on {self.place}: {self.status.name}>"

    # --- as SpecCluster calls it

    async def start(self) -> None:
        """Start it, and wait until its worker has reached the scheduler. Raises an `Error` that says why it did not."""
        try:
            await self._launch()
            await self.until(self.registered)
            self._check_started()
        except BaseException:
            self.status = Status.failed
            self.kill()
            raise
        self.status = Status.running

    async def close(self) -> None:
        """Kill it, and wait until nothing of it is left. Dask has taken its data away before, where it could."""
        if self.status != Status.failed:
            self.status = Status.closing
        self.kill()
        if self._begun():
            await self.finished()
        if self._containers.get(self.name) is self:
            del self._containers[self.name]
        await super().close()

    # --- its life

    def _begun(self) -> bool:
        return self._container is not None

    async def _launch(self) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.set_blocking(writing, True)
            python = self.python or (sys.executable if self.image == "host" else "python3")
            self._container = await asyncio.to_thread(
                start, self.image, [python, *self.argv], stdin=DEVNULL, stdout=writing, stderr=writing, **self.options
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._output = reading
        loop = asyncio.get_running_loop()
        loop.add_reader(reading, self._take_output)
        loop.add_reader(self._container.fileno(), self._take_news)

    def _take_output(self) -> None:
        try:
            data = os.read(self._output, 1 << 16)
        except BlockingIOError:
            return
        self.keep(data)
        if not data:
            self._stop_reading()

    def _stop_reading(self) -> None:
        if self._output >= 0:
            asyncio.get_running_loop().remove_reader(self._output)
            os.close(self._output)
            self._output = -1

    def keep(self, data: bytes) -> None:
        """Remember the last lines of what it writes."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-4096:]
        self.lines += (line.decode(errors="replace").rstrip() for line in lines if line.strip())

    def _take_news(self) -> None:
        container = self._container
        assert container is not None
        if container.advance():
            return
        asyncio.get_running_loop().remove_reader(container.fileno())
        try:
            result = container.wait()
            self.ended(End(result.reason, result))
        except Error as error:
            self.ended(End(str(error)))
        if self._output >= 0:
            self._take_output()
        self._stop_reading()
        container.close()

    def ended(self, end: End) -> None:
        """It has ended, and so."""
        if self.end is not None:
            return
        if self._refusal:
            end = End(self._refusal, end.result)
            self.lines.clear()
        self.end = end
        self._event_finished.set()
        if self.status == Status.running:
            self.status = Status.closed
            self._on_end(self)

    async def until(self, event: asyncio.Event) -> None:
        """Wait for that, or for its end."""
        waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(self.finished())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _check_started(self) -> None:
        if self.end is not None:
            raise Error(f"worker {self.name} on {self.place} did not start: {self.end.reason}{self.last_words()}")

    def last_words(self) -> str:
        """The last line that it wrote, as the rest of a sentence."""
        return f": {self.lines[-1]}" if self.lines else ""

    def refuse(self, why: str) -> None:
        """It is of no use: end it, for that reason."""
        self._refusal = why
        self.kill()

    def kill(self) -> None:
        """End it now."""
        if self._container is not None:
            self._container.kill()
