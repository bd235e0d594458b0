"""How transfers are ended from another thread: at once, even where a registry does not answer.

Rule: a thread that waits for a connection is woken by shutting that connection down; a close would not wake it.
"""

from __future__ import annotations

import socket
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Halt:
    """Set once, by whoever wants the end. above: another one that sets this one, too."""

    def __init__(self, above: Halt | None = None) -> None:
        self._event, self._lock = threading.Event(), threading.Lock()
        self._then: list[Callable[[], None]] = []
        if above is not None:
            above.when_set(self.set)

    def set(self) -> None:
        """End what goes on, and let nothing else begin."""
        self._event.set()
        with self._lock:
            then, self._then = self._then, []
        for do in then:
            do()

    def is_set(self) -> bool:
        """Whether it is over."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until it is over; whether it is."""
        return self._event.wait(seconds)

    def when_set(self, do: Callable[[], None]) -> None:
        """Have something called at the end; now, if that has come."""
        with self._lock:
            if not self._event.is_set():
                self._then.append(do)
                return
        do()

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """What httpcore calls with what it does (its extension `trace`): new connections are noted."""
        if event in _CONNECTED:
            connection = info["return_value"].get_extra_info("socket")
            if connection is not None:
                self.when_set(lambda: _wake(connection))


_CONNECTED = ("connection.connect_tcp.complete", "connection.start_tls.complete", "proxy.start_tls.complete")


def _wake(connection: socket.socket) -> None:
    try:
        # Of a TLS connection this one's method would take its state apart under the thread that reads.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:  # it is closed, or not connected any more
        pass
