"""The textbook containers in examples/: short, and each proves what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
TEXTBOOK = ("namespaces.py", "memory_limit.py", "run_child.py")


def said(name: str, *words: str) -> str:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", TEXTBOOK)
def test_they_are_short(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) < 40


def test_namespaces() -> None:
    inside, outside = said("namespaces.py").splitlines()
    assert re.fullmatch(r"inside: +host name container, I am process 1, I see processes \[1\]", inside)
    assert int(re.search(r"I see (\d+) processes", outside)[1]) > 1  # type: ignore[index]
    assert "host name container" not in outside


def test_a_limit_of_100_000_000_bytes() -> None:
    text = said("memory_limit.py")
    assert "killed by signal 9, 1 kill for memory" in text
    limit, peak = (int(number.replace(",", "")) for number in re.findall(r"(?:limit|peak) ([\d,]+) bytes", text))
    assert peak <= limit <= 100_000_000 < limit + 4096


def test_a_container_of_20_processes() -> None:
    text = said("run_child.py")
    assert "\ncontainer\n" in text
    counts = [int(number) for number in re.findall(r"(\d+) processes,", text)]
    assert counts == list(range(2, 20))  # with the init there are 20
    assert "refused to fork 1 times; on the host /i-was-here: False" in text


def test_a_program_of_ones_own_in_it() -> None:
    assert "\n1\n" in said("run_child.py", "sh", "-c", "ls -d /proc/[0-9]* | grep -c /proc/1$")
