"""Pools: they grow with the backlog, shrink when idle, learn, follow the load, and say why."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

import corten
from corten.compute import keeper
from corten.compute.ledger import LEDGER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PATIENCE = 30.0


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that a pool does by itself."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        threading.Event().wait(0.01)


@corten.function(reuse=True, cpus=0.5, memory="64m")
def work(gate: str) -> int:
    """Wait until there is a file of that name."""
    while gate and not os.path.exists(gate):
        time.sleep(0.005)
    return os.getpid()


def gated(tmp_path: Path) -> tuple[Any, Path]:
    """`work` that waits for a file in a directory that its containers see, and that file."""
    return work.with_options(mounts=[f"type=bind,src={tmp_path},dst=/mnt,ro"]), tmp_path / "go"


def test_grows_with_the_backlog_and_shrinks_when_idle(tmp_path: Path) -> None:
    function, gate = gated(tmp_path)
    with corten.Pool(function, min=1, max=3, idle=0.5) as pool:
        until(lambda: pool.stats().ready == 1)
        calls = [pool.spawn("/mnt/go") for _ in range(10)]
        until(lambda: pool.stats().busy == 3)
        stats = pool.stats()
        assert (stats.backlog, stats.busy) == (7, 3)
        gate.write_text("")
        assert [call.get(PATIENCE) for call in calls] == [2] * 10
        until(lambda: pool.stats().ready == 1 and pool.stats().busy == 0)
        assert (pool.stats().done, pool.stats().failed) == (10, 0)
        reasons = {event.what: event.reason for event in pool.events}
        assert "calls wait" in reasons["start"]
        assert "idle" in reasons["retire"]


def test_never_beyond_what_is_free(tmp_path: Path) -> None:
    """All pools together: two that could each use every CPU."""
    function, gate = gated(tmp_path)
    cpus = int(LEDGER.capacity().cpus)
    whole = function.with_options(cpus=1)
    with corten.Pool(whole) as one, corten.Pool(whole) as other:
        calls = [pool.spawn("/mnt/go") for pool in (one, other) for _ in range(cpus + 2)]
        until(lambda: one.stats().busy + other.stats().busy == cpus)
        for _ in range(20):
            assert one.stats().busy + other.stats().busy <= cpus
        gate.write_text("")
        assert [call.get(PATIENCE) for call in calls] == [2] * len(calls)


def test_resize(tmp_path: Path) -> None:
    function, gate = gated(tmp_path)
    with corten.Pool(function, max=1) as pool:
        calls = [pool.spawn("/mnt/go") for _ in range(4)]
        until(lambda: pool.stats().busy == 1)
        pool.resize(min=0, max=3)
        until(lambda: pool.stats().busy == 3)
        gate.write_text("")
        assert len([call.get(PATIENCE) for call in calls]) == 4


@pytest.mark.parametrize(
    ("bounds", "words"),
    [({"min": 3, "max": 2}, "more than max"), ({"max": 0}, "max"), ({"min": -1}, "min"), ({"max": 100_000}, "at once"),
     ({"min": 100_000}, "min=100000: this machine has CPUs and memory for"), ({"idle": "soon"}, "idle")],
)  # fmt: skip
def test_bounds_that_make_no_sense(bounds: dict[str, Any], words: str) -> None:
    with pytest.raises(corten.InvalidInput) as caught:
        corten.Pool(work, **bounds)
    assert words in str(caught.value)


def test_a_pool_does_not_become_larger_than_the_machine() -> None:
    with corten.Pool(work) as pool:
        for bounds in ({"min": 100_000}, {"max": 100_000}):
            with pytest.raises(corten.InvalidInput, match="100000: this machine has CPUs and memory for"):
                pool.resize(**bounds)
        assert pool.stats().making == 0


def test_closing_a_pool_cancels_what_waits_and_what_runs(tmp_path: Path) -> None:
    function, _ = gated(tmp_path)
    pool = corten.Pool(function, max=1)
    calls = [pool.spawn("/mnt/go") for _ in range(3)]
    until(lambda: pool.stats().busy == 1)
    pool.close()
    for call in calls:
        with pytest.raises(corten.Cancelled):
            call.get()
    with pytest.raises(corten.Cancelled):
        pool.remote("")


def test_a_container_that_dies_costs_only_its_own_call() -> None:
    @corten.function(reuse=True)
    def sometimes(x: int) -> int:
        if x == 5:
            os._exit(9)
        return x

    found = list(sometimes.map(range(12), return_exceptions=True))
    assert [x for x in found if isinstance(x, int)] == [x for x in range(12) if x != 5]
    assert isinstance(found[5], corten.ContainerFailed)


def test_memory_auto_tries_again_with_more_and_learns() -> None:
    @corten.function(memory="auto", cpus=1)
    def need(mib: int) -> int:
        return len(bytearray(mib << 20)) >> 20

    with corten.Pool(need) as pool:
        assert pool.remote(10) == 10
        assert pool.remote(600) == 600
        whats = [event.what for event in pool.events]
        assert whats.count("retry") == 2  # 256, 512, 1024 MiB
        assert pool.remote(600) == 600
        assert [event.what for event in pool.events].count("retry") == 2
        assert any("ran out of 256 MiB: again with 512 MiB" in event.reason for event in pool.events)


def test_memory_auto_gives_up_at_what_the_machine_has() -> None:
    @corten.function(memory=("64m", "128m"))
    def need(mib: int) -> int:
        return len(bytearray(mib << 20)) >> 20

    with pytest.raises(corten.OutOfMemory):
        need.remote(400)


def test_limits_follow_the_load_inside_their_bounds() -> None:
    @corten.function(memory=("64m", "512m"), cpus=(0.25, 1))
    def grow() -> int:
        kept = []
        for _ in range(200):
            kept.append(bytearray(1 << 20))
            deadline = time.monotonic() + 0.02
            while time.monotonic() < deadline:
                pass
        return len(kept)

    with corten.Pool(grow) as pool:
        assert pool.remote() == 200
        resized = [event.reason for event in pool.events if event.what == "resize"]
    assert any(reason.startswith("memory") and "from 64 MiB to 128 MiB" in reason for reason in resized), resized
    assert any(reason.startswith("CPUs") and "throttled" in reason for reason in resized), resized


def test_a_zygote_that_nobody_needs_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "IDLE", 0.2)
    with corten.Pool(work, idle=0.1) as pool:
        assert pool.remote("") == 2
        until(lambda: "corten:zygote" not in _children())
        assert pool.remote("") == 2


def _children() -> set[str]:
    tasks = Path("/proc/self/task").iterdir()
    pids = [pid for task in tasks for pid in (task / "children").read_text().split()]
    return {Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids}


def test_a_forked_copy_of_the_process_has_containers_of_its_own() -> None:
    assert work.remote("") == 2
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, str(work.remote("")).encode())
            corten.shutdown()
        finally:
            os._exit(0)
    os.close(writing)
    assert os.read(reading, 10) == b"2"
    os.close(reading)
    assert os.waitpid(pid, 0)[1] == 0
    assert work.remote("") == 2
