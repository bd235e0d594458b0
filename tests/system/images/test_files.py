"""Images in files: what Corten saves others read to the same tree, and the reverse; what is no image is refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

import listing
from corten.images import manifests
from corten.images.archives.loading import load
from corten.images.archives.root_archives import import_root
from corten.images.layers.commit import commit
from corten.images.references import parse
from corten.images.store import removal
from corten.images.store.images import Image, Store
from images_lab import image, run, skopeo, unpacked_by_umoci

CORTEN = str(Path(sys.executable).parent / "corten")
NET_RAW = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
Corten = Callable[..., subprocess.CompletedProcess[str]]


def rich(store: Store, name: str, packing: str = "gzip") -> Image:
    """An image of two layers with owners, links, attributes, deleted names."""
    upper = Path(store.directory) / "upper"
    with store.using():
        (upper / "bin").mkdir(parents=True)
        (upper / "bin/ping").write_bytes(b"ping")
        os.chown(upper / "bin/ping", 5, 6)
        (upper / "bin/ping").chmod(0o4755)
        os.setxattr(upper / "bin/ping", "security.capability", NET_RAW)
        os.setxattr(upper / "bin/ping", "user.note", b"\0\xff")
        os.link(upper / "bin/ping", upper / "bin/hard")
        (upper / "old").mkdir()
        (upper / "old/file").write_text("old")
        (upper / ("long" * 60)).write_text("long")
        os.symlink("../bin/ping", upper / "old/link")
        first = commit(store, str(upper))
        (upper / "old").mkdir(parents=True)
        os.setxattr(upper / "old", "trusted.overlay.opaque", b"y")
        (upper / "old/new").write_text("new")
        os.mknod(upper / ("long" * 60), 0o020000, 0)
        second = commit(store, str(upper), packing=packing)
        raw = {"os": "linux", "architecture": "amd64", "config": {"Cmd": ["/bin/ping"], "Env": ["A=1"]}}
        return store.make_image(raw, [first, second], [parse(name)])


@pytest.fixture
def other(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "other"))


@pytest.fixture
def podman() -> Iterator[Callable[..., str]]:
    """Runs podman with a storage of its own, at a short path, as it wants."""
    place = tempfile.mkdtemp(prefix="p")
    own = ("podman", "--root", f"{place}/s", "--runroot", f"{place}/r", "--storage-driver", "vfs")
    yield lambda *words: run(*own, *words)
    shutil.rmtree(place)


@pytest.fixture
def refused(command: Corten) -> Callable[..., str]:
    """The one line with which `corten WORDS` ends; nothing is in the store after it."""

    def call(*words: str, store: Store, **options: Any) -> str:
        done = command(*words, **options)
        assert (done.returncode, done.stdout) == (125, ""), done
        assert done.stderr.count("\n") == 1, done.stderr
        assert "mistake in corten" not in done.stderr
        nothing_in_use(store)
        return done.stderr

    return call


def nothing_in_use(store: Store) -> None:
    """No image, no half layer; and what garbage there is goes with the next prune."""
    assert list(store.names.all()) == []
    removal.collect(store, wanted=True)
    left = [path for path in Path(store.directory).rglob("*") if not path.is_dir() and path.name != "lock"]
    assert left == []


def test_what_is_saved_is_the_same_tree_to_skopeo_umoci_and_podman(
    store: Store, command: Corten, tmp_path: Path, podman: Callable[..., str]
) -> None:
    made = rich(store, "saved:1")
    archive = tmp_path / "saved.tar"
    for form in ("oci-archive", "docker-archive"):
        assert command("save", "--format", form, "-o", str(archive), "saved:1").returncode == 0
        source = f"{form}:{archive}" + ("" if form == "oci-archive" else ":docker.io/library/saved:1")
        skopeo("copy", source, f"oci:{tmp_path}/{form}:x")
        theirs = listing.of(str(unpacked_by_umoci(tmp_path / form, "x", tmp_path / "bundle")))
        assert "old/new" in theirs
        assert listing.difference(listing.of_layers(store.lowers(made)), theirs) == []
    assert command("save", "--format", "oci-dir", "-o", str(tmp_path / "dir"), "saved:1").returncode == 0
    assert json.loads(skopeo("inspect", f"oci:{tmp_path}/dir:1"))["Digest"] == made.digest
    first = archive.read_bytes()
    assert command("save", "-o", str(archive), "saved:1").returncode == 0
    assert archive.read_bytes() == first  # the same images, the same bytes
    assert "saved" in podman("load", "-i", archive)
    assert podman("image", "inspect", "--format", "{{.Config.Env}}", "saved:1").strip() == "[A=1]"


def test_what_skopeo_and_podman_write_is_loaded_to_the_same_tree(
    store: Store, other: Store, tmp_path: Path, command: Corten, podman: Callable[..., str]
) -> None:
    made = rich(store, "theirs:2")
    ours = listing.of_layers(store.lowers(made))
    assert command("save", "--format", "oci-dir", "-o", str(tmp_path / "dir"), "theirs:2").returncode == 0
    for number, target in enumerate(("oci-archive", "docker-archive")):
        file = tmp_path / f"{number}.tar"
        name = f"{target}:{file}:" + ("theirs:2" if target == "docker-archive" else "2")
        skopeo("copy", f"oci:{tmp_path}/dir:2", name)
        loaded, = load(other, str(file))
        assert listing.difference(ours, listing.of_layers(other.lowers(loaded))) == []
        assert loaded.names == (("docker.io/library/theirs:2",) if target == "docker-archive" else ())
        for pack in (gzip.compress, zstandard.compress):
            packed = tmp_path / "packed"
            packed.write_bytes(pack(file.read_bytes()))
            again, = load(other, str(packed))
            assert again.digest == loaded.digest
    podman("load", "-i", tmp_path / "1.tar")
    for form in ("docker-archive", "oci-archive", "oci-dir", "docker-dir"):
        place = tmp_path / form
        podman("save", "--format", form, "-o", place, "theirs:2")
        if form == "docker-dir":
            continue  # which only podman's tools read
        loaded, = load(other, str(place))
        found = listing.of_layers(other.lowers(loaded))
        # Podman's vfs storage keeps neither a user's attributes nor, for what it writes anew, capabilities.
        assert {path: entry[:6] for path, entry in found.items()} == {path: entry[:6] for path, entry in ours.items()}


def test_layers_packed_with_zstd_are_loaded_too(
    store: Store, other: Store, tmp_path: Path, command: Corten
) -> None:
    made = rich(store, "packed", "zstd")
    archive = tmp_path / "packed.tar"
    assert command("save", "packed", "-o", str(archive)).returncode == 0
    skopeo("copy", f"oci-archive:{archive}", f"oci-archive:{tmp_path}/theirs.tar")
    for file in (archive, tmp_path / "theirs.tar"):
        loaded, = load(other, str(file))
        assert loaded.digest == made.digest
        assert listing.difference(listing.of_layers(store.lowers(made)), listing.of_layers(other.lowers(loaded))) == []


def test_several_images_share_what_is_common(store: Store, other: Store, command: Corten, tmp_path: Path) -> None:
    one = image(store, "one", 2)
    two = image(store, "two:2", 3)
    assert command("tag", "one", "three/one:x").returncode == 0
    archive = tmp_path / "both.tar"
    assert command("save", "one", "two:2", "three/one:x", "-o", str(archive)).returncode == 0
    with tarfile.open(archive) as tar:
        names = tar.getnames()
    assert len(names) == len(set(names))
    loaded = load(other, str(archive))
    assert {(found.digest, found.names) for found in loaded} == {
        (one.digest, ("docker.io/library/one:latest",)), (two.digest, ("docker.io/library/two:2",)),
        (one.digest, ("docker.io/three/one:x",)),
    }  # fmt: skip
    # By digest: with no name, so it gets none.
    with open(tmp_path / "nameless.tar", "wb") as file:
        subprocess.run([CORTEN, "save", one.digest[7:19]], stdout=file, check=True)
    third = Store(str(tmp_path / "third"))
    nameless, = load(third, str(tmp_path / "nameless.tar"))
    assert (nameless.digest, third.find(one.digest[7:17]) is not None) == (one.digest, True)


def test_from_and_to_pipes(store: Store, command: Corten, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = image(store, "piped", 2)
    saved = subprocess.run([CORTEN, "save", "piped"], capture_output=True, check=True).stdout
    monkeypatch.setenv("CORTEN_HOME", str(tmp_path / "other"))
    for data in (saved, gzip.compress(saved)):
        done = subprocess.run([CORTEN, "load"], input=data, capture_output=True, check=True)
        assert done.stdout == b"loaded docker.io/library/piped:latest\n"
    assert command("load", "-q", "-", stdin=None, input="").returncode == 125
    with subprocess.Popen([CORTEN, "save", "piped"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.read(10)
        process.stdout.close()
        assert (process.wait(), process.stderr.read()) == (141, b"")
    # In pieces of a byte each at first, as a slow pipe gives them.
    root = gzip.compress(tar_of(("etc/motd", b"hello")))
    with subprocess.Popen([CORTEN, "import", "-", "slow"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        for number in range(12):
            process.stdin.write(root[number : number + 1])
            process.stdin.flush()
        process.stdin.write(root[12:])
        process.stdin.close()
        assert process.wait() == 0
    found = Store(str(tmp_path / "other")).find("slow")
    assert found is not None
    assert found.layers[0].blob.digest == digest(root)  # kept as it came
    exported = subprocess.run([CORTEN, "image", "export", "piped"], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(exported)) as tar:
        assert "etc/layer1" in tar.getnames()
    assert made.digest == Store(str(tmp_path / "other")).find("piped").digest  # type: ignore[union-attr]


def test_import_and_export_keep_the_tree(store: Store, command: Corten, tmp_path: Path) -> None:
    made = rich(store, "tree", "zstd")
    flat = tmp_path / "flat.tar"
    assert command("image", "export", "tree", "-o", str(flat)).returncode == 0
    expected = listing.of_layers(store.lowers(made))
    changes = ("CMD sh -c 'x y'", 'ENTRYPOINT ["/bin/ping", "-c"]', "ENV B=2 C='3 4'", "USER 5:6", "WORKDIR /bin",
               "LABEL l=m", "VOLUME /old /v", "EXPOSE 80 53/udp", "STOPSIGNAL SIGQUIT")  # fmt: skip
    words = [word for change in changes for word in ("--change", change)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    digests = set()
    for pack in (zstandard.compress, gzip.compress, bytes):
        packed = tmp_path / "packed"
        packed.write_bytes(pack(flat.read_bytes()))
        done = command("import", *words, "-m", "why", str(packed), "flat:1", env=environment)
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
        found = store.find("flat:1")
        assert found
        assert listing.difference(listing.of_layers(store.lowers(found)), expected) == []
    assert len(digests) == 3
    assert found
    assert found.config.raw["config"] == {
        "Cmd": ["/bin/sh", "-c", "sh -c 'x y'"], "Entrypoint": ["/bin/ping", "-c"], "Env": ["B=2", "C=3 4"],
        "User": "5:6", "WorkingDir": "/bin", "Labels": {"l": "m"}, "Volumes": {"/old": {}, "/v": {}},
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "StopSignal": "SIGQUIT",
    }  # fmt: skip
    assert found.config.raw["created"] == "2023-11-14T22:13:20Z"
    assert command("import", str(packed), "flat:2", env={**environment, "SOURCE_DATE_EPOCH": "9" * 40}).returncode == 0
    assert "why" in command("history", "flat:1").stdout
    # And what umoci makes of it is the same.
    assert command("save", "--format", "oci-dir", "-o", str(tmp_path / "dir"), "flat:1").returncode == 0
    theirs = listing.of(str(unpacked_by_umoci(tmp_path / "dir", "1", tmp_path / "bundle")))
    assert listing.difference(theirs, expected) == []


def tar_of(*members: tuple[str, bytes]) -> bytes:
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return found.getvalue()


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


LAYER = tar_of(("file", b"contents"))
CONFIG = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [digest(LAYER)]}}).encode()


def docker(entry: object, *more: tuple[str, bytes]) -> bytes:
    return tar_of(("c.json", CONFIG), ("l/layer.tar", LAYER), ("manifest.json", json.dumps(entry).encode()), *more)


def oci(algorithm: str = "sha256", **change: Any) -> dict[str, bytes]:
    """The files of a layout. change: of its index, its manifest, and the blobs by their names."""

    def blob(kind: str, data: bytes) -> dict[str, Any]:
        name = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
        files[f"blobs/{name.replace(':', '/')}"] = data
        return {"mediaType": kind, "digest": name, "size": len(data)}

    files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
    config, layer = blob(manifests.CONFIG, change.get("config", CONFIG)), blob(manifests.LAYER, LAYER)
    manifest = {"schemaVersion": 2, "mediaType": manifests.MANIFEST, "config": config, "layers": [layer]}
    descriptor = blob(manifests.MANIFEST, json.dumps({**manifest, **change.get("manifest", {})}).encode())
    index = {"schemaVersion": 2, "manifests": [{**descriptor, **change.get("descriptor", {})}]}
    files["index.json"] = json.dumps({**index, **change.get("index", {})}).encode()
    return files


def of_files(files: dict[str, bytes]) -> bytes:
    return tar_of(*files.items())


GOOD = {"Config": "c.json", "Layers": ["l/layer.tar"], "RepoTags": ["a:1"]}


def hostile() -> Iterator[tuple[str, bytes, str]]:
    """(what, archive, words of the refusal)."""
    yield "empty", b"", "is empty"
    yield "text", b"no archive " * 100, "it is no tar archive"
    yield "root", LAYER, "holds no image"
    yield "xz", b"\xfd7zXZ\0" + bytes(100), "is xz"
    yield "cut", docker([GOOD])[:3000], "truncated"
    yield "gzip cut", gzip.compress(docker([GOOD]))[:-9], "truncated"
    yield "no list", docker(GOOD), "lists no image"
    yield "no images", docker([]), "lists no image"
    yield "no config", docker([{**GOOD, "Config": 5}]), "[0]: Config: missing"
    yield "layers", docker([{**GOOD, "Layers": 7}]), "expected lists of text"
    yield "layer", docker([{**GOOD, "Layers": [None]}]), "expected lists of text"
    yield "tags", docker([{**GOOD, "RepoTags": {"a": 1}}]), "expected lists of text"
    yield "tag", docker([{**GOOD, "RepoTags": ["A B"]}]), "image 'A B'"
    yield "missing", docker([{**GOOD, "Layers": ["x/layer.tar"]}]), "x/layer.tar is missing"
    yield "leads out", docker([{**GOOD, "Config": "../../../etc/passwd"}]), "is missing"
    yield "absolute", docker([{**GOOD, "Config": "/etc/passwd"}]), "is missing"
    yield "fewer", docker([{**GOOD, "Layers": []}]), "has 0 layers, but its configuration lists 1"
    yield "lying", docker([GOOD], ("l/layer.tar", tar_of(("other", b"x")))), "unpacks to something else"
    yield "bad json", docker([GOOD], ("manifest.json", b"[{")), "line 1 column"
    yield "deep json", docker([GOOD], ("manifest.json", b"[" * 100_000)), "nested too deeply"
    yield "no utf-8", docker([GOOD], ("manifest.json", b"\xff")), "is not UTF-8"
    yield "config is no object", docker([GOOD], ("c.json", b"[]")), "is no JSON object"
    files = oci()
    broken = dict(files)
    layer = f"blobs/sha256/{digest(LAYER)[7:]}"
    broken[layer] = LAYER + b"\0"
    yield "wrong bytes", of_files(broken), "has the digest"
    del broken[layer]
    yield "no layer", of_files(broken), f"{layer} is missing"
    yield "no index", of_files({**files, "index.json": b"{}"}), "index.json: manifests: missing"
    yield "nothing in the index", of_files(oci(index={"manifests": []})), "lists no image"
    yield "digest", of_files(oci(descriptor={"digest": "sha256:12"})), "sha256 has 64 digits"
    yield "kind", of_files(oci(manifest={"mediaType": "text/html"})), "unknown type 'text/html'"
    yield "artifact", of_files(oci(config=b"{}", manifest={"config": {
        "mediaType": "application/x", "digest": digest(b"{}"), "size": 2}})), "which is no image to run"
    named = {"org.opencontainers.image.ref.name": "../x:1"}
    yield "name", of_files(oci(descriptor={"annotations": named})), "'../x:1'"
    named = {"io.containerd.image.name": f"a@{digest(b'')}"}
    yield "foreign digest", of_files(oci(descriptor={"annotations": named})), "its digest is not"


@pytest.mark.parametrize(("data", "words"), [pytest.param(*rest, id=what) for what, *rest in hostile()])
def test_what_is_no_image_is_one_line(
    store: Store, refused: Callable[..., str], tmp_path: Path, data: bytes, words: str
) -> None:
    archive = tmp_path / "archive.tar"
    archive.write_bytes(data)
    assert words in refused("load", "-i", str(archive), store=store)
    with archive.open("rb") as file:
        assert words in refused("load", store=store, stdin=file)


@pytest.mark.parametrize("what", ["good", "sha512", "links", "legacy"])
def test_the_models_of_the_hostile_ones_are_good(store: Store, tmp_path: Path, what: str) -> None:
    data = {
        "good": lambda: docker([GOOD]),
        "sha512": lambda: of_files(oci("sha512")),
        "links": lambda: docker([{**GOOD, "Layers": ["m/layer.tar"]}]),
        "legacy": lambda: docker([{"Config": "c.json", "Layers": ["./l/layer.tar"], "RepoTags": None}]),
    }[what]()
    if what == "links":  # docker's archives have equal layers once, and links to them
        added = io.BytesIO(data)
        with tarfile.open(fileobj=added, mode="a") as archive:
            info = tarfile.TarInfo("m/layer.tar")
            info.type, info.linkname = tarfile.SYMTYPE, "../l/layer.tar"
            archive.addfile(info)
        data = added.getvalue()
    (tmp_path / "archive.tar").write_bytes(data)
    loaded, = load(store, str(tmp_path / "archive.tar"))
    root, = store.lowers(loaded)
    assert Path(root, "file").read_text() == "contents"
    assert loaded.digest.startswith("sha512" if what == "sha512" else "sha256")


def test_a_directory_gives_only_what_its_layout_names(
    store: Store, refused: Callable[..., str], tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    for name, data in oci().items():
        (layout / name).parent.mkdir(parents=True, exist_ok=True)
        (layout / name).write_bytes(data)
    (layout / "secret").write_text("secret")
    os.mkfifo(layout / "pipe")
    load(store, str(layout))
    assert digest(b"secret") not in set(store.blobs.all())
    other = Store(str(tmp_path / "home"))
    os.environ["CORTEN_HOME"] = str(tmp_path / "home")
    # A blob that is a link out of the layout would carry a file of this machine into an image.
    blob = layout / f"blobs/sha256/{digest(LAYER)[7:]}"
    (tmp_path / "outside").write_bytes(LAYER)
    blob.unlink()
    blob.symlink_to(tmp_path / "outside")
    assert "is missing" in refused("load", str(layout), store=other)
    blob.unlink()
    os.mkfifo(blob)
    assert "is missing" in refused("load", str(layout), store=other)
    (layout / "index.json").unlink()
    assert "holds no image" in refused("load", str(layout), store=other)
    assert "no such file" in refused("load", str(tmp_path / "absent"), store=other)
    assert "is a directory" in refused("import", str(layout), store=other)
    assert "no such file" in refused("import", str(tmp_path / "absent"), store=other)
    assert "is empty" in refused("import", "/dev/null", store=other)
    (tmp_path / "packed.xz").write_bytes(b"\xfd7zXZ\0" + bytes(100))
    assert "is xz" in refused("import", str(tmp_path / "packed.xz"), store=other)
    assert "WORD cannot be changed" in refused("import", "-c", "WORD x", "/dev/null", store=other)


def test_where_is_written_stays_whole(
    store: Store, command: Corten, tmp_path: Path
) -> None:
    image(store, "written", 1)
    target = tmp_path / "target.tar"
    target.write_text("old")
    assert command("save", "absent", "-o", str(target)).returncode == 125
    assert target.read_text() == "old"
    blob = next(path for path in Path(store.directory, "blobs/sha256").iterdir() if path.stat().st_size > 100_000)
    blob.rename(tmp_path / "kept")
    done = command("save", "written", "-o", str(target))
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert blob.name in done.stderr
    assert target.read_text() == "old"
    (tmp_path / "kept").rename(blob)
    (tmp_path / "link").symlink_to(target)
    assert command("save", "written", "-o", str(tmp_path / "link")).returncode == 0
    assert (tmp_path / "link").is_symlink()
    assert tarfile.is_tarfile(target)
    before = os.stat("/dev/null")
    assert command("save", "written", "-o", "/dev/null").returncode == 0
    assert os.stat("/dev/null").st_rdev == before.st_rdev
    for words in (("save", "written", "-o"), ("image", "export", "written", "-o")):
        for place, said in ((str(tmp_path), "directory"), ("/absent/x.tar", "No such file"), ("/dev/full", "ENOSPC")):
            done = command(*words, place)
            assert (done.returncode, done.stderr.count("\n")) == (125, 1), done.stderr
            assert said in done.stderr
    assert not list(tmp_path.glob("*.part"))


def test_a_name_that_deletes_nothing_is_not_exported(store: Store, command: Corten, tmp_path: Path) -> None:
    """An overlay lists it all the same, where only one layer has the directory."""
    base = image(store, "base", 1)
    archive = tmp_path / "odd.tar"
    archive.write_bytes(tar_of(("only/.wh.ghost", b""), ("only/file", b"1"), (".wh.nothing", b"")))
    with store.using():
        odd = import_root(store, str(archive), None)
        store.make_image({"os": "linux"}, [*base.layers, *odd.layers], [parse("odd")])
    done = command("image", "export", "odd", "-o", str(tmp_path / "flat.tar"))
    assert (done.returncode, done.stderr) == (0, "")
    with tarfile.open(tmp_path / "flat.tar") as flat:
        names = flat.getnames()
    assert "only/file" in names
    assert not [name for name in names if "ghost" in name or "nothing" in name or ".wh." in name]
