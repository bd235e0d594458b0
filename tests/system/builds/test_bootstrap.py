"""`corten image bootstrap` with mirrors of the tests' own, which hang or have nothing; as root and without."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from http_servers import HttpServer, Request
from ordinary_user import User


class Mirror:
    """A server that has nothing; or, with `hang`, never answers.

    Events: asked, set by the first request; left: who asked has ended the connection.
    """

    def __init__(self) -> None:
        self.asked, self.left, self.hang = threading.Event(), threading.Event(), False
        mirror = self

        class Handler(Request):
            def do_GET(self) -> None:  # noqa: N802
                mirror.asked.set()
                if mirror.hang:
                    self.connection.settimeout(20)
                    if self.connection.recv(1) == b"":
                        mirror.left.set()
                    return
                self.send_error(404)

        self.server = HttpServer(Handler)
        self.url = f"http://127.0.0.1:{self.server.port}/debian"

    def close(self) -> None:
        self.server.close()


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    started = Mirror()
    yield started
    started.close()


@pytest.fixture
def user() -> Iterator[User]:
    made = User()
    yield made
    made.close()


class Who:
    """Who bootstraps, and the home where it is done."""

    def __init__(self, user: User | None, own: Path) -> None:
        self.user = user.with_ranges() if user else None
        self.home = user.home / ".local/share/corten" if user else own

    def start(self, *words: str) -> subprocess.Popen[str]:
        if self.user:
            line, where, environment = self.user.corten_words(*words), self.user.home, dict(os.environ)
        else:
            line, where = [f"{Path(sys.executable).parent}/corten", *words], self.home.parent
            environment = {**os.environ, "CORTEN_HOME": str(self.home)}
        return subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=where, env=environment
        )

    def left(self) -> list[str]:
        """What is left of the attempt."""
        return [str(path) for place in ("build/steps", "images/names") for path in (self.home / place).glob("*")]


@pytest.fixture(params=["root", "user"])
def who(request: pytest.FixtureRequest, tmp_path: Path) -> Who:
    return Who(request.getfixturevalue("user") if request.param == "user" else None, tmp_path / "own")


def test_a_mirror_that_has_nothing(who: Who, mirror: Mirror) -> None:
    with who.start("image", "bootstrap", "-q", "--mirror", mirror.url, "debian:bookworm") as running:
        out, said = running.communicate()
    assert (running.returncode, out) == (125, "")
    assert said.startswith("corten: bootstrap of debian:bookworm: ")
    assert "404" in said or "Release" in said
    assert said.count("\n") == 1
    assert who.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_one_that_is_interrupted_takes_all_with_it(who: Who, mirror: Mirror, number: int) -> None:
    """No process goes on; that nothing stays mounted is for the leak check to see."""
    mirror.hang = True
    temporary = set(Path(tempfile.gettempdir()).glob("mmdebstrap*"))
    with who.start("image", "bootstrap", "--mirror", mirror.url, "debian:bookworm") as running:
        assert mirror.asked.wait(60), running.communicate()
        running.send_signal(number)
        out, _ = running.communicate()
    assert mirror.left.wait(10), "mmdebstrap goes on"
    assert (running.returncode, out) == (130 if number == signal.SIGINT else -9, "")
    assert set(Path(tempfile.gettempdir()).glob("mmdebstrap*")) <= temporary
    if number == signal.SIGKILL:  # the next one takes away what is left
        assert who.left()
        mirror.hang = False
        with who.start("image", "bootstrap", "-q", "--mirror", mirror.url, "debian:bookworm") as running:
            assert running.wait() == 125
            running.communicate()
    assert who.left() == []


def test_without_a_range_of_ids_it_says_what_is_missing(user: User) -> None:
    done = user.corten("image", "bootstrap", "debian:bookworm")
    assert done.returncode == 125
    assert done.stderr.startswith("corten: bootstrap of debian:bookworm: needs more ids than one: ")
    assert "/etc/subuid" in done.stderr
    assert done.stderr.count("\n") == 1
