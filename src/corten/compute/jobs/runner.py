"""The containers of `corten map`: as many at once as were asked for and fit, each watched to its end.

Rule 1: nothing is begun for which there is no room (the limits of what runs, and what the machine has free), but one
        always may.
Rule 2: however it ends, by a signal, an error or an exception, no container outlives `run`.
Rule 3: a row is written before its output is shown: what was seen is in the account.
"""

from __future__ import annotations

import os
import select

from corten.compute import capacity, scaling
from corten.compute.jobs import words
from corten.compute.jobs.state import Job, Row
from corten.compute.ledger import Ledger
from corten.engine.container import DEVNULL, Container
from corten.engine.home import sweep_once
from corten.engine.prepare import prepare
from corten.errors import CommandNotFound, CommandNotRunnable, Error, InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from corten.compute.jobs.account import Account
    from corten.compute.jobs.words import Item
    from corten.engine.options import RunOptions
    from corten.engine.result import Result

    class Listener(Protocol):
        """Who is told."""

        def begun(self, job: Job, item: Item) -> None: ...  # noqa: D102
        def ended(self, job: Job, item: Item, row: Row, last: bool) -> None: ...  # noqa: D102
        def output(self, stdout: int, stderr: int) -> None: ...  # noqa: D102


_LOOK_AGAIN = 500
"""Milliseconds until the machine is looked at again for room."""
_AS_MANY_AS_FIT = 1 << 20


class _Running:
    """A container and the files of its output."""

    def __init__(self, item: Item, container: Container, files: tuple[int, int]) -> None:
        self.item, self.container, self.files = item, container, files
        self.ending = False


class Runner:
    """See the module.

    options: of every container, but for the command; template: that, see `words`; most: containers at once, None: as
    many as fit (one for each CPU, where no CPU limit says what one needs); directory: where output goes, None: to the
    listener when its container has ended; account: None for none; stop: a descriptor, readable when all is to end.
    """

    def __init__(
        self, job: Job, options: RunOptions, template: Sequence[str], listener: Listener, *, most: int | None = None,
        directory: str | None = None, account: Account | None = None, stop: int = -1,
    ) -> None:  # fmt: skip
        self._job, self._options, self._template, self._listener = job, options, template, listener
        self._directory, self._account, self._stop = directory, account, stop
        self._ledger = Ledger(capacity.capacity)
        self._most = most or (_AS_MANY_AS_FIT if options.cpus else max(1, int(capacity.cpus())))
        self._running: dict[int, _Running] = {}
        self._poll = select.poll()
        self._any_began = False
        self._stopped = False

    def run(self) -> None:
        """Until nothing is left to do, or `stop` is readable. Errors: of the engine, before anything could be begun;
        the account or the output cannot be written."""
        sweep_once()
        if self._directory is not None:
            _make(self._directory)
        if self._stop >= 0:
            self._poll.register(self._stop, select.POLLIN)
        try:
            while self._step():
                pass
        finally:
            self._end_all()

    def _step(self) -> bool:
        full = False
        while self._job.waiting and not self._stopped and not full:
            full = not self._room()
            if not full:
                self._begin(self._job.begin())
        if not self._running:
            return False
        for fd, _ in self._poll.poll(_LOOK_AGAIN if full and len(self._running) < self._most else None):
            if fd == self._stop:
                self._stopped = True
                return False
            running = self._running.get(fd)
            if running is not None and not running.container.advance():
                self._over(fd, running)
        return not self._job.ending

    def _room(self) -> bool:
        if len(self._running) >= self._most:
            return False
        ledger, needs = self._ledger, self._options
        return scaling.room(
            ledger.capacity(), ledger.running, ledger.cpus, ledger.memory, needs.cpus or 0.0, needs.memory or 0
        ) > 0

    def _begin(self, item: Item) -> None:
        options = self._options.replace(argv=words.command(self._template, item))
        files = self._files(item)
        try:
            container = Container(prepare(options))
            container.begin((DEVNULL, *files))
        except BaseException:
            self._job.interrupt(item)
            for fd in files:
                os.close(fd)
            raise
        self._running[container.fileno()] = _Running(item, container, files)
        self._poll.register(container.fileno(), select.POLLIN)
        self._ledger.begin(container, options.cpus or 0.0, options.memory or 0)
        self._listener.begun(self._job, item)

    def _files(self, item: Item) -> tuple[int, int]:
        """For standard output and standard error."""
        if self._directory is None:
            return _temporary(), _temporary()
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        path = f"{self._directory}/{item.name}"
        try:
            first = os.open(f"{path}.out", flags, 0o666)
            try:
                return first, os.open(f"{path}.err", flags, 0o666)
            except OSError:
                os.close(first)
                raise
        except OSError as error:
            raise Error(f"cannot write output to {path}.out and .err: {error.strerror}") from None

    def _over(self, fd: int, running: _Running) -> None:
        """A container has ended."""
        self._poll.unregister(fd)
        del self._running[fd]
        self._ledger.end(running.container)
        item = running.item
        try:
            try:
                row = _row(item, running.container.wait(), self._job.tries(item))
                self._any_began = True
            except Error as error:
                row = self._never_began(item, error)
            last = self._job.end(item, row)
            if last and self._account is not None:
                self._account.append(row)
            if last and self._directory is None:
                self._listener.output(*running.files)
            self._listener.ended(self._job, item, row, last)
        finally:
            running.container.close()
            for own in running.files:
                os.close(own)

    def _never_began(self, item: Item, error: Error) -> Row:
        """A row for what could not be started; raises instead if nothing else will be."""
        hopeless = isinstance(error, (CommandNotFound, CommandNotRunnable)) and words.fixed(self._template[0])
        if hopeless or isinstance(error, InvalidInput) or not (self._any_began or error.exit_code in (126, 127)):
            self._job.interrupt(item)
            raise error
        return Row(item.text, error.exit_code, None, str(error), 0.0, None, 0.0, self._job.tries(item))

    def _end_all(self) -> None:
        """End what runs, and see it gone."""
        for running in self._running.values():
            running.container.kill()
        while self._running:
            _, running = self._running.popitem()
            self._job.interrupt(running.item)
            for own in running.files:
                os.close(own)
            # Kills it, too, if it had no process yet a moment ago.
            running.container.__exit__(Error, None, None)


def _temporary() -> int:
    """A file without a name, for output that is shown later."""
    import tempfile

    with tempfile.TemporaryFile(buffering=0) as file:
        return os.dup(file.fileno())


def _make(directory: str) -> None:
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"cannot make {directory}: {error.strerror}") from None


def _row(item: Item, result: Result, tries: int) -> Row:
    usage = result.usage
    return Row(
        item=item.text,
        exit_code=result.exit_code,
        signal=result.signal,
        reason=result.reason,
        seconds=round(result.duration, 3),
        memory_peak=usage.memory_peak,
        cpu_seconds=round(usage.cpu_seconds, 3),
        tries=tries,
    )
