"""What people see while an image comes: bars on a terminal of any width, a line elsewhere, the terminal as it was."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corten.images.registry.pushing import push
from corten.images.store.images import Image, Store
from http_servers import Request
from images_lab import Server, image
from registry_fronts import Front, reply
from screens import Screen

Command = Callable[..., subprocess.CompletedProcess[str]]
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


class Halfway(Front):
    """A registry that sends the first half of each layer, and the rest when it is let; `/later` once layers come."""

    def __init__(self, behind: str, made: Image, store: Store) -> None:
        super().__init__(behind)
        self.go, self.coming = threading.Event(), threading.Event()
        layers = {layer.blob.digest for layer in made.layers}

        def answer(request: Request, body: bytes) -> bool:
            digest = request.path.rpartition("/")[2]
            if digest == "later":
                self.coming.wait(600)
                reply(request, 200)
                return True
            if request.command != "GET" or digest not in layers or "Range" in request.headers:
                return False
            data = store.blobs.read(digest, 1 << 30)
            request.send_response(200)
            request.send_header("Content-Length", str(len(data)))
            request.end_headers()
            request.wfile.write(data[: len(data) // 2])
            self.coming.set()
            self.go.wait(600)
            request.wfile.write(data[len(data) // 2 :])
            return True

        self.answer = answer

    def close(self) -> None:
        self.go.set()
        self.coming.set()
        super().close()


@pytest.fixture
def made(store: Store, server: Server, tmp_path: Path) -> Image:
    """An image in the registry, and no more in the store of commands."""
    name = f"{server.host}/{re.sub('[^a-z0-9]+', '', tmp_path.name.lower())}"
    found = image(Store(str(tmp_path / "makers")), name, 6)
    push(Store(str(tmp_path / "makers")), name, name)
    return found


@pytest.fixture
def half(server: Server, made: Image, tmp_path: Path) -> Iterator[Halfway]:
    started = Halfway(server.host, made, Store(str(tmp_path / "makers")))
    yield started
    started.close()


@pytest.fixture
def name(half: Halfway, made: Image) -> str:
    return f"{half.host}/{made.names[0].partition('/')[2]}"


@pytest.fixture
def patient(tmp_path: Path, half: Halfway) -> None:
    """We wait for an answer of this registry for longer than any test may take."""
    (tmp_path / "registries.toml").write_text(f'[registry."{half.host}"]\ntimeout = 1000\n')


def pulling(name: str, **options: object) -> Screen:
    environment = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    return Screen(name, command="pull", env=environment, **options)  # type: ignore[arg-type]


def drawn(text: str) -> list[str]:
    """The lines that were drawn, without what colours them and moves them about."""
    return re.split(r"\r|\n", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))


def short(made: Image) -> list[str]:
    return [layer.blob.digest[7:19] for layer in made.layers]


@pytest.mark.parametrize("columns", [120, 80, 60, 30])
def test_bars_fit_the_terminal(name: str, made: Image, half: Halfway, columns: int) -> None:
    with pulling(name, columns=columns) as screen:
        shown = screen.until("together")
        while not all(f"{digest} fetching" in "\n".join(drawn(shown)) for digest in short(made)[:1]):
            shown += screen.until("together")
        half.go.set()
        assert screen.end() == 0
        shown += screen.seen.decode()
        assert screen.restored()
    lines = drawn(shown)
    assert all(len(line) <= columns for line in lines if "sha256:" not in line)
    text = "\n".join(lines)
    for digest in short(made):
        assert f"{digest} done" in text
    assert any(line.startswith(short(made)[-1] + " waiting") for line in lines)
    # What there is room for.
    assert ("━" in text) == (columns >= 80)
    assert (" MiB" in text) == (columns >= 60)
    assert ("100 %" in text) == (columns < 60)
    assert shown.rindex(SHOW) > shown.rindex(HIDE)


def test_what_moves_is_shown_where_there_is_no_room_for_all(name: str, made: Image, half: Halfway) -> None:
    with pulling(name, rows=7) as screen:
        shown = screen.until("together")
        while "fetching" not in shown:
            shown += screen.until("together")
        half.go.set()
        assert screen.end() == 0
        shown += screen.seen.decode()
    last = drawn(shown.split("together")[-2])
    # In the end nothing moves.
    assert [line for line in last if line.strip("0123456789abcdef").startswith((" waiting", " done"))] == []
    assert " done " not in shown


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_who_is_interrupted_has_the_terminal_back(
    name: str, made: Image, half: Halfway, number: int, code: int, store: Store, patient: None
) -> None:
    """At once, though the registry has become silent."""
    with pulling(name) as screen:
        shown = screen.until("together")
        while "fetching" not in shown:
            shown += screen.until("together")
        if number == signal.SIGINT:
            screen.type("\x03")
        else:
            screen.process.send_signal(number)
        assert screen.end() == code
        assert screen.restored()
        shown += screen.seen.decode()
    assert shown.rindex(SHOW) > shown.rindex(HIDE)
    assert "Traceback" not in shown
    assert store.find(name) is None


def test_elsewhere_it_is_a_line(name: str, made: Image, half: Halfway, command: Command, store: Store) -> None:
    half.go.set()
    done = command("pull", name)
    assert done.stdout == f"{made.digest}\n"
    assert re.fullmatch(r"corten: fetched 6 blobs, [0-9.]+ [KM]iB in [0-9.]+ s, [0-9.]+ [KM]iB/s\n", done.stderr)
    # With nothing to move there is nothing to say, and -q says nothing at all.
    assert command("pull", name).stderr == ""
    assert command("image", "rm", name).returncode == 0
    done = command("pull", "-q", name)
    assert (done.stdout, done.stderr) == (f"{made.digest}\n", "")
    done = command("push", name, f"{name}-again")
    assert done.stderr == ""  # all of it was mounted
    environment = {**os.environ, "TERM": "dumb"}
    with Screen("-q", name, f"{name}-dumb", command="push", env=environment) as screen:
        assert screen.end() == 0
    assert screen.seen.decode().strip() == made.digest


def test_what_a_build_says_stands_above_the_bars(name: str, made: Image, half: Halfway, tmp_path: Path) -> None:
    """One stage waits for its image while another goes on: neither breaks the other's lines."""
    context = tmp_path / "context"
    context.mkdir()
    (context / "Containerfile").write_text(
        f"FROM scratch AS one\nADD http://{half.host}/later /a\nCOPY Containerfile /b\n"
        f"FROM {name} AS two\nCOPY Containerfile /c\nFROM scratch AS last\nCOPY --from=one /a /\nCOPY --from=two /c /\n"
    )
    with Screen(str(context), command="build", env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"}) as screen:
        shown = screen.until("Containerfile /b") + screen.until("together")
        half.go.set()
        assert screen.end() == 0
        lines = drawn(shown + screen.seen.decode())
    assert lines.index("[one 2/2] COPY Containerfile /b") > max(
        number for number, line in enumerate(lines) if line.startswith("[one 1/2] ADD http://")
    )
    assert "[last 2/2] COPY --from=two /c /" in lines
    assert any("fetching" in line for line in lines[: lines.index("[one 2/2] COPY Containerfile /b")])


@pytest.mark.parametrize("why", ["interrupted", "another stage fails"])
def test_a_build_that_ends_does_not_wait_for_its_image(
    name: str, made: Image, half: Halfway, tmp_path: Path, patient: None, why: str
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Containerfile").write_text(
        f"FROM {name} AS two\nCOPY Containerfile /c\nFROM scratch AS one\nADD http://{half.host}/later /a\n"
        "COPY missing /b\nFROM scratch AS last\nCOPY --from=two /c /\nCOPY --from=one /a /\n"
    )
    if why == "interrupted":
        (context / "missing").write_text("")
    with Screen(str(context), command="build", env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"}) as screen:
        if why == "interrupted":
            shown = screen.until("fetching")
            screen.type("\x03")
        else:
            shown = ""
        code = screen.end()
        shown += screen.seen.decode()
    assert shown.rindex(SHOW) > shown.rindex(HIDE)
    assert code == (130 if why == "interrupted" else 125)
    if why != "interrupted":
        said = [line for line in drawn(shown) if line][-1]
        assert said.endswith("Containerfile:5: COPY: missing: no such file or directory")
