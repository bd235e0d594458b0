"""Whatever happens to whomever, nothing is left: after a thousand containers, two hundred at once, and kill -9.

The fixture `nothing_left_behind` compares mounts, control groups, processes, namespaces, descriptors and files. A test
that kills a launcher adopts the orphans, so that it can wait for the last of them, and then runs the next command.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import corten
from corten.engine.home import sweep
from corten.linux import process, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Command = Callable[..., subprocess.CompletedProcess[str]]

CORTEN = str(Path(sys.executable).parent / "corten")
LIMITS = "--memory", "64m", "--cpus", "1", "--pids-limit", "16"
LIBRARY = """
import os, sys, threading, corten
def loop():
    while True:
        corten.run("host", ["true"], memory="64m", cpus=1, pids=16, name=f"leak-{threading.get_ident()}")
with corten.start("host", ["sleep", "1000"]) as box:
    print("ready", flush=True)
    threading.excepthook = lambda _: None
    for _ in range(2):
        threading.Thread(target=loop).start()
    try:
        box.wait()
    except corten.Error as error:
        os.write(2, str(error).encode())
    os._exit(3)
"""
"""A process that uses the library, from three threads: one container that lives, and many short ones."""


@pytest.fixture
def dice() -> random.Random:
    """Moments by chance, the same ones each time."""
    return random.Random(20261124)


@pytest.fixture
def orphans() -> Iterator[Callable[[], None]]:
    """Adopt orphans; call it to wait for the end of all that were adopted."""
    mine = set(_children())
    process.adopt_orphans()

    def wait() -> None:
        while others := set(_children()) - mine - _spawners():
            for pid in others:
                os.waitpid(pid, 0)

    yield wait
    wait()
    syscalls.call("prctl", 36, 0, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


@pytest.fixture
def pace(command: Command) -> float:
    """Seconds that a whole container takes by the command line on this machine now: moments are parts of it."""
    times = []
    for _ in range(3):
        begin = time.monotonic()
        assert command("run", "host", "true").returncode == 0
        times.append(time.monotonic() - begin)
    return min(*times, 0.4)


def _children() -> list[int]:
    return [
        int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()
    ]


def _spawners() -> set[int]:
    """The spawner of this very process; that of a process which was killed ends by itself."""
    control = corten.runtime.spawner_client.launch.__self__._control  # type: ignore[attr-defined]
    peer = {os.readlink(f"/proc/self/fd/{control.fileno()}")} if control else set()
    assert peer
    return {pid for pid in _children() if Path(f"/proc/{pid}/comm").read_text() == "corten:spawner\n" and _serves(pid)}


def _serves(pid: int) -> bool:
    return f"main(3,{os.getpid()})" in Path(f"/proc/{pid}/cmdline").read_text()


def _leftovers(home: Path) -> int:
    return len(list((home / "containers").iterdir()))


def _swept(home: Path, command: Command) -> None:
    """The next command sweeps."""
    done = command("run", "host", "true")
    assert (done.returncode, done.stderr) == (0, "")
    assert _leftovers(home) == 0


@pytest.mark.slow
def test_a_thousand_in_a_row() -> None:
    for number in range(1000):
        result = corten.run("host", ["true"], memory="64m", cpus=1, pids=16)
        assert result.exit_code == 0, (number, result.reason)


@pytest.mark.slow
def test_two_hundred_at_once() -> None:
    """All of them are alive at the same time: each waits until the last has said that it runs."""
    results: list[corten.Result | corten.Error] = []
    reading, writing = os.pipe()

    def one() -> None:
        try:
            with corten.start("host", ["sh", "-c", "echo here; exec cat"], stdin=reading, pids=16, memory="64m") as box:
                assert box.stdout is not None
                assert box.stdout.read(5) == b"here\n"
                alive.release()
                assert box.stdout.read() == b""
                results.append(box.wait())
        except corten.Error as error:
            results.append(error)
            alive.release()

    alive = threading.Semaphore(0)
    threads = [threading.Thread(target=one) for _ in range(200)]
    for thread in threads:
        thread.start()
    for _ in threads:
        alive.acquire()
    os.close(writing)
    for thread in threads:
        thread.join()
    os.close(reading)
    failures = [str(result) for result in results if not isinstance(result, corten.Result) or result.exit_code]
    assert failures == []
    assert len(results) == 200


# --- kill -9


@pytest.mark.slow
def test_the_init_is_killed_at_any_moment(dice: random.Random) -> None:
    for _ in range(40):
        with corten.start("host", ["sh", "-c", "while :; do true; done"], memory="64m", pids=16) as box:
            time.sleep(dice.uniform(0, 0.01))
            os.kill(box.pid, signal.SIGKILL)
            result = box.wait()
        assert (result.signal, result.exit_code) == (signal.SIGKILL, 137)
        assert not result.oom_killed


@pytest.mark.slow
def test_the_program_is_killed_at_any_moment(dice: random.Random) -> None:
    """By its pid on the host, with children of its own that ignore everything."""
    code = "trap '' TERM INT HUP; (trap '' TERM INT HUP; while :; do sleep 100; done) & while :; do sleep 100; done"
    for _ in range(40):
        with corten.start("host", ["sh", "-c", code], memory="64m", pids=16) as box:
            program = int(Path(f"/proc/{box.pid}/task/{box.pid}/children").read_text().split()[0])
            time.sleep(dice.uniform(0, 0.01))
            os.kill(program, signal.SIGKILL)
            result = box.wait()
        assert (result.signal, result.exit_code) == (signal.SIGKILL, 137)
        assert result.reason == "killed by SIGKILL"


@pytest.mark.slow
def test_the_command_is_killed_at_any_moment(
    home: Path, dice: random.Random, pace: float, command: Command, orphans: Callable[[], None]
) -> None:
    left = 0
    for number in range(60):
        words = [CORTEN, "run", *LIMITS, "--name", f"leak-{number}", "host", "sleep", "100"]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
            time.sleep(pace * dice.uniform(0.1, 1.5))
            running.kill()
            assert running.stderr is not None
            assert running.stderr.read() == b""
        orphans()
        left += _leftovers(home)
        if number % 10 == 9:
            _swept(home, command)
    assert left > 20, "the moments were badly chosen: hardly a container was made"


@pytest.mark.slow
def test_the_spawner_is_killed_at_any_moment(
    home: Path, dice: random.Random, command: Command, orphans: Callable[[], None]
) -> None:
    """Its containers die with it, their callers are told, and the next container has a new spawner."""
    left = 0
    for _ in range(20):
        words = [sys.executable, "-c", LIBRARY]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            assert running.stdout is not None
            running.stdout.readline()
            spawner = int(Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()[0])
            time.sleep(dice.uniform(0, 0.08))
            os.kill(spawner, signal.SIGKILL)
            _, complaint = running.communicate(timeout=20)
        assert complaint == b"the spawner has ended, and the container with it"
        orphans()
        left += _leftovers(home)
    assert left > 5
    _swept(home, command)


@pytest.mark.slow
def test_the_library_is_killed_at_any_moment(
    home: Path, dice: random.Random, command: Command, orphans: Callable[[], None]
) -> None:
    """Its spawner sees that, kills its containers and undoes what they made: nothing is left to sweep."""
    for _ in range(40):
        words = [sys.executable, "-c", LIBRARY]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as running:
            assert running.stdout is not None
            running.stdout.readline()
            time.sleep(dice.uniform(0, 0.08))
            running.kill()
        orphans()
        assert _leftovers(home) == 0
    _swept(home, command)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_is_interrupted_at_any_moment(
    number: signal.Signals, home: Path, dice: random.Random, pace: float, command: Command, orphans: Callable[[], None]
) -> None:
    codes = []
    for _ in range(40):
        words = [CORTEN, "run", *LIMITS, "host", "sleep", "100"]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
            time.sleep(pace * dice.uniform(0.4, 2))
            running.send_signal(number)
            _, complaint = running.communicate(timeout=20)
        if complaint.startswith("Fatal Python error: init_import_site"):
            continue  # the interpreter had not come to the first line of ours
        codes.append(running.returncode)
        assert "Traceback" not in complaint or running.returncode < 0, complaint
        orphans()
        assert _leftovers(home) == 0, (running.returncode, complaint)
    # before the command has taken over its signals the kernel's default holds, later the program's end counts
    assert set(codes) <= {128 + number, -number}, codes
    assert 128 + number in codes
    _swept(home, command)


@pytest.mark.slow
def test_timeouts_at_any_moment(dice: random.Random) -> None:
    for _ in range(40):
        result = corten.run("host", ["sleep", "100"], timeout=dice.uniform(0.001, 0.05), memory="64m", pids=16)
        assert result.timed_out
        assert result.exit_code == 137


# --- names, sweepers, full disks


def test_a_name_is_free_again_after_kill(home: Path, command: Command, orphans: Callable[[], None]) -> None:
    words = [CORTEN, "run", "--name", "taken", "host", "sh", "-c", "echo runs; exec sleep 100"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"runs\n"
        refused = command("run", "--name", "taken", "host", "true")
        assert refused.returncode == 125
        assert refused.stderr.startswith("corten: the name taken is in use by container ")
        with pytest.raises(corten.NameInUse):
            corten.run("host", ["true"], name="taken")
        assert running.poll() is None, "the refusal must not disturb who has the name"
        running.kill()
    orphans()
    assert command("run", "--name", "taken", "host", "true").returncode == 0
    assert not (home / "names" / "taken").exists()


def test_two_sweep_at_once(home: Path, command: Command, orphans: Callable[[], None]) -> None:
    """Each thing is swept by one of them, none complains, and a third may start containers meanwhile."""
    victims = []
    for number in range(12):
        words = [CORTEN, "run", *LIMITS, "--name", f"swept-{number}", "host", "sh", "-c", "echo runs; exec sleep 100"]
        victims.append(subprocess.Popen(words, stdout=subprocess.PIPE))
    for victim in victims:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"runs\n"
    for victim in victims:
        victim.kill()
        victim.wait()
        assert victim.stdout is not None
        victim.stdout.close()
    orphans()
    assert _leftovers(home) == 12
    counts: list[int] = []
    results: list[int] = []
    sweepers = [threading.Thread(target=lambda: counts.append(sweep(str(home)))) for _ in range(3)]
    others = [threading.Thread(target=lambda: results.append(_run_two(command))) for _ in range(2)]
    for thread in (*sweepers, *others):
        thread.start()
    for thread in (*sweepers, *others):
        thread.join()
    assert results == [0, 0]
    assert sum(counts) <= 12
    assert _leftovers(home) == 0


def _run_two(command: Command) -> int:
    failed = 0
    for _ in range(2):
        done = command("run", *LIMITS, "host", "true")
        failed += done.returncode != 0 or done.stderr != ""
    return failed


@pytest.mark.slow
def test_starting_while_others_sweep(home: Path) -> None:
    """A sweeper must not take a container that is just being made for one that was left behind."""
    stop = threading.Event()
    failures: list[str] = []

    def sweeping() -> None:
        while not stop.is_set():
            sweep(str(home))

    def starting() -> None:
        for _ in range(60):
            try:
                corten.run("host", ["true"], pids=16)
            except corten.Error as error:
                failures.append(str(error))

    sweepers = [threading.Thread(target=sweeping) for _ in range(2)]
    starters = [threading.Thread(target=starting) for _ in range(2)]
    for thread in (*sweepers, *starters):
        thread.start()
    for thread in starters:
        thread.join()
    stop.set()
    for thread in sweepers:
        thread.join()
    assert failures == []


@pytest.mark.slow
def test_no_space_left(tmp_path: Path) -> None:
    """The home directory on a file system with room for N files, for every N until there is enough.

    In a mount namespace of its own, which ends with the shell.
    """
    place = tmp_path / "full"
    place.mkdir()
    script = (
        'mount -t tmpfs -o size=40m,nr_inodes=$1 none "$2"; CORTEN_HOME="$2" "$3" run --pids-limit 16 --rootfs "$4" '
        "--writable throwaway -v /usr:/usr:ro /usr/bin/true; code=$?; "
        'ls -A "$2/containers" "$2/names" 2>/dev/null; exit $code'
    )
    root = tmp_path / "root"
    for name in ("lib", "lib64", "bin"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    codes = []
    for room in range(1, 40):
        words = ["unshare", "-m", "sh", "-c", script, "sh", str(room + 1), str(place), CORTEN, str(root)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        codes.append(done.returncode)
        assert done.returncode in (0, 125), (room, done.stderr)
        if done.returncode:
            assert done.stderr.startswith("corten: "), (room, done.stderr)
            assert done.stderr.count("\n") == 1, (room, done.stderr)
            assert "space left" in done.stderr, (room, done.stderr)
        assert [line for line in done.stdout.split() if not line.endswith(":")] == [], (room, done.stdout)
        if codes[-3:] == [0, 0, 0]:
            break
    assert codes[0] == 125
    assert codes[-1] == 0


def test_the_container_fills_the_disk(tmp_path: Path) -> None:
    """The program is told, and ends as it likes; what it wrote is removed."""
    place = tmp_path / "full"
    place.mkdir()
    script = (
        'mount -t tmpfs -o size=60m none "$1" && CORTEN_HOME="$1" "$2" run --pids-limit 16 host '
        'sh -c "cat /dev/zero >/big; echo ended"; code=$?; ls -A "$1/containers"; du -sm "$1" | cut -f 1; exit $code'
    )
    words = ["unshare", "-m", "sh", "-c", script, "sh", str(place), CORTEN]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "No space left on device" in done.stderr
    said, used = done.stdout.split()
    assert said == "ended"
    assert int(used) < 40
