"""NOTIFY_SOCKET: what the program says of being ready reaches the supervisor, as with runc."""

from __future__ import annotations

import array
import os
import select
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from oci_runtime import TIMEOUT, Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Make = Callable[..., Path]

SAY = """
import os, socket, sys, time
with open("/proc/self/mountinfo") as file:
    print(os.environ["NOTIFY_SOCKET"], [line.split()[5] for line in file if " /run/notify " in line])
sys.stdout.flush()
theirs = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for words in sys.argv[1:]:
    theirs.sendto(words.encode(), os.environ["NOTIFY_SOCKET"])
time.sleep(1000)
"""


class Supervisor:
    """Whoever listens on a NOTIFY_SOCKET, as systemd does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.environment = {**os.environ, "NOTIFY_SOCKET": str(path)}

    def hear(self) -> tuple[str, list[int]]:
        """The next message, and the descriptors that came with it."""
        assert select.select([self.socket], [], [], TIMEOUT)[0]
        data, ancillary, _, _ = self.socket.recvmsg(4096, 256)
        fds = array.array("i")
        for _, _, rights in ancillary:
            fds.frombytes(rights)
        return data.decode(), list(fds)


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(tmp_path / "notify")
    yield made
    made.socket.close()


def with_run(config: dict[str, Any]) -> None:
    """The root file system is everybody's, and has no /run: runtimes make what they mount on."""
    config["mounts"].append({"destination": "/run", "type": "tmpfs", "source": "tmpfs"})


@contextmanager
def command(runtime: Runtime, supervisor: Supervisor, *words: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A command that waits for the container's program, and is ended if the test goes wrong."""
    with subprocess.Popen(
        [runtime.program, "--root", str(runtime.root), *words], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env=supervisor.environment, text=True, **{"stdout": subprocess.PIPE, **options},
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def told(supervisor: Supervisor, process: subprocess.Popen[str], barrier: bool = True) -> list[str]:
    """What the supervisor is told; with a barrier the command does not end before that has been taken."""
    messages = [supervisor.hear()[0], supervisor.hear()[0]]
    if barrier:
        last, (fd,) = supervisor.hear()
        assert (last, process.poll()) == ("BARRIER=1", None)
        os.close(fd)
    assert process.wait(TIMEOUT) == 0
    return messages


def test_create_and_start(oci: Runtime, runc: Runtime, bundle: Make, identity: str, supervisor: Supervisor) -> None:
    found: list[tuple[list[str], str]] = []
    for runtime in (oci, runc):
        place = bundle("python3", "-c", SAY, "STATUS=almost\n", "READY=1\nMAINPID=1\n", change=with_run)
        output = place / "output"
        with output.open("w") as file:
            options = {"stdout": file, "capture_output": False, "env": supervisor.environment}
            runtime("create", "--bundle", str(place), identity, check=True, stderr=file, **options)
        with command(runtime, supervisor, "start", identity) as process:
            messages = told(supervisor, process, barrier=runtime is oci)  # runc has it since 1.2
        pid = runtime.state(identity)["pid"]
        runtime("delete", "--force", identity, check=True)
        found.append(([message.replace(str(pid), "PID") for message in messages], output.read_text()))
        assert not (runtime.root / identity).exists()
    assert found[0] == found[1]
    assert found[0][0] == ["READY=1\n", "MAINPID=PID\n"]
    assert found[0][1].startswith("/run/notify/notify.sock ['ro,nosuid,nodev,noexec,")


def test_run(oci: Runtime, bundle: Make, identity: str, supervisor: Supervisor) -> None:
    # runc finds it in the first line only, and waits on.
    place = bundle("python3", "-c", SAY, "STATUS=there\nREADY=1", change=with_run)
    words = ("run", "--detach", "--bundle", str(place), identity)
    with command(oci, supervisor, *words, stdout=subprocess.DEVNULL) as process:
        assert told(supervisor, process)[0] == "READY=1\n"
    oci("delete", "--force", identity, check=True)
    # In the foreground we end with the program, so we are whom the supervisor is to watch.
    with command(oci, supervisor, "run", "--bundle", str(place), identity) as process:
        assert [supervisor.hear()[0], supervisor.hear()[0]] == ["READY=1\n", f"MAINPID={process.pid}\n"]
        oci("kill", identity, "KILL", check=True)
        assert process.wait(TIMEOUT) == 137


def test_a_program_that_ends_before_it_is_ready(
    oci: Runtime, bundle: Make, identity: str, supervisor: Supervisor
) -> None:
    place = bundle("true", change=with_run)
    oci("create", "--bundle", str(place), identity, check=True, env=supervisor.environment, capture_output=False)
    done = oci("start", identity, env=supervisor.environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert not select.select([supervisor.socket], [], [], 0)[0]


def test_nobody_listens(oci: Runtime, bundle: Make, identity: str, tmp_path: Path) -> None:
    """The program runs all the same: that it is ready is no reason to end it."""
    nobody = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "nobody")}
    place = bundle("python3", "-c", SAY, "READY=1", change=with_run)
    oci("create", "--bundle", str(place), identity, check=True, env=nobody, capture_output=False)
    done = oci("start", identity, env=nobody)
    assert done.returncode == 1
    assert done.stderr == f"corten-oci: tell NOTIFY_SOCKET {tmp_path}/nobody: No such file or directory (ENOENT)\n"
    assert oci.state(identity)["status"] == "running"
    oci("delete", "--force", identity, check=True)
    oci("run", "--detach", "--bundle", str(place), identity, check=True, env=nobody, capture_output=False)
    assert oci.state(identity)["status"] == "running"


def test_without_it_nothing_is_mounted(oci: Runtime, bundle: Make, identity: str) -> None:
    place = bundle("sh", "-c", "echo ${NOTIFY_SOCKET-none}; ls /run", change=with_run)
    assert oci("run", "--bundle", str(place), identity, check=True).stdout == "none\n"
