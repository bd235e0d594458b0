"""`corten.dask` on this machine: limits, ends that are told, replacement, calls on a client's workers, bad input."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from multiprocessing import resource_tracker

import dask.config
import pytest
from distributed import Client, Event, KilledWorker, LocalCluster

import corten
import python_root
from corten.dask import ContainerCluster, WorkerOutOfMemory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("default::ResourceWarning", "default::DeprecationWarning")
MEMORY = 400 << 20
PACKAGES = sysconfig.get_path("purelib")


def test_a_worker_has_the_limits_that_the_scheduler_is_told_and_is_replaced_when_memory_kills_it() -> None:
    def limit_of() -> tuple[str, int]:
        import resource

        return os.environ["OMP_NUM_THREADS"], resource.getpagesize()

    def eat() -> int:
        return len(b"x" * (1 << 30))

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        ContainerCluster(cpus=0.5, memory=MEMORY, n_workers=1) as cluster,
        cluster.get_client() as client,
    ):
        (worker,) = client.scheduler_info()["workers"].values()
        assert (worker["nthreads"], worker["memory_limit"]) == (1, MEMORY)
        assert client.submit(limit_of).result()[0] == "1"
        with pytest.raises(WorkerOutOfMemory, match=r"killed: out of memory \(limit 400 MiB") as caught:
            client.submit(eat).result(timeout=60)
        assert isinstance(caught.value, (KilledWorker, corten.OutOfMemory))
        assert caught.value.result is not None
        assert caught.value.result.usage.memory_limit == MEMORY
        client.wait_for_workers(1, timeout=60)
        assert client.submit(sum, [1, 2]).result(timeout=60) == 3, "there is another worker"
        ((_, event),) = client.get_events("corten")
        assert event["action"] == "worker-ended"
        assert event["oom_killed"]
        assert "out of memory" in cluster.get_logs(scheduler=False, workers=False)["Cluster"]
        with pytest.raises(corten.InvalidInput, match=r"n=1000: this machine has room for \d+ workers with cpus=0.5"):
            cluster.scale(1000)
        with pytest.raises(corten.InvalidInput, match="maximum=1000: this machine has room"):
            cluster.adapt(minimum=0, maximum=1000)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"n_workers": 1000}, corten.InvalidInput, "n_workers=1000: this machine has room for"),
        ({"hosts": ["nobody.invalid"]}, corten.NotFound, "host nobody.invalid cannot be reached: .*resolve"),
        ({"hosts": ["-oProxyCommand=x"]}, corten.InvalidInput, "is not the name of a host"),
        ({"hosts": []}, corten.InvalidInput, "the list is empty"),
        ({"network": "none"}, corten.InvalidInput, "a worker must reach its scheduler"),
        ({"memroy": 1}, corten.InvalidInput, "did you mean memory"),
        ({"cpus": 0}, corten.InvalidInput, "a worker needs some CPU"),
        ({"n_workers": 1, "cpus": 0.5, "python": "/usr/bin/false"}, corten.Error, "did not start: exited with code 1"),
    ],
)
def test_bad_input_is_one_clear_error(options: dict[str, object], kind: type[corten.Error], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        ContainerCluster(**options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_without_distributed_the_error_says_what_to_install() -> None:
    script = """
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "distributed" else found(name, *rest)
import corten.dask
assert "distributed" not in sys.modules
corten.dask.ContainerCluster()
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.stderr.splitlines()[-1].endswith("not installed: pip install 'corten[dask]'")


def test_a_worker_with_another_python_is_one_clear_error() -> None:
    prefix, executable, version = python_root.newer()
    mounts = [f"type=bind,src={prefix},dst={prefix},ro"]
    there, here = ".".join(map(str, version)), ".".join(map(str, sys.version_info[:2]))
    with pytest.raises(corten.Error, match=f"did not start: it has Python {there} and this is {here}: ") as caught:
        ContainerCluster(
            cpus=0.5, memory=MEMORY, n_workers=1, python=executable, mounts=mounts, env={"PYTHONPATH": PACKAGES}
        )
    assert "\n" not in str(caught.value)


def test_adapt_follows_the_load_and_replaces_what_is_killed_meanwhile() -> None:
    news: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()

    def wait(number: int) -> int:
        from distributed import Event

        Event("go").wait()
        return number

    def until(action: str) -> dict[str, str]:
        while True:
            event = news.get(timeout=60)
            if event.get("action") == action:
                return event

    with ContainerCluster(cpus=0.5, memory=MEMORY) as cluster, cluster.get_client() as client:
        for topic in ("all", "corten"):
            client.subscribe_topic(topic, lambda event: news.put(event[1]))
        cluster.adapt(minimum=0, maximum=2, interval="100ms", wait_count=2, target_duration="1s")
        futures = client.map(wait, range(12))
        client.wait_for_workers(2, timeout=60)
        next(iter(cluster.workers.values())).kill()
        assert "killed by SIGKILL" in until("worker-ended")["reason"]
        client.wait_for_workers(2, timeout=60)
        Event("go").set()
        assert client.gather(futures) == list(range(12))
        del futures
        deadline = time.monotonic() + 60
        while cluster.workers:  # Dask tells nobody when it has closed the last one
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)
        ended = [event["action"] for _, event in client.get_events("corten")]
        assert ended == ["worker-ended"], "those that adapt ends are none that ended"
        assert client.submit(sum, [1, 2]).result(timeout=60) == 3, "it grows again"


class Odd(Exception):
    """Of this module, which the workers cannot import."""


@corten.function(cpus=0.5, memory="100m")
def square(number: int) -> int:
    if number == 7:
        raise Odd(number, "is odd")
    return number * number


@pytest.fixture(scope="module", autouse=True)
def tracker() -> None:
    """The process that multiprocessing starts once, and keeps."""
    resource_tracker.ensure_running()


@pytest.fixture
def client(nothing_kept: None) -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        Client(cluster) as made,
    ):
        yield made


def test_calls_on_the_workers_of_a_client(client: Client, tmp_path: Path) -> None:
    assert list(square.map(range(6), on=client)) == [0, 1, 4, 9, 16, 25]
    assert sorted(square.map(range(7), on=client, ordered=False)) == [0, 1, 4, 9, 16, 25, 36]
    six, seven, eight = square.map((6, 7, 8), on=client, return_exceptions=True)
    assert (six, eight) == (36, 64)
    assert isinstance(seven, Odd)
    assert seven.args == (7, "is odd")
    assert "in square" in str(seven.__cause__)
    taken = []
    results = square.map((taken.append(number) or number for number in range(1000)), on=client)  # type: ignore[func-returns-value]
    assert next(results) == 0
    assert len(taken) < 20, "inputs are taken as results are"
    # A worker that is killed in the middle loses nothing.
    pids = client.run(os.getpid)
    got = [next(results) for _ in range(2)]
    os.kill(next(iter(pids.values())), signal.SIGKILL)
    got += [result if not isinstance(result, Exception) else 49 for result in (next(results) for _ in range(4))]
    assert got == [1, 4, 9, 16, 25, 36]
    results.close()
    with pytest.raises(corten.InvalidInput, match="not a client of Dask"):
        square.map([1], on="client")


def test_a_scheduler_that_is_lost_in_the_middle_is_one_clear_error() -> None:
    script = """
import os, sys
from distributed import Scheduler
import asyncio
async def main():
    async with Scheduler(host="127.0.0.1", port=0, dashboard_address="127.0.0.1:0") as made:
        print(made.address, flush=True)
        await made.finished()
asyncio.run(main())
"""
    scheduler = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert scheduler.stdout is not None
    address = scheduler.stdout.readline().decode().strip()
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}), Client(address, timeout=3) as client:
        results = square.map([1, 2], on=client)
        scheduler.kill()
        scheduler.wait()
        scheduler.stdout.close()
        with pytest.raises(corten.Error, match="square: the scheduler of Dask was lost"):
            next(results)


def test_the_example() -> None:
    script = os.path.join(os.path.dirname(__file__), "../../../examples/dask_array.py")
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=120)
    assert ended.stdout == f"mean of the squares: {sum(n * n for n in range(10**6)) / 10**6:.1f}\n", ended.stderr
