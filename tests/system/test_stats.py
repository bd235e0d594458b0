"""`corten stats`: what is shown is what the control group says; what happens while it records is in the picture."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import corten
import small_root
from corten.views import samples
from ordinary_user import User

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Command = Callable[..., subprocess.CompletedProcess[str]]

MIB = 1 << 20
UP = "echo up; sleep 60"
EATER = "python3 -c 'x = bytearray(200 << 20)' ; echo eaten; sleep 60"


@pytest.fixture
def user() -> Iterator[User]:
    made = User()
    yield made
    made.close()


def test_a_table_and_json(command: Command) -> None:
    with small_root.start("echo up; while :; do :; done", name="busy", memory="64m", pids=20, cpus=0.5) as box:
        assert small_root.line(box) == "up"
        (row,) = json.loads(command("stats", "--json", "--interval", "0.3", "busy").stdout)
        assert (row["id"], row["name"], row["memory_limit"], row["pids_limit"]) == (box.id, "busy", 64 * MIB, 20)
        assert (row["pids"], row["cpu_limit"]) == (2, 0.5)
        assert 0 < row["cpus"] < 1
        title, line = command("stats", "--interval", "0.1", "busy").stdout.splitlines()
        assert title.split()[:3] == ["CONTAINER", "NAME", "STATUS"]
        assert line.split()[:3] == [box.id, "busy", "running"]
        assert "64 MiB" in line
    assert box.id not in command("stats").stdout


def test_events_while_it_records(home: Path) -> None:
    settings = {"memory": "64m", "memory_swap": "64m", "stdin": corten.PIPE}
    with corten.start("host", ["sh", "-c", f"read x; {EATER}"], name="eats", **settings) as box:  # type: ignore[arg-type]
        assert box.stdin is not None
        assert box.stdout is not None
        write, read = box.stdin.write, box.stdout.readline
        steps: Iterator[Callable[[], object]] = iter(
            (lambda: box.update(memory="80m", memory_swap="80m"), lambda: write(b"\n"), read, box.kill, box.wait)
        )

        def wait(_: float) -> None:
            next(steps, lambda: None)()

        (series,) = samples.record("eats", interval=0.0, wait=wait)
    kinds = [event.kind for event in series.events]
    assert kinds == ["resize", "oom", "end"]
    assert series.events[0].words == "memory: 64 MiB to 80 MiB"
    assert len(series.readings) >= 4


def test_a_recording_ends_with_ctrl_c(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    with small_root.start("echo up; sleep 60", name="drawn") as box:
        assert small_root.line(box) == "up"
        words = [small_root.CORTEN, "stats", "--plot", str(picture), "--interval", "0.05", "drawn"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            wait_for_readings(process.pid)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert out.startswith("drawn: ")
        assert picture.read_bytes().startswith(b"\x89PNG")


def wait_for_readings(pid: int) -> None:
    """Until the process has slept between readings some times: each sleep is a voluntary switch."""
    def switches() -> int:
        text = Path(f"/proc/{pid}/status").read_text()
        return int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])

    while "nanosleep" not in Path(f"/proc/{pid}/wchan").read_text():
        os.sched_yield()
    start = switches()
    while switches() < start + 4:
        os.sched_yield()


def test_a_container_without_a_group(user: User) -> None:
    """Nothing is known of its use, but that it lives and ends."""
    words = user.corten_words("run", "--best-effort", "--name", "mine", "--rootfs", str(user.root), "sh", "-c", UP)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=user.home) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        (row,) = json.loads(user.corten("stats", "--json", "--interval", "0.1", "mine").stdout)
        assert (row["status"], row["memory"], row["cpus"]) == ("running", None, None)
        watching = user.corten_words("stats", "--json", "--watch", "--interval", "0.1", "mine")
        with subprocess.Popen(watching, stdout=subprocess.PIPE, text=True, cwd=user.home) as other:
            assert other.stdout is not None
            assert json.loads(other.stdout.readline())[0]["name"] == "mine"
            process.terminate()
            assert other.wait(20) == 0


def test_bad_input(command: Command, tmp_path: Path) -> None:
    with small_root.start("echo up; sleep 60", name="there") as box:
        assert small_root.line(box) == "up"
        for words, said in (
            (["nobody"], "no live container 'nobody'"),
            (["--plot", "a.jpeg", "there"], "a picture is .png, .svg, .pdf"),
            (["--plot", f"{tmp_path}/none/a.png", "there"], "there is no directory"),
            (["--interval", "x"], "not a number of seconds"),
            (["--interval", "nan"], "not a number of seconds"),
            (["--duration", "3"], "--duration is for"),
        ):
            done = command("stats", *words)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1)
            assert said in done.stderr
    # Without what others may have running on this machine: the root of OCI containers is one for all.
    alone = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run; exec "$@"', "sh", small_root.CORTEN]
    done = subprocess.run([*alone, "stats", "--plot", "a.png"], capture_output=True, text=True, check=False)
    assert (done.returncode, "nothing to record" in done.stderr) == (125, True)
    done = subprocess.run([*alone, "stats"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    hidden = [sys.executable, "-c", "import sys; sys.modules['matplotlib'] = None; sys.argv[1:] = ['stats', '--plot', "
              "'a.png']; from corten.cli.main import command; command()"]  # fmt: skip
    done = subprocess.run(hidden, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (125, "corten: plots need matplotlib: pip install 'corten[plot]'\n")
