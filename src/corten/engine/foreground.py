"""A container's process in the foreground: its terminal joined to ours, our signals passed on, its end awaited."""

from __future__ import annotations

import os
import select

from corten.linux import pidfd, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from corten.engine.child import Process
    from corten.engine.relay import Relay
    from corten.linux.signals import Mask

_NOT_FORWARDED = (signals.CHLD, signals.PIPE, signals.TTIN, signals.TTOU, signals.WINCH, 23)  # 23: SIGURG


def attend(
    child: Process, mask: Mask, release: Callable[[], None], also: tuple[int, Callable[[], None]] | None = None
) -> int:
    """Let the child become its program, and serve it to its end; its exit code, 128+N for signal N.

    mask: the signals as they were before they were blocked, which is to be done before the child is made; release:
    called when nothing waits for us any more but the end; also: a descriptor, and what to call when it has something.
    """
    arrived = signals.descriptor()
    poll = select.poll()
    relay: Relay | None = None
    try:
        if child.master >= 0:
            from corten.engine.relay import Relay

            relay = Relay(child.master, True, poll)
            child.master = -1
        release()
        poll.register(arrived, select.POLLIN)
        poll.register(child.pidfd, select.POLLIN)
        if also is not None:
            poll.register(also[0], select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if also is not None and also[0] in ready:
                also[1]()
            if arrived in ready:
                _pass_on(arrived, child.pidfd, relay)
            if relay is not None:
                relay.serve(ready)
            if child.pidfd in ready:
                break
        if relay is not None:
            relay.drain()
    finally:
        if relay is not None:
            relay.close()
        os.close(arrived)
        signals.restore(mask)
    status = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
    child.pid = 0
    return status if status >= 0 else 128 - status


def _pass_on(arrived: int, to: int, relay: Relay | None) -> None:
    for signal in signals.pending(arrived):
        if signal.number == signals.WINCH and relay is not None:
            relay.resize()
        elif signal.number not in _NOT_FORWARDED:
            pidfd.send_signal(to, signal.number)
