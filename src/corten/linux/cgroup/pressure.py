"""PSI: the share of time in which work waited for CPU, memory or disk. Source: the kernel's accounting/psi.rst."""

from __future__ import annotations

from corten.linux.cgroup import files
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.linux.cgroup.group import Group


class Pressure(Record):
    """some: at least one task waited; full: all did. avg: percent of the last 10 or 60 seconds; total_us:
    microseconds since the start.

    full_* is None where the kernel does not count it.
    """

    some_avg10: float
    some_avg60: float
    some_total_us: int
    full_avg10: float | None = None
    full_avg60: float | None = None
    full_total_us: int | None = None


def read(group: Group) -> dict[str, Pressure]:
    """Pressure by `cpu`, `memory`, `io`; only those the kernel tells (v2 and hybrid with PSI switched on).
    `OSError`."""
    directory = group.directory("cgroup")
    if directory is None:
        return {}
    found = {}
    for name in ("cpu", "memory", "io"):
        text = files.text(f"{directory}/{name}.pressure")
        if text:
            found[name] = parse(text)
    return found


def parse(text: str) -> Pressure:
    """A pressure file: lines `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`."""
    fields: dict[str, float] = {}
    for line in text.splitlines():
        kind, *words = line.split()
        for word in words:
            key, _, value = word.partition("=")
            if key == "total":
                fields[f"{kind}_total_us"] = int(value)
            elif key != "avg300":
                fields[f"{kind}_{key}"] = float(value)
    return Pressure(**fields)  # type: ignore[arg-type]
