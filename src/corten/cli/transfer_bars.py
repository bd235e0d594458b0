"""Bars of blobs on a terminal, as many columns of them as it is wide for. Loaded when there is something to draw."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from corten.engine.quantities import show_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table

_RESTING = ("waiting", "there", "mounted", "done")
"""Phases in which nothing moves."""
_POWERS = {"KiB": 1, "MiB": 2, "GiB": 3, "TiB": 4}
_WIDE, _MIDDLE = 78, 55
"""Columns of a terminal for all; for all but the bar itself. Below, a percentage stands for sizes and rate."""


class Bars(Progress):
    """One line for each blob, and one for `all`. The field `phase` of a task is the word that is shown for it."""

    def __init__(self) -> None:
        self._out = Console(stderr=True)  # what draws asks for it before there is `self.console`
        self.all = TaskID(-1)
        super().__init__(console=self._out)
        self.all = self.add_task("together", total=0, visible=False, phase="")

    def write(self, data: bytes) -> None:
        """Lines above the bars."""
        self.console.print(Text.from_ansi(data.decode(errors="replace").rstrip("\n")), soft_wrap=True)

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """The lines, for the terminal as wide as it is now."""
        self.columns = _columns(self._out.width)
        shown = sorted(tasks, key=lambda task: task.id == self.all)
        if len(shown) > self._out.height - 2:  # then what moves is shown
            shown = [task for task in shown if task.fields["phase"] not in _RESTING]
        return super().make_tasks_table(shown)


def _columns(width: int) -> tuple[ProgressColumn, ...]:
    name, phase = TextColumn("{task.description}"), TextColumn("{task.fields[phase]:<9}")
    if width >= _WIDE:
        return name, phase, BarColumn(min(width - 57, 40)), _Sizes(), _Rate()
    if width >= _MIDDLE:
        return name, phase, _Sizes(), _Rate()
    return name, phase, TextColumn("{task.percentage:>3.0f} %")


class _Sizes(ProgressColumn):
    """`1.2 / 20 MiB`."""

    max_refresh = 0.2

    def get_table_column(self) -> Column:
        """It never breaks a line."""
        return Column(no_wrap=True, justify="right")

    def render(self, task: Task) -> Text:
        """What is there and what will be."""
        whole = show_size(int(task.total or 0))
        unit = whole.partition(" ")[2]
        done = f"{task.completed / 1024 ** _POWERS[unit]:.1f}" if unit in _POWERS else f"{task.completed:.0f}"
        return Text(f"{done} / {whole}", style="progress.download")


class _Rate(ProgressColumn):
    """`1.2 MiB/s`; nothing while it is not known, and for what did not move."""

    def get_table_column(self) -> Column:
        """It never breaks a line."""
        return Column(no_wrap=True, justify="right", min_width=10)

    def render(self, task: Task) -> Text:
        """Bytes in a second."""
        speed = task.finished_speed or task.speed
        return Text(f"{show_size(int(speed))}/s" if speed else "", style="progress.data.speed")
