"""`corten map`: real commands in real containers, ended in every way."""

from __future__ import annotations

import csv
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from conftest import CORTEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Command = Callable[..., subprocess.CompletedProcess[str]]

LIMITS = ("--memory", "64m", "--cpus", "1")


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_inputs_of_every_kind(command: Command, tmp_path: Path) -> None:
    done = command("map", *LIMITS, "a", "b c", "--", "sh", "-c", "echo $1 $#", "x", "{}")
    assert (sorted(done.stdout.splitlines()), done.returncode) == (["a 1", "b c 1"], 0)
    assert "2 of 2 inputs done" in done.stderr
    done = command("map", *LIMITS, "--", "echo", input="1\n\n2\n", stdin=None)
    assert sorted(done.stdout.splitlines()) == ["1", "2"]
    (tmp_path / "list").write_bytes(b"x\ny\0z\0")
    done = command("map", "-0", "-a", f"{tmp_path}/list", *LIMITS, "--", "sh", "-c", 'echo "$1" | wc -l', "x")
    assert sorted(done.stdout.split()) == ["1", "2"]
    done = command("map", *LIMITS, "-a", "/dev/null", "--", "false")
    assert (done.returncode, done.stdout) == (0, "")


def test_each_in_a_fresh_container(command: Command) -> None:
    script = "test ! -e /tmp/trace; touch /tmp/trace; echo $? $(hostname)"
    done = command("map", *LIMITS, "-j", "1", "1", "2", "3", "--", "sh", "-c", f"{script} # {{}}")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == ["0"] * 3
    assert len({line[1] for line in lines}) == 3


def test_account(command: Command, tmp_path: Path) -> None:
    script = (
        'case $1 in ok) echo fine;; bad) exit 3;; slow) sleep 100;; full) python3 -c "bytearray(1 << 28)";; '
        "killed) kill -9 $$;; esac"
    )
    path = tmp_path / "a.csv"
    done = command(
        "map", "--memory", "64m", "--memory-swap", "64m", "--timeout", "0.7", "--retries", "1", "--account", str(path),
        "ok", "bad", "slow", "full", "killed", "--", "sh", "-c", script, "x", "{}",
    )  # fmt: skip
    assert done.returncode == 4
    found = {row["item"]: row for row in rows(path)}
    assert {item: row["exit_code"] for item, row in found.items()} == {
        "ok": "0", "bad": "3", "slow": "137", "full": "137", "killed": "137",
    }  # fmt: skip
    assert {item: row["signal"] for item, row in found.items() if row["signal"]} == {"slow": "9", "killed": "9"} | (
        {"full": "9"} if found["full"]["signal"] else {}
    )
    assert {item: row["tries"] for item, row in found.items()} == dict.fromkeys(found, "2") | {"ok": "1"}
    assert found["slow"]["reason"] == "killed: timeout (0.7 s)"
    assert "out of memory" in found["full"]["reason"]
    assert int(found["full"]["memory_peak"]) > 60 << 20
    assert 0 < int(found["ok"]["memory_peak"]) < 64 << 20
    assert 0.7 <= float(found["slow"]["seconds"]) < 20
    assert 0 < float(found["full"]["cpu_seconds"]) < 20
    assert "bad: exited with code 3" in done.stderr
    assert "again, try 2 of 2" in done.stderr


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_account_in_other_forms(command: Command, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    command("map", *LIMITS, "--account", str(path), "1", "2", "--", "test", "{}", "=", "1")
    assert command("map", *LIMITS, "--account", str(path), "--resume", "1", "2", "--", "true").returncode == 0
    if suffix == "jsonl":
        found = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        import pyarrow.parquet

        found = pyarrow.parquet.read_table(path).to_pylist()
    assert Counter((row["item"], row["exit_code"]) for row in found) == {("1", 0): 1, ("2", 1): 1, ("2", 0): 1}
    assert os.listdir(tmp_path) == [path.name]


def test_output_of_each_is_kept_apart(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = 'echo "out $1"; echo "err $1" >&2; test -e /tmp/x || exit 0'
    done = command("map", *LIMITS, "--output", str(out), "a", "../b", "a", "--", "sh", "-c", script, "x")
    assert done.stdout == ""
    found = {name: (out / name).read_text() for name in os.listdir(out)}
    assert len(found) == 6
    assert Counter(found.values()) == {"out a\n": 2, "err a\n": 2, "out ../b\n": 1, "err ../b\n": 1}
    assert (found["a.out"], found["a~2.err"]) == ("out a\n", "err a\n")
    # Without a directory: each as a whole, when it has ended, though both write at once.
    script = 'for i in $(seq 200); do echo "$1 $i"; done; echo err >&2'
    done = command("map", "--memory", "64m", "-j", "2", "a", "b", "--", "sh", "-c", script, "x")
    lines = done.stdout.splitlines()
    assert lines in ([f"{x} {i}" for x in pair for i in range(1, 201)] for pair in ("ab", "ba"))
    assert done.stderr.splitlines().count("err") == 2


def test_output_does_not_follow_links(command: Command, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.out").symlink_to(tmp_path / "precious")
    (tmp_path / "precious").write_text("kept")
    done = command("map", *LIMITS, "--output", f"{tmp_path}/out", "a", "--", "echo", "lost")
    assert (done.returncode, (tmp_path / "precious").read_text()) == (125, "kept")


def test_as_many_at_once_as_fit(command: Command, tmp_path: Path) -> None:
    """Never more than two of one CPU each on two CPUs, whatever --jobs says."""
    share = f"{tmp_path}:/share"
    script = "cd /share; touch run.$1; ls -d run.* | wc -l >> most; sleep 0.1; rm run.$1"
    cpus = max(1.0, len(os.sched_getaffinity(0)) / 2)
    words = ["--memory", "64m", "--cpus", f"{cpus:g}", "-v", share, *map(str, range(6)), "--", "sh", "-c", script, "x"]
    assert command("map", "-j", "50", *words).returncode == 0
    most = max(map(int, (tmp_path / "most").read_text().split()))
    assert most <= len(os.sched_getaffinity(0)) / cpus
    (tmp_path / "most").unlink()
    assert command("map", "-j", "1", *words).returncode == 0
    assert set((tmp_path / "most").read_text().split()) == {"1"}


def test_halt(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    words = ("-j", "1", "--account", str(path), "1", "2", "3", "--", "test", "{}", "=", "1")
    done = command("map", *LIMITS, "--halt", "soon", *words)
    assert done.returncode == 1
    assert [row["item"] for row in rows(path)] == ["1", "2"]
    assert "1 of 3 inputs done, 1 failed, 1 not done" in done.stderr
    script = "test $1 = bad && exit 1; sleep 1000"
    done = command("map", "--memory", "64m", "-j", "2", "--halt", "now", "long", "bad", "--", "sh", "-c", script, "x")
    assert done.returncode == 1
    assert "1 failed, 1 not done" in done.stderr


# --- ended from outside


class Held:
    """A map whose inputs wait until the file that is named after them lies in the shared directory."""

    def __init__(self, tmp_path: Path, *words: str, inputs: int = 6) -> None:
        self.share, self.account = tmp_path / "share", tmp_path / "a.csv"
        self.share.mkdir(exist_ok=True)
        script = 'cd /share; echo $1 >> begun; while test ! -e go.$1; do sleep 0.02; done; echo "done $1"'
        self.words = [
            CORTEN, "map", "--memory", "64m", "-j", "2", "-v", f"{self.share}:/share", "--account", str(self.account),
            *words, *map(str, range(inputs)), "--", "sh", "-c", script, "x",
        ]  # fmt: skip

    def go(self, *inputs: int) -> None:
        for number in inputs:
            (self.share / f"go.{number}").touch()

    def begun(self) -> list[str]:
        path = self.share / "begun"
        return path.read_text().split() if path.exists() else []

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
        )

    def done(self) -> list[str]:
        return [row["item"] for row in rows(self.account)] if self.account.exists() else []


def eventually(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_leave_nothing_running_and_a_true_account(tmp_path: Path, number: int) -> None:
    held = Held(tmp_path)
    held.go(0, 1)
    with held.start() as process:
        eventually(lambda: len(held.begun()) == 4)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert sorted(held.done()) == ["0", "1"]
    assert sorted(out.splitlines()) == ["done 0", "done 1"]
    assert "2 of 6 inputs done, 4 not done" in err
    # The fixture sees that no container is left.


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_kill_and_resume(tmp_path: Path, suffix: str) -> None:
    """kill -9 in the middle, twice, and a row torn by it: every input is done once in the end, none is done again."""
    held = Held(tmp_path, "--resume")
    held.account = tmp_path / f"a.{suffix}"
    held.words[held.words.index("--account") + 1] = str(held.account)
    journal = held.account if suffix == "csv" else tmp_path / "a.parquet.partial.jsonl"
    for finished in ((0, 1), (2,)):
        held.go(*finished)
        with held.start() as process:
            before = len(held.begun())
            eventually(lambda: len(held.begun()) >= before + len(finished) + 2)  # noqa: B023
            process.kill()
        with open(journal, "ab") as file:
            file.write(b'"torn by the ki' if suffix == "csv" else b'{"item": "tor')
    held.go(*range(6))
    with held.start() as process:
        out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert "3 of 6 inputs done, 3 were done before" in err
    assert sorted(out.splitlines()) == ["done 3", "done 4", "done 5"]
    if suffix == "csv":
        assert sorted(held.done()) == ["0", "1", "2", "3", "4", "5"]
    counts = Counter(held.begun())
    assert [counts[str(number)] for number in (0, 1, 2)] == [1, 1, 2]
    # Again: nothing is left to do.
    with held.start() as process:
        assert "0 of 6 inputs done, 6 were done before" in process.communicate(timeout=60)[1]
    assert process.returncode == 0


def test_two_at_once_need_two_accounts(tmp_path: Path, command: Command) -> None:
    held = Held(tmp_path, inputs=2)
    with held.start() as process:
        eventually(lambda: len(held.begun()) == 2)
        done = command("map", "--account", str(held.account), "--resume", "1", "--", "true")
        assert (done.returncode, "in use by another corten map" in done.stderr) == (125, True)
        held.go(0, 1)
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_ctrl_c_while_nobody_reads_the_output(tmp_path: Path) -> None:
    words = [CORTEN, "map", *LIMITS, "1", "2", "--", "sh", "-c", "yes {} | head -c 3000000"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        select.select([process.stdout], [], [])  # the pipe fills up
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130


def test_reader_that_goes_away(command: Command) -> None:
    script = f"{CORTEN} map -m 64m -j 1 a b c d -- sh -c 'yes {{}} | head -c 300000' | head -1"
    script += "; echo ${PIPESTATUS[0]}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "a\n141\n"


# --- bad input


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["a"], 125, "needs a command after --"),
        (["a", "--"], 125, "needs a command after --"),
        (["a", "--", "nosuch"], 127, "nosuch: not found"),
        (["a", "--", "/etc/hostname"], 126, "/etc/hostname"),
        (["--resume", "a", "--", "true"], 125, "--resume needs --account"),
        (["-j", "0", "a", "--", "true"], 125, "-j: give at least 1"),
        (["--retries", "x", "a", "--", "true"], 125, "--retries: 'x' is not a number"),
        (["--halt", "x", "a", "--", "true"], 125, "--halt: 'x'"),
        (["-a", "/no/such", "--", "true"], 125, "cannot read inputs from /no/such: No such file"),
        (["-a", "/etc/passwd", "a", "--", "true"], 125, "not both"),
        (["--account", "x.txt", "a", "--", "true"], 125, "ends with .csv"),
        (["--image", "./no/such.tar", "a", "--", "true"], 125, "no/such.tar"),
        (["--memory", "1", "a", "--", "true"], 125, "--memory"),
        (["--nonsense", "a", "--", "true"], 125, "unknown option --nonsense"),
        (["--tty", "a", "--", "true"], 125, "unknown option --tty"),
        (["--output", "/dev/null/x", "a", "--", "true"], 125, "cannot make /dev/null/x"),
    ],
)
def test_bad_input(command: Command, words: list[str], code: int, expected: str) -> None:
    done = command("map", *words)
    errors = [line for line in done.stderr.splitlines() if "inputs done" not in line]
    assert (done.returncode, done.stdout, len(errors)) == (code, "", 1)
    assert expected in errors[0]


def test_an_input_that_is_no_command(command: Command, tmp_path: Path) -> None:
    """The command is the input: one that does not exist has failed, the others go on."""
    path = tmp_path / "a.csv"
    done = command("map", *LIMITS, "--account", str(path), "true", "nosuch", "true", "--", "{}")
    assert done.returncode == 1
    assert Counter((row["item"], row["exit_code"]) for row in rows(path)) == {("true", "0"): 2, ("nosuch", "127"): 1}


def test_an_account_is_not_overwritten(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("mine\n")
    done = command("map", "--account", str(path), "a", "--", "true")
    assert (done.returncode, path.read_text()) == (125, "mine\n")
    assert "exists: --resume" in done.stderr


# --- on a terminal


def test_progress_on_a_terminal() -> None:
    words = [CORTEN, "map", *LIMITS, "-j", "1", "one", "two", "[red]", "--", "sh", "-c", "echo out {}; test {} != two"]
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", COLUMNS="100", LINES="30")
        os.execv(CORTEN, words)
    seen = b""
    try:
        while data := os.read(fd, 4096):
            seen += data
    except OSError:
        pass  # the end of a terminal is EIO
    finally:
        os.close(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    text = seen.decode()
    assert "3/3" in text
    for line in ("out one", "out two", "out [red]", "corten: two: exited with code 1", "2 of 3 inputs done, 1 failed"):
        assert line in text


def test_rich_is_imported_only_for_a_terminal() -> None:
    script = (
        "import sys\nfrom corten.cli.main import main\nmain(['map', '-m', '64m', 'a', '--', 'true'])\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('rich', 'pyarrow')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
