"""Uploads that break, and registries that do not let us mount what they have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.errors import Error
from corten.images.registry import client, pushing
from corten.images.registry.pulling import pull
from corten.images.registry.pushing import push
from corten.images.store.images import Image, Store
from http_servers import Request
from images_lab import Server, image, skopeo
from registry_fronts import Front, forward, reply, reset

CHUNK = 100_000


@pytest.fixture
def front(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    monkeypatch.setattr(client, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(pushing, "CHUNK", CHUNK)
    started = Front(server.host)
    yield started
    started.close()


@pytest.fixture
def made(store: Store, front: Front, tmp_path: Path) -> Image:
    found = image(store, f"{front.host}/{tmp_path.name.lower()}", 2)
    assert found.layers[0].blob.size > 4 * CHUNK
    return found


def sent_whole(made: Image, tmp_path: Path) -> None:
    """skopeo reads every blob back and checks it."""
    skopeo("copy", "--src-tls-verify=false", f"docker://{made.names[0]}", f"dir:{tmp_path}/back")
    assert pull(Store(str(tmp_path / "back-again")), made.names[0]).manifest.digest == made.digest


def test_blobs_go_in_chunks(store: Store, front: Front, made: Image, tmp_path: Path) -> None:
    push(store, made.names[0], made.names[0])
    sent_whole(made, tmp_path)
    sizes = [int(heard["content-length"]) for asked, heard in zip(front.asked, front.heard, strict=True)
             if asked.startswith("PATCH")]  # fmt: skip
    assert max(sizes) == CHUNK
    assert sum(sizes) == sum(one.size for one in (*made.manifest.layers, made.manifest.config))


def test_chunks_are_as_large_as_the_registry_wants(store: Store, front: Front, made: Image, tmp_path: Path) -> None:
    least = 3 * CHUNK

    def answer(request: Request, body: bytes) -> bool:
        if request.command == "POST":
            own = request.end_headers
            request.end_headers = lambda: [request.send_header("OCI-Chunk-Min-Length", str(least)), own()]  # type: ignore[assignment,func-returns-value]
            forward(request, body, front.behind, request.headers["Host"])
            request.end_headers = own  # type: ignore[method-assign]
        return request.command == "POST"

    front.answer = answer
    push(store, made.names[0], made.names[0])
    sent_whole(made, tmp_path)
    assert max(int(heard["content-length"]) for asked, heard in zip(front.asked, front.heard, strict=True)
               if asked.startswith("PATCH")) == least  # fmt: skip


@pytest.mark.parametrize("how", ["before", "after", "busy", "range"])
def test_a_chunk_that_fails_goes_again(
    store: Store, front: Front, made: Image, tmp_path: Path, how: str
) -> None:
    """before: the registry never saw it; after: it has it, but the answer is lost; busy, range: it says so."""
    failed: list[str] = []

    def answer(request: Request, body: bytes) -> bool:
        if request.command != "PATCH" or len(body) != CHUNK or len(failed) == 2:
            return False
        failed.append(request.headers["Content-Range"])
        if how == "after":
            forward(request, body, front.behind, request.headers["Host"], lost=True)
        if how in ("before", "after"):
            reset(request)
        else:
            reply(request, 503 if how == "busy" else 416, Retry_After="0")
        return True

    front.answer = answer
    push(store, made.names[0], made.names[0])
    sent_whole(made, tmp_path)
    assert len(failed) == 2
    assert front.count("GET", "/blobs/uploads/") == 2
    begun = front.count("POST", "/blobs/uploads/")
    assert begun == len(made.layers) + 1 + (2 if how == "after" else 0)


def test_an_upload_that_ends_without_our_hearing_it(
    store: Store, front: Front, made: Image, tmp_path: Path
) -> None:
    lost: list[str] = []

    def answer(request: Request, body: bytes) -> bool:
        if request.command != "PUT" or "/blobs/uploads/" not in request.path or lost:
            return False
        lost.append(request.path)
        forward(request, body, front.behind, request.headers["Host"], lost=True)
        reset(request)
        return True

    front.answer = answer
    push(store, made.names[0], made.names[0])
    sent_whole(made, tmp_path)


def test_what_cannot_be_mounted_is_sent(store: Store, front: Front, made: Image, tmp_path: Path) -> None:
    push(store, made.names[0], made.names[0])
    other = f"{made.names[0].partition(':latest')[0]}/other:latest"
    refused: list[str] = []

    def answer(request: Request, body: bytes) -> bool:
        if "mount=" not in request.path:
            return False
        refused.append(request.path)
        reply(request, 403, b'{"errors":[{"code":"DENIED","message":"not yours"}]}')
        return True

    front.answer = answer
    assert push(store, made.names[0], other) == made.digest
    assert len(refused) == len(made.layers)
    skopeo("copy", "--src-tls-verify=false", f"docker://{other}", f"dir:{tmp_path}/back")


def test_a_registry_that_stays_busy_or_does_not_say_where(
    store: Store, front: Front, made: Image
) -> None:
    front.answer = lambda request, body: request.command == "PATCH" and not reply(request, 503)  # type: ignore[func-returns-value]
    with pytest.raises(Error, match=r"503 Service Unavailable \(5 attempts\)"):
        push(store, made.names[0], made.names[0])
    front.answer = lambda request, body: request.command == "POST" and not reply(request, 202)  # type: ignore[func-returns-value]
    with pytest.raises(Error, match="does not say where to send it"):
        push(store, made.names[0], made.names[0])
    assert front.count("PUT", "/manifests/") == 0
