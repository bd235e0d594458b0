"""Containers from Python: `start` gives a handle, `run` waits for the end.

Safe from any thread and from a process with a huge heap: the spawner does the cloning.
"""

from __future__ import annotations

import errno
import os
import pickle
import select
import threading
import time

from corten.engine import options as options_module
from corten.engine.home import sweep_once
from corten.engine.options import RunOptions
from corten.engine.prepare import Prepared, prepare, prepare_again
from corten.engine.result import Result, error_of, result_of
from corten.errors import Error, InvalidInput, KernelError
from corten.linux import pidfd, signals, sockets
from corten.linux.cgroup import usage
from corten.linux.cgroup.group import Group
from corten.linux.cgroup.usage import Usage as GroupUsage
from corten.runtime import spawner_client
from corten.runtime.account import Account
from corten.runtime.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import IO, Any, BinaryIO, Self, Unpack

    from corten.engine.keywords import RunKeywords, RunnableImage
    from corten.images.root_source import RootSource

    Stream = int | IO[Any] | None

PIPE = -1
"""For `start`: give the container a pipe, whose other end is the handle's `stdin`, `stdout` or `stderr`."""
DEVNULL = -3
INHERIT = None
_LONGEST = 2.0**31 - 1  # milliseconds, what poll takes: 24 days


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


class Container:
    """A running container. Leaving a `with` block kills it and waits for its end.

    id: 12 hexadecimal digits, known for sure once it has started; pid: of its first process, on the host; stdin,
    stdout, stderr: binary files for the streams that were asked for as PIPE, None for the others. account: the facts of
    its end, once it has one; namespaces: descriptors by kind, of a container that was prepared to be entered
    (`Plan.held`).
    """

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self.account: Account | None = None
        self.namespaces: dict[str, int] = {}
        self.id = prepared.id
        self.pid = 0
        self.stdin: BinaryIO | None = None
        self.stdout: BinaryIO | None = None
        self.stderr: BinaryIO | None = None
        self._pidfd = -1
        self._spawner = 0
        self._reports: sockets.Socket | None = None
        self._result: Result | None = None
        self._failure: Error | None = None
        self._over = False
        self._lock = threading.Lock()
        self._waiting = 0

    def _launch(self, stdio: tuple[Stream, Stream, Stream]) -> None:
        """Start it. Apart from `__init__`: at every moment somebody holds the handle, and so can end the container."""
        self.begin(stdio)
        self._until(lambda: bool(self.pid) or self._over, None)
        if self._over and self._failure is not None:
            raise self._failure

    def begin(self, stdio: tuple[Stream, Stream, Stream]) -> None:
        """Have it started, and do not wait for that: `advance` tells, whenever `fileno()` is readable."""
        opened: list[int] = []
        try:
            given = tuple(self._stream(number, wish, opened) for number, wish in enumerate(stdio))
            self._reports, theirs = sockets.pair()
            streams = given[0], given[1], given[2]
            self._spawner = spawner_client.launch(self._plan, self._prepared.id, streams, theirs)
        except OSError as error:
            hint = "raise the limit of open files (ulimit -n)" if error.errno == errno.EMFILE else ""
            raise KernelError("hand a container to the spawner", error.errno or 0, hint) from None
        finally:
            for fd in opened:
                os.close(fd)

    def advance(self) -> bool:
        """Take in what has been reported, without waiting; False once it is over and all is undone."""
        with self._lock:
            self._take_what_is_there()
            return not self._over

    def _stream(self, number: int, wish: Stream, opened: list[int]) -> int:
        """The container's end of one standard stream; what must be closed after the launch is noted."""
        if wish is not None and not isinstance(wish, int):
            wish = wish.fileno()
        if wish == DEVNULL or (wish is None and not _is_open(number)):
            opened.append(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
            return opened[-1]
        if wish is None:
            return number
        if wish == PIPE:
            reading, writing = os.pipe2(os.O_CLOEXEC)
            opened.append(reading if number == 0 else writing)
            if number == 0:
                self.stdin = os.fdopen(writing, "wb", 0)
            elif number == 1:
                self.stdout = os.fdopen(reading, "rb", 0)
            else:
                self.stderr = os.fdopen(reading, "rb", 0)
            return opened[-1]
        if wish < 0 or not _is_open(wish):
            # Else it would fail on the way to the spawner, which would be taken for dead.
            raise InvalidInput(f"{('stdin', 'stdout', 'stderr')[number]}: {wish} is not an open descriptor: use PIPE, "
                               "DEVNULL, None, a file, or an open one")  # fmt: skip
        return wish

    # --- reports of the spawner

    def fileno(self) -> int:
        """A descriptor that becomes readable when there is news of the container, such as its end."""
        return -1 if self._reports is None else self._reports.fileno()

    def _take_report(self) -> None:
        """Read one report. It is over with the end of file: then all has been undone, and the spawner has let go."""
        assert self._reports is not None
        data, descriptors = sockets.receive(self._reports, 1 << 17)
        if not data:
            self._over = True
            if self._result is None and self._failure is None:
                self._failure = Error("the spawner has ended, and the container with it")
                spawner_client.lost(self._spawner)
            return
        kind, *words = pickle.loads(data)
        if kind == "started":
            self.pid, self._pidfd = words[0], descriptors[0]
            self.id = words[2]
        elif kind == "failed":
            self._failure = error_of(words[0], words[1], words[2], self._prepared.foreign)
        elif kind == "namespaces":
            self.namespaces = dict(zip(words[0].split(), descriptors, strict=True))
        elif kind == "account":
            self.account = words[0]
            try:
                asked = self._prepared
                self._result = result_of(words[0], asked.options, asked.not_applied, asked.foreign)
            except Error as error:
                self._failure = error

    def _take_what_is_there(self) -> select.poll | None:
        """Read the reports that have arrived; what to wait on for more, None if there will be none. Needs the lock."""
        if self._over or self.fileno() < 0:
            return None
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        while not self._over and poll.poll(0):
            self._take_report()
        return None if self._over else poll

    def _until(self, condition: Callable[[], bool], deadline: float | None) -> bool:
        """Wait for a condition that reports bring about; False if the deadline came first."""
        while True:
            with self._lock:
                poll = self._take_what_is_there()
                if condition() or poll is None:
                    return True
                self._waiting += 1  # nobody closes what is waited on
            try:
                # Without the lock: other threads may wait with a deadline of their own, or just ask.
                left = None if deadline is None else max(0.0, (deadline - time.monotonic()) * 1000)
                late = not poll.poll(left if left is None else min(left, _LONGEST)) and (left or 0) < _LONGEST
            finally:
                with self._lock:
                    self._waiting -= 1
            if late:
                return False

    # --- what callers do

    def wait(self, timeout: float | None = None) -> Result:
        """Wait for the end, at most `timeout` seconds (then `TimeoutError`; the container goes on)."""
        if timeout is not None and timeout != timeout:  # noqa: PLR0124 - which only NaN is
            raise InvalidInput("timeout: NaN is no number of seconds")
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._until(lambda: self._over, deadline):
            raise TimeoutError(f"container {self.id} still runs after {timeout:g} s")
        self._let_go()
        if self._result is None:
            assert self._failure is not None
            raise self._failure
        return self._result

    def _let_go(self) -> None:
        """Close what leads to the container; if other threads still wait on that, the last one does."""
        with self._lock:
            if self._waiting:
                return
            if self._reports is not None:
                self._reports.close()
            if self._pidfd >= 0:
                os.close(self._pidfd)
                self._pidfd = -1

    def running(self) -> bool:
        """Whether it still runs."""
        with self._lock:
            self._take_what_is_there()
            return not self._over

    def kill(self, signal: int | str = "KILL") -> None:
        """Send a signal to the program (by way of its init). KILL ends every process of the container."""
        number = signals.parse(str(signal))
        with self._lock:
            if self._over or self._pidfd < 0:
                return
            if number == signals.KILL and self._group and "pid" not in self._plan.namespaces:
                self._group.kill()
            pidfd.send_signal(self._pidfd, number)

    @property
    def _plan(self) -> Plan:
        return self._prepared.plan

    @property
    def _group(self) -> Group | None:
        """Its own: the plan may be that of an earlier one like it."""
        group, old = self._plan.group, self._prepared.id
        if group is None or old == self.id:
            return group
        return Group(tuple(own.replace(path=own.path.replace(old, self.id)) for own in group.dirs))

    def update(
        self,
        *,
        memory: int | str | None = None,
        cpus: float | str | None = None,
        pids: int | str | None = None,
        memory_reservation: int | str | None = None,
        memory_swap: int | str | None = None,
    ) -> None:
        """Change limits while it runs; each is read back. Values as for `run`; None leaves one as it is.

        Memory and swap together follow the memory, as at the start, unless they were or are given.

        Unsupported: it has no control group, or the kernel cannot; KernelError: the kernel refused, for example a
        memory limit below what is in use.
        """
        from corten.engine.resizing import resize

        group = self._group
        if group is None:
            raise Error(f"container {self.id} has no control group: start it with a limit")
        resize(group, self._prepared.options.memory_swap is not None, memory=memory, cpus=cpus, pids=pids,
               memory_reservation=memory_reservation, memory_swap=memory_swap)  # fmt: skip

    def stats(self) -> GroupUsage:
        """What it uses now. Error: it has no control group, or has ended."""
        group = self._group
        if group is None:
            raise Error(f"container {self.id} has no control group: start it with a limit")
        return usage.read(group)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._reports is not None:
                self._until(lambda: bool(self.pid) or self._over, None)
                self.kill()
                try:
                    self.wait()
                except Error:
                    if kind is None:  # otherwise what happened in the block counts for more
                        raise
        finally:
            self.close()

    @property
    def not_applied(self) -> tuple[str, ...]:
        """Limits that `best_effort` left out, a line each."""
        return self._prepared.not_applied

    def close(self) -> None:
        """Close every descriptor of the handle. What still runs goes on: end it first."""
        for file in (self.stdin, self.stdout, self.stderr):
            if file is not None:
                file.close()
        self.let_go_of_namespaces()
        self._let_go()

    def let_go_of_namespaces(self) -> None:
        """Close their descriptors: they would keep what is mounted there alive."""
        while self.namespaces:
            os.close(self.namespaces.popitem()[1])


def start(
    image: str | RunnableImage = "",
    argv: Sequence[str] = (),
    *,
    stdin: Stream = DEVNULL,
    stdout: Stream = PIPE,
    stderr: Stream = PIPE,
    **options: Unpack[RunKeywords],
) -> Container:
    """Start a container and give a handle on it. Options as for `run`.

    stdin, stdout, stderr: PIPE, DEVNULL, None for the caller's own, a file, or its descriptor.
    """
    return start_with(options_module.make(image, argv, **options), (stdin, stdout, stderr))


def _container(options: RunOptions, source: RootSource | None = None) -> Container:
    """A handle on a container that is not started yet."""
    if options.tty:
        raise InvalidInput("tty: a terminal is for the command line; use pipes from Python")
    sweep_once()
    return Container(prepare_again(options) if source is None else prepare(options, source=source))


def start_with(
    options: RunOptions, stdio: tuple[Stream, Stream, Stream], source: RootSource | None = None
) -> Container:
    """Start a container from options that have been checked. source: its root, if that is known already."""
    container = _container(options, source)
    try:
        container._launch(stdio)
    except BaseException as error:
        container.__exit__(type(error), error, error.__traceback__)
        raise
    return container


def run(
    image: str | RunnableImage = "",
    argv: Sequence[str] = (),
    *,
    input: str | bytes | None = None,  # noqa: A002 - the name that subprocess.run gives it
    capture: bool = True,
    text: bool = True,
    check: bool = False,
    **options: Unpack[RunKeywords],
) -> Result:
    """Run a program in a new container and wait for its end.

    image: a `corten.Image`, `host`, or a tar archive; with `rootfs=DIR` the directory's files instead (then no image).
    argv: the program and its arguments. Limits: `memory` (bytes or `"512m"`), `cpus` (CPUs, fractions allowed),
    `pids` (processes and threads), `timeout` (seconds); `env`, `mounts`, `volumes`, `user`, `workdir`, `read_only`,
    ...: all that `corten run --help` lists, with underscores. input: for its standard input; capture: keep stdout and
    stderr (else they are the caller's); text: as `str` (UTF-8, bad bytes replaced), else `bytes`; check: raise for a
    bad end.

    Raises `InvalidInput` for options that make no sense, `Unsupported` for what this machine cannot do,
    `CommandNotFound`, `CommandNotRunnable`, other `corten.Error`s if it could not be started; with `check`
    `OutOfMemory`, `TimedOut` or `ContainerFailed`, whose `.result` has the rest.
    """
    prepared_options = options_module.make(image, argv, **options)
    out = PIPE if capture else INHERIT
    with _container(prepared_options) as container:
        container._launch((DEVNULL if input is None else PIPE, out, out))
        data = input.encode() if isinstance(input, str) else input
        written, complained = _communicate(container, data)
        result = container.wait()
    if capture:
        if text:
            result = result.replace(
                stdout=written.decode(errors="replace"), stderr=complained.decode(errors="replace")
            )
        else:
            result = result.replace(stdout=written, stderr=complained)
    return result.check() if check else result


def _communicate(container: Container, data: bytes | None) -> tuple[bytes, bytes]:
    """Feed stdin and collect stdout and stderr until the container has ended and its pipes are empty."""
    poll = select.poll()
    collected: dict[int, list[bytes]] = {}
    order = []
    for file in (container.stdout, container.stderr):
        if file is not None:
            collected[file.fileno()] = []
            order.append(file.fileno())
            poll.register(file, select.POLLIN)
    stdin = container.stdin
    left = memoryview(data or b"")
    if stdin is not None:
        os.set_blocking(stdin.fileno(), False)
        poll.register(stdin, select.POLLOUT)
    waiting = set(collected)
    while waiting or stdin is not None:
        for fd, _ in poll.poll():
            if stdin is not None and fd == stdin.fileno():
                try:
                    left = left[os.write(fd, left[:65536]) :] if left else left
                except BrokenPipeError:
                    left = left[:0]
                if not left:
                    poll.unregister(fd)
                    stdin.close()
                    stdin = None
                continue
            chunk = os.read(fd, 1 << 16)
            if chunk:
                collected[fd].append(chunk)
            else:
                poll.unregister(fd)
                waiting.discard(fd)
    joined = [b"".join(collected[fd]) for fd in order]
    return (joined[0], joined[1]) if joined else (b"", b"")


def plan_for(options: RunOptions) -> Plan:
    """The plan of a container that is not started."""
    return prepare_again(options).plan
