"""What `corten top` costs at 50 containers, beside procps `top` in the same seconds. As root: bench/top.py [SECONDS]"""

from __future__ import annotations

import os
import pty
import sys
import tempfile
import threading
import time
from pathlib import Path

CONTAINERS = 50
CORTEN = str(Path(sys.executable).parent / "corten")


def in_a_terminal(*words: str) -> tuple[int, int]:
    """Start a program in a terminal of its own; its pid and the terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", LINES="60", COLUMNS="120")
        os.execvp(words[0], words)
    threading.Thread(target=drain, args=(terminal,), daemon=True).start()
    return pid, terminal


def drain(terminal: int) -> None:
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        return


def family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(below for child in children for below in family(int(child)))]


def seconds_of(pid: int) -> float:
    """CPU time of a process and its children, to the nanosecond."""
    return sum(int(Path(f"/proc/{one}/schedstat").read_text().split()[0]) for one in family(pid)) / 1e9


def main() -> None:
    span = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    os.environ["CORTEN_HOME"] = tempfile.mkdtemp(prefix="corten-bench-")
    import corten

    limits = {"memory": "64m", "cpus": 0.5, "pids": 20}
    boxes = [corten.start("host", ["sleep", "3600"], **limits) for _ in range(CONTAINERS)]  # type: ignore[arg-type]
    started = {"corten top": in_a_terminal(CORTEN, "top"), "top -d 2": in_a_terminal("top", "-d", "2")}
    time.sleep(5)
    before = {name: seconds_of(pid) for name, (pid, _) in started.items()}
    time.sleep(span)
    for name, (pid, _) in started.items():
        print(f"{name:12} {100 * (seconds_of(pid) - before[name]) / span:.2f} % of one core")
    for pid, _ in started.values():
        os.kill(pid, 15)
        os.waitpid(pid, 0)
    for box in boxes:
        box.kill()
        box.wait()


if __name__ == "__main__":
    main()
