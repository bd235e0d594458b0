"""Limits of calls that change: what was learned of earlier ones, what they ask for, what their load shows.

Loop's thread only. Every change is noted with its reason.
"""

from __future__ import annotations

from corten.compute.ledger import LEDGER
from corten.engine.result import size_words
from corten.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from corten.compute.call import Call
    from corten.compute.loop import Loop
    from corten.compute.options import FunctionOptions
    from corten.compute.worker import Worker
    from corten.engine.result import Result

_LOOK = 0.1
"""Seconds between looks at calls whose limits may follow their load."""
_HEADROOM = 1.25
_NEARLY = 0.75
"""Part of the memory limit beyond which a call gets more."""


class Limits:
    """Of the containers of one lane. note: writes a decision down."""

    def __init__(self, loop: Loop, options: FunctionOptions, note: Callable[[str, str], None]) -> None:
        self._loop, self._options, self._note = loop, options, note
        self._learned = 0
        self._looking = False

    def prepare(self, worker: Worker, call: Call) -> None:
        """Before a call begins: give its container the memory that it is known to need."""
        wanted = call.memory or self._learned
        if worker.memory and wanted > worker.memory:
            self._set_memory(worker, wanted, "what was learned of earlier calls")

    def _set_memory(self, worker: Worker, size: int, why: str) -> None:
        worker.container.update(memory=size)
        change = f"from {size_words(worker.memory or 0)} to {size_words(size)}"
        self._note("resize", f"memory of {worker.container.id} {change}: {why}")
        worker.memory = size

    def update(self, call: Call, memory: int | str | None, cpus: float | str | None) -> None:
        """What a caller asks for. `Error`: the call does not run."""
        worker = call.worker
        if worker is None or worker.state != "busy":
            raise Error(f"{call!r}: only a call that runs can be resized")
        worker.container.update(memory=memory, cpus=cpus)
        self._note("resize", f"{worker.container.id} by its caller: memory {memory}, cpus {cpus}")

    # --- memory="auto"

    def learn(self, call: Call, result: Result | None) -> None:
        """After a call: later ones begin with what this one needed."""
        peak = result.usage.memory_peak if result is not None and not result.oom_killed else None
        lower, upper = self._options.memory
        if not self._options.memory_auto or not peak:
            return
        wanted = min(int(peak * _HEADROOM) + (16 << 20), upper or peak)
        if wanted > max(self._learned, lower or 0):
            self._learned = wanted
            self._note("learn", f"{call.name} used {size_words(peak)}: later calls get {size_words(wanted)}")

    def more_memory(self, call: Call, worker: Worker) -> bool:
        """Whether a call that ran out of memory is to be tried with twice as much."""
        had = worker.memory or 0
        wanted = min(had * 2, self._options.memory[1] or had)
        if not self._options.memory_auto or wanted <= had:
            return False
        call.memory = wanted
        self._learned = max(self._learned, wanted)
        self._note("retry", f"{call.name} ran out of {size_words(had)}: again with {size_words(wanted)}")
        return True

    # --- bounds

    def follow(self, workers: Collection[Worker]) -> None:
        """Look at the calls that run from time to time, for as long as there are some."""
        if not self._looking:
            self._looking = True
            self._loop.after(_LOOK, lambda: self._look(workers))

    def _look(self, workers: Collection[Worker]) -> None:
        self._looking = False
        busy = [worker for worker in workers if worker.state == "busy"]
        for worker in busy:
            try:
                self._fit(worker)
            except (Error, OSError):
                continue  # it has just ended
        if busy:
            self.follow(workers)

    def _fit(self, worker: Worker) -> None:
        now = worker.container.stats()
        most, used = self._options.memory[1], now.memory_working_set or 0
        if most and worker.memory and worker.memory < most and used > worker.memory * _NEARLY:
            self._set_memory(worker, min(most, worker.memory * 2), f"it uses {size_words(used)}")
        upper = self._options.cpus[1]
        throttled, worker.throttled = worker.throttled, now.throttled_seconds or 0.0
        if upper and worker.cpus and worker.cpus < upper and worker.throttled - throttled > _LOOK / 4:
            self._more_cpus(worker, min(upper, worker.cpus * 2))

    def _more_cpus(self, worker: Worker, wanted: float) -> None:
        had = worker.cpus or 0.0
        if LEDGER.capacity().cpus - LEDGER.cpus < wanted - had:
            return
        worker.container.update(cpus=wanted)
        self._note("resize", f"CPUs of {worker.container.id} from {had:g} to {wanted:g}: it was throttled")
        LEDGER.end(worker)
        worker.cpus = wanted
        LEDGER.begin(worker, wanted, self._options.memory[0] or 0)
