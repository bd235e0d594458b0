"""containerd on `corten-oci`: run, exec, pause, kill, metrics, delete, through its shim."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from oci_runtime import CORTEN_OCI, TIMEOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Ctr = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def ctr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ctr]:
    """A containerd of our own, and its client."""
    place = Path("/tmp") / f"corten-ctr-{os.getpid()}"  # the shim's sockets have short names only
    place.mkdir()
    (place / "config.toml").write_text(
        f'version = 2\nroot = "{place}/root"\nstate = "{place}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'
        f'[grpc]\naddress = "{place}/sock"\n[ttrpc]\naddress = "{place}/ttrpc"\n'
    )
    with (place / "log").open("w") as log:
        server = subprocess.Popen(["containerd", "-c", str(place / "config.toml")], stdout=log, stderr=log)

    def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["ctr", "--address", str(place / "sock"), *words],
            check=False, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return done

    deadline = time.monotonic() + TIMEOUT
    while subprocess.run(
        ["ctr", "--address", str(place / "sock"), "version"], check=False, capture_output=True
    ).returncode:
        assert server.poll() is None, (place / "log").read_text()
        assert time.monotonic() < deadline
    try:
        yield run
    finally:
        server.terminate()
        server.wait(TIMEOUT)
        shutil.rmtree(place)


def test_all(ctr: Ctr, rootfs: Path) -> None:
    name = f"corten-{os.getpid()}-ctr"
    usr = ("--mount", "type=bind,src=/usr,dst=/usr,options=rbind:ro")
    run = ("run", "--runc-binary", CORTEN_OCI, *usr, "--rootfs")
    done = ctr(*run, "--rm", str(rootfs), name, "sh", "-c", "id -u; exit 4", code=4)
    assert done.stdout == "0\n"
    ctr(*run, "--rm", str(rootfs), name, "absent", code=1)
    ctr(*run, "--detach", "--null-io", str(rootfs), name, "sleep", "1000")
    try:
        assert "RUNNING" in ctr("tasks", "list").stdout
        assert ctr("tasks", "exec", "--exec-id", "e1", name, "sh", "-c", "hostname; exit 6", code=6).stdout
        ctr("tasks", "pause", name)
        assert "PAUSED" in ctr("tasks", "list").stdout
        ctr("tasks", "resume", name)
        assert "memory" in ctr("tasks", "metrics", name).stdout
        assert len(ctr("tasks", "ps", name).stdout.splitlines()) == 2
    finally:
        ctr("tasks", "kill", "--signal", "SIGKILL", name)
        ctr("tasks", "delete", name)
        ctr("containers", "delete", name)
    assert ctr("containers", "list", "--quiet").stdout == ""
