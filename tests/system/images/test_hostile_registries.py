"""Registries that lie, break off, hang and refuse: one clear line each, and nothing half made in use."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corten.errors import Error, InvalidInput, NotFound
from corten.images import manifests
from corten.images.references import parse
from corten.images.registry import client
from corten.images.registry.pulling import pull
from corten.images.store import removal
from corten.images.store.images import Image, Store
from corten.images.store.journal import Journal
from corten.json_text import dumps
from corten.linux import clone, mounts
from http_servers import HttpServer, Request
from images_lab import image
from registry_fronts import reset

Answer = Callable[[Request], bool]


class Liar:
    """A registry with one image, whose answers tests may change. asked: paths; answer: takes a request or leaves it."""

    def __init__(self, store: Store, made: Image) -> None:
        self.asked: list[str] = []
        self.ranges: list[str] = []
        self.answer: Answer = lambda request: False
        self.change: dict[str, bytes] = {}
        liar = self

        class Handler(Request):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:  # noqa: N802
                liar.asked.append(self.path)
                if "Range" in self.headers:
                    liar.ranges.append(self.headers["Range"])
                if not liar.answer(self):
                    self.reply(liar.content(self.path, store, made))

            def reply(self, data: bytes | None, code: int = 200, **headers: str) -> None:
                if data is None:
                    data, code = b'{"errors":[{"code":"X","message":"no such thing"}]}', 404
                start = int(self.headers.get("Range", "bytes=0-")[6:].rstrip("-"))
                if start and code == 200:
                    code = 206
                    headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                self.send_response(code)
                kind = made.manifest.media_type if "/manifests/" in self.path else "application/octet-stream"
                for name, value in {"Content_Type": kind, **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(data) - start))
                self.end_headers()
                self.wfile.write(data[start:])

        self.server = HttpServer(Handler)
        self.name = f"localhost:{self.server.port}/lies"

    def content(self, path: str, store: Store, made: Image) -> bytes | None:
        last = path.rpartition("/")[2]
        if path == "/v2/":
            return b"{}"
        if last in self.change:
            return self.change[last]
        digest = made.digest if last == "latest" else last
        try:
            return store.blobs.read(digest, 1 << 30)
        except (NotFound, InvalidInput):
            return None

    def close(self) -> None:
        self.server.close()


@pytest.fixture
def made(store: Store) -> Image:
    return image(store, "lies", 3)


@pytest.fixture
def liar(store: Store, made: Image, monkeypatch: pytest.MonkeyPatch) -> Iterator[Liar]:
    monkeypatch.setattr(client, "FIRST_WAIT", 0.001)
    started = Liar(store, made)
    yield started
    started.close()


@pytest.fixture
def other(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "other"))


def refused(store: Store, name: str, kind: type[Error] = InvalidInput, platform: str = "") -> str:
    """The one line with which a pull ends, after which no image, no half layer and no wrong blob is there."""
    with pytest.raises(kind) as caught:
        pull(store, name, platform)
    assert "\n" not in str(caught.value)
    assert list(store.names.all()) == []
    for digest in store.blobs.all():
        assert digest == "sha256:" + hashlib.sha256(store.blobs.read(digest, 1 << 30)).hexdigest()
    assert not [name for name in _names(store.layers.directory) if name.startswith(".")]
    return str(caught.value)


def _names(directory: str) -> list[str]:
    return os.listdir(directory) if os.path.isdir(directory) else []


def test_the_liar_tells_the_truth_first(other: Store, liar: Liar, made: Image) -> None:
    assert pull(other, liar.name).manifest.digest == made.digest


def test_wrong_bytes_are_refused(other: Store, liar: Liar, made: Image, store: Store) -> None:
    blob = made.layers[1].blob
    good = store.blobs.read(blob.digest, 1 << 20)
    liar.change = {blob.digest: good[:-1] + bytes([good[-1] ^ 1])}
    # Which of the two checks is first to see it is open.
    assert blob.digest in (said := refused(other, liar.name)) or "damaged" in said
    liar.change = {blob.digest: good + b"more"}
    assert blob.digest in (said := refused(other, liar.name)) or "garbage" in said
    liar.change = {made.manifest.config.digest: b"{}" + b" " * (made.manifest.config.size - 2)}
    assert "what came has the digest" in refused(Store(f"{other.directory}/empty"), liar.name)
    # And in the end all is well, with what was kept.
    liar.change = {}
    assert pull(other, liar.name).manifest.digest == made.digest


def test_a_layer_that_is_not_what_the_configuration_says(other: Store, liar: Liar, made: Image, store: Store) -> None:
    """The layers are those of the manifest, but the configuration lists others."""
    raw = {**made.config.raw, "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64] * 3}}
    lying = dumps(raw).encode()
    digest = "sha256:" + hashlib.sha256(lying).hexdigest()
    config = made.manifest.config.replace(digest=digest, size=len(lying))
    manifest = manifests.serialise(made.manifest.replace(config=config))
    liar.change = {digest: lying, "latest": manifest}
    assert "unpacks to something else" in refused(other, liar.name)
    # A manifest and a configuration that do not fit each other.
    liar.change["latest"] = manifests.serialise(made.manifest.replace(layers=made.manifest.layers[:2], config=config))
    assert "lists 3 layers, but there are 2" in refused(other, liar.name)


def test_manifests_that_cannot_be_used(other: Store, liar: Liar, made: Image) -> None:
    cases = (
        (b'{"schemaVersion": 1, "fsLayers": []}', "schema version 1"),
        (b'{"schemaVersion": 2, "mediaType": "application/x-new"}', "unknown type 'application/x-new'"),
        (b'{"schemaVersion": 2, "config": {}, "layers": []}', "config.mediaType: missing"),
        (b"<html>", "line 1 column 1"),
        (b"[]", "is no JSON object"),
        (b" " * (5 << 20), "is larger than 4 MiB"),
    )
    for data, words in cases:
        liar.change = {"latest": data}
        assert words in refused(other, liar.name)
    wrong = f"{liar.name}@sha256:{'1' * 64}"
    liar.change = {f"sha256:{'1' * 64}": b"{}"}
    assert "what came has the digest" in refused(other, wrong)
    liar.change = {}
    assert f"nothing for linux/s390x: there is linux/{made.config.platform.architecture}" in refused(
        other, liar.name, platform="s390x"
    )
    assert "no such thing" in refused(other, liar.name.replace("lies", "lies:absent"), NotFound)


def test_a_connection_that_breaks_is_taken_up_where_it_broke(
    other: Store, liar: Liar, made: Image, store: Store
) -> None:
    blob = max((layer.blob for layer in made.layers), key=lambda blob: blob.size)
    data = store.blobs.read(blob.digest, 1 << 30)
    broken: list[str] = []

    def answer(request: Request) -> bool:
        if not request.path.endswith(blob.digest) or len(broken) == 3:
            return False
        start = int(request.headers.get("Range", "bytes=0-")[6:].rstrip("-"))
        broken.append(request.headers.get("Range", ""))
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        request.send_header("Content-Length", str(len(data) - start))
        request.end_headers()
        request.wfile.write(data[start : start + len(data) // 5])
        request.close_connection = True  # in order, so that what was sent arrives
        return True

    liar.answer = answer
    assert pull(other, liar.name).manifest.digest == made.digest
    assert len(broken) == 3
    assert broken == ["", f"bytes={len(data) // 5}-", f"bytes={len(data) // 5 * 2}-"]
    assert other.blobs.read(blob.digest, 1 << 30) == data


def test_a_registry_that_stays_broken_hangs_or_is_overloaded(
    other: Store, liar: Liar, made: Image, tmp_path: Path
) -> None:
    blob = made.layers[0].blob

    def no_answer(request: Request) -> bool:
        if not request.path.endswith(blob.digest):
            return False
        reset(request)
        return True

    liar.answer = no_answer
    assert "(5 attempts)" in refused(other, liar.name, Error)

    def busy(request: Request) -> bool:
        if "/manifests/" not in request.path:
            return False
        request.reply(b"", 503)  # type: ignore[attr-defined]
        return True

    liar.answer = busy
    liar.asked.clear()
    assert "503" in refused(other, liar.name, Error)
    assert len([path for path in liar.asked if "/manifests/" in path]) == 5
    release = threading.Event()

    def hang(request: Request) -> bool:
        return "/manifests/" in request.path and not release.wait(60)

    (tmp_path / "registries.toml").write_text(f'[registry."{liar.name.partition("/")[0]}"]\ntimeout = 0.05\n')
    liar.answer = hang
    try:
        assert "no answer in 0.05 s (5 attempts)" in refused(other, liar.name, Error)
    finally:
        release.set()


def test_a_token_that_has_expired_is_asked_for_again(other: Store, liar: Liar, made: Image) -> None:
    tokens: list[str] = []
    revoked: list[str] = []

    def answer(request: Request) -> bool:
        if request.path.startswith("/token"):
            assert "scope=repository%3Alies%3Apull" in request.path
            tokens.append(f"token{len(tokens)}")
            request.reply(f'{{"token": "{tokens[-1]}", "expires_in": 3600}}'.encode())  # type: ignore[attr-defined]
            return True
        given = request.headers.get("Authorization", "")
        if request.path.endswith(made.layers[0].blob.digest) and not revoked:
            revoked.append(given)  # whatever was said of its time
        if given.removeprefix("Bearer ") in tokens and given not in revoked:
            return False
        realm = f"http://{liar.name.partition('/')[0]}/token"
        how = f'Bearer realm="{realm}",service="test"'
        request.reply(b"{}", 401, WWW_Authenticate=how)  # type: ignore[attr-defined]
        return True

    liar.answer = answer
    record = pull(other, liar.name)
    assert record.manifest.digest == made.digest
    assert revoked == ["Bearer token0"]
    assert len(tokens) > 1


def test_a_full_disk_is_one_line_and_leaves_room(liar: Liar, made: Image, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            clone.unshare("mount")
            mounts.set_propagation("/", mounts.PRIVATE)
            mounts.attach(mounts.new("tmpfs", ["size=1m"]), os.open(disk, os.O_PATH))
            store = Store(str(disk))
            said = refused(store, liar.name, Error)
            removal.collect(store, wanted=True)
            left = [*store.blobs.all(), *store.layers.all(), *os.listdir(f"{store.directory}/blobs/drafts")]
            os.write(write, f"{said} LEFT {left}".encode())
        except BaseException as error:
            os.write(write, f"failed: {error!r}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as file:
        said = file.read().decode()
    os.waitpid(child, 0)
    assert "ENOSPC" in said, said
    assert "CORTEN_HOME" in said
    assert said.endswith("LEFT []"), said


def test_what_a_crash_of_the_machine_may_have_cut_off_is_removed(other: Store, made: Image, liar: Liar) -> None:
    pull(other, liar.name)
    other.untag(parse(liar.name))
    blob, diff_id = made.layers[1].blob.digest, made.layers[1].diff_id
    with Journal(other, [blob], [diff_id]):
        pass  # killed before it was settled
    with other.using():
        assert other.blobs.has(blob)
    note, = Path(other.directory, "unsynced").iterdir()
    note.write_text(note.read_text().replace('"boot":"', '"boot":"another'))
    with other.using():
        assert not other.blobs.has(blob)
        assert not other.layers.has(diff_id)
        assert other.layers.has(made.layers[2].diff_id)
    assert pull(other, liar.name).manifest.digest == made.digest
    assert not os.listdir(f"{other.directory}/unsynced")
