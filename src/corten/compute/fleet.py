"""The containers of a lane: how many there are, where they come from, and when they go.

Rule 1: decisions about size are made by `scaling`, of figures; each is noted with its reason.
Rule 2: only the loop's thread is here.
"""

from __future__ import annotations

import itertools
from collections import deque

from corten.compute import scaling
from corten.compute.worker import Kind, Worker
from corten.compute.zygotes import Zygote
from corten.errors import Error, InvalidInput
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.compute.keeper import Keeper
    from corten.compute.lane import Lane
    from corten.compute.loop import Loop

_numbers = itertools.count(1)
_TRIES_TO_START = 3


class Home(Record):
    """Where the containers of a lane come from: the zygote that forks into them, and what they have in common."""

    zygote: Zygote
    kind: Kind


class Fleet:
    """See the module. lane: whose containers these are; least: how many there always are; most: with a call at once,
    None for what the machine has; idle: seconds after which one that waits is ended.

    ready: those that wait for a call; running: those that have one, until that is over.
    """

    def __init__(self, loop: Loop, keeper: Keeper, lane: Lane, least: int, most: int | None, idle: float) -> None:
        self._loop, self._keeper, self._lane = loop, keeper, lane
        self.least, self.most, self.idle = least, most, idle
        self.home: Home | None = None
        self.workers: set[Worker] = set()
        self.ready: deque[Worker] = deque()
        self.running: set[Worker] = set()
        self._fresh = not lane.options.reuse
        self._failed_starts = 0
        self._idle_timer = False

    def is_full(self) -> bool:
        """Whether no further call may begin, whatever the machine has."""
        return self.most is not None and len(self.running) >= self.most

    def on_ready(self, worker: Worker) -> None:
        """One waits for its (next) call."""
        self._failed_starts = 0
        self.ready.append(worker)

    def on_over(self, worker: Worker) -> None:
        """One is gone."""
        self.workers.discard(worker)
        self.running.discard(worker)
        worker.zygote.workers.pop(worker.number, None)
        if worker in self.ready:
            self.ready.remove(worker)

    # --- their number

    def fit(self, backlog: int, room: int | None) -> None:
        """Make and retire. backlog: calls that wait; room: how many more may begin, None: to be found out."""
        if self.workers and not self._idle_timer:
            self._idle_timer = True
            self._loop.after(self.idle / 2 + 0.01, self._look_again)
        if self._is_settled(backlog):
            return
        decision = scaling.decide(self.view(backlog, room))
        for _ in range(decision.start):
            if not self._start():
                return
        if decision.start:
            self._lane.note("start", f"{decision.start}: {decision.reason}")
        for _ in range(decision.retire):
            worker = self.ready.popleft()
            worker.retired = True
            worker.end()
        if decision.retire:
            self._lane.note("retire", f"{decision.retire}: {decision.reason}")

    def _is_settled(self, backlog: int) -> bool:
        """Whether there is surely nothing to decide: this is asked at the beginning and end of every call."""
        count = len(self.workers)
        most = self.most if self.most is not None else max(self._lane.limit(), self.least)
        if backlog:
            return count >= most + (scaling.AHEAD if self._fresh else 0)
        return not self._fresh and bool(self.ready) and self.least <= count <= most and self._lane.active()

    def view(self, backlog: int, room: int | None) -> scaling.View:
        """How things are now."""
        lane = self._lane
        limit = lane.limit()
        states = [worker.state for worker in self.workers]
        return scaling.View(
            backlog=backlog,
            busy=len(self.running),
            ready=states.count("ready"),
            making=states.count("making") + states.count("entering"),
            fresh=self._fresh,
            least=self.least,
            most=self.most if self.most is not None else max(limit, self.least),
            room=lane.room() if room is None else room,
            active=lane.active(),
            limit=limit,
        )

    def _look_again(self) -> None:
        self._idle_timer = False
        self._lane.step()

    # --- made

    def _start(self) -> bool:
        lane = self._lane
        try:
            if self.home is None or self.home.zygote.gone:
                self.home = self._keeper.home_of(lane)
            if self.home is None:
                return False  # it is being made; `step` is called when it is there
            zygote = self.home.zygote
            worker = Worker(self._loop, next(_numbers), self.home.kind, zygote, lane)
        except Error as error:
            lane.fail_all(error)
            return False
        except OSError as error:  # no more descriptors, say
            lane.fail_all(Error(str(error)))
            return False
        zygote.workers[worker.number] = worker.on_answer
        self.workers.add(worker)
        return True

    def never_ready(self, worker: Worker, error: Error) -> None:
        """A container was no use to anybody: if that goes on, those who wait must hear of it."""
        if worker.zygote.gone or worker.zygote.failed:
            return  # made again, with another zygote; or that has said why it failed
        if not worker.trouble and worker.retired:
            return
        self._failed_starts += 1
        if self._failed_starts >= _TRIES_TO_START or isinstance(error, InvalidInput):
            self._lane.fail_all(Error(worker.trouble) if worker.trouble else error)
            self._lane.note("start", f"failed: {worker.trouble or error}")
            self._failed_starts = 0

    def lose(self, zygote: Zygote) -> None:
        """A zygote has ended. Containers that it was to fork into are no use."""
        if self.home is not None and self.home.zygote is zygote:
            self.home = None
        for worker in [one for one in self.workers if one.zygote is zygote and one.state in ("making", "entering")]:
            worker.retired = True
            worker.end()

    def end(self) -> None:
        """End them all."""
        for worker in list(self.workers):
            worker.retired = True
            worker.end()
        self.ready.clear()
