"""One thread of the process that waits for everything that calls in containers do, and reacts.

Rule 1: what lanes, workers and zygotes hold is touched by this thread only; others hand it work with `post`.
Rule 2: nothing here blocks: descriptors are polled, deadlines lie in a heap.
Rule 3: a forked copy of the process has no loop: the thread was not copied, and the containers are its parent's.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable


class Timer:
    """A callback that will be called once, unless cancelled."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Do not call it."""
        self.callback = None


class Loop:
    """The thread and what it watches."""

    def __init__(self) -> None:
        from collections import deque

        self._poll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._posted: deque[Callable[[], object]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._wake, select.EPOLLIN)
        self._awake = True
        self._live = True
        self.thread = threading.Thread(target=self._run, name="corten:loop", daemon=True)
        self.thread.start()

    def post(self, work: Callable[[], object]) -> None:
        """Have it done in the loop's thread. From any thread. Nothing, once that has ended: then all is closed."""
        if not self._live:
            return
        self._posted.append(work)
        if not self._live:
            self._do_posted()  # it ended at this very moment
        elif not self._awake:
            os.eventfd_write(self._wake, 1)

    def ask(self, work: Callable[[], object]) -> object:
        """Have it done in the loop's thread, and wait for what it returns or raises."""
        if threading.current_thread() is self.thread or not self._live:
            return work()
        from concurrent.futures import Future

        future: Future[object] = Future()

        def answer() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        self.post(answer)
        return future.result()

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        """Call the handler whenever the descriptor is readable, or its other end has gone."""
        self._handlers[fd] = handler
        self._poll.register(fd, select.EPOLLIN)

    def forget(self, fd: int) -> None:
        """Stop watching; before the descriptor is closed."""
        if self._handlers.pop(fd, None):
            self._poll.unregister(fd)

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call it once, after so many seconds."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._count), timer))
        return timer

    def _patience(self) -> float:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1

    def stop(self) -> None:
        """End the thread; from another one. Whoever watched something has let go of it before."""
        self.post(self._stop)
        self.thread.join()
        self._do_posted()
        self._poll.close()
        os.close(self._wake)

    def _stop(self) -> None:
        self._live = False

    def _run(self) -> None:
        while self._live:
            self._awake = False
            patience = 0 if self._posted else self._patience()
            events = self._poll.poll(patience)
            self._awake = True
            for fd, _ in events:
                if fd == self._wake:
                    os.eventfd_read(fd)
                    continue
                handler = self._handlers.get(fd)
                if handler:
                    self._guarded(handler)
            self._do_posted()
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                callback = heapq.heappop(self._timers)[2].callback
                if callback:
                    self._guarded(callback)

    def _do_posted(self) -> None:
        while self._posted:
            try:
                work = self._posted.popleft()
            except IndexError:  # at the end, several threads may be here
                return
            self._guarded(work)

    def _guarded(self, work: Callable[[], object]) -> None:
        """One lane's mishap must not stop the others."""
        try:
            work()
        except BaseException:  # shown as an uncaught exception of a thread would be
            sys.excepthook(*sys.exc_info())
