"""joblib's backend "corten": what scikit-learn and joblib do with `n_jobs`, in containers."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
import traceback

import joblib
import numpy as np
import pytest
from joblib import delayed
from joblib.parallel import BACKENDS
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

import corten
import corten.joblib
from corten.compute import capacity
from corten.compute.lanes import lanes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

MEMORY = "400m"


@pytest.fixture(scope="module", autouse=True)
def engine() -> Iterator[None]:
    """The loop is there before and after; what is kept is used by the next test."""
    lanes()
    corten.joblib.register()
    yield
    corten.shutdown()


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    """Zygotes with scikit-learn in them live on until all of these tests are done."""


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """The machine is looked at by the last test."""


def config(**options: Any) -> Any:
    return joblib.parallel_config(backend="corten", **{"n_jobs": 2, "memory": MEMORY, **options})


def host_name() -> str:
    return os.uname().nodename


def by_value(function: Callable[..., Any]) -> Any:
    """As a function of a program is: this module cannot be found by its name."""
    return delayed(lambda *args: function(*args))  # noqa: PLW0108


def test_grid_search_is_as_in_one_process() -> None:
    images, labels = load_digits(return_X_y=True)
    search = {"C": [1, 10], "gamma": [0.001, 0.0005]}
    alone = GridSearchCV(SVC(), search, cv=3, n_jobs=1).fit(images, labels)
    with config():
        found = GridSearchCV(SVC(), search, cv=3).fit(images, labels)
        forest = RandomForestClassifier(20, random_state=0).fit(images, labels)
    assert found.best_params_ == alone.best_params_
    for key in ("mean_test_score", "std_test_score", "rank_test_score", "split0_test_score"):
        assert np.array_equal(found.cv_results_[key], alone.cv_results_[key])
    assert np.array_equal(found.predict(images), alone.predict(images))
    # scikit-learn asks for threads that share memory here, and gets them: in this process.
    same = RandomForestClassifier(20, random_state=0).fit(images, labels)
    assert np.array_equal(forest.predict_proba(images), same.predict_proba(images))


def test_tasks_run_in_containers() -> None:
    here = os.uname().nodename
    with config():
        names = joblib.Parallel()(by_value(lambda: os.uname().nodename)() for _ in range(6))
    assert here not in names
    assert 1 <= len(set(names)) <= 2
    half = f"{capacity.total_memory() // 2 + 1}"
    for options in ({"n_jobs": 1}, {"memory": half}):  # one container, but never this process
        with config(**options):
            names = joblib.Parallel()(by_value(lambda: os.uname().nodename)() for _ in range(4))
            assert len({here, *names}) == 2
            with joblib.Parallel() as parallel:
                assert here not in parallel(by_value(lambda: os.uname().nodename)() for _ in range(2))
    found = joblib.Parallel(n_jobs=2, backend="corten")(delayed(abs)(-number) for number in range(50))
    assert found == list(range(50))


def test_small_tasks_go_in_batches() -> None:
    with config():
        parallel = joblib.Parallel()
        assert parallel(delayed(abs)(-number) for number in range(3000)) == list(range(3000))
        assert parallel._backend._effective_batch_size == 1  # told to forget, at the end
        sizes = []
        complete = type(parallel._backend).batch_completed

        def watch(self: Any, size: int, duration: float) -> None:
            sizes.append(size)
            complete(self, size, duration)

        type(parallel._backend).batch_completed = watch
        try:
            joblib.Parallel()(delayed(abs)(-number) for number in range(3000))
        finally:
            type(parallel._backend).batch_completed = complete
    assert max(sizes) > 10


def test_number_of_jobs() -> None:
    ours = int(capacity.cpus())
    with config(n_jobs=-1):
        assert joblib.effective_n_jobs() == max(2, ours)
        assert joblib.effective_n_jobs(-ours) == 2
        assert joblib.effective_n_jobs(1000) == max(2, ours)
    with joblib.parallel_config(backend="corten"):
        assert joblib.effective_n_jobs(-1) >= 1


def test_what_is_parallel_inside_is_sequential() -> None:
    def inside() -> tuple[str, list[str]]:
        import os

        import joblib

        kind = type(joblib.parallel.get_active_backend()[0]).__name__
        return kind, joblib.Parallel(n_jobs=4)(joblib.delayed(os.getpid)() for _ in range(3))

    with config():
        for kind, pids in joblib.Parallel()(by_value(inside)() for _ in range(2)):
            assert kind == "SequentialBackend"
            assert len(set(pids)) == 1


def test_threads_of_libraries() -> None:
    def threads() -> str:
        import os

        return os.environ["OMP_NUM_THREADS"]

    with config():
        assert joblib.Parallel()(by_value(threads)() for _ in range(2)) == ["1", "1"]
    with config(inner_max_num_threads=3, env={"MINE": "x"}):
        assert joblib.Parallel()(by_value(threads)() for _ in range(2)) == ["3", "3"]


def test_big_arrays_arrive_without_a_copy() -> None:
    def look(array: Any) -> tuple[float, bool, bool]:
        return float(array.sum()), bool(array.flags.owndata), bool(array.flags.writeable)

    big = np.arange(4_000_000.0)
    with config():
        assert joblib.Parallel()(by_value(look)(big) for _ in range(3)) == [(float(big.sum()), False, False)] * 3


def test_exceptions(tmp_path: Path) -> None:
    def fails(number: int) -> int:
        if number == 3:
            raise KeyError("three")
        return number

    with config(mounts=[f"type=bind,src={tmp_path},dst=/share"]):
        with pytest.raises(KeyError, match="three") as caught:
            joblib.Parallel()(by_value(fails)(number) for number in range(100))
        assert "in fails" in "".join(traceback.format_exception(caught.value))

        def waits(number: int) -> None:
            import time

            if number == 1:
                raise KeyError("now")
            time.sleep(1000)

        # The others are ended, not waited for; and the same backend goes on.
        with pytest.raises(KeyError, match="now"):
            joblib.Parallel()(by_value(waits)(number) for number in range(2))
        assert joblib.Parallel()(delayed(abs)(-number) for number in range(3)) == [0, 1, 2]


def test_a_task_that_fills_its_memory() -> None:
    with config(memory="200m"), pytest.raises(corten.OutOfMemory, match="limit 200 MiB"):
        joblib.Parallel()(by_value(lambda: len(bytearray(1 << 30)))() for _ in range(2))


def test_timeouts() -> None:
    with config(timeout=0.3), pytest.raises(corten.Timeout):
        joblib.Parallel()(delayed(time.sleep)(100) for _ in range(2))
    with config(), pytest.raises(multiprocessing.TimeoutError):
        joblib.Parallel(timeout=0.3)(delayed(time.sleep)(100) for _ in range(2))


def test_generators() -> None:
    with config():
        found = joblib.Parallel(return_as="generator")(delayed(abs)(-number) for number in range(20))
        assert next(found) == 0
        assert list(found) == list(range(1, 20))
        found = joblib.Parallel(return_as="generator_unordered")(delayed(abs)(-number) for number in range(20))
        assert sorted(found) == list(range(20))


def test_inputs_may_come_from_containers_themselves() -> None:
    """joblib takes inputs as results come in: they may be worth waiting for."""
    double = corten.function(memory="200m", reuse=True)(lambda number: number * 2)
    with config():
        found = joblib.Parallel()(delayed(abs)(-double.remote(number)) for number in range(12))
    assert found == [number * 2 for number in range(12)]


def test_bad_input() -> None:
    with pytest.raises(corten.InvalidInput, match="nonsense"):
        config(nonsense=1)
    with pytest.raises(corten.InvalidInput, match="memory"):
        config(memory="much")
    with config(), pytest.raises(ValueError, match="n_jobs == 0"):
        joblib.Parallel(n_jobs=0)(delayed(abs)(1) for _ in range(2))


def test_without_joblib() -> None:
    script = "import sys; sys.modules['joblib'] = None\nimport corten.joblib\ncorten.joblib.register()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "corten.joblib needs joblib: pip install joblib" in done.stderr


def test_registered() -> None:
    assert BACKENDS["corten"].__name__ == "ContainerBackend"
    assert corten.joblib.register.__doc__


def test_nothing_is_left_behind(home: Path) -> None:
    """A program of its own, from start to end, with the machine looked at before and after."""
    program = (
        "import joblib, corten.joblib\ncorten.joblib.register()\n"
        "with joblib.parallel_config(backend='corten', n_jobs=2, memory='200m'):\n"
        "    assert joblib.Parallel()(joblib.delayed(abs)(-x) for x in range(40)) == list(range(40))\n"
    )
    from leaks import left_behind, picture

    corten.shutdown()
    before = picture(home)
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    assert left_behind(before, home) == []
