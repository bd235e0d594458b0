"""Functions in containers beside what people use instead: rows 4, 8, 9 and 10.

Each contestant here does a whole series at a time (`amount` calls) and says the milliseconds of one.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from contest import Contestant, Missing, contest

import corten

if TYPE_CHECKING:
    from run import Row

HERE = os.path.dirname(os.path.abspath(__file__))
FRESH, COLD = "call with numpy, fresh container", "python -c 'import numpy', cold"
BARE = "bare fork into new namespaces, numpy loaded"
GIGABYTE = 1 << 30


class Series:
    """A contestant that does `amount` things at a time; `once` says the milliseconds of one of them."""

    def __init__(self, name: str, amount: int, work: Callable[[int], object]) -> None:
        self.name, self.amount, self.work = name, amount, work

    def once(self) -> float:
        start = time.perf_counter()
        self.work(self.amount)
        return (time.perf_counter() - start) * 1e3 / self.amount


class BareFork:
    """A Python with numpy loaded that forks into new namespaces, computes, and exits: what a call cannot go below."""

    name = BARE

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(HERE, "bare_fork.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def once(self) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline()
        if not said:
            raise Missing("bare_fork.py has ended")
        return float(said)

    def end(self) -> None:
        self.process.communicate()


@corten.function(imports=["numpy"], memory="256m")
def total(values: list[float]) -> float:
    return float(np.sum(values))


@corten.function(memory="256m")
def empty(x: int) -> int:
    return x


@corten.function(memory="256m", reuse=True)
def again(x: int) -> int:
    return x


@corten.function(memory="3g", reuse=True)
def echo(array: Any) -> Any:
    return array


@corten.function(memory="256m", reuse=True)
def busy(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def same(x: int) -> int:
    return x


def one_at_a_time(row: Row, rounds: int) -> None:
    """Row 4: a call with numpy in a fresh container, with time between calls, as one who waits for each result has."""
    bare = BareFork()

    def call(_: int) -> None:
        total.remote([1.0, 2.0])

    def series() -> Series:
        return Series(FRESH, 1, call)

    contestants: list[Contestant] = [
        series(),
        bare,
        Series(COLD, 1, lambda _: subprocess.run([sys.executable, "-c", "import numpy"], check=True)),
    ]
    row.times, row.missing = contest(contestants, rounds)
    bare.end()
    row.compare(FRESH, COLD, 1 / 20)
    row.compare(FRESH, BARE, 1.6)
    back_to_back = []
    for _ in range(rounds):
        start = time.perf_counter()
        call(0)
        back_to_back.append((time.perf_counter() - start) * 1e3)
    row.facts["one after the other, no pause"] = f"{sorted(back_to_back)[rounds // 2]:.2f} ms (median)"


def throughput(row: Row, rounds: int) -> None:
    """Row 8: empty calls, as many as two cores do."""
    def mapped(function: corten.Function[[int], int]) -> Callable[[int], object]:
        return lambda amount: sum(1 for _ in function.map(range(amount)))

    podman = ["podman", "run", "--rm", "--runtime", "runc", "--cgroup-manager", "cgroupfs", "--network", "none",
              "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--rootfs", "/", "/bin/true"]  # fmt: skip
    contestants: list[Contestant] = [
        Series("fresh containers", 50, mapped(empty)),
        Series("reused containers", 2000, mapped(again)),
    ]
    context = multiprocessing.get_context("spawn")
    pool = context.Pool(2)
    executor = ProcessPoolExecutor(2, mp_context=context)
    contestants += [
        Series("multiprocessing.Pool", 2000, lambda n: list(pool.imap(same, range(n)))),
        Series("ProcessPoolExecutor", 1000, lambda n: list(executor.map(same, range(n)))),
    ]
    containers = corten.ContainerExecutor(2, memory="256m")
    contestants.append(Series("ContainerExecutor", 1000, lambda n: list(containers.map(same, range(n)))))
    ray = _ray()
    if ray is None:
        row.missing["Ray"] = "it is not installed, and no dependency of this repository: pip install ray"
    else:
        contestants.append(Series("Ray", 500, ray))
    cluster = _dask()
    if cluster is None:
        row.missing["Dask"] = "distributed is not installed"
    else:
        contestants.append(Series("Dask", 500, lambda n: cluster.gather(cluster.map(same, range(n), pure=False))))
    row.times, missing = contest(contestants, max(rounds // 10, 3))
    row.missing.update(missing)
    pool.terminate()
    executor.shutdown()
    containers.shutdown()
    if ray is not None:
        sys.modules["ray"].shutdown()
    if cluster is not None:
        cluster.close()
        cluster.cluster.close()
    cores = len(os.sched_getaffinity(0))
    for name, most in (("fresh containers", 1000 / 250 / cores), ("reused containers", 1000 / 5000)):
        samples = sorted(row.times[name])
        middle = samples[len(samples) // 2]
        row.facts[name + ", a second"] = f"{1000 / middle:.0f}"
        row.goal(f"{name}: milliseconds of one, on {cores} cores", middle, most)
    for name in ("reused containers", "ContainerExecutor"):
        if "Dask" in row.times:
            row.compare(name, "Dask", 1.0)
    one = _podman(podman)
    if one is None:
        row.missing["podman run"] = "it does not run here"
    else:
        middle = sorted(row.times["fresh containers"])[len(row.times["fresh containers"]) // 2]
        row.facts["podman run, one after the other"] = f"{one:.0f} ms"
        row.goal("fresh containers / podman run", middle / one, 1 / 50)


def _dask() -> Any:
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        return None
    cluster: Any = LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    )
    return Client(cluster)  # type: ignore[no-untyped-call]


def _ray() -> Callable[[int], object] | None:
    """Calls on two processes of Ray."""
    try:
        import ray  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return None
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=50)
    task = ray.remote(same)
    return lambda amount: ray.get([task.remote(x) for x in range(amount)])


def _podman(words: list[str]) -> float | None:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run(words, check=False, capture_output=True)
        if done.returncode:
            return None
        times.append((time.perf_counter() - start) * 1e3)
    return sorted(times)[1]


def big_array(row: Row, rounds: int) -> None:
    """Row 9: a numpy array of 1 GiB in and back."""
    array = np.ones(GIGABYTE // 8)
    array[::512] = 2.0  # every page is really there

    def through_container(_: int) -> None:
        assert echo.remote(array)[-1] == 1.0

    contestants: list[Contestant] = [
        Series("echo.remote", 1, through_container),
        Series("pickle through a pipe, there and back", 1, lambda _: _piped(array)),
    ]
    row.times, row.missing = contest(contestants, max(rounds // 12, 3))
    row.compare("echo.remote", "pickle through a pipe, there and back", 0.1)


def _piped(array: Any) -> None:
    """A child that unpickles what comes by a pipe, pickles it again, and sends it back."""
    there, back = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(there[1])
        os.close(back[0])
        with os.fdopen(there[0], "rb") as source, os.fdopen(back[1], "wb") as target:
            pickle.dump(pickle.load(source), target)
        os._exit(0)
    os.close(there[0])
    os.close(back[1])

    def write() -> None:
        with os.fdopen(there[1], "wb") as target:
            pickle.dump(array, target)

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(back[0], "rb") as source:
        assert pickle.load(source)[-1] == 1.0
    thread.join()
    os.waitpid(pid, 0)


def burst(row: Row, rounds: int) -> None:
    """Row 10: 200 calls of 50 ms at once, after idleness and on a pool that is warm."""
    def all_at_once(_: int) -> None:
        for call in [busy.spawn(0.05) for _ in range(200)]:
            call.get()

    times: dict[str, list[float]] = {"after idleness": [], "on a warm pool": []}
    for _ in range(max(rounds // 20, 2)):
        for name, samples in times.items():
            if name == "after idleness":
                corten.shutdown()
            start = time.perf_counter()
            all_at_once(0)
            samples.append((time.perf_counter() - start) * 1e3)
    row.times = times
    row.compare("after idleness", "on a warm pool", 1.5)
