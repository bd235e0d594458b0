"""`corten.run` and `corten.start`, as their docstrings and a user of the library see them."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

import corten
from corten.engine.container import DEVNULL, PIPE, Container
from corten.engine.options import make
from corten.engine.prepare import prepare
from corten.runtime import spawner_client
from small_root import line, run, shared, start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# --- run


def test_result_of_a_good_end() -> None:
    result = run("echo out; echo err >&2", memory="64m", pids=10)
    assert isinstance(result, corten.Result)
    assert (result.exit_code, result.signal, result.ok) == (0, None, True)
    assert (result.stdout, result.stderr) == ("out\n", "err\n")
    assert (result.oom_killed, result.timed_out, result.not_applied) == (False, False, ())
    assert result.reason == "exited with code 0"
    assert 0 < result.duration < 10
    usage = result.usage
    assert 0 < usage.cpu_seconds < 5
    assert usage.throttled_seconds == 0
    assert usage.memory_limit == 64 << 20
    assert usage.memory_peak is not None
    assert 0 < usage.memory_peak <= 64 << 20
    assert usage.pids_peak is not None
    assert 2 <= usage.pids_peak <= 10
    assert usage.io_read_bytes is not None
    assert usage.io_write_bytes is not None
    assert usage.pressure is None or set(usage.pressure) <= {"cpu", "memory", "io", "irq"}
    assert result.check() is result


def test_result_of_a_bad_end_and_check() -> None:
    result = run("echo partly; exit 3")
    assert (result.exit_code, result.ok, result.reason) == (3, False, "exited with code 3")
    with pytest.raises(corten.ContainerFailed, match="exited with code 3") as caught:
        run("echo partly; exit 3", check=True)
    assert caught.value.result.exit_code == 3
    assert caught.value.result.stdout == "partly\n"
    with pytest.raises(corten.TimedOut, match="timeout") as timed:
        run("echo partly; sleep 1000", timeout=0.2, check=True)
    assert timed.value.result.timed_out
    assert timed.value.result.stdout == "partly\n"
    with pytest.raises(corten.OutOfMemory, match="out of memory") as full:
        corten.run("host", ["python3", "-c", "bytearray(200 << 20)"], memory="40m", memory_swap="40m", check=True)
    assert full.value.result.oom_killed
    for kind in (corten.TimedOut, corten.OutOfMemory):
        assert issubclass(kind, corten.ContainerFailed)
    assert issubclass(corten.ContainerFailed, corten.Error)


def test_input() -> None:
    assert run("cat", input="äöü\n").stdout == "äöü\n"
    big = os.urandom(3 << 20)
    assert run("cat", input=big, text=False).stdout == big
    # A program that does not read is no reason to wait, nor to fail.
    assert run("exit 4", input=big).exit_code == 4
    assert run("cat").stdout == ""
    assert run("cat", input="").stdout == ""


def test_text_and_bytes() -> None:
    assert run(r"printf '\377x'", text=False).stdout == b"\xffx"
    assert run(r"printf '\377x'").stdout == "\ufffdx"
    assert run("true", text=False).stderr == b""


def test_both_streams_at_once() -> None:
    script = "i=0; while [ $i -lt 20000 ]; do echo out $i; echo err $i >&2; i=$((i + 1)); done"
    result = run(script)
    assert result.stdout == "".join(f"out {i}\n" for i in range(20000))
    assert result.stderr == "".join(f"err {i}\n" for i in range(20000))


def test_without_capture(capfd: pytest.CaptureFixture[str]) -> None:
    result = run("echo shown; echo too >&2", capture=False)
    assert (result.stdout, result.stderr) == ("", "")
    assert capfd.readouterr() == ("shown\n", "too\n")


def test_run_ends_though_a_child_keeps_the_output_open() -> None:
    assert run("sleep 1000 & echo done").stdout == "done\n"


def test_paths_and_mappings(tmp_path: Path) -> None:
    result = corten.run(
        rootfs=Path(shared()), argv=[Path("/bin/sh"), "-c", "echo $A $B; ls /mnt"],  # type: ignore[list-item]
        writable="throwaway", env={"A": "1", "B": "two words"}, mounts=[f"type=bind,src={tmp_path},dst=/mnt"],
    )  # fmt: skip
    assert result.stdout == "1 two words\n"


# --- start


def test_conversation_through_pipes() -> None:
    with start("while read x; do echo got $x; done; echo bye >&2; exit 5", stdin=corten.PIPE) as container:
        assert container.stdin is not None
        assert container.stderr is not None
        for number in range(20):
            container.stdin.write(f"{number}\n".encode())
            assert line(container) == f"got {number}"
        container.stdin.close()
        assert container.stderr.read() == b"bye\n"
        assert container.wait().exit_code == 5


def test_streams_that_are_not_pipes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with open(tmp_path / "out", "w+b") as file:
        with start("echo x; echo y >&2", stdout=file.fileno(), stderr=corten.DEVNULL) as container:
            assert container.stdout is None
            assert container.stderr is None
            container.wait()
        file.seek(0)
        assert file.read() == b"x\n"
    with start("echo mine", stdout=None) as container:
        container.wait()
    assert capfd.readouterr().out == "mine\n"
    with pytest.raises(corten.InvalidInput):
        start("true", stdout=-7)


def test_a_stream_that_is_not_open_is_told_and_harms_no_other_container() -> None:
    with start("read x; exit 3", stdin=corten.PIPE) as other:
        with pytest.raises(corten.InvalidInput, match="stdout: 999 is not an open descriptor"):
            start("true", stdout=999)
        assert other.running()
        assert other.stdin is not None
        other.stdin.write(b"go\n")
        assert other.wait(timeout=20).exit_code == 3


def test_a_file_as_a_stream(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+") as file:
        with start("echo x", stdout=file) as container:
            container.wait()
        file.seek(0)
        assert file.read() == "x\n"


def test_own_streams_that_are_closed() -> None:
    script = (
        "import os, corten; os.close(0); os.close(1);"
        f"root = {shared()!r}; echo = ['sh', '-c', 'echo x; cat'];"
        "box = corten.start(rootfs=root, writable='throwaway', stdin=None, stdout=None, argv=echo);"
        "os._exit(box.wait().exit_code)"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0


def test_no_descriptors_left() -> None:
    script = (
        "import corten, os, resource\n"
        f"options = dict(rootfs={shared()!r}, writable='throwaway', argv=['true'])\n"
        "assert corten.run(**options).ok\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0) + 2, hard))\n"
        "try: corten.run(**options)\n"
        "except corten.KernelError as error: assert 'ulimit -n' in str(error)\n"
        "else: assert False\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))\n"
        "assert corten.run(**options).ok\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("timeout", [3e6, 1e12, float("inf")])
def test_patience_without_end(timeout: float) -> None:
    with start("exit 4") as container:
        assert container.wait(timeout=timeout).exit_code == 4


def test_wait_with_a_timeout_goes_on() -> None:
    with start("read x; exit 6", stdin=corten.PIPE) as container:
        for _ in range(2):
            with pytest.raises(TimeoutError, match="still runs after"):
                container.wait(timeout=0.05)
        assert container.running()
        assert container.stdin is not None
        container.stdin.write(b"\n")
        first = container.wait(timeout=20)
        assert first.exit_code == 6
        assert not container.running()
        assert container.wait() == first
        assert container.wait(timeout=0) == first


def test_handle() -> None:
    with start("echo ready; read x", stdin=corten.PIPE) as container:
        assert line(container) == "ready"
        assert len(container.id) == 12
        int(container.id, 16)
        assert Path(f"/proc/{container.pid}/comm").read_text() == "corten:init\n"


def test_kill() -> None:
    with start("trap '' TERM; echo ready; while :; do sleep 1; done") as container:
        assert line(container) == "ready"
        container.kill("TERM")
        container.kill(15)
        assert container.running()
        container.kill()
        result = container.wait()
        assert (result.exit_code, result.signal, result.reason) == (137, 9, "killed by SIGKILL")
        container.kill()  # of what has ended is nothing
        with pytest.raises(corten.InvalidInput):
            container.kill("NONSENSE")


def test_with_statement_ends_it() -> None:
    with start("echo ready; sleep 1000") as container:
        assert line(container) == "ready"
        pid = container.pid
    assert not container.running()
    assert not Path(f"/proc/{pid}").exists()
    assert container.wait().exit_code == 137
    with pytest.raises(ValueError, match="mine"), start("sleep 1000") as container:
        raise ValueError("mine")
    assert not container.running()


def test_stats_need_a_live_container() -> None:
    with start("true", memory="64m") as container:
        container.wait()
        with pytest.raises(corten.Error):
            container.update(memory="128m")


# --- threads, forks, loops


def test_two_threads_wait_for_one_container() -> None:
    found: list[int] = []
    with start("read x; exit 7", stdin=corten.PIPE) as container:
        threads = [threading.Thread(target=lambda: found.append(container.wait().exit_code)) for _ in range(4)]
        for thread in threads:
            thread.start()
        # Others wait, and still there are answers.
        assert container.running()
        with pytest.raises(TimeoutError):
            container.wait(timeout=0.05)
        assert container.stdin is not None
        container.stdin.write(b"\n")
        for thread in threads:
            thread.join(20)
    assert found == [7] * 4


def test_many_threads_run_many_containers() -> None:
    found: dict[int, str] = {}

    def work(number: int) -> None:
        for _ in range(3):
            found[number] = str(run(f"echo {number}").stdout)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {number: f"{number}\n" for number in range(16)}


def test_container_outlives_the_thread_that_started_it() -> None:
    made: list[corten.Container] = []
    thread = threading.Thread(target=lambda: made.append(start("read x; exit 8", stdin=corten.PIPE)))
    thread.start()
    thread.join()
    with made[0] as container:
        assert container.running()
        assert container.stdin is not None
        container.stdin.write(b"\n")
        assert container.wait().exit_code == 8


def _in_a_fork(queue: Any) -> None:
    with start("echo ready; sleep 1000") as container:
        line(container)
        queue.put(_parent(container.pid))


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_fork_of_the_process_has_a_spawner_of_its_own() -> None:
    with start("echo ready; read x", stdin=corten.PIPE) as container:
        assert line(container) == "ready"
        ours = _parent(container.pid)
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads
            process = context.Process(target=_in_a_fork, args=(queue,))
            process.start()
        theirs = queue.get()
        process.join(30)
        queue.close()
        assert process.exitcode == 0
        process.close()
        assert theirs != ours
        assert container.running()
    assert run("true").exit_code == 0


def test_from_asyncio() -> None:
    async def both() -> list[corten.Result]:
        return await asyncio.gather(*(asyncio.to_thread(run, f"echo {number}") for number in range(4)))

    assert [result.stdout for result in asyncio.run(both())] == ["0\n", "1\n", "2\n", "3\n"]


def test_interrupt_ends_the_container(tmp_path: Path) -> None:
    """Ctrl-C in the middle of `run`: the container is gone when KeyboardInterrupt arrives."""
    def interrupt() -> None:
        while not (tmp_path / "ready").exists():
            time.sleep(0.001)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run("touch /mnt/ready; sleep 1000", volumes=[f"{tmp_path}:/mnt"])
    thread.join()
    assert _children_named("corten:init") == []


def _children_named(name: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "comm").read_text().strip() == name and _grandparent(int(entry.name)) == os.getpid():
                    found.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def _grandparent(pid: int) -> int:
    return _parent(_parent(pid))


@pytest.mark.parametrize("how", ["exit", "os._exit", "kill"])
def test_end_of_the_using_process_ends_its_containers(how: str, tmp_path: Path) -> None:
    ending = {"exit": "", "os._exit": "import os; os._exit(0)", "kill": "import os; os.kill(os.getpid(), 9)"}[how]
    program = f"""
import corten, sys
container = corten.start(rootfs={shared()!r}, writable="throwaway", argv=["sh", "-c", "echo ready; sleep 1000"])
container.stdout.readline()
print(container.pid, flush=True)
{ending}
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    pid = int(done.stdout)
    # The spawner sees the end of its socket; wait for the process, which may be a moment behind.
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        os.sched_yield()
    assert not Path(f"/proc/{pid}").exists()
    home = Path(os.environ["CORTEN_HOME"]) / "containers"
    while list(home.iterdir()) and time.monotonic() < deadline:
        os.sched_yield()


def test_killed_spawner_is_replaced() -> None:
    with (
        pytest.raises(corten.Error, match="the spawner has ended, and the container with it"),
        start("echo ready; sleep 1000") as container,
    ):
        assert line(container) == "ready"
        os.kill(_parent(container.pid), 9)
        with pytest.raises(corten.Error, match="the spawner has ended"):
            container.wait()
        assert run("echo again").stdout == "again\n"
    # What it could not remove is swept by the next command.
    subprocess.run([str(Path(sys.executable).parent / "corten"), "run", "--rootfs", shared(), "true"], check=True)


def test_no_resource_is_left_open() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            run("cat", input="x")
            with start("read x", stdin=corten.PIPE):
                pass
            with pytest.raises(corten.CommandNotFound):
                corten.run("host", ["absent"])
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before


# --- typing

TYPED = '''
from pathlib import Path
import corten

result = corten.run("host", ["true"], memory="64m", cpus=1.5, pids=10, timeout=3, env={"A": "b"}, check=True)
reveal_type(result)
reveal_type(result.usage.memory_peak)
reveal_type(result.signal)
with corten.start(rootfs=Path("/x"), argv=["sh"], stdin=corten.PIPE) as container:
    reveal_type(container)
    reveal_type(container.wait(1.0))
    container.update(memory=1 << 20, cpus="0.5")
try:
    corten.run(rootfs="/x", argv=("a", "b"), volumes=["/a:/b"])
except corten.OutOfMemory as error:
    reveal_type(error)
corten.run("host", ["true"], memry="1g")
corten.run("host", ["true"], memory=[1])
'''


def test_types_for_users(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(TYPED)
    words = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run([*words, "user.py"], capture_output=True, text=True, check=False, cwd=tmp_path)
    rows = [row.split(": ", 2)[1:] for row in done.stdout.splitlines()]
    assert [words.replace("builtins.", "") for kind, words in rows if words.startswith("Revealed")] == [
        'Revealed type is "corten.engine.result.Result"',
        'Revealed type is "int | None"',
        'Revealed type is "int | None"',
        'Revealed type is "corten.engine.container.Container"',
        'Revealed type is "corten.engine.result.Result"',
        'Revealed type is "corten.errors.OutOfMemory"',
    ]
    errors = [words for kind, words in rows if kind == "error"]
    assert len(errors) == 2
    assert 'Unexpected keyword argument "memry"' in errors[0]
    assert 'Argument "memory"' in errors[1]


def test_public_names() -> None:
    assert set(corten.__all__) == {
        "DEVNULL", "PIPE", "BuildFailed", "Call", "Cancelled", "CommandNotFound", "CommandNotRunnable", "Container",
        "ContainerExecutor", "ContainerFailed", "Error", "Function", "Image", "InvalidInput", "KernelError", "Killed",
        "NameInUse", "NotFound", "OutOfMemory", "Pool", "RemoteError", "Result", "TimedOut", "Timeout", "Unsupported",
        "Usage", "function", "run", "shutdown", "start",
    }  # fmt: skip
    for name in corten.__all__:
        assert getattr(corten, name) is not None
        assert getattr(corten, name).__doc__
    with pytest.raises(AttributeError):
        corten.nonsense  # noqa: B018


def test_many_kinds_while_the_first_of_one_still_runs(home: Path) -> None:
    """The spawner keeps few plans. One that comes once more is for another container, whose id is its own."""
    prepared = prepare(make("host", ["cat"]))
    containers = [Container(prepared)]
    containers[0].begin((PIPE, DEVNULL, DEVNULL))
    for number in range(spawner_client.SLOTS + 1):
        corten.run("host", ["true"], pids=50 + number)
    containers.append(Container(prepared))
    containers[1].begin((PIPE, DEVNULL, DEVNULL))
    for container in containers:
        assert container.stdin is not None
        container.stdin.close()
        assert container.wait().exit_code == 0
        container.close()
    assert containers[0].id != containers[1].id
