"""A container in the foreground of a terminal or a script: the launcher is this very process.

Rule 1: signals are blocked and read from a descriptor, so none is lost and none arrives in the middle of a step.
Rule 2: whatever happens, the terminal is set back to what it was.
"""

from __future__ import annotations

import os
import select

from corten import output
from corten.engine import home
from corten.engine.options import RunOptions
from corten.engine.prepare import Prepared, prepare
from corten.engine.result import Result, account_line, error_of, result_of
from corten.errors import Error, printable
from corten.linux import signals
from corten.linux.signals import Mask
from corten.runtime import channel
from corten.runtime.launcher import Launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from corten.engine.relay import Relay
    from corten.images.registry.watching import Watcher
    from corten.runtime.launcher import Reported

# The kernel's business between a job and its terminal; stopping the command must not stop the container's init.
_NOT_FORWARDED = (signals.CHLD, signals.PIPE, signals.TTIN, signals.TTOU, signals.TSTP, signals.CONT, signals.WINCH)


def run_attached(
    options: RunOptions,
    *,
    interactive: bool,
    tty: bool,
    summary: bool = False,
    watch: Callable[[], Watcher] | None = None,
) -> int:
    """Run a container with this process's streams; the exit code to end with.

    interactive: keep stdin; tty: give it a terminal of its own, which this process's terminal is joined to;
    summary: print the one-line account even if no limit ended it; watch: gives who is told how it goes if
    the image must be fetched.
    """
    home.sweep(home.directory())
    with signals.Unwinding():  # an archive may have to be unpacked, or an image fetched
        prepared = prepare(options, watch=watch)
    for line in prepared.not_applied:
        output.remark(f"corten: {line}")
    opened = []
    stdin = 0
    if not interactive and not tty:
        stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        opened.append(stdin)
    mask = signals.block_all()
    try:
        result = _Attached(prepared, (stdin, 1, 2), interactive, mask).run()
    finally:
        signals.restore(mask)
        for fd in opened:
            os.close(fd)
    if summary:
        output.remark(f"corten: {printable(account_line(result, options))}")
    elif result.ended_by_limit():
        output.remark(f"corten: {printable(result.reason)}")
    return result.exit_code


class _Attached:
    """The loop of one container in the foreground."""

    def __init__(self, prepared: Prepared, stdio: tuple[int, int, int], interactive: bool, mask: Mask) -> None:
        self.prepared = prepared
        self.interactive = interactive
        self.failure: Error | None = None
        self.relay: Relay | None = None
        self.signals = signals.descriptor()
        self.poll = select.poll()
        self.launch = Launch(prepared.plan, stdio, self.on_message, mask)

    def on_message(self, message: Reported, descriptors: tuple[int, ...]) -> None:
        if isinstance(message, channel.Failed):
            self.failure = error_of(message.kind, message.errno, message.text, self.prepared.foreign)
        elif isinstance(message, channel.Terminal) and descriptors:
            from corten.engine.relay import Relay

            self.relay = Relay(descriptors[0], self.interactive, self.poll)

    def run(self) -> Result:
        launch, poll = self.launch, self.poll
        for fd in (self.signals, launch.channel.fileno(), launch.pidfd):
            poll.register(fd, select.POLLIN)
        try:
            try:
                self.serve()
            except BaseException:  # its output cannot be shown: nobody would know how it goes on
                launch.kill()
                launch.discard()
                raise
            account = launch.settle()
        finally:
            if self.relay is not None:
                self.relay.close()
            os.close(self.signals)
        if self.failure is not None:
            raise self.failure
        return result_of(account, self.prepared.options, self.prepared.not_applied)

    def serve(self) -> None:
        """Join the two sides until the container's first process has ended."""
        launch, poll = self.launch, self.poll
        while True:
            ready = [fd for fd, _ in poll.poll(launch.patience())]
            if self.signals in ready:
                self.on_signals()
            if launch.channel.fileno() in ready and not launch.read_channel():
                poll.unregister(launch.channel.fileno())
            if self.relay is not None:
                self.relay.serve(ready)
            if launch.pidfd in ready:
                break
            launch.expire_if_due()
        if self.relay is not None:
            self.relay.drain()

    def on_signals(self) -> None:
        for signal in signals.pending(self.signals):
            if signal.number == signals.WINCH and self.relay is not None:
                self.relay.resize()
            elif signal.number not in _NOT_FORWARDED and signal.number not in signals.ignored():
                asked = signal.number == signals.TERM
                self.launch.signal((asked and self.prepared.options.stop_signal) or signal.number)
