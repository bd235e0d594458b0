"""What is to be done next, and how it stands: the decisions of `corten map`. Pure.

Rule 1: an input is done when its command has ended with 0. One that failed its last try, or was never begun, is not:
        `--resume` does it again.
Rule 2: what we end ourselves (a signal, `halt="now"`) has not failed. It is not done, and there is no row for it.
"""

from __future__ import annotations

from collections import Counter, deque

from corten.compute.jobs.words import Item
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

HALT = ("never", "soon", "now")
MOST_FAILED = 101
"""The exit code that means more failures than 100, as GNU parallel has it."""


class Row(Record):
    """What became of an input: of its last try, but for `tries`. signal: by number; reason: in words; memory_peak:
    bytes, None where no limit was asked for and so none was counted."""

    item: str
    exit_code: int
    signal: int | None
    reason: str
    seconds: float
    memory_peak: int | None
    cpu_seconds: float
    tries: int


class Job:
    """Inputs and what has become of them.

    retries: further tries of one that failed; halt: what the first failure does to the rest: never, soon (begin no
    more), now (end what runs); before: rows of an earlier run, whose inputs that are done are left out.
    """

    def __init__(
        self, items: Iterable[Item], retries: int = 0, halt: str = "never", before: Iterable[Row] = ()
    ) -> None:
        done = Counter(row.item for row in before if row.exit_code == 0)
        self._waiting: deque[Item] = deque()
        self.total = self.skipped = 0
        for item in items:
            self.total += 1
            if done[item.text]:
                done[item.text] -= 1
                self.skipped += 1
            else:
                self._waiting.append(item)
        self.retries, self.halt = retries, halt
        self._tries: Counter[int] = Counter()
        self.running: dict[int, Item] = {}
        self.done = self.failed = 0
        self.stopped = False

    @property
    def waiting(self) -> int:
        """Inputs that may still be begun."""
        return 0 if self.stopped else len(self._waiting)

    @property
    def left(self) -> int:
        """Inputs that are neither done nor failed."""
        return len(self._waiting) + len(self.running)

    def begin(self) -> Item:
        """The next input; it runs from now on."""
        item = self._waiting.popleft()
        self._tries[item.number] += 1
        self.running[item.number] = item
        return item

    def tries(self, item: Item) -> int:
        """How often it was begun."""
        return self._tries[item.number]

    def end(self, item: Item, row: Row) -> bool:
        """A try has ended. True: that was its last, and the row counts; False: it will be begun once more."""
        del self.running[item.number]
        if row.exit_code != 0 and self._tries[item.number] <= self.retries and not self.stopped:
            self._waiting.appendleft(item)
            return False
        if row.exit_code == 0:
            self.done += 1
        else:
            self.failed += 1
            self.stopped = self.stopped or self.halt != "never"
        return True

    def interrupt(self, item: Item) -> None:
        """We ended a try: as if it had never been."""
        del self.running[item.number]
        self._tries[item.number] -= 1
        self._waiting.appendleft(item)

    @property
    def ending(self) -> bool:
        """Whether what runs is to be ended."""
        return self.stopped and self.halt == "now"

    def exit_code(self) -> int:
        """0: all is done; else how many failed (101: more than 100), at least 1."""
        if self.failed:
            return min(self.failed, MOST_FAILED)
        return 1 if self.left else 0
