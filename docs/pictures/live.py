"""Makes the pictures of docs/looking.md: `top` in a terminal driven by tmux, and `stats --plot`, of real containers.

As root, with tmux installed: .venv/bin/python docs/pictures/live.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from typing import Any

from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME, TerminalTheme
from rich.text import Text

import corten
from corten import views

HERE = os.path.dirname(os.path.abspath(__file__))
CORTEN = os.path.join(os.path.dirname(sys.executable), "corten")
COLUMNS, LINES = 104, 22
_ANSI = [(0, 0, 0), *(tuple(SVG_EXPORT_THEME.ansi_colors[number]) for number in range(1, 16))]
# With a true black: what is chosen is black on a colour.
THEME = TerminalTheme(
    SVG_EXPORT_THEME.background_color, SVG_EXPORT_THEME.foreground_color, _ANSI[:8], _ANSI[8:]  # type: ignore[arg-type]
)
SPIN = "while :; do :; done"
# name: (what it does, its limits)
BOXES: dict[str, tuple[str, dict[str, Any]]] = {
    "trainer": (f"echo up; {SPIN}", {"memory": "512m", "cpus": 0.6, "pids": 64}),
    "loader-1": ("echo up; while :; do sleep 0.01; done", {"memory": "64m", "cpus": 0.5, "pids": 32}),
    "loader-2": ("echo up; while :; do sleep 0.01; done", {"memory": "64m", "cpus": 0.5, "pids": 32}),
    "notebook": ("head -c 24m /dev/zero >/dev/shm/x; echo up; sleep 600", {"memory": "256m", "pids": 128}),
    "cache": ("head -c 64m /dev/zero >/dev/shm/x; echo up; sleep 600", {"memory": "68m", "shm_size": "66m"}),
    "agent-7f": ("for i in 1 2 3 4 5 6 7; do sleep 600 & done; echo up; wait", {"memory": "128m", "pids": 10}),
    "frozen": ("echo up; sleep 600", {"memory": "32m", "pids": 8}),
    "idle": ("echo up; sleep 600", {}),
}


def tmux(*words: str) -> str:
    done = subprocess.run(["tmux", "-L", f"corten-{os.getpid()}", *words], capture_output=True, text=True, check=True)
    return done.stdout


def start(stack: ExitStack, name: str, script: str, limits: dict[str, Any]) -> corten.Container:
    box = stack.enter_context(corten.start("host", ["sh", "-c", script], name=name, **limits))
    assert box.stdout is not None
    assert box.stdout.readline() == b"up\n"
    return box


def top() -> None:
    with ExitStack() as stack:
        boxes = {name: start(stack, name, *what) for name, what in BOXES.items()}
        group = boxes["frozen"]._plan.group
        assert group is not None
        group.freeze()
        tmux("new-session", "-d", "-x", str(COLUMNS), "-y", str(LINES), f"{CORTEN} top")
        try:
            time.sleep(5)
            page = tmux("capture-pane", "-p", "-e")
        finally:
            tmux("kill-server")
        group.thaw()
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(Text.from_ansi(page.rstrip("\n")), soft_wrap=True)
        text = console.export_svg(title="corten top", unique_id="corten-top", theme=THEME)
    # Nothing is fetched by whoever looks at it: the reader's own fonts.
    begin, end = text.index("@font-face"), text.rindex("@font-face")
    text = text[:begin] + text[text.index("}", end) + 1 :].replace("Fira Code, monospace", "monospace")
    with open(os.path.join(HERE, "top.svg"), "w", encoding="utf-8") as file:
        file.write(text)


def stats() -> None:
    """Ten seconds of two containers: one is given more CPU, the other runs out of memory at a new limit."""
    greedy = (
        "echo up; for i in 1 2 3 4 5 6; do head -c 12m /dev/zero >/dev/shm/$i; sleep 1; done;"
        "tail /dev/zero; sleep 60"
    )
    with ExitStack() as stack:
        trainer = start(stack, "trainer", f"echo up; {SPIN}", {"memory": "64m", "cpus": 0.5})
        loader = start(stack, "loader", greedy, {"memory": "160m", "memory_swap": "160m", "cpus": 0.8})
        at = {2.0: lambda: trainer.update(cpus=1.0), 4.0: lambda: loader.update(memory="120m", memory_swap="120m"),
              7.0: lambda: trainer.update(cpus=0.3)}  # fmt: skip
        timers = [threading.Timer(seconds, do) for seconds, do in at.items()]
        for timer in timers:
            timer.start()
        series = views.record("trainer", "loader", duration=10.0, interval=0.25)
        for timer in timers:
            timer.join()
    views.plot(series, os.path.join(HERE, "stats.png"))


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="corten-live-") as home:
        os.environ["CORTEN_HOME"] = home
        top()
        stats()


if __name__ == "__main__":
    main()
