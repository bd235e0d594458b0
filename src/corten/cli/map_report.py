"""What `corten map` says where nobody watches: a line for each failure, and one at the end."""

from __future__ import annotations

import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from corten.compute.jobs.state import Job, Row
    from corten.compute.jobs.words import Item


class Quiet:
    """Lines on standard error; output of inputs goes where it belongs."""

    def __init__(self, job: Job, stop: int) -> None:
        """stop: readable when all is to end."""
        self.job, self.stop = job, stop
        self.since = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.tell(summary(self.job, time.monotonic() - self.since))

    def tell(self, line: str) -> None:
        """Say something."""
        try:
            sys.stderr.write(f"corten: {line}\n")
            sys.stderr.flush()
        except OSError:
            pass  # nobody reads it; the account and the exit code still say so

    def begun(self, job: Job, item: Item) -> None:
        """An input's container is being started."""

    def ended(self, job: Job, item: Item, row: Row, last: bool) -> None:
        """An input's try has ended."""
        line = failure(job, item, row, last)
        if line:
            self.tell(line)

    def output(self, stdout: int, stderr: int) -> None:
        """What an input wrote, in files."""
        copy(stdout, 1, self.stop)
        copy(stderr, 2, self.stop)


def failure(job: Job, item: Item, row: Row, last: bool) -> str:
    """A line about a try that failed; empty for one that did not."""
    if row.exit_code == 0:
        return ""
    again = "" if last else f": again, try {job.tries(item) + 1} of {job.retries + 1}"
    return f"{shown(item.text)}: {row.reason} after {row.seconds:.2f} s{again}"


def summary(job: Job, seconds: float) -> str:
    """How it all ended."""
    parts = [f"{job.done} of {job.total} inputs done"]
    if job.skipped:
        parts.append(f"{job.skipped} were done before")
    if job.failed:
        parts.append(f"{job.failed} failed")
    if job.left:
        parts.append(f"{job.left} not done")
    return ", ".join(parts) + f", in {seconds:.1f} s"


def shown(text: str, most: int = 60) -> str:
    """An input for people: printable, in one line, cut if it is long."""
    printable = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    return printable if len(printable) <= most else printable[: most - 1] + "…"


def copy(source: int, target: int, stop: int) -> None:
    """What is in a file, from its beginning, to a descriptor; until `stop` is readable: a pager that nobody scrolls
    must not keep Ctrl-C waiting."""
    poll = select.poll()
    poll.register(target, select.POLLOUT)
    poll.register(stop, select.POLLIN)
    offset = 0
    while data := os.pread(source, select.PIPE_BUF, offset):
        if any(fd == stop for fd, _ in poll.poll()):
            return
        offset += os.write(target, data)
