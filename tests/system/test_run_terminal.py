"""Terminals: a person types at `corten run -it`; without one, the keys and signals that reach the program."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from screens import Screen
from small_root import CORTEN, shared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

ROOT = ["--writable", "throwaway", "--rootfs"]


def shell(*words: str, **options: Any) -> Screen:
    return Screen("-it", *words, *ROOT, shared(), "sh", **options)


def test_a_terminal_of_its_own() -> None:
    with shell() as screen:
        screen.until("# ")
        screen.type("tty; test -t 0 && test -t 1 && test -t 2 && echo all-three; ls -l /dev/console; echo $TERM\n")
        assert "/dev/pts/0" in screen.until("all-three\r\n")
        assert "136," in screen.until("/dev/console\r\n")
        screen.until_raw()
        screen.type("exit 7\n")
        assert screen.end() == 7
        assert screen.restored()


def test_owner_of_the_terminal() -> None:
    with Screen("-t", "-u", "alice", *ROOT, shared(), "sh", "-c", "stat -c %u $(tty); echo ok >/dev/tty") as screen:
        assert screen.end() == 0
    assert screen.seen.split() == [b"1001", b"ok"]


def test_size_at_the_start_and_when_it_changes() -> None:
    script = "trap 'stty size' WINCH; trap 'exit 6' INT; stty size; while :; do sleep 0.05; done"
    with Screen("-it", *ROOT, shared(), "sh", "-c", script, rows=33, columns=101) as screen:
        screen.until("33 101")
        screen.size(50, 120)
        screen.until("50 120")
        screen.type("\x03")
        assert screen.end() == 6


def test_interrupt_key() -> None:
    with shell() as screen:
        screen.until("# ")
        screen.type("trap 'echo caught' INT; sleep 1000\n")
        screen.until("sleep 1000\r\n")
        _wait_for(screen, "sleep")
        screen.type("\x03")
        screen.until("caught")
        screen.type("exit 5\n")
        assert screen.end() == 5


def _wait_for(screen: Screen, name: str) -> None:
    """Until a process of that name runs below the command."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if any(_comm(pid) == name for pid in _below(screen.process.pid)):
            return
    raise AssertionError(f"no process {name}")


def _below(pid: int) -> list[int]:
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return [*children, *(deeper for child in children for deeper in _below(child))]


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_job_control() -> None:
    with Screen("-it", "host", "bash", "--norc", "--noprofile", "-i") as screen:
        screen.until("$ " if os.geteuid() else "# ")
        screen.type("sleep 1000\n")
        _wait_for(screen, "sleep")
        screen.type("\x1a")
        screen.until("Stopped")
        screen.type("jobs; kill -9 %1; wait; echo don''e\n")
        screen.until("done")
        screen.type("exit\n")
        assert screen.end() == 0
        assert screen.restored()


def test_end_of_input_is_a_key() -> None:
    with Screen("-it", *ROOT, shared(), "cat") as screen:
        _wait_for(screen, "cat")
        screen.type("line\n")
        screen.until("line\r\nline\r\n")
        screen.type("\x04")
        assert screen.end() == 0
        assert screen.restored()


def test_terminal_is_restored_when_the_container_is_killed() -> None:
    with shell() as screen:
        screen.until("# ")
        screen.until_raw()
        (init,) = _below(screen.process.pid)[:1]
        os.kill(init, signal.SIGKILL)
        assert screen.end() == 137
        assert screen.restored()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_terminal_is_restored_when_the_command_is_told_to_end(number: int) -> None:
    with Screen("-it", *ROOT, shared(), "sleep", "1000") as screen:
        _wait_for(screen, "sleep")
        screen.until_raw()
        os.kill(screen.process.pid, number)
        assert screen.end() == 128 + number
        assert screen.restored()


@pytest.mark.parametrize("words", [["absent-command"], ["/etc/passwd"]])
def test_terminal_is_restored_after_an_error_before_the_start(words: list[str]) -> None:
    with Screen("-it", *ROOT, shared(), *words) as screen:
        assert screen.end() in (126, 127)
        assert screen.restored()
    assert screen.seen.startswith(b"corten: ")
    assert screen.seen.endswith(b"\r\n")
    assert screen.seen.count(b"\n") == 1


def test_error_while_setting_up_with_a_terminal() -> None:
    with Screen("-it", "-w", "/etc/passwd", *ROOT, shared(), "sh") as screen:
        assert screen.end() == 125
        assert screen.restored()
    assert b"go to /etc/passwd: Not a directory" in screen.seen


def test_timeout_restores_the_terminal() -> None:
    with Screen("-it", "--timeout", "500ms", *ROOT, shared(), "sh") as screen:
        assert screen.end() == 137
        assert screen.restored()
    assert b"killed: timeout (0.5 s)\r\n" in screen.seen


def test_input_that_is_not_a_terminal() -> None:
    """As podman does: the terminal is the container's, what comes is typed into it, its end is the end of input."""
    with Screen("-it", *ROOT, shared(), "sh", "-c", "read line; echo got $line; cat; echo over", stdin=subprocess.PIPE,
                stdout=subprocess.PIPE) as screen:  # fmt: skip
        out, _ = screen.process.communicate(b"typed\nmore\n", timeout=30)
    assert screen.process.returncode == 0
    assert b"got typed\r\n" in out
    assert out.endswith(b"over\r\n")


def test_terminal_without_input() -> None:
    with Screen("-t", *ROOT, shared(), "sh", "-c", "test -t 1 && echo yes") as screen:
        assert screen.end() == 0
        assert screen.restored()
    # Both terminals turn a line feed into two characters, as with docker: ours is raw only with -i.
    assert screen.seen == b"yes\r\r\n"


def test_big_output_is_whole_and_in_order() -> None:
    count = 1_000_000
    with Screen("-t", *ROOT, shared(), "seq", str(count), stdout=subprocess.PIPE) as screen:
        assert screen.process.stdout is not None
        found = hashlib.sha256()
        size = 0
        while chunk := screen.process.stdout.read(1 << 16):
            found.update(chunk)
            size += len(chunk)
        assert screen.process.wait() == 0
        screen.process.stdout.close()
    expected = "".join(f"{number}\r\n" for number in range(1, count + 1)).encode()
    assert size == len(expected)
    assert found.digest() == hashlib.sha256(expected).digest()


def test_output_after_the_program_and_before_the_end() -> None:
    """What is still in the terminal when the program ends is shown."""
    with Screen("-t", *ROOT, shared(), "sh", "-c", "seq 2000; exec true") as screen:
        assert screen.end() == 0
    assert screen.seen.split() == [str(number).encode() for number in range(1, 2001)]


# --- without a terminal


@pytest.fixture
def plain() -> Iterator[Screen]:
    """A container without a terminal of its own, in the foreground of one."""
    traps = "trap 'echo caught INT; exit 3' INT; trap 'echo caught TERM; exit 4' TERM"
    script = f"{traps}; echo ready; while :; do read x; done"
    with Screen("-i", *ROOT, shared(), "sh", "-c", script) as screen:
        screen.until("ready")
        yield screen


def test_interrupt_key_without_a_terminal_of_its_own(plain: Screen) -> None:
    plain.type("\x03")
    assert plain.end() == 3
    assert b"caught INT" in plain.seen


def test_termination_of_the_command_reaches_the_program(plain: Screen) -> None:
    plain.process.terminate()
    plain.type("\n")
    assert plain.end() == 4


@pytest.mark.parametrize("init", ["--init=true", "--init=false"])
def test_signals_to_the_command_reach_the_program(init: str) -> None:
    script = "trap 'exit 11' USR1; echo ready; while :; do sleep 0.05; done"
    words = [CORTEN, "run", init, *ROOT, shared(), "sh", "-c", script]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.wait(30) == 11


def test_command_that_is_killed_takes_its_container_along() -> None:
    nap = f"30000{os.getpid()}"
    words = [CORTEN, "run", *ROOT, shared(), "sh", "-c", f"echo ready; (sleep {nap} &); sleep {nap}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        assert process.stdout.read() == b""  # the end of file comes when nobody of the container is left
        assert process.wait() == -9
    # What it could not remove is swept by the next command.
    assert subprocess.run([CORTEN, "run", *ROOT, shared(), "true"], check=False).returncode == 0
