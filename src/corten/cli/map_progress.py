"""What `corten map` shows on a terminal: a bar that moves, failures above it."""

from __future__ import annotations

import os
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining

from corten.cli.map_report import Quiet, copy, failure, shown, summary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from corten.compute.jobs.state import Job, Row
    from corten.compute.jobs.words import Item


class Live(Quiet):
    """A bar on standard error. What is written meanwhile to the same terminal goes above it."""

    def __init__(self, job: Job, stop: int) -> None:
        super().__init__(job, stop)
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(), Remaining(), TextColumn("[dim]{task.fields[now]}"),
            console=self._console, transient=True, redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        self._task = self._progress.add_task("", total=job.total, completed=job.skipped, state="", now="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        self.tell(summary(self.job, time.monotonic() - self.since))

    def begun(self, job: Job, item: Item) -> None:
        """An input's container is being started."""
        self._update(job, item)

    def ended(self, job: Job, item: Item, row: Row, last: bool) -> None:
        """An input's try has ended."""
        line = failure(job, item, row, last)
        if line:
            self._console.print(f"corten: {line}", style="red" if last else "yellow", markup=False, soft_wrap=True)
        self._update(job, item)

    def _update(self, job: Job, item: Item) -> None:
        failed = f", [red]{job.failed} failed[/red]" if job.failed else ""
        self._progress.update(
            self._task, completed=job.skipped + job.done + job.failed, state=f"{len(job.running)} running{failed}",
            now=shown(item.text, 30).replace("[", "\\["),
        )  # fmt: skip

    def output(self, stdout: int, stderr: int) -> None:
        """What an input wrote: through the console where it goes to the terminal, so that the bar stays whole."""
        if not os.isatty(1):
            copy(stdout, 1, self.stop)
        else:
            self._show(stdout)
        self._show(stderr)

    def _show(self, source: int) -> None:
        offset = 0
        while data := os.pread(source, 1 << 20, offset):
            offset += len(data)
            self._console.out(data.decode(errors="replace").rstrip("\n"), highlight=False)
