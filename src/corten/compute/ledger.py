"""What the calls of this process use of the machine, added up: by it all lanes together stay within what is free."""

from __future__ import annotations

import time

from corten.compute.capacity import capacity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from corten.compute.lane import Lane
    from corten.compute.scaling import Capacity

_FRESH = 0.25
"""Seconds for which a look at the machine holds."""


class Ledger:
    """running: calls; cpus, memory: what they may use together; short: lanes whose calls wait, looked at again when a
    call of another one ends."""

    def __init__(self, look: Callable[[], Capacity]) -> None:
        self._look = look
        self._seen: Capacity | None = None
        self._when = 0.0
        self._entries: dict[object, tuple[float, int]] = {}
        self.short: set[Lane] = set()
        self.cpus = 0.0
        self.memory = 0

    @property
    def running(self) -> int:
        """Calls that run now."""
        return len(self._entries)

    def begin(self, who: object, cpus: float, memory: int) -> None:
        """Somebody begins who may use so much."""
        self._entries[who] = (cpus, memory)
        self.cpus += cpus
        self.memory += memory

    def end(self, who: object) -> None:
        """Somebody has ended; once is enough."""
        cpus, memory = self._entries.pop(who, (0.0, 0))
        self.cpus -= cpus
        self.memory -= memory

    def capacity(self) -> Capacity:
        """What the machine has, as of a moment ago."""
        now = time.monotonic()
        if self._seen is None or now - self._when > _FRESH:
            self._seen, self._when = self._look(), now
        return self._seen


LEDGER = Ledger(capacity)
"""That of this process."""
