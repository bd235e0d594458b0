"""The command itself: what it prints where, and the code it ends with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import corten
from corten.cli import main as cli
from corten.errors import CommandNotFound, Error


def corten_command(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    script = "from corten.cli.main import command; command()"
    return subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=False, env={**os.environ, **more}
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("run", "run needs an IMAGE, such as: corten run host python3 -V"),
        ("plan", "plan needs an IMAGE, such as: corten plan host python3 -V"),
        ("help rnu", "unknown command rnu: did you mean run?"),
        ("top x", "unexpected argument 'x': usage: corten top [--interval SECONDS]"),
        ("rnu", "unknown command rnu: did you mean run?"),
        ("frobnicate", "unknown command frobnicate: see 'corten --help'"),
        ("--vesrion", "unknown option --vesrion: did you mean --version?"),
        ("run --memroy 1 host", "unknown option --memroy: did you mean --memory?"),
        ("run --bogus host", "unknown option --bogus: 'corten run --help' lists the options"),
        ("run --memory", "--memory requires an argument"),
        ("run -m 12q host true", "-m: '12q' is not a size: use a number with b, k, m, g or t"),
        ("run -d host true", "-d: not available yet: run it in the background of the shell, or from Python"),
        ("plan -v /nope:/x host true", "-v: /nope: no such file or directory"),
    ],
)
def test_mistakes_end_with_125_and_one_line(words: str, message: str) -> None:
    done = corten_command(*words.split())
    assert (done.returncode, done.stdout, done.stderr) == (125, "", f"corten: {message}\n")


def test_help_and_version() -> None:
    assert corten_command("--version").stdout == f"corten {corten.__version__}\n"
    texts = {corten_command(*words).stdout for words in ([], ["--help"], ["-h"], ["help"])}
    assert len(texts) == 1
    text = texts.pop()
    assert all(name in text for name in cli.COMMANDS)
    one = corten_command("run", "--help")
    assert one.returncode == 0
    assert one.stdout.startswith("Usage: corten run [OPTIONS] IMAGE [COMMAND] [ARG...]\n")
    assert corten_command("help", "run").stdout == one.stdout
    assert "--json" in corten_command("plan", "--help").stdout


@pytest.mark.parametrize("module", ["corten.startup", "corten.errors", "corten.cli.run"])
def test_ctrl_c_while_it_starts_is_no_traceback(module: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
    )
    script = Path(__file__).parents[2] / "bin" / "corten"
    done = subprocess.run(
        [sys.executable, str(script), "run", "--help"], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_what_the_machine_lacks_is_no_mistake_of_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error, said in (
        (OSError(24, "", None), "Too many open files (EMFILE): this process may open no more files"),
        (OSError(28, "", "/x"), "/x: No space left on device (ENOSPC): free some space"),
        (FileNotFoundError(2, "", "/dev/null"), "/dev/null: No such file or directory (ENOENT): is /dev mounted"),
        (FileNotFoundError(2, "", "/proc/self/x"), "/proc/self/x: No such file or directory (ENOENT): is /proc"),
    ):
        command_that(error, monkeypatch)
        assert cli.main(["fail"]) == 125
        assert capsys.readouterr().err.startswith(f"corten: {said}")


def test_a_reader_that_goes_away_is_no_news() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    script = "from corten.cli.main import command; command()"
    done = subprocess.run(
        [sys.executable, "-c", script, "run", "--help"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def command_that(raises: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a command `fail` that raises."""
    module = ModuleType("corten_test_command")

    def run(words: object) -> int:
        raise raises

    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "corten_test_command", module)
    monkeypatch.setitem(cli.COMMANDS, "fail", ("corten_test_command", ""))


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (Error("no"), 125, "corten: no\n"),
        (CommandNotFound("what: not found"), 127, "corten: what: not found\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_say_how_to_end(
    raised: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command_that(raised, monkeypatch)
    assert cli.main(["fail"]) == code
    assert capsys.readouterr().err == said


def test_our_own_mistakes_ask_for_a_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command_that(ValueError("two\nlines"), monkeypatch)
    monkeypatch.delenv("CORTEN_DEBUG", raising=False)
    assert cli.main(["fail"]) == 125
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("corten: a mistake in corten itself: ValueError: two lines (test_cli_main.py:")
    monkeypatch.setenv("CORTEN_DEBUG", "1")
    with pytest.raises(ValueError, match="two"):
        cli.main(["fail"])
