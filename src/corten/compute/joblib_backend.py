"""joblib's work in containers: the backend behind `joblib.parallel_config(backend="corten")`.

Rule 1: results are trusted: fitted estimators come back. Tasks are one's own code, in a box with limits.
Rule 2: joblib's callbacks take the next tasks from the caller's iterator, which may do anything, wait for other
        containers too. They run in a thread of the backend's own, never in the one that serves all containers.
Rule 3: what was to run in a container never runs here. joblib keeps what it takes for one job in this very process; so
        it is told of two, of which one waits for the other's container.
Rule 4: what is parallel inside a task runs one after the other: its container has the CPUs of one task.
"""

from __future__ import annotations

import itertools
from concurrent.futures import Future, ThreadPoolExecutor

from joblib.parallel import AutoBatchingMixin, ParallelBackendBase, SequentialBackend, register_parallel_backend

from corten.compute import capacity
from corten.compute import options as function_options
from corten.compute.executor import ContainerExecutor
from corten.compute.pickling import PackedFunction, installed_names, pack_function, used_modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_OF_JOBLIB = ("prefer", "require", "max_nbytes", "temp_folder", "mmap_mode", "verbose", "context")
"""What joblib passes on to every backend: about processes and files in which big arrays lie, which are not needed."""


class ContainerBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc] # joblib has no types
    """Batches of tasks, each in a container that serves many.

    Options are those of `corten.function`, but for reuse and trusted; n_jobs: containers at once, at most as many as
    the machine has CPUs and memory for; -1: all CPUs that are ours.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    default_n_jobs = -1

    def __init__(
        self, nesting_level: int | None = None, inner_max_num_threads: int | None = None, **given: Any
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self.parallel: Any = None
        self._given = {"memory": "1g", "cpus": 1, **given}
        function_options.make("joblib", self._given)
        self._executor: ContainerExecutor | None = None
        self._made_of: dict[str, Any] = {}
        self._callbacks = ThreadPoolExecutor(1, "corten:joblib")
        self._packed: PackedFunction | None = None

    # --- what joblib asks

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Tasks that joblib should have under way when `n_jobs` are wanted, at least 2. -1: all CPUs; -2: but one."""
        return max(2, self._containers(n_jobs))

    def _containers(self, n_jobs: int | None) -> int:
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        if n_jobs < 0:
            n_jobs = max(int(capacity.cpus()) + 1 + n_jobs, 1)
        return min(n_jobs, function_options.limit(function_options.make("joblib", self._given)))

    def configure(self, n_jobs: int = 1, parallel: Any = None, **given: Any) -> int:
        """Get ready for a call of Parallel; as `effective_n_jobs`."""
        self.parallel = parallel
        self._given.update({key: value for key, value in given.items() if key not in _OF_JOBLIB})
        containers = self._containers(n_jobs)
        wanted = {**self._given, "env": self._environment()}
        if self._executor is not None and wanted == self._made_of:
            self._executor.resize(containers)
        else:
            self._end()
            self._executor, self._made_of, self._packed = ContainerExecutor(containers, **wanted), wanted, None
        return max(2, containers)

    def _environment(self) -> Any:
        env = self._given.get("env") or {}
        if self.inner_max_num_threads is None:
            return env
        threads = {name: str(self.inner_max_num_threads) for name in self.MAX_NUM_THREADS_VARS}
        return {**threads, **env} if isinstance(env, dict) else [*threads.items(), *env]

    def submit(self, func: Any, callback: Callable[[Future[Any]], object] | None = None) -> Future[Any]:
        """Have a batch of tasks worked on. callback: hears of its end."""
        assert self._executor is not None
        if self._packed is None:
            packed = pack_function(_call)
            self._packed = packed.replace(modules=tuple(sorted({*packed.modules, *_modules(func)})))
        future = self._executor.submit_packed(self._packed.replace(name=_name(func)), (func,), {})
        if callback is not None:
            future.add_done_callback(lambda own: self._hand_on(callback, own))
        return future

    def _hand_on(self, callback: Callable[[Future[Any]], object], future: Future[Any]) -> None:
        try:
            self._callbacks.submit(callback, future)
        except RuntimeError:
            pass  # the program is ending, nobody wants to hear of it

    def retrieve_result_callback(self, future: Future[Any]) -> Any:
        """The results of a batch, or what was raised."""
        return future.result()

    def terminate(self) -> None:
        """A call of Parallel is over. Containers wait for the next one; they end when that takes long, or with this."""
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:  # noqa: ARG002 - it always is
        """A task failed: end the others."""
        if self._executor is not None:
            self._executor.abandon()

    def get_nested_backend(self) -> tuple[Any, None]:
        """What tasks find as their own joblib backend."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None

    def _end(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None


def _call(batch: Callable[[], Any]) -> Any:
    return batch()


# By value, as a function of a program would be: images need not have Corten.
_call.__module__ = "__main__"


def _name(batch: Any) -> str:
    """The name of the function in a batch of tasks."""
    for function, *_ in getattr(batch, "items", [])[:1]:
        inner = getattr(function, "function", function)  # scikit-learn wraps its own
        return str(getattr(inner, "__qualname__", type(inner).__qualname__))
    return "joblib"


def _modules(batch: Any) -> set[str]:
    """Installed modules that a batch will want: of its first task's function, and of the classes of its arguments. They
    are loaded once for all containers."""
    found = {type(batch).__module__}
    for function, args, kwargs in getattr(batch, "items", [])[:1]:
        for value in itertools.chain([function], getattr(function, "__dict__", {}).values(), args, kwargs.values()):
            found.add(type(value).__module__)
            if callable(value):
                found |= {getattr(value, "__module__", None) or "builtins", *used_modules(value)}
    return installed_names(found)


def register() -> None:
    """Let joblib know the backend."""
    register_parallel_backend("corten", ContainerBackend)
