"""`corten stats`: what containers use, once, again and again, or as a picture over time."""

from __future__ import annotations

import sys
import time

from corten.cli.parser import Command, Group, Option, UsageError, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

COMMAND = Command(
    "corten stats",
    "[OPTIONS] [CONTAINER...]",
    "Show CPU, memory, processes and pressure of containers (all live ones if none is named), and limits that hold.",
    (
        Group(
            "How long",
            (
                Option(("--watch",), "", "Again and again, until Ctrl-C or the end of all"),
                Option(("--interval",), "SECONDS", "Time between two readings (default: 1, with --plot 0.5)"),
                Option(("--duration",), "SECONDS", "The most, with --watch and --plot"),
                Option(("--no-stream",), "", hidden=True),
            ),
        ),
        Group(
            "Output",
            (
                Option(("--plot",), "FILE", "Record until Ctrl-C, --duration or the end; then draw (.png .svg .pdf)"),
                Option(("--theme",), "light|dark", "Of the picture"),
                Option(("--json",), "", "Print JSON, with --watch a line each time"),
            ),
        ),
    ),
    """
In the picture limits are dashed; resizes, kills for memory and ends are marked.
Pressure is the share of the last ten seconds in which something had to wait.""",
    interspersed=True,
)


def run(words: Sequence[str]) -> int:
    """Show or draw; 0."""
    values, names = parse(COMMAND, words)
    duration = _seconds(values, "duration", None)
    interval = _seconds(values, "interval", 0.5 if "plot" in values else 1.0)
    assert interval is not None
    if "plot" in values:
        return _plot(values, names, duration, interval)
    if duration is not None and not values.get("watch"):
        raise UsageError("--duration is for --watch and --plot")
    from corten.views import samples

    containers = samples.chosen(names)
    before: dict[str, samples.Reading | None] = {one.id: samples.read(one) for one in containers}
    end = None if duration is None else time.monotonic() + duration
    while True:
        time.sleep(interval)
        now = {one.id: samples.read(one) for one in containers}
        _show(containers, before, now, values)
        if not values.get("watch") or (end is not None and time.monotonic() >= end):
            return 0
        if containers and not any(now.values()):
            return 0
        before = now
        if not names:
            containers = samples.chosen(())


def _show(containers: Any, before: Any, now: Any, values: dict[str, Any]) -> None:
    from corten.views import samples, tables, usage_table

    if values.get("json"):
        from corten.json_text import dumps

        rows = []
        for one in containers:
            then, last = before.get(one.id), now[one.id]
            facts = {name: last.__dict__[name] for name in last._fields} if last else {}
            used = samples.cpus_between(then, last) if then and last else None
            rows.append({"id": one.id, "name": one.name, "status": one.status, "cpus": used, **facts})
        sys.stdout.write(dumps(rows) + "\n")
    else:
        pairs = {one.id: (before.get(one.id), now[one.id]) for one in containers}
        page = usage_table.table(containers, pairs, tables.terminal_width())
        clear = values.get("watch") and sys.stdout.isatty()
        sys.stdout.write(("\x1b[H" + page.replace("\n", "\x1b[K\n") + "\x1b[J") if clear else page)
    sys.stdout.flush()


def _plot(values: dict[str, Any], names: list[str], duration: float | None, interval: float) -> int:
    from corten.views import plotting, samples

    path, theme = values["plot"], values.get("theme", "light")
    plotting.check(path)  # now, and not after an hour of recording
    plotting.check_library()
    series = samples.record(*names, duration=duration, interval=interval)
    plotting.plot(series, path, theme)
    if values.get("json"):
        import json

        json.dump([one.to_json() for one in series], sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        for one in series:
            facts = [f"{len(one.readings)} readings", *(event.words for event in one.events)]
            sys.stdout.write(f"{one.label}: {'; '.join(facts)}\n")
    return 0


def _seconds(values: dict[str, Any], key: str, default: float | None) -> float | None:
    if key not in values:
        return default
    try:
        value = float(values[key].removesuffix("s"))
    except ValueError:
        value = 0.0
    if not 0.05 <= value <= 1e6:
        raise UsageError(f"--{key}: {values[key]!r} is not a number of seconds from 0.05 on")
    return value
