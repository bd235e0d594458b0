"""Builds that end before they are done, and builds at the same time: nothing half made is left or used."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from builds.conftest import BASE
from builds.trees import ours, read
from corten.images.store.images import Store
from small_root import CORTEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Command = Callable[..., subprocess.CompletedProcess[str]]


def drafts(home: Path) -> list[str]:
    return [name for name in os.listdir(home / "build/steps") if name.startswith(".")]


def started(context: Path, word: str) -> subprocess.Popen[str]:
    """A build that has come to a step that takes long."""
    (context / "Containerfile").write_text(f"{BASE}RUN echo begun-{word} && sleep 1000\n")
    process = subprocess.Popen([CORTEN, "build", str(context)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line == f"begun-{word}\n":
            return process
    raise AssertionError("it ended early")


@pytest.mark.parametrize(("name", "code"), [("INT", 130), ("TERM", 143), ("HUP", 129)])
def test_a_signal_ends_it_and_leaves_nothing(home: Path, context: Path, name: str, code: int) -> None:
    with started(context, name) as process:
        process.send_signal(getattr(signal, f"SIG{name}"))
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait() == code
    assert drafts(home) == []


def test_what_a_killed_build_left_the_next_one_sweeps(home: Path, context: Path, command: Command) -> None:
    with started(context, "KILL") as process:
        process.kill()
    assert drafts(home)
    (context / "Containerfile").write_text(f"{BASE}RUN echo after a killed one\n")
    done = command("build", "-q", str(context))
    assert done.returncode == 0, done.stderr
    assert drafts(home) == []


def test_two_at_once_make_a_step_once(home: Path, context: Path) -> None:
    (context / "Containerfile").write_text(f"{BASE}RUN date +%s%N > /when && sleep 0.5\n")
    words = [CORTEN, "build", "-q", str(context)]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    digests = {process.communicate()[0] for process in both}
    assert len(digests) == 1
    assert Store(str(home)).find(digests.pop().strip()) is not None


def test_a_full_disk(context: Path, tmp_path: Path) -> None:
    (context / "big").write_bytes(os.urandom(6 << 20))
    (context / "Containerfile").write_text("FROM scratch\nCOPY big /big\n")
    home = tmp_path / "home"
    home.mkdir()
    script = f"mount -t tmpfs -o size=8m tmpfs {home} && {CORTEN} build -q {context}; code=$?; find {home}/build/steps"
    script += "; exit $code"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        env={**os.environ, "CORTEN_HOME": str(home)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 125
    assert done.stdout == f"{home}/build/steps\n"
    assert done.stderr.count("\n") == 1
    assert "Containerfile:2: COPY: cannot make " in done.stderr
    assert "No space left on device (ENOSPC)" in done.stderr


def test_pruned_results_are_made_again(home: Path, context: Path, command: Command) -> None:
    text = f"{BASE}RUN --mount=type=cache,id=pruned,target=/c touch /c/x; ls /c > /l\n"
    (context / "Containerfile").write_text(text)
    first = command("build", "-q", "--timestamp", "1", str(context)).stdout.strip()
    done = command("image", "prune", "--builds")
    assert done.returncode == 0, done.stderr
    assert os.listdir(home / "build/steps") == os.listdir(home / "build/caches") == []
    image = Store(str(home)).find(first)
    assert image is None or read(home, image, "l") == "x\n"
    again = command("build", "--timestamp", "1", str(context))
    assert "(cached)" not in again.stderr
    assert again.stdout.strip() == first


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """An HTTP server on loopback that serves a file; its address."""
    directory = tmp_path / "served"
    directory.mkdir()
    (directory / "f.txt").write_text("served\n")
    os.utime(directory / "f.txt", (1_000_000_000, 1_000_000_000))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_address[1]}"
        served.shutdown()
        thread.join()


def test_add_fetches(home: Path, context: Path, command: Command, server: str) -> None:
    digest = hashlib.sha256(b"served\n").hexdigest()
    (context / "Containerfile").write_text(
        f"FROM scratch\nADD --checksum=sha256:{digest} {server}/f.txt /d/\nADD --chmod=644 {server}/f.txt /g\n"
    )
    done = command("build", "-q", str(context))
    assert done.returncode == 0, done.stderr
    image = Store(str(home)).find(done.stdout.strip())
    assert image is not None
    found = ours(home, image, times=True)
    assert found["/d/f.txt"][0] == "-rw-------"
    assert found["/g"][0] == "-rw-r--r--"
    assert found["/g"][-1] == "1000000000"
    for address, message in (
        (f"{server}/none", "the server answers 404 File not found"),
        (f"--checksum=sha256:{'0' * 64} {server}/f.txt", f"has the digest sha256:{digest}"),
    ):
        (context / "Containerfile").write_text(f"FROM scratch\nADD {address} /x\n")
        done = command("build", "-q", str(context))
        assert done.returncode == 125
        assert message in done.stderr
