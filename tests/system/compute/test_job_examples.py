"""What README.md and docs/jobs.md show of jobs, run as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from conftest import REPOSITORY

WORDS = re.compile(r"[^\W\d_]+")


def run(*words: str) -> str:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, timeout=200)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_word_count_of_what_the_machine_has() -> None:
    lines = run(str(REPOSITORY / "examples/word_count.py")).splitlines()
    found = re.match(r"(\d+) characters in (\d+) containers: (\d+) words", lines[0])
    assert found is not None
    assert int(found[1]) > 300_000
    assert int(found[2]) > 4
    assert lines[-1] == "equal to one process: True"


def test_word_count_of_a_file(tmp_path: Path) -> None:
    text = (REPOSITORY / "LICENSE").read_text() * 20
    (tmp_path / "corpus").write_text(text)
    lines = run(str(REPOSITORY / "examples/word_count.py"), f"{tmp_path}/corpus").splitlines()
    expected = Counter(WORDS.findall(text.lower()))
    assert f"{expected.total()} words, {len(expected)} different" in lines[0]
    assert lines[1] == ", ".join(f"{word} {times}" for word, times in expected.most_common(8))


@pytest.mark.parametrize(
    ("at", "expected"),
    [(0, "[1, 2, 4, 8, 16, 32, 64, 128, 256, 512]\n[9, 8, 7, 6, 5, 4, 3, 2, 1]\n"), (1, "{'C': 10}\n")],
)
def test_programs_in_the_documentation(tmp_path: Path, at: int, expected: str) -> None:
    programs = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/jobs.md").read_text(), re.DOTALL)
    assert len(programs) == 2
    (tmp_path / "program.py").write_text(programs[at])
    assert run(f"{tmp_path}/program.py") == expected


def test_untrusted_snippets_each_end_with_their_reason() -> None:
    ends = [line[17:] for line in run(str(REPOSITORY / "examples/untrusted.py")).splitlines()]
    begins = ["gave 499999500000", "gave {'the': 3", "killed: timeout (3 s)", "killed: out of memory (limit 64 MiB"]
    begins += ["killed: timeout (3 s)", "raised FileNotFoundError"]
    assert [end.startswith(begin) for end, begin in zip(ends, begins, strict=True)] == [True] * 6, ends


def test_grid_search() -> None:
    assert run(str(REPOSITORY / "examples/grid_search.py")).splitlines()[-1] == "equal to one process: True"
