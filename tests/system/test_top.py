"""`corten top` in a terminal (tmux): what it shows, what its keys do, and the terminal afterwards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

import corten
import small_root
from corten.linux.cgroup import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 20.0
UP = "echo up; sleep 600"
FOOT = "space hold  h help"


class Terminal:
    """A shell in a terminal of tmux, whose screen can be read."""

    def __init__(self, place: Path) -> None:
        self.socket = str(place / "tmux")
        self.shell = place / "rc"
        self.shell.write_text("PS1='ready$ '\n")
        words = ["env", f"CORTEN_HOME={os.environ['CORTEN_HOME']}", "TERM=screen-256color", f"ENV={self.shell}", "sh"]
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "24", *words)
        self.until(lambda page: "ready$" in page)

    def tmux(self, *words: str) -> str:
        return subprocess.run(["tmux", "-S", self.socket, *words], capture_output=True, text=True, check=True).stdout

    def page(self) -> str:
        return self.tmux("capture-pane", "-p")

    def press(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def until(self, seen: Callable[[str], object]) -> str:
        """The screen as soon as it is as wanted."""
        deadline = time.monotonic() + PATIENCE
        while not seen(page := self.page()):
            assert time.monotonic() < deadline, page
            time.sleep(0.03)
        return page

    def settings(self) -> str:
        """The terminal's own settings, by the shell in it."""
        mark = os.urandom(4).hex()
        self.press(f"clear; stty -a | cksum; echo {mark[:4]}''{mark[4:]}", "Enter")
        page = self.until(lambda page: mark in page)
        return next(line for line in page.splitlines() if re.fullmatch(r"\d+ \d+", line.strip()))

    def start(self, *words: str) -> list[int]:
        """Start the view; the processes of guard and screen."""
        self.press(" ".join(["clear;", small_root.CORTEN, "top", *words]) + "; echo ended $?", "Enter")
        self.until(lambda page: page.startswith("corten top"))
        shell = int(self.tmux("display-message", "-p", "#{pane_pid}"))
        guard = children(shell)[0]
        return [guard, children(guard)[0]]

    def ended(self) -> int:
        """The exit code, once the shell has the terminal again."""
        page = self.until(lambda page: re.search(r"^ended \d+", page, re.MULTILINE))
        found = re.search(r"^ended (\d+)", page, re.MULTILINE)
        assert found
        return int(found[1])


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path)
    yield made
    made.tmux("kill-server")


@pytest.fixture
def boxes() -> Iterator[list[corten.Container]]:
    names = ("apple", "banana", "cherry")
    found = [small_root.start(UP, name=name, memory=f"{32 * (n + 1)}m", pids=20) for n, name in enumerate(names)]
    for box in found:
        assert small_root.line(box) == "up"
    yield found
    for box in found:
        box.__exit__(None, None, None)


def order(page: str) -> list[str]:
    return [line.split()[0] for line in page.splitlines() if line.startswith(("apple ", "banana ", "cherry "))]


def test_containers_and_keys(terminal: Terminal, boxes: list[corten.Container]) -> None:
    terminal.start("--interval", "0.5")
    page = terminal.until(lambda page: len(order(page)) == 3)
    (line,) = (line for line in page.splitlines() if line.startswith("banana"))
    assert boxes[1].id in line
    assert "64 MiB" in line
    terminal.press("n")
    terminal.until(lambda page: order(page) == ["apple", "banana", "cherry"])
    terminal.press("n")
    terminal.until(lambda page: order(page) == ["cherry", "banana", "apple"])
    terminal.press("n", "/", "an")
    terminal.until(lambda page: order(page) == ["banana"])
    terminal.press("Escape")
    terminal.until(lambda page: len(order(page)) == 3)
    # the processes of the chosen one are below
    terminal.press("Home", "Down")
    terminal.until(lambda page: f"{boxes[1].pid} " in page and "corten:init" in page)
    terminal.press("f")
    terminal.until(lambda page: "banana: frozen" in page and re.search(r"^banana .* paused ", page, re.MULTILINE))
    terminal.press("f")
    terminal.until(lambda page: "banana: runs again" in page)
    terminal.press("r")
    terminal.until(lambda page: "limits for banana: memory=" in page)
    terminal.press("96m pids=7", "Enter")
    terminal.until(lambda page: "banana: memory=96m pids=7" in page and page.rstrip().endswith(FOOT))
    group = boxes[1]._plan.group
    assert group is not None
    assert files.number(f"{group.directory('pids')}/pids.max") == 7
    terminal.press("r", "x", "Enter")
    terminal.until(lambda page: "memory: 'x' is not a size" in page and page.rstrip().endswith(FOOT))
    terminal.press("k")
    terminal.until(lambda page: "signal for banana: TERM" in page)
    terminal.press("BSpace", "BSpace", "BSpace", "BSpace", "KILL", "Enter")
    terminal.until(lambda page: order(page) == ["apple", "cherry"])
    assert boxes[1].wait(20).signal == signal.SIGKILL
    terminal.press("h")
    terminal.until(lambda page: "freeze the chosen container" in page)
    terminal.press("q")
    assert terminal.ended() == 0


def test_containers_come_and_go(terminal: Terminal) -> None:
    terminal.start("--interval", "0.5")
    with small_root.start(UP, name="apple") as box:
        terminal.until(lambda page: order(page) == ["apple"])
        terminal.tmux("resize-window", "-x", "60", "-y", "8")
        terminal.until(lambda page: len(page.splitlines()) <= 8 and order(page) == ["apple"])
        terminal.tmux("resize-window", "-x", "30", "-y", "4")
        terminal.until(lambda page: "the terminal is" in page)
        terminal.tmux("resize-window", "-x", "100", "-y", "24")
        box.kill()
        box.wait(20)
        terminal.until(lambda page: order(page) == [] and "CPU" in page)
    terminal.press("q")
    assert terminal.ended() == 0


@pytest.mark.parametrize("how", ["q", "C-c", "TERM", "HUP", "KILL the screen", "KILL the guard"])
def test_the_terminal_is_put_back(how: str, terminal: Terminal) -> None:
    before = terminal.settings()
    guard, screen = terminal.start()
    if how in ("q", "C-c"):
        terminal.press(how)
    else:
        os.kill(screen if "screen" in how else guard, getattr(signal, f"SIG{how.split(maxsplit=1)[0]}"))
    code = {"q": 0, "C-c": 0, "TERM": 143, "HUP": 129, "KILL the screen": 137}
    if how in code:  # else the shell told it on the other screen, which has been left since
        assert terminal.ended() == code[how]
    terminal.until(lambda page: "corten top  " not in page)  # the other screen has been left
    assert terminal.settings() == before
    assert terminal.tmux("display-message", "-p", "#{alternate_on}#{cursor_flag}") == "01\n"
    terminal.until(lambda _: not any(Path(f"/proc/{pid}").exists() for pid in (guard, screen)))


def test_a_mistake_in_the_view_leaves_the_terminal_alone(terminal: Terminal) -> None:
    before = terminal.settings()
    wrong = "import corten.views.top.model as m, sys; m.page = None; sys.argv[1:] = ['top']; "
    run = "from corten.cli.main import command; command()"
    python = Path(small_root.CORTEN).parent / "python"
    terminal.press(f'clear; {python} -c "{wrong}{run}"; echo ended $?', "Enter")
    assert terminal.ended() == 125
    assert "corten: a mistake in corten itself: TypeError" in terminal.page()
    assert terminal.settings() == before


def test_bad_input(command: Callable[..., subprocess.CompletedProcess[str]], terminal: Terminal) -> None:
    for words, said in (([], "top needs a terminal"), (["--interval", "0"], "--interval"), (["x"], "unexpected")):
        done = command("top", *words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1)
        assert said in done.stderr
    terminal.press(f"clear; TERM=none {small_root.CORTEN} top; echo ended $?", "Enter")
    assert terminal.ended() == 125
    assert "terminal type 'none'" in terminal.page()
