"""What containers use now, as a table. Pure."""

from __future__ import annotations

from corten.engine.listing import Live
from corten.views.samples import RESOURCES, Reading, cpus_between
from corten.views.tables import bytes_text, render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

TITLES = ("CONTAINER", "NAME", "STATUS", "CPU %", "OF", "MEMORY", "OF", "TASKS", "OF", "WAITS cpu", "memory", "io %")
_ALIGN = "<<<>>>>>>>>>"


def table(
    containers: Iterable[Live], readings: dict[str, tuple[Reading | None, Reading | None]], width: int | None = None
) -> str:
    """A line for each container. readings: by id the one before and the last; None: gone, or not read yet."""
    return render(TITLES, [cells(one, *readings.get(one.id, (None, None))) for one in containers], _ALIGN, width)


def cells(one: Live, before: Reading | None, now: Reading | None) -> tuple[str, ...]:
    """One line, as text; `-` for what is not limited, `?` for what is not known."""
    if now is None:
        return (one.id, one.name, "gone", *[""] * 9)
    used = None if before is None else cpus_between(before, now)
    return (
        one.id,
        one.name,
        one.status,
        "?" if used is None else f"{used * 100:.1f}",
        "-" if now.cpu_limit is None else f"{now.cpu_limit * 100:g}",
        bytes_text(now.memory) or "?",
        bytes_text(now.memory_limit) or "-",
        "?" if now.pids is None else str(now.pids),
        "-" if now.pids_limit is None else f"{now.pids_limit:.0f}",
        *(f"{now.pressure[name]:.1f}" if name in now.pressure else "?" for name in RESOURCES),
    )
