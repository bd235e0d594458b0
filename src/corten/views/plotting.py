"""CPU, memory and pressure of containers over time, as a picture: with their limits, and what happened marked.

Rule: matplotlib is imported here and nowhere else (an extra, `pip install corten[plot]`): it costs 0.7 s to import.
"""

from __future__ import annotations

import os

from corten.errors import Error, InvalidInput, Unsupported
from corten.views.samples import RESOURCES, Series
from corten.views.tables import cut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

SUFFIXES = ("png", "svg", "pdf")
_MIB = 1 << 20
# Told apart also by those who do not see all colours. Source: Okabe and Ito 2008, "Color Universal Design".
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7F7F7F")
_MARKS = {"light": {"oom": "#C00000", "resize": "#6A3D9A", "end": "#808080"},
          "dark": {"oom": "#FF6B6B", "resize": "#C9A0FF", "end": "#A0A0A0"}}  # fmt: skip
_STYLES: dict[str, Any] = {"cpu": "-", "memory": "--", "io": ":"}
_LEGEND = 8
_EVENTS = 11
_COLUMN = 38
"""Characters beside the panels."""
_THEMES = {"light": ("#FFFFFF", "#222222", "#DDDDDD"), "dark": ("#16181C", "#DDDDDD", "#3A3D44")}


def check(path: str) -> str:
    """The format that a file name asks for. `InvalidInput`: unknown, or there is no such directory."""
    suffix = os.path.splitext(path)[1].lstrip(".").lower()
    if suffix not in SUFFIXES:
        known = ", ".join(f".{name}" for name in SUFFIXES)
        raise InvalidInput(f"{path}: a picture is {known}" + ("" if suffix else ": the name has no suffix"))
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        raise InvalidInput(f"{path}: there is no directory {directory}")
    return suffix


def check_library() -> None:
    """`Unsupported` if matplotlib is not installed; does not load it."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise Unsupported("plots need matplotlib: pip install 'corten[plot]'")


def plot(series: Sequence[Series], path: str, theme: str = "light", title: str = "") -> None:
    """Draw series (`record`) to a file: three panels over time. The file is there whole or not at all.

    path: ends in .png, .svg or .pdf; theme: light or dark; title: above all, made from the names without one.
    `InvalidInput`: unknown suffix or theme, nothing to draw; `Unsupported`: matplotlib is not installed; `Error`: the
    file cannot be written.
    """
    suffix = check(path)
    if theme not in _THEMES:
        raise InvalidInput(f"theme {theme!r}: light or dark")
    drawn = [one for one in series if len(one.readings) > 1]
    if not drawn:
        raise InvalidInput(f"{path}: nothing to draw: no container was read twice")
    check_library()
    from matplotlib import rc_context

    named = title or ", ".join(cut(one.label, _COLUMN) for one in drawn[:4]) + ("…" if len(drawn) > 4 else "")
    draft = f"{path}.{os.getpid()}.{suffix}"
    try:
        with rc_context(_settings(theme)):
            figure = _figure(drawn, theme, named)
            # No date in the file: the same series give the same picture.
            figure.savefig(draft, dpi=130, metadata={"Date": None} if suffix == "svg" else None)
        os.rename(draft, path)
    except OSError as error:
        if os.path.exists(draft):
            os.unlink(draft)
        raise Error(f"cannot write {path}: {error.strerror}") from None


def _settings(theme: str) -> Any:
    ground, ink, grid = _THEMES[theme]
    return {
        "text.color": ink, "axes.labelcolor": ink, "axes.edgecolor": grid, "xtick.color": ink, "ytick.color": ink,
        "axes.facecolor": ground, "figure.facecolor": ground, "savefig.facecolor": ground, "grid.color": grid,
        "font.size": 9, "axes.grid": True, "axes.spines.top": False, "axes.spines.right": False,
        "svg.fonttype": "none", "svg.hashsalt": "corten", "legend.frameon": False,
    }  # fmt: skip


def _figure(series: Sequence[Series], theme: str, title: str) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True)
    start = min(one.readings[0].at for one in series)
    for number, one in enumerate(series):
        colour = _COLOURS[number % len(_COLOURS)]
        _cpu(panels[0], one, start, colour)
        _memory(panels[1], one, start, colour)
        _pressure(panels[2], one, start, colour)
    _events(panels, series, start, theme)
    for panel, name in zip(panels, ("CPUs in use", "memory, MiB", "waiting, % of the time"), strict=True):
        panel.set_ylabel(name)
        panel.set_ylim(bottom=0)
    panels[-1].set_ylim(top=max(5.0, panels[-1].get_ylim()[1]))
    panels[-1].set_xlabel("seconds")
    panels[0].set_title(title, loc="left", fontweight="bold", pad=14)
    _legends(panels, series, _THEMES[theme][1])
    return figure


def _cpu(panel: Any, one: Series, start: float, colour: str) -> None:
    points = one.cpus()
    panel.plot([at - start for at, _ in points], [used for _, used in points], color=colour, linewidth=1.6)
    _limit(panel, one, start, colour, "cpu_limit", 1.0)


def _memory(panel: Any, one: Series, start: float, colour: str) -> None:
    known = [(reading.at - start, reading.memory / _MIB) for reading in one.readings if reading.memory is not None]
    panel.plot([at for at, _ in known], [used for _, used in known], color=colour, linewidth=1.6)
    _limit(panel, one, start, colour, "memory_limit", _MIB)


def _limit(panel: Any, one: Series, start: float, colour: str, field: str, unit: float) -> None:
    """The limit as steps, where there is one."""
    values = [getattr(reading, field) for reading in one.readings]
    if any(value is not None for value in values):
        shown = [float("nan") if value is None else value / unit for value in values]
        at = [reading.at - start for reading in one.readings]
        panel.step(at, shown, where="post", color=colour, linewidth=1.1, linestyle=(0, (5, 3)))


def _pressure(panel: Any, one: Series, start: float, colour: str) -> None:
    for name in RESOURCES:
        points = one.waits(name)
        panel.plot([at - start for at, _ in points], [share for _, share in points], color=colour, linewidth=1.3,
                   linestyle=_STYLES[name])  # fmt: skip


def _events(panels: Any, series: Sequence[Series], start: float, theme: str) -> None:
    """A line through all panels for each event, with a number above the first; the list of them stands beside it."""
    import textwrap

    merged: dict[tuple[float, str, str], list[str]] = {}
    for one in series:
        for event in one.events:
            merged.setdefault((event.at - start, event.kind, one.label), []).append(event.words)
    rows = []
    for number, ((at, kind, label), words) in enumerate(sorted(merged.items()), 1):
        colour = _MARKS[theme][kind]
        for panel in panels:
            panel.axvline(at, color=colour, linewidth=1.0, alpha=0.8, linestyle="-" if kind == "oom" else "-.")
        panels[0].annotate(str(number), (at, 1.0), xycoords=("data", "axes fraction"), color=colour, fontsize=8,
                           xytext=(0, 2), textcoords="offset points", ha="center", va="bottom")  # fmt: skip
        name = "" if len(series) == 1 else f"{label}: "
        first, *more = textwrap.wrap(f"{number}  {at:.1f} s  {name}{', '.join(words)}", _COLUMN)
        rows += [(first, colour), *((f"     {line}", colour) for line in more)]
    if len(rows) > _EVENTS:
        rows = [*rows[:_EVENTS], ("and more", rows[-1][1])]
    for line, (words_of_it, colour) in enumerate(rows):
        panels[0].annotate(words_of_it, (1.01, 0.98 - line * 0.085), xycoords="axes fraction", color=colour,
                           fontsize=7.5, va="top", annotation_clip=False)  # fmt: skip


def _legends(panels: Any, series: Sequence[Series], ink: str) -> None:
    from matplotlib.lines import Line2D

    rows = [
        Line2D([], [], color=_COLOURS[number % len(_COLOURS)], label=cut(one.label, _COLUMN))
        for number, one in enumerate(series)
    ]
    if len(rows) > _LEGEND:
        rows = [*rows[:_LEGEND], Line2D([], [], linestyle="", label=f"and {len(rows) - _LEGEND} more")]
    rows.append(Line2D([], [], color=ink, linestyle=(0, (5, 3)), label="limit"))
    panels[1].legend(handles=rows, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)
    kinds = [Line2D([], [], color=ink, linestyle=_STYLES[name], label=f"for {name}") for name in RESOURCES]
    panels[2].legend(handles=kinds, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)
