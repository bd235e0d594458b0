"""`corten.ContainerExecutor` keeps what the standard library says of executors."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import weakref
from pathlib import Path

import pytest

import corten
from corten.compute.lanes import lanes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from corten.compute.lane import Lane

MEMORY = "200m"


@pytest.fixture(scope="module", autouse=True)
def engine() -> Iterator[None]:
    """The loop's descriptors are there before and after."""
    lanes()
    yield
    corten.shutdown()


@pytest.fixture(scope="module")
def shared(engine: None) -> Iterator[corten.ContainerExecutor]:
    with corten.ContainerExecutor(2, memory=MEMORY) as executor:
        executor.submit(os.getpid).result()
        yield executor


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    """The shared executor and the zygotes live on until all of these tests are done."""


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """The machine is looked at by the last test."""


class Gate:
    """Two FIFOs that calls see: by one they say that they have begun, at the other they wait until it is opened."""

    def __init__(self, directory: Path) -> None:
        self.options: dict[str, Any] = {"mounts": [f"type=bind,src={directory},dst={directory}"], "memory": MEMORY}
        self.path = str(directory)
        for name in ("begun", "gate"):
            os.mkfifo(directory / name)
        self._opened = -1

    def someone_has_begun(self) -> None:
        """Wait for that."""
        with open(f"{self.path}/begun") as file:
            file.read()

    def open(self) -> None:
        """From now on nobody waits here."""
        self._opened = os.open(f"{self.path}/gate", os.O_RDWR)

    def close(self) -> None:
        if self._opened >= 0:
            os.close(self._opened)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(tmp_path)
    yield made
    made.close()


def wait_at(gate: str, value: object = None) -> object:
    os.close(os.open(f"{gate}/begun", os.O_WRONLY))
    os.close(os.open(f"{gate}/gate", os.O_RDONLY))
    return value


def mul(x: int, y: int) -> int:
    return x * y


def sleep_and_print(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
    return args, kwargs


class Custom(Exception):
    pass


def fails(text: str) -> None:
    raise Custom(text, 3)


# --- submit


def test_submit(shared: corten.ContainerExecutor) -> None:
    assert shared.submit(pow, 2, 8).result() == 256
    assert shared.submit(sleep_and_print, 1, self=2, fn=3).result() == ((1,), {"self": 2, "fn": 3})
    assert shared.submit(functools.partial(mul, 3), y=4).result() == 12
    assert shared.submit("-".join, ["a", "b"]).result() == "a-b"
    assert shared.submit(os.getpid).result() != os.getpid()
    with pytest.raises(TypeError):
        shared.submit()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        shared.submit(arg=1)  # type: ignore[call-arg]


def test_it_is_an_executor_of_the_standard(shared: corten.ContainerExecutor) -> None:
    assert isinstance(shared, concurrent.futures.Executor)
    future = shared.submit(mul, 6, 7)
    assert isinstance(future, concurrent.futures.Future)
    done, not_done = concurrent.futures.wait([future, shared.submit(mul, 1, 1)], timeout=60)
    assert (len(done), len(not_done)) == (2, 0)
    assert {found.result() for found in concurrent.futures.as_completed([future])} == {42}


def test_exceptions_with_the_traceback_of_the_container(shared: corten.ContainerExecutor) -> None:
    future = shared.submit(fails, "no")
    error = future.exception()
    assert type(error) is Custom
    assert error.args == ("no", 3)
    told = "".join(traceback.format_exception(error))
    assert "raise Custom(text, 3)" in told
    assert "in fails" in told
    with pytest.raises(ZeroDivisionError):
        shared.submit(divmod, 1, 0).result()


def test_what_cannot_be_pickled_is_an_error_of_its_future(shared: corten.ContainerExecutor) -> None:
    lock = threading.Lock()
    for future in (shared.submit(lambda: lock), shared.submit(id, lock), shared.submit(threading.Lock)):
        assert isinstance(future.exception(timeout=60), corten.InvalidInput)
        assert "lock" in str(future.exception())
    assert shared.submit(mul, 2, 3).result() == 6


def test_callbacks(shared: corten.ContainerExecutor) -> None:
    heard: list[int] = []
    all_heard = threading.Event()

    def hear(future: concurrent.futures.Future[int]) -> None:
        heard.append(future.result())
        if len(heard) == 3:
            all_heard.set()
        elif len(heard) == 1:
            shared.submit(mul, 5, 5).add_done_callback(hear)  # a callback may call, too

    for number in (1, 2):
        shared.submit(mul, number, 1).add_done_callback(hear)
    assert all_heard.wait(60)
    assert sorted(heard) == [1, 2, 25]


def test_a_function_sent_again_has_its_present_variables(shared: corten.ContainerExecutor) -> None:
    box = [1]
    found = []
    for number in range(5):
        box[0] = number
        found.append(shared.submit(lambda: box[0]).result())
    assert found == [0, 1, 2, 3, 4]


def test_new_functions_do_not_pile_up_in_the_container(shared: corten.ContainerExecutor) -> None:
    def known() -> int:
        return len(sys.modules[[name for name in sys.modules if name.endswith("inside.work")][0]]._known)  # noqa: RUF015

    with corten.ContainerExecutor(1, memory=MEMORY) as executor:
        before = executor.submit(known).result()
        for number in range(50):
            assert executor.submit(lambda number=number: number).result() == number
        assert executor.submit(known).result() <= before + 2


# --- map


def test_map(shared: corten.ContainerExecutor) -> None:
    assert list(shared.map(pow, range(10), range(10))) == list(map(pow, range(10), range(10)))
    assert list(shared.map(pow, range(40), range(40), chunksize=6)) == list(map(pow, range(40), range(40)))
    assert list(shared.map(pow, range(4), range(4), chunksize=60)) == list(map(pow, range(4), range(4)))
    assert list(shared.map(mul, [1, 2, 3], [4, 5])) == [4, 10]
    assert list(shared.map(lambda x: -x, range(7), chunksize=3)) == [0, -1, -2, -3, -4, -5, -6]
    assert list(shared.map(mul, [], [])) == []
    assert list(shared.map(mul, range(20), range(20), buffersize=3)) == [x * x for x in range(20)]
    with pytest.raises(ValueError, match="chunksize must be >= 1"):
        shared.map(bool, [], chunksize=-1)


def test_map_gives_what_came_before_an_exception(shared: corten.ContainerExecutor) -> None:
    results = shared.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert next(results) == (0, 1)
    assert next(results) == (0, 1)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_map_takes_its_inputs_at_once(shared: corten.ContainerExecutor) -> None:
    taken = []

    def inputs() -> Iterator[int]:
        for number in range(5):
            taken.append(number)
            yield number

    results = shared.map(mul, inputs(), range(5))
    assert taken == [0, 1, 2, 3, 4]
    assert list(results) == [0, 1, 4, 9, 16]


def y_waits(gate: str, value: str | None) -> str | None:
    if value == "y":
        os.close(os.open(f"{gate}/gate", os.O_RDONLY))
    return value


def test_map_timeout(gate: Gate) -> None:
    with corten.ContainerExecutor(2, **gate.options) as executor:
        found: list[str | None] = []
        try:
            with pytest.raises(TimeoutError):
                found += list(executor.map(y_waits, [gate.path], [None], timeout=60))
                for item in executor.map(y_waits, [gate.path] * 2, "xy", timeout=1):
                    found.append(item)
        finally:
            gate.open()
        assert found in ([None, "x"], [None])


def test_many_inputs_with_files_of_their_own(shared: corten.ContainerExecutor) -> None:
    """More big arguments wait than a process may have descriptors."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        assert set(shared.map(len, [bytes(1 << 17) for _ in range(400)])) == {1 << 17}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# --- cancelling


def test_cancel(gate: Gate) -> None:
    with corten.ContainerExecutor(1, **gate.options) as executor:
        running = executor.submit(wait_at, gate.path, "through")
        waiting = [executor.submit(mul, number, 2) for number in range(4)]
        gate.someone_has_begun()
        assert running.running()
        assert not running.cancel()
        assert waiting[1].cancel()
        assert waiting[1].cancelled()
        assert not waiting[0].done()
        gate.open()
        assert running.result() == "through"
        assert [waiting[at].result() for at in (0, 2, 3)] == [0, 4, 6]
        with pytest.raises(concurrent.futures.CancelledError):
            waiting[1].result()
        done, _ = concurrent.futures.wait(waiting, timeout=60)
        assert len(done) == 4


def test_results_in_time(gate: Gate) -> None:
    with corten.ContainerExecutor(1, **gate.options) as executor:
        future = executor.submit(wait_at, gate.path)
        with pytest.raises(TimeoutError):
            future.result(timeout=0.05)
        with pytest.raises(TimeoutError):
            future.exception(timeout=0)
        gate.someone_has_begun()
        gate.open()
        assert future.result(timeout=60) is None


# --- shutdown


def test_shutdown() -> None:
    executor = corten.ContainerExecutor(1, memory=MEMORY)
    futures = [executor.submit(mul, number, 2) for number in range(5)]
    lane = lane_of(executor)
    executor.shutdown()
    assert [future.result(timeout=0) for future in futures] == [0, 2, 4, 6, 8]
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(pow, 2, 5)
    with pytest.raises(RuntimeError):
        executor.map(pow, [2], [5])
    executor.shutdown()  # again is nothing
    until_empty(lane, 0)
    never_used = corten.ContainerExecutor(1, memory=MEMORY)
    never_used.shutdown()


def test_shutdown_that_cancels(gate: Gate) -> None:
    executor = corten.ContainerExecutor(1, **gate.options)
    running = executor.submit(wait_at, gate.path, "through")
    lane = lane_of(executor)
    waiting = [executor.submit(mul, number, 2) for number in range(5)]
    gate.someone_has_begun()
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in waiting)
    assert not running.done()
    gate.open()
    assert running.result(timeout=60) == "through"
    until_empty(lane)


def test_an_executor_that_nobody_holds_ends() -> None:
    executor = corten.ContainerExecutor(1, memory=MEMORY)
    future = executor.submit(mul, 21, 2)
    lane = lane_of(executor)
    gone = weakref.ref(executor)
    del executor
    gc.collect()
    assert gone() is None
    assert future.result(timeout=60) == 42
    until_empty(lane)


AT_EXIT = """
import time
import corten

def late(seconds):
    time.sleep(seconds)
    print("apple", flush=True)
    return seconds

executor = corten.ContainerExecutor(1, memory="200m", output="stream")
future = executor.submit(late, 0.3)
future.add_done_callback(lambda future: print("done", future.result(), flush=True))
"""


INTERRUPTED = """
import sys, time
import corten

def endless():
    print("here", flush=True)
    time.sleep(1000)

how = sys.argv[1]
if how == "with":
    with corten.ContainerExecutor(1, memory="200m", output="stream") as executor:
        [executor.submit(endless) for _ in range(3)][0].result()
executor = corten.ContainerExecutor(1, memory="200m", output="stream")
[executor.submit(endless) for _ in range(3)][0].result()
"""


@pytest.mark.parametrize("how", ["with", "without"])
def test_ctrl_c_ends_a_program_and_its_calls_at_once(how: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(INTERRUPTED)
    program = subprocess.Popen(
        [sys.executable, "program.py", how], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "here\n"
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=60)
    assert (program.returncode, out) == (-signal.SIGINT, "")
    assert err.endswith("KeyboardInterrupt\n")


def test_a_program_ends_when_its_futures_are_done(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(AT_EXIT)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr, done.returncode) == ("apple\ndone 0.3\n", "", 0)


# --- containers that end


def test_a_container_that_dies_fails_its_own_future() -> None:
    with corten.ContainerExecutor(2, memory=MEMORY) as executor:
        filled = executor.submit(lambda: len(bytearray(1 << 30)))
        killed = executor.submit(os.kill, 2, signal.SIGKILL)
        left = executor.submit(os._exit, 3)
        others = [executor.submit(mul, number, number) for number in range(20)]
        assert isinstance(filled.exception(), corten.OutOfMemory)
        assert isinstance(killed.exception(), corten.Killed)
        assert isinstance(left.exception(), corten.ContainerFailed)
        assert "code 3" in str(left.exception())
        assert [other.result() for other in others] == [number * number for number in range(20)]
        assert executor.submit(mul, 2, 2).result() == 4


def test_timeout_and_retries(tmp_path: Path, gate: Gate) -> None:
    with corten.ContainerExecutor(1, timeout=0.3, **gate.options) as executor:
        assert isinstance(executor.submit(time.sleep, 100).exception(), corten.Timeout)
        assert executor.submit(mul, 2, 2).result() == 4

    def third_time(path: str) -> int:
        with open(path, "a") as file:
            file.write(".")
        if os.path.getsize(path) < 3:
            os._exit(1)
        return os.path.getsize(path)

    with corten.ContainerExecutor(1, retries=2, **gate.options) as executor:
        assert executor.submit(third_time, str(tmp_path / "tries")).result() == 3


def test_fresh_containers() -> None:
    with corten.ContainerExecutor(1, memory=MEMORY, reuse=False) as executor:
        def leave_a_trace() -> bool:
            found = os.path.exists("/tmp/trace")
            Path("/tmp/trace").touch()
            return found

        assert [executor.submit(leave_a_trace).result() for _ in range(3)] == [False] * 3
    with corten.ContainerExecutor(1, memory=MEMORY) as executor:
        assert [executor.submit(leave_a_trace).result() for _ in range(3)] == [False, True, True]


# --- asyncio, threads, forks


def test_from_asyncio(shared: corten.ContainerExecutor) -> None:
    async def all_of_it() -> list[int]:
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(shared, mul, number, 2) for number in range(8)]
        with pytest.raises(Custom):
            await loop.run_in_executor(shared, fails, "x")
        return await asyncio.gather(*calls)

    assert asyncio.run(all_of_it()) == [0, 2, 4, 6, 8, 10, 12, 14]


def test_from_many_threads(shared: corten.ContainerExecutor) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda number: sum(shared.map(mul, range(number), range(number))), range(16)))
    assert found == [sum(x * x for x in range(number)) for number in range(16)]


def test_room_that_one_executor_leaves_is_used_by_another(gate: Gate) -> None:
    """All CPUs are taken when the second one's only call comes: it has no container that could tell it of room."""
    cpus = len(os.sched_getaffinity(0))
    with (
        corten.ContainerExecutor(1, cpus=cpus, **gate.options) as first,
        corten.ContainerExecutor(1, **gate.options) as second,
    ):
        first.submit(wait_at, gate.path)
        gate.someone_has_begun()
        waiting = second.submit(mul, 2, 3)
        for _ in range(3):  # turns of the loop, in which it could have begun
            assert lane_of(second).stats().backlog == 1
        gate.open()
        assert waiting.result(timeout=60) == 6


# --- bad input


def test_bad_input() -> None:
    for number in (0, -1):
        with pytest.raises(ValueError, match="max_workers must be greater than 0"):
            corten.ContainerExecutor(number)
    with pytest.raises(corten.InvalidInput, match="max_workers=100000: this machine has CPUs and memory for"):
        corten.ContainerExecutor(100000)
    with pytest.raises(corten.InvalidInput, match="memory"):
        corten.ContainerExecutor(memory="lots")
    with pytest.raises(corten.InvalidInput, match="nonsense"):
        corten.ContainerExecutor(nonsense=1)
    with corten.ContainerExecutor(memory=MEMORY, imports=["no_such_module"]) as executor:
        assert "no_such_module" in str(executor.submit(mul, 1, 2).exception(timeout=60))


def test_results_of_untrusted_code_are_plain() -> None:
    with corten.ContainerExecutor(1, memory=MEMORY, trusted=False) as executor:
        assert executor.submit(dict, a=1).result() == {"a": 1}
        assert isinstance(executor.submit(Custom, "x").exception(), corten.InvalidInput)


def lane_of(executor: corten.ContainerExecutor) -> Lane:
    lane = executor._work.lane
    assert lane is not None
    return lane


def until_empty(lane: Lane, seconds: float = 20) -> None:
    empty = threading.Event()
    lane.ask(lambda: lane.when_empty(empty.set))
    assert empty.wait(seconds)


def test_nothing_is_left_behind(home: Path) -> None:
    """A program of its own, from start to end, with the machine looked at before and after."""
    program = (
        "import corten\nwith corten.ContainerExecutor(2, memory='200m') as e:\n"
        "    assert list(e.map(abs, range(-20, 0))) == list(range(20, 0, -1))\n"
    )
    from leaks import left_behind, picture

    corten.shutdown()
    before = picture(home)
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    assert left_behind(before, home) == []
