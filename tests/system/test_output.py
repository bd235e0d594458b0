"""Commands whose output goes nowhere: a full disk, nothing at all, a reader that has gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

BIN = Path(sys.executable).parent
PRINTING = (
    "corten --help",
    "corten --version",
    "corten run --help",
    "corten cgroups",
    "corten cgroups --json",
    "corten namespaces --json",
    "corten doctor",
    "corten doctor --json",
    "corten explain --json 1",
    "corten plan host true",
    "corten plan --json host true",
    "corten stats",
    "corten image ls",
    "corten system df",
    "corten run --tty host seq 5000",
    "corten-oci --help",
    "corten-oci --version",
    "corten-oci features",
    "corten-oci list --format json",
)
FULL = "write to standard output: No space left on device (ENOSPC)"
CLOSED = "write to standard output: Bad file descriptor (EBADF)"


def shell(words: str, redirections: str) -> subprocess.CompletedProcess[str]:
    """A command with the redirections of a shell; `2>&1` before them would be the shell's own."""
    return subprocess.run(
        ["sh", "-c", f"exec {BIN}/{words} {redirections}"], capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("words", PRINTING)
def test_what_cannot_be_written_is_one_error(words: str) -> None:
    program = words.partition(" ")[0]
    code = 125 if program == "corten" else 1
    for redirections, said in ((">/dev/full", FULL), (">&-", CLOSED), ("<&- >&-", CLOSED)):
        done = shell(words, redirections)
        assert (done.returncode, done.stdout, done.stderr) == (code, "", f"{program}: {said}\n")
    for redirections in ("<&- >&- 2>&-", ">/dev/full 2>/dev/full"):
        assert shell(words, redirections).returncode == code


@pytest.mark.parametrize("words", PRINTING)
def test_a_reader_that_has_gone(words: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        program, *rest = words.split()
        done = run((str(BIN / program), *rest), writing)
        assert (done.returncode, done.stderr) == (141, "")
    finally:
        os.close(writing)


def run(words: Sequence[str], stdout: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("redirections", [">/dev/full", ">&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
def test_a_program_that_prints_nothing_is_not_disturbed(redirections: str) -> None:
    """Also the summary, which goes to standard error, is no reason to end otherwise than the program."""
    assert shell("corten run --summary host sh -c 'exit 7'", redirections).returncode == 7


@pytest.mark.parametrize(
    ("redirections", "said"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
def test_the_program_itself_is_told(redirections: str, said: str) -> None:
    done = shell("corten run host sh -c 'printf x || exit 9'", redirections)
    assert done.returncode == 9
    assert said.lower() in done.stderr.lower() or "i/o error" in done.stderr.lower()
    assert done.stderr.count("\n") == 1


def test_no_file_takes_the_place_of_what_is_closed() -> None:
    """What is printed would land in it."""
    script = (
        "from corten.output import prepare; prepare(); import os, sys; file = open('/etc/passwd');"
        "os.write(3, f'{file.fileno()} {[os.readlink(f\"/proc/self/fd/{fd}\") for fd in range(3)]}'.encode())"
    )
    words = ["sh", "-c", 'exec "$@" 3>&1 <&- >&- 2>&-', "sh", sys.executable, "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout == "4 ['/dev/null', '/dev/null', '/dev/null']"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_characters_that_cannot_be_written(encoding: str) -> None:
    done = subprocess.run(
        [str(BIN / "corten"), "cgroups", "--controller", "pids"], capture_output=True, check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode(encoding)
    assert (" groups\nGROUP" in text, "─ " in text, "`- " in text) == (True, encoding == "utf-8", encoding != "utf-8")
