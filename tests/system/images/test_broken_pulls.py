"""Downloads that break, in each place where they can: what goes on, what begins anew, what is refused."""

from __future__ import annotations

import email.utils
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.errors import Error, InvalidInput
from corten.images.registry import client
from corten.images.registry.halt import Halt
from corten.images.registry.pulling import pull
from corten.images.registry.pushing import push
from corten.images.registry.watching import Watcher
from corten.images.store.images import Image, Store
from http_servers import Request
from images_lab import Server, image
from registry_fronts import Front, reply, reset


@pytest.fixture
def front(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    monkeypatch.setattr(client, "FIRST_WAIT", 0.001)
    started = Front(server.host)
    yield started
    started.close()


@pytest.fixture
def made(store: Store, server: Server, tmp_path: Path) -> Image:
    """An image of three layers in the registry behind the front."""
    found = image(store, f"{server.host}/{tmp_path.name.lower()}", 3)
    push(store, found.names[0], found.names[0])
    return found


@pytest.fixture
def name(front: Front, made: Image) -> str:
    return f"{front.host}/{made.names[0].partition('/')[2]}"


@pytest.fixture
def other(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "other"))


class Told(Watcher):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def largest(made: Image) -> str:
    return max((layer.blob for layer in made.layers), key=lambda blob: blob.size).digest


def test_a_reset_in_the_middle_goes_on_after_it(
    front: Front, name: str, made: Image, other: Store, store: Store
) -> None:
    """The bytes before it are kept, whatever was on its way is lost."""
    digest = largest(made)
    data = store.blobs.read(digest, 1 << 30)
    starts: list[str] = []

    def answer(request: Request, body: bytes) -> bool:
        if not request.path.endswith(digest):
            return False
        starts.append(request.headers.get("Range", ""))
        if len(starts) > 1:
            return False
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data[: len(data) // 2])
        request.wfile.flush()
        # Until some of it has arrived: a reset throws away what has not been read.
        draft = Path(other.directory, "blobs/drafts", digest.replace(":", "-"))
        while not (draft.exists() and draft.stat().st_size):
            os.sched_yield()
        reset(request)
        return True

    front.answer = answer
    watcher = Told()
    assert pull(other, name, watcher=watcher).manifest.digest == made.digest
    assert len(starts) == 2
    assert starts[0] == ""
    assert starts[1].startswith("bytes=")
    assert any("trying again in" in line for line in watcher.lines), watcher.lines


def test_a_registry_that_ignores_ranges_sends_all_again(
    front: Front, name: str, made: Image, other: Store, store: Store
) -> None:
    digest = largest(made)
    data = store.blobs.read(digest, 1 << 30)
    times: list[str] = []

    def answer(request: Request, body: bytes) -> bool:
        if not request.path.endswith(digest):
            return False
        times.append(request.headers.get("Range", ""))
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data[: len(data) // 3 * len(times)] if len(times) < 3 else data)
        request.close_connection = len(times) < 3
        return True

    front.answer = answer
    assert pull(other, name).manifest.digest == made.digest
    assert times == ["", f"bytes={len(data) // 3}-", f"bytes={len(data) // 3 * 2}-"]
    assert other.blobs.read(digest, 1 << 30) == data


def test_a_manifest_that_breaks_off_is_asked_for_again(front: Front, name: str, made: Image, other: Store) -> None:
    def answer(request: Request, body: bytes) -> bool:
        if "/manifests/" not in request.path or front.count("GET", "/manifests/") > 2:
            return False
        request.send_response(200)
        request.send_header("Content-Type", made.manifest.media_type)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(b'{"schemaVersion"')
        request.close_connection = True
        return True

    front.answer = answer
    assert pull(other, name).manifest.digest == made.digest
    assert front.count("GET", "/manifests/") == 3


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_again_as_late_as_it_says(
    front: Front, name: str, made: Image, other: Store, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    def wait(_: Halt, seconds: float) -> bool:
        slept.append(seconds)
        return False

    monkeypatch.setattr(Halt, "wait", wait)
    later = {1: "17", 2: email.utils.formatdate(time.time() + 40, usegmt=True), 3: "junk"}

    def answer(request: Request, body: bytes) -> bool:
        number = front.count("GET", "/manifests/")
        if "/manifests/" not in request.path or number not in later:
            return False
        reply(request, code, b'{"errors":[{"code":"SLOW","message":"too many"}]}', Retry_After=later[number])
        return True

    front.answer = answer
    watcher = Told()
    assert pull(other, name, watcher=watcher).manifest.digest == made.digest
    assert slept[0] == 17
    assert 30 < slept[1] <= 40
    assert slept[2] < 1
    assert f"{code} " in watcher.lines[0]
    assert watcher.lines[0].endswith(": too many: trying again in 17.0 s")


def test_a_download_that_began_at_a_liar_is_begun_anew(
    front: Front, name: str, made: Image, other: Store, store: Store
) -> None:
    """A draft with wrong bytes, as a mirror that lies and breaks off may leave it, does not stand in the way."""
    digest = largest(made)
    draft = other.blobs.download(digest)
    assert draft is not None
    with draft:
        draft.write(b"wrong" * 100)
        draft.keep()
    assert pull(other, name).manifest.digest == made.digest
    ranges = [heard.get("range") for asked, heard in zip(front.asked, front.heard, strict=True) if digest in asked]
    assert ranges == ["bytes=500-", None]


def test_a_blob_that_is_shorter_than_promised(front: Front, name: str, made: Image, other: Store, store: Store) -> None:
    digest = largest(made)
    data = store.blobs.read(digest, 1 << 30)
    short = data[: len(data) // 2]

    def answer(request: Request, body: bytes) -> bool:
        if not request.path.endswith(digest):
            return False
        if "Range" in request.headers:
            reply(request, 416)
        else:
            reply(request, 200, short)
        return True

    front.answer = answer
    with pytest.raises(InvalidInput, match=f"is shorter than the {len(data)} bytes promised: refused"):
        pull(other, name)
    assert list(other.names.all()) == []
    # One that does not know ranges is given up in the end.
    front.answer = lambda request, body: request.path.endswith(digest) and not reply(request, 200, short)  # type: ignore[func-returns-value]
    with pytest.raises(Error, match=rf"ended after {len(short)} of {len(data)} bytes \(5 attempts\)"):
        pull(other, name)
    assert not other.blobs.has(digest)


def tokens(front: Front, good: set[str], given: list[str]) -> object:
    """An answer that wants tokens; the token service is the front itself."""

    def answer(request: Request, body: bytes) -> bool:
        if request.path.startswith("/token"):
            given.append(f"t{len(given)}")
            reply(request, 200, f'{{"access_token": "{given[-1]}", "expires_in": 3600}}'.encode())
            return True
        if request.headers.get("Authorization", "").removeprefix("Bearer ") in good:
            return False
        how = f'Bearer realm="http://{front.host}/token",service="s",error="invalid_token"'
        reply(request, 401, b'{"errors":[{"code":"UNAUTHORIZED","message":"token expired"}]}', WWW_Authenticate=how)
        return True

    return answer


def test_a_token_that_is_never_good_is_refreshed_once(front: Front, name: str, other: Store) -> None:
    given: list[str] = []
    front.answer = tokens(front, set(), given)  # type: ignore[assignment]
    with pytest.raises(InvalidInput) as caught:
        pull(other, name)
    host = front.host
    assert f"registry {host}: token expired: asked without credentials: see 'corten login {host}'" in str(caught.value)
    assert len(given) == 2
    assert front.count("GET", "/manifests/") == 2


def test_a_token_that_expires_while_layers_come(front: Front, name: str, made: Image, other: Store) -> None:
    """Each thread that is refused asks for another one; nothing else fails."""
    given: list[str] = []
    good = {"t0"}
    wanting = tokens(front, good, given)

    def answer(request: Request, body: bytes) -> bool:
        if "/blobs/" in request.path and good == {"t0"}:
            good.clear()
            good.update(f"t{number}" for number in range(1, 9))
        return wanting(request, body)  # type: ignore[operator, no-any-return]

    front.answer = answer
    assert pull(other, name).manifest.digest == made.digest


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"<html>", "the answer holds no token"),
        (b"{}", "the answer holds no token"),
        (b'{"token": 5}', "the answer holds no token"),
        (b'{"token": "a\\nb"}', "the answer holds no token"),
    ],
)
def test_a_token_service_that_gives_none(front: Front, name: str, other: Store, answer: bytes, words: str) -> None:
    given: list[str] = []
    wanting = tokens(front, set(), given)

    def odd(request: Request, body: bytes) -> bool:
        if request.path.startswith("/token"):
            reply(request, 200, answer)
            return True
        return wanting(request, body)  # type: ignore[operator, no-any-return]

    front.answer = odd
    with pytest.raises(Error, match=words):
        pull(other, name)


def test_an_identity_token_is_exchanged(
    front: Front, name: str, made: Image, other: Store, tmp_path: Path
) -> None:
    """What `docker login` keeps for a registry with single sign-on (OAuth 2)."""
    (tmp_path / "auth.json").write_text(f'{{"auths": {{"{front.host}": {{"identitytoken": "long-lived"}}}}}}')
    asked: list[bytes] = []
    wanting = tokens(front, {"t0"}, [])

    def answer(request: Request, body: bytes) -> bool:
        if request.path.startswith("/token"):
            asked.append(body)
        return wanting(request, body)  # type: ignore[operator, no-any-return]

    front.answer = answer
    assert pull(other, name).manifest.digest == made.digest
    assert b"grant_type=refresh_token" in asked[0]
    assert b"refresh_token=long-lived" in asked[0]
    assert front.count("POST", "/token") == len(asked) == 1
