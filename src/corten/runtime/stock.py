"""Containers made ahead: while a caller keeps asking for the same one, the next is half made before it asks.

Rule 1: each is used once, or not at all.
Rule 2: nothing of the host's files has been looked at (`runtime.aside`), and a change of the host's mounts ends them
        all: so what they become is what they would have become if they had been made at the call.
Rule 3: only what was asked for again within `IDLE_S` seconds is made ahead, and what nobody wants for so long is ended:
        an idle process holds nothing.
"""

from __future__ import annotations

import os
import pickle
import select
import time

from corten.runtime.launcher import Launch
from corten.runtime.plan import Plan
from corten.runtime.template import Template

IDLE_S = 1.0


class Kind:
    """Containers that follow one plan. data: the plan, pickled; identity: of the one that it was made for."""

    def __init__(self, data: bytes, identity: str) -> None:
        self._data, self._identity = data, identity
        self._template: Template | None = None
        self.asked = time.monotonic()
        self.ready: tuple[str, Launch] | None = None
        self.since = 0.0

    def take(self) -> tuple[str, Launch] | None:
        """The one made ahead, with its id; None without one."""
        taken, self.ready = self.ready, None
        return taken

    def end(self) -> None:
        """End the one made ahead; whoever watches it will reap it."""
        taken = self.take()
        if taken is not None:
            taken[1].kill()

    def patience(self) -> float | None:
        """Seconds for which the one made ahead may still wait; None without one."""
        return None if self.ready is None else self.since + IDLE_S - time.monotonic()

    def plan(self) -> tuple[str, Plan]:
        """A new id, and the plan of the container with it."""
        if self._template is None:
            self._template = Template(pickle.loads(self._data), self._identity)
        identity = os.urandom(6).hex()
        return identity, self._template.plan(identity)


class MountTable:
    """Tells whether anything was mounted or unmounted on this process's side of the machine."""

    def __init__(self) -> None:
        self._fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLPRI)

    def changed(self) -> bool:
        """Whether it has changed since the last time this was asked. Source: proc_pid_mountinfo(5)."""
        return bool(self._poll.poll(0))
