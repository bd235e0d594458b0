"""The store of images: blobs, names, layers, and what is left when a writer fails."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import corten
from corten.errors import Error, InvalidInput, NotFound
from corten.images.layers.commit import commit
from corten.images.layers.unpacking import ensure
from corten.images.references import parse
from corten.images.store.images import Layer, Store

HELLO = "sha256:" + hashlib.sha256(b"hello").hexdigest()
SOURCE = os.path.dirname(os.path.dirname(corten.__file__))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "home"))


def files(store: Store) -> list[str]:
    """All that lies in the store."""
    return sorted(str(path.relative_to(store.directory)) for path in Path(store.directory).rglob("*") if path.is_file())


def layer_of(store: Store, path: Path, **contents: str) -> Layer:
    """A committed layer with some files."""
    path.mkdir()
    for name, text in contents.items():
        (path / name).write_text(text)
        os.utime(path / name, (1_000_000_000.5, 1_000_000_000.5))
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return commit(store, str(path))


def test_blobs_are_found_by_their_digest(store: Store) -> None:
    assert not store.blobs.has(HELLO)
    assert store.blobs.put(b"hello") == (HELLO, 5)
    assert store.blobs.put(iter([b"hel", b"lo"]), HELLO) == (HELLO, 5)
    assert store.blobs.read(HELLO, 10) == b"hello"
    assert list(store.blobs.all()) == [HELLO]
    store.blobs.remove(HELLO)
    with pytest.raises(NotFound, match=HELLO):
        store.blobs.open(HELLO)
    assert files(store) == []


def test_another_digest_is_refused_and_leaves_nothing(store: Store) -> None:
    with pytest.raises(InvalidInput, match="what came has the digest"):
        store.blobs.put(b"hullo", HELLO)
    assert files(store) == []


def test_a_writer_that_fails_leaves_nothing(store: Store) -> None:
    def pieces() -> object:
        yield b"hel"
        raise OSError(5, "gone")

    with pytest.raises(OSError, match="gone"):
        store.blobs.put(pieces())  # type: ignore[arg-type]
    assert files(store) == []


def test_a_broken_download_goes_on_where_it_stopped(store: Store) -> None:
    first = store.blobs.download(HELLO)
    assert first is not None
    with first:
        first.write(b"hel")
        first.keep()
    again = store.blobs.download(HELLO)
    assert again is not None
    with again:
        assert again.size == 3
        again.write(b"lo")
        again.commit()
    assert store.blobs.download(HELLO) is None
    assert store.blobs.read(HELLO, 10) == b"hello"


def test_a_killed_writer_leaves_a_draft_that_is_swept(store: Store) -> None:
    script = (
        f"import sys, os; sys.path.insert(0, {SOURCE!r})\n"
        "from corten.images.store.blobs import Blobs\n"
        f"draft = Blobs({store.blobs.directory!r}).draft(); draft.write(b'half'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert len(files(store)) == 1
    with store.blobs.draft():
        assert store.blobs.sweep() == 1  # and not the one that is being written
    assert files(store) == []
    assert store.blobs.sweep() == 0


def test_two_writers_of_one_blob_do_the_work_once(store: Store) -> None:
    script = (
        f"import sys; sys.path.insert(0, {SOURCE!r})\n"
        "from corten.images.store.blobs import Blobs\n"
        f"draft = Blobs({store.blobs.directory!r}).download({HELLO!r})\n"
        "print('holds' if draft else 'there', flush=True)\n"
        "if draft: sys.stdin.read(); draft.write(b'hello'); draft.commit()"
    )
    command = [sys.executable, "-c", script]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "holds\n"
    second = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    first.communicate("")
    assert second.communicate("")[0] == "there\n"
    assert (first.returncode, second.returncode) == (0, 0)


def test_an_image_is_found_by_name_and_by_the_digits_of_its_digests(store: Store, tmp_path: Path) -> None:
    with store.using():
        layer = layer_of(store, tmp_path / "upper", file="one")
        image = store.make_image({"os": "linux", "architecture": "amd64"}, [layer], [parse("app"), parse("app:1")])
    assert image.names == ("docker.io/library/app:latest", "docker.io/library/app:1")
    for text in ("app", "app:1", "docker.io/library/app", image.digest, image.digest[7:17], f"app@{image.digest}",
                 image.manifest.config.digest[7:19]):  # fmt: skip
        found = store.find(text)
        assert found is not None, text
        assert (found.digest, found.layers) == (image.digest, (layer,))
    for text in ("other", "app:2", "sha256:" + "0" * 64, f"other@{image.digest}"):
        assert store.find(text) is None
    with pytest.raises(InvalidInput, match="lower case"):
        store.find("App")


def test_a_tag_that_moves_on_leaves_an_image_without_a_name(store: Store, tmp_path: Path) -> None:
    with store.using():
        one = store.make_image({}, [layer_of(store, tmp_path / "1", file="one")], [parse("app")])
        two = store.make_image({}, [layer_of(store, tmp_path / "2", file="two")], [parse("app")])
        three = store.make_image({}, [layer_of(store, tmp_path / "3", file="three")])
    assert {image.digest: image.names for image in store.images()} == {
        one.digest: (), two.digest: ("docker.io/library/app:latest",), three.digest: (),
    }  # fmt: skip
    store.tag(three, parse("other"))
    store.untag(parse("app"))
    assert {image.digest: image.names for image in store.images()} == {
        one.digest: (), three.digest: ("docker.io/library/other:latest",),
    }  # fmt: skip
    with pytest.raises(NotFound, match="app"):
        store.untag(parse("app"))


@pytest.mark.parametrize("packing", ["gzip", "zstd", "none"])
def test_a_layer_is_the_same_from_the_same_tree_and_unpacks_to_it(tmp_path: Path, packing: str) -> None:
    layers = []
    for number in (1, 2):
        upper = tmp_path / f"upper{number}"
        (upper / "sub").mkdir(parents=True)
        (upper / "sub/file").write_text("text")
        (upper / "sub/link").symlink_to("file")
        os.link(upper / "sub/file", upper / "hard")
        os.mknod(upper / "gone", 0o020600, 0)
        os.setxattr(upper / "sub", "user.overlay.opaque", b"y")
        os.setxattr(upper / "sub/file", "user.note", b"kept")
        store = Store(str(tmp_path / str(number)))
        layers.append(commit(store, str(upper), packing=packing, epoch=1_000_000_000))
        assert not upper.exists()
        kept = Path(store.layers.path(layers[-1].diff_id))
        assert (kept / "sub/file").stat().st_mtime_ns == 1_000_000_000 * 10**9 or os.geteuid()
    assert layers[0] == layers[1]
    store.layers.remove(layers[1].diff_id)
    again = Path(ensure(store, layers[1]))
    assert sorted(path.name for path in again.rglob("*")) == ["file", "gone", "hard", "link", "sub"]
    assert (again / "hard").samefile(again / "sub/file")
    assert (again / "gone").stat().st_rdev == 0
    assert os.getxattr(again / "sub", "user.overlay.opaque") == b"y"
    assert os.getxattr(again / "sub/file", "user.note") == b"kept"
    assert (again / "sub/file").stat().st_mtime_ns == 1_000_000_000 * 10**9


def test_a_layer_that_unpacks_to_something_else_is_refused(store: Store, tmp_path: Path) -> None:
    good = layer_of(store, tmp_path / "upper", file="one")
    store.layers.remove(good.diff_id)
    lying = good.replace(diff_id=HELLO)
    with pytest.raises(InvalidInput, match="unpacks to something else"):
        ensure(store, lying)
    data = gzip.compress(gzip.decompress(store.blobs.read(good.blob.digest, 1 << 20))[:700])
    digest, size = store.blobs.put(data)
    with pytest.raises(InvalidInput, match="damaged or truncated"):
        ensure(store, Layer(good.blob.replace(digest=digest, size=size), good.diff_id))
    assert os.listdir(store.layers.directory) == []


def test_a_layer_in_use_is_not_removed(store: Store, tmp_path: Path) -> None:
    layer = layer_of(store, tmp_path / "upper", file="one")
    held = store.layers.hold(layer.diff_id)
    assert not store.layers.remove(layer.diff_id)
    os.close(held)
    assert store.layers.remove(layer.diff_id)
    with pytest.raises(InvalidInput, match="pull the image again"):
        store.layers.hold(layer.diff_id)


def test_a_home_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(Error, match="cannot make"):
        Store(str(tmp_path / "home")).blobs.put(b"hello")


def test_the_way_from_a_name_to_its_layers_imports_little(store: Store, tmp_path: Path) -> None:
    """So that a start from an image is not much slower than one from a directory."""
    with store.using():
        store.make_image({"os": "linux"}, [layer_of(store, tmp_path / "upper", file="one")], [parse("app")])
    code = (
        f"import sys; sys.path.insert(0, {SOURCE!r}); from corten.images import sources;"
        f"print(len(sources.resolve('app', home={str(tmp_path / 'home')!r}).lowers), *sys.modules)"
    )
    environment = {"XDG_CONFIG_HOME": str(tmp_path)}
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    count, *modules = done.stdout.split()
    assert count == "1"
    heavy = {"typing", "re", "json", "tomllib", "tarfile", "datetime", "hashlib", "corten.runtime.spec.decoding"}
    assert not heavy & set(modules)
