"""Debian's podman on `corten-oci`: what a person does with it, through conmon."""

from __future__ import annotations

import json
import os
import pty
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from leaks import groups_named
from oci_runtime import CORTEN_OCI, PODMAN_PARENT, TIMEOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Podman = Callable[..., subprocess.CompletedProcess[str]]

# This machine's root may not raise limits above the hard ones, which podman would by default.
COMMON = (
    "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--network", "none", "-v", "/usr:/usr:ro",
    "--cgroup-parent", f"/{PODMAN_PARENT}",
)  # fmt: skip


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """podman with a store of its own."""
    store = tmp_path_factory.mktemp("podman")
    os.environ["XDG_RUNTIME_DIR"] = str(store)
    words = [
        "podman", "--root", str(store / "root"), "--runroot", str(store / "run"), "--tmpdir", str(store / "tmp"),
        "--runtime", CORTEN_OCI, "--cgroup-manager", "cgroupfs", "--events-backend", "none",
    ]  # fmt: skip

    def run(*more: str, code: int = 0, **options: object) -> subprocess.CompletedProcess[str]:
        settings: dict[str, object] = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, **options}
        done: subprocess.CompletedProcess[str] = subprocess.run(  # type: ignore[call-overload]
            [*words, *more], check=False, timeout=TIMEOUT, **settings
        )
        assert done.returncode == code, (more, done.stdout, done.stderr)
        return done

    yield run
    run("rm", "--force", "--all", "--time", "0")
    for group in groups_named(PODMAN_PARENT):
        for own in (group / "conmon", group):
            if own.exists():
                own.rmdir()
    del os.environ["XDG_RUNTIME_DIR"]
    shutil.rmtree(store)


def terminal(podman: Podman, *words: str) -> str:
    """A podman command with a terminal; what it shows."""
    master, slave = pty.openpty()
    try:
        podman(*words, stdin=slave, stdout=slave, stderr=slave, capture_output=False)
        return os.read(master, 4096).decode()
    finally:
        os.close(master)
        os.close(slave)


def test_run(podman: Podman, rootfs: Path) -> None:
    done = podman("run", "--rm", *COMMON, "--rootfs", str(rootfs), "sh", "-c", "echo out; echo err >&2; exit 3", code=3)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    done = podman("run", "--rm", "-i", *COMMON, "--rootfs", str(rootfs), "cat", stdin=None, input="through")
    assert done.stdout == "through"
    shown = terminal(podman, "run", "--rm", "-it", *COMMON, "--rootfs", str(rootfs), "tty")
    assert "/dev/pts/0" in shown


def test_errors_become_podmans_exit_codes(podman: Podman, rootfs: Path) -> None:
    podman("run", "--rm", *COMMON, "--rootfs", str(rootfs), "absent", code=127)
    podman("run", "--rm", *COMMON, "--rootfs", str(rootfs), "/etc/passwd", code=126)
    podman("run", "--rm", *COMMON, "--rootfs", str(rootfs), "sh", "-c", "kill -9 $$; exit 7", code=7)


def test_options(podman: Podman, rootfs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    run = ("run", "--rm", *COMMON)
    look = ("sh", "-c", "touch /x; touch /tmp/y && echo made; cat /volume/file; touch /volume/z")
    done = podman(*run, "--read-only", "-v", f"{tmp_path}:/volume:ro", "--rootfs", str(rootfs), *look, code=1)
    assert done.stdout == "made\ncontent"
    assert done.stderr.count("Read-only file system") == 2
    done = podman(*run, "--pids-limit", "12", "--rootfs", str(rootfs), "cat", "/sys/fs/cgroup/pids/pids.max")
    assert done.stdout == "12\n"
    maps = ("--uidmap", "0:100000:5000", "--gidmap", "0:100000:5000")
    done = podman(*run, *maps, "--rootfs", str(rootfs), "sh", "-c", "cat /proc/self/uid_map; id -u")
    assert done.stdout.split() == ["0", "100000", "5000", "0"]
    done = podman(*run, "--cap-drop", "all", "--user", "1000", "--hostname", "some", "--rootfs", str(rootfs),
                  "sh", "-c", "id -u; hostname; grep CapBnd /proc/self/status")  # fmt: skip
    assert done.stdout.split() == ["1000", "some", "CapBnd:", "0" * 16]


def test_detached_life(podman: Podman, rootfs: Path) -> None:
    script = "trap 'echo bye; exit 0' TERM; echo ready; while true; do read -t 1 x; done"
    podman("run", "-d", "--name", "one", *COMMON, "--rootfs", str(rootfs), "bash", "-c", script + " <> <(:)")
    while "ready" not in podman("logs", "one").stdout:
        pass
    assert podman("exec", "one", "sh", "-c", "hostname; exit 5", code=5).stdout
    podman("exec", "-d", "one", "sleep", "1000")
    assert "/dev/pts/" in terminal(podman, "exec", "-it", "one", "tty")
    podman("exec", "one", "absent", code=127)
    podman("pause", "one")
    assert "Paused" in podman("ps", "--all", "--format", "{{.Status}}").stdout
    podman("unpause", "one")
    podman("update", "--memory", "100m", "one")
    limit = "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    assert podman("exec", "one", "cat", limit).stdout == f"{100 << 20}\n"
    (stats,) = json.loads(podman("stats", "--no-stream", "--format", "json", "one").stdout)
    assert int(stats["pids"]) >= 2
    assert "sleep" in podman("top", "one", "-ef").stdout or podman("top", "one").stdout
    podman("kill", "--signal", "TERM", "one")
    assert podman("wait", "one").stdout == "0\n"
    assert podman("logs", "one").stdout.split() == ["ready", "bye"]
    podman("start", "one")
    podman("stop", "--time", "5", "one")
    podman("rm", "one")
    assert podman("ps", "--all", "--quiet").stdout == ""


def test_create_and_kill(podman: Podman, rootfs: Path) -> None:
    podman("create", "--name", "two", *COMMON, "--rootfs", str(rootfs), "sleep", "1000")
    podman("init", "two")
    assert podman("inspect", "two", "--format", "{{.State.Status}}").stdout.strip() in ("initialized", "created")
    podman("start", "two")
    podman("kill", "two")
    assert podman("wait", "two").stdout == "137\n"
    podman("rm", "two")


def test_readiness_is_told(podman: Podman, rootfs: Path, tmp_path: Path) -> None:
    """podman gives the supervisor's socket to conmon, and conmon to us."""
    say = (
        "import os, socket, time; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM);"
        "s.sendto(b'READY=1', os.environ['NOTIFY_SOCKET']); time.sleep(1000)"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(TIMEOUT)
        options = {"env": {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}}
        words = ("run", "--detach", "--sdnotify", "container", "--name", "ready", *COMMON, "--rootfs", str(rootfs))
        podman(*words, "python3", "-c", say, **options)
        heard = b"\n".join(supervisor.recv(4096).strip() for _ in range(2))
        assert b"READY=1" in heard
        assert b"MAINPID=" in heard
    podman("rm", "--force", "--time", "0", "ready")
