"""Functions whose calls run in containers: what goes in, what comes out, and how they end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

import numpy as np
import pytest

import corten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

FACTOR = 3


class Odd(Exception):
    """An exception of the caller's own."""

    def __init__(self, message: str, detail: int) -> None:
        self.detail = detail
        super().__init__(message, detail)


def times(x: int) -> int:
    return x * FACTOR


@corten.function
def triple(x: int) -> tuple[int, int, str]:
    return times(x), os.getpid(), os.uname().nodename


@corten.function(memory="100m", timeout=30)
def ends(how: str) -> Any:
    if how == "memory":
        return len(bytearray(300 << 20))
    if how == "signal":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        os._exit(3)
    if how == "raise":
        raise Odd("no good", 7)
    if how == "system exit":
        sys.exit(4)
    if how == "lock":
        return {"model": [1, threading.Lock()]}
    return how


def test_local_and_remote() -> None:
    here = triple(5)
    assert here[:2] == (15, os.getpid()) == triple.local(5)[:2]
    value, pid, name = triple.remote(5)
    assert (value, pid) == (15, 2)
    assert name != os.uname().nodename


def test_closures_lambdas_and_methods() -> None:
    offset = 40
    assert corten.function(lambda x: x + offset).remote(2) == 42

    def inner(*args: int, scale: int = 1) -> int:
        return sum(args) * scale

    assert corten.function(inner).remote(1, 2, scale=10) == 30
    assert corten.function("a-b".split).remote("-") == ["a", "b"]


class Point:
    """Of this module, which is no installed one: it goes by value."""

    def __init__(self, x: int) -> None:
        self.x = x

    def moved(self, by: int) -> Point:
        return Point(self.x + by)


def test_classes_of_ones_own_come_back_as_themselves() -> None:
    class Local(Point):
        pass

    def make(kind: Any, x: int) -> Any:
        return {"there": [kind(x), np.arange(3)]}

    for kind in (Point, Local):
        for options in ({"returns": [kind]}, {"trusted": True}):
            found = corten.function(**options)(make).remote(kind, 3)["there"]
            assert type(found[0]) is kind
            assert (found[0].x, list(found[1])) == (3, [0, 1, 2])
        for others in ((), (str,)):
            with pytest.raises(corten.InvalidInput, match=rf"{kind.__name__}, which untrusted code may not send"):
                corten.function(returns=others)(make).remote(kind, 3)
    assert corten.function(returns=Point)(Point(3).moved).remote(4).x == 7

    def of_its_own() -> Any:
        class Inner:
            x = 5

        return Inner()

    with pytest.raises(corten.InvalidInput, match="untrusted code may not send"):
        corten.function(of_its_own).remote()
    again = corten.function(trusted=True, reuse=True)(of_its_own)
    assert [again.remote().x for _ in range(3)] == [5, 5, 5]


def test_what_a_function_refers_to_may_change_as_in_a_notebook() -> None:
    cells: dict[str, Any] = {"__name__": "__main__", "corten": corten}
    exec("K = 10\ndef helper(x): return x + K\n@corten.function\ndef f(x): return helper(x)", cells)
    assert cells["f"].remote(1) == 11
    exec("K = 20", cells)
    assert cells["f"].remote(1) == 21
    exec("def helper(x): return x - K", cells)
    assert cells["f"].remote(1) == -19
    packed = cells["f"].packed
    assert cells["f"].remote(2) == -18
    assert cells["f"].packed is packed, "only what has changed is packed again"


def test_coroutines_run_to_their_end() -> None:
    async def slowly(x: int) -> int:
        await asyncio.sleep(0)
        return x * 2

    assert corten.function(slowly).remote(21) == 42


def test_a_call_makes_no_calls_in_further_containers_and_says_so() -> None:
    @corten.function
    def nested(how: str) -> Any:
        if how == "itself":
            return triple(1)[0], triple.local(2)[0]
        if how == "remote":
            return triple.remote(1)
        return triple.spawn(1) if how == "spawn" else list(triple.map([1]))

    assert nested.remote("itself") == (3, 6)
    for how in ("remote", "map", "spawn"):
        with pytest.raises(RuntimeError, match=r"^triple: a call in a container cannot make calls in further"):
            nested.remote(how)
    # Elsewhere it stays what it is.
    import cloudpickle

    again = cloudpickle.loads(cloudpickle.dumps(triple))
    assert isinstance(again, corten.Function)
    assert again.remote(2)[:2] == (6, 2)


def test_an_exception_comes_back_as_itself_with_the_remote_traceback() -> None:
    with pytest.raises(Odd, match="no good") as caught:
        ends.remote("raise")
    assert (type(caught.value), caught.value.args, caught.value.detail) == (Odd, ("no good", 7), 7)
    told = "".join(traceback.format_exception(caught.value))
    assert "in the container" in told
    assert 'raise Odd("no good", 7)' in told.partition("in the container")[2]


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("memory", corten.OutOfMemory, "out of memory (limit 100 MiB"),
        ("signal", corten.Killed, "killed by SIGKILL"),
        ("exit", corten.ContainerFailed, "exited with code 3 before it was done"),
        ("system exit", corten.RemoteError, "SystemExit: 4"),
        ("lock", corten.InvalidInput, "result['model'][1] (lock)"),
    ],
)
def test_bad_ends(how: str, kind: type[corten.Error], words: str) -> None:
    with pytest.raises(kind) as caught:
        ends.remote(how)
    assert words in str(caught.value), caught.value
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert ends.remote("well") == "well"


def test_the_reason_is_carried_as_an_object() -> None:
    call = ends.spawn("memory")
    with pytest.raises(corten.OutOfMemory) as caught:
        call.get()
    assert caught.value.result.oom_killed
    assert caught.value.result.usage.memory_limit == 100 << 20
    assert call.result == caught.value.result


@pytest.mark.parametrize(
    "error",
    [OSError("not yet"), BlockingIOError(11, "Resource temporarily unavailable"), FileNotFoundError(2, "No such", "a"),
     OSError(28, "No space"), KeyError("a"), UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), StopIteration(3)],
)  # fmt: skip
def test_exceptions_say_what_they_said_there(error: Exception) -> None:
    @corten.function(reuse=True)
    def fail(kind: type[Exception], args: tuple[Any, ...]) -> None:
        raise kind(*args)

    args = (*error.args, error.filename) if isinstance(error, FileNotFoundError) else error.args
    with pytest.raises(type(error)) as caught:
        fail.spawn(type(error), args).get()
    assert (str(caught.value), caught.value.args) == (str(error), error.args)


def test_timeout() -> None:
    sleeping = corten.function(timeout=0.3)(lambda: time.sleep(1000))
    with pytest.raises(corten.Timeout, match=r"timeout \(0.3 s\)") as caught:
        sleeping.remote()
    assert caught.value.result.timed_out


def test_output_is_kept_apart_and_streams() -> None:
    @corten.function
    def talk(name: str) -> str:
        print("out of", name)
        print("err of", name, file=sys.stderr)
        os.system("echo from below")
        return name

    calls = [talk.spawn(name) for name in ("a", "b", "c")]
    for call, name in zip(calls, "abc", strict=True):
        assert call.get() == name
        assert (call.stdout, call.stderr) == (f"out of {name}\nfrom below\n", f"err of {name}\n")

    @corten.function
    def wait_for_more() -> None:
        print("first")
        sys.stdin.read()
        threading.Event().wait()

    call = wait_for_more.spawn()
    assert next(call.lines()) == "first\n"
    assert not call.done()
    assert call.cancel()
    with pytest.raises(corten.Cancelled):
        call.get()


def test_output_streams_to_our_own(capsys: pytest.CaptureFixture[str]) -> None:
    @corten.function(output="stream")
    def talk() -> None:
        print("seen")

    talk.remote()
    assert capsys.readouterr().out == "seen\n"


def test_generators_stream_and_wait_for_their_reader() -> None:
    @corten.function
    def count(upto: int) -> Iterator[int]:
        for number in range(upto):
            print(number)
            yield number

    call = count.spawn(100_000)
    items = iter(call)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    lines = call.lines()
    assert next(lines) == "0\n"
    call.cancel()
    assert call.stdout.count("\n") < 10_000  # it waited: nobody took what it had made
    assert list(count.remote(50)) == list(range(50))
    assert count.spawn(3).get() == [0, 1, 2]


def test_a_generator_that_fails() -> None:
    @corten.function
    def some() -> Iterator[int]:
        yield 1
        raise ValueError("after one")

    found = []
    with pytest.raises(ValueError, match="after one"):
        found.extend(some.remote())
        pytest.fail(str(found))


def test_map_is_ordered_lazy_and_takes_exceptions() -> None:
    taken: list[int] = []

    def inputs() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    @corten.function(reuse=True)
    def inverse(x: int) -> float:
        return 1 / (x - 2)

    results = inverse.map(inputs(), return_exceptions=True)
    first = [next(results) for _ in range(5)]
    assert first[:2] == [-0.5, -1.0]
    assert isinstance(first[2], ZeroDivisionError)
    assert first[3:] == [1.0, 0.5]
    assert len(taken) < 100
    results.close()
    with pytest.raises(ZeroDivisionError):
        list(inverse.map(range(10)))
    assert sorted(inverse.map(range(3, 40), ordered=False)) == sorted(1 / (x - 2) for x in range(3, 40))
    assert list(corten.function(pow).starmap([(2, 3), (3, 2)])) == [8, 9]
    with pytest.raises(corten.InvalidInput, match="starmap: 1 is no tuple of arguments"):
        list(corten.function(pow).starmap([1, 2]))


def test_async_twins() -> None:
    async def work() -> tuple[Any, list[Any], Any]:
        one = await triple.remote.aio(1)
        many = [value[0] async for value in triple.map.aio([1, 2, 3])]
        call = triple.spawn(4)
        return one[0], many, (await call)[0]

    assert asyncio.run(work()) == (3, [3, 6, 9], 12)


def test_cancelling_a_task_cancels_its_call() -> None:
    @corten.function
    def forever() -> None:
        print("here")
        threading.Event().wait()

    async def work() -> corten.Call:
        call = forever.spawn()
        task = asyncio.ensure_future(_await(call))
        assert await asyncio.to_thread(next, call.lines()) == "here\n"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return call

    call = asyncio.run(work())
    with pytest.raises(corten.Cancelled):
        call.get()


async def _await(call: corten.Call) -> Any:
    return await call


def test_retries_only_where_asked(tmp_path: Any) -> None:
    counter = tmp_path / "count"
    counter.write_text("")
    os.chmod(counter, 0o666)

    def flaky(need: int) -> int:
        with open("/mnt/count", "a+") as file:
            file.write("x")
            tries = file.tell()
        if tries < need:
            raise OSError("not yet")
        return tries

    mounts = [f"type=bind,src={tmp_path},dst=/mnt"]
    with pytest.raises(OSError, match="not yet"):
        corten.function(mounts=mounts)(flaky).remote(3)
    assert counter.read_text() == "x"
    assert corten.function(mounts=mounts, retries=2)(flaky).remote(3) == 3


def test_with_options_and_environment() -> None:
    @corten.function(cpus=1)
    def seen() -> tuple[str | None, str | None]:
        return os.environ.get("COLOUR"), os.environ.get("OMP_NUM_THREADS")

    assert seen.remote() == (None, "1")
    assert seen.with_options(env={"COLOUR": "red"}).remote() == ("red", "1")
    assert seen.with_options(cpus=2).remote() == (None, "2")


def test_big_arrays_arrive_read_only_and_come_back_without_a_copy() -> None:
    @corten.function(memory="64m")
    def look(array: np.ndarray) -> tuple[Any, ...]:
        return array.sum(), array.flags.writeable, array, array[10:20].copy()

    array = np.arange(20_000_000, dtype=np.int64)  # 160 MB: more than the container may have
    total, writeable, again, part = look.remote(array)
    assert (total, writeable) == (array.sum(), False)
    assert np.array_equal(array, again)
    assert list(part) == list(range(10, 20))


def test_a_result_too_large_for_the_limit_is_charged_to_the_container() -> None:
    @corten.function(memory="100m")
    def large() -> Any:
        return np.ones(8_000_000), np.zeros(8_000_000) + 1

    with pytest.raises(corten.OutOfMemory):
        large.remote()


def test_usage_and_update() -> None:
    @corten.function(memory="100m")
    def grow() -> int:
        print("ready")
        while True:
            limit = int(_limit())
            if limit > 150 << 20:
                return len(bytearray(120 << 20))
            time.sleep(0.01)

    def _limit() -> str:
        for path in ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"):
            if os.path.exists(path):
                return Path(path).read_text()
        return "0"

    call = grow.spawn()
    assert next(call.lines()) == "ready\n"
    call.update(memory="200m", cpus=0.9)
    assert call.get(30) == 120 << 20
    assert call.usage is not None
    assert (call.usage.memory_peak or 0) > 100 << 20
    with pytest.raises(corten.Error, match="only a call that runs"):
        call.update(memory="300m")


def test_calls_from_many_threads() -> None:
    @corten.function(reuse=True)
    def same(x: int) -> int:
        return x

    found: dict[int, int] = {}
    threads = [threading.Thread(target=lambda x=x: found.__setitem__(x, same.remote(x))) for x in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {x: x for x in range(30)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memory": "lots"}, "memory"),
        ({"memory": "1m"}, "less than a container needs"),
        ({"memory": ("2g", "1g")}, "above the upper one"),
        ({"cpus": 10_000}, "this machine has"),
        ({"cpus": 0}, "needs some CPU"),
        ({"memory": "100000g"}, "this machine has"),
        ({"retries": -1}, "retries"),
        ({"tty": True}, "no terminal"),
        ({"colour": "red"}, "colour"),
        ({"returns": [1]}, "not a class"),
        ({"output": "loud"}, "output"),
        ({"imports": ["a b"]}, "not the name of a module"),
        ({"image": "./nowhere-to-be-found.tar"}, "nowhere-to-be-found"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    with pytest.raises(corten.Error) as caught:
        corten.function(**options)(times).remote(1)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_arguments_and_functions_that_cannot_be_pickled() -> None:
    with pytest.raises(corten.InvalidInput, match=r"argument 2\['lock'\] \(lock\)"):
        triple.spawn(1, {"lock": threading.Lock()})  # type: ignore[call-arg]
    lock = threading.Lock()
    with pytest.raises(corten.InvalidInput, match=r"lock \(lock\)"):
        corten.function(lambda: lock).spawn()


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(corten.InvalidInput, match="import no_such_module: ModuleNotFoundError"):
        corten.function(imports=["no_such_module"])(times).remote(1)
