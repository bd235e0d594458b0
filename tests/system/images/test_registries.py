"""Images to and from Debian's registry, with skopeo and umoci as judges of what arrives."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import listing
from corten.errors import Error, InvalidInput, NotFound
from corten.images import manifests
from corten.images.layers.commit import commit
from corten.images.manifests import Descriptor, Index, Platform
from corten.images.references import parse
from corten.images.registry import client, credentials
from corten.images.registry.configuration import Settings
from corten.images.registry.pulling import pull
from corten.images.registry.pushing import push
from corten.images.store.images import Image, Store
from images_lab import PASSWORD, USER, Server, image, run, skopeo, unpacked_by_umoci

NET_RAW = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)


def everything(upper: Path) -> None:
    """A tree with one of each kind."""
    (upper / "d/closed").mkdir(parents=True)
    (upper / "d/closed").chmod(0o700)
    (upper / "d/file").write_bytes(b"contents")
    (upper / "d/file").chmod(0o4755)
    os.chown(upper / "d/file", 1234, 5678)
    os.chmod(upper / "d/file", 0o4755)
    os.setxattr(upper / "d/file", "security.capability", NET_RAW)
    os.setxattr(upper / "d/file", "user.note", b"kept \xff")
    os.link(upper / "d/file", upper / "hard")
    (upper / "link").symlink_to("d/../nowhere")
    os.lchown(upper / "link", 7, 8)
    long = upper / ("n" * 200) / ("m" * 200)
    long.mkdir(parents=True)
    (long / "übermäßig").write_text("long")
    os.mkfifo(upper / "pipe", 0o640)
    os.mknod(upper / "null", 0o020666, os.makedev(1, 3))
    with (upper / "sparse").open("wb") as file:
        file.seek(3 << 20)
        file.write(b"end")
    (upper / "gone").write_text("to be deleted")
    (upper / "replaced").mkdir()
    (upper / "replaced/old").write_text("old")
    for number, path in enumerate(sorted(upper.rglob("*"), key=lambda path: -len(path.parts))):
        os.utime(path, (1_500_000_000 + number,) * 2, follow_symlinks=False)
    os.utime(upper, (1_400_000_000,) * 2)


def changes(upper: Path) -> None:
    """What an overlay writes when names are deleted and a directory is replaced."""
    (upper / "replaced").mkdir(parents=True)
    os.setxattr(upper / "replaced", "trusted.overlay.opaque", b"y")
    (upper / "replaced/new").write_text("new")
    os.mknod(upper / "gone", 0o020000, 0)
    os.utime(upper, (1_400_000_000,) * 2)


def two_layers(store: Store, name: str, packing: str = "gzip") -> Image:
    upper = Path(store.directory) / "upper"
    with store.using():
        layers = []
        for fill in (everything, changes):
            upper.mkdir(parents=True)
            fill(upper)
            layers.append(commit(store, str(upper), packing=packing))
        return store.make_image({"os": "linux", "architecture": "amd64"}, layers, [parse(name)])


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_what_is_pushed_is_the_same_tree_to_skopeo_and_umoci(
    store: Store, server: Server, tmp_path: Path, packing: str
) -> None:
    name = f"{server.host}/trees/{packing}"
    made = two_layers(store, name, packing)
    assert push(store, name, name) == made.digest
    # umoci does not read zstd: skopeo unpacks it.
    skopeo("copy", "--dest-decompress", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/plain")
    skopeo("copy", f"dir:{tmp_path}/plain", f"oci:{tmp_path}/layout:x")
    theirs = listing.of(str(unpacked_by_umoci(tmp_path / "layout", "x", tmp_path / "bundle")))
    ours = listing.of_layers(store.lowers(made))
    assert len(ours) == 14
    assert listing.difference(ours, theirs) == []
    # And what comes back into an empty store is that again.
    again = Store(str(tmp_path / "other"))
    assert pull(again, name).manifest.digest == made.digest
    assert listing.difference(ours, listing.of_layers(again.lowers(again.image(made.digest)))) == []


def test_what_skopeo_pushes_is_the_same_tree_here(store: Store, server: Server, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    everything(tmp_path / "tree")
    run("tar", "-C", tmp_path / "tree", "--xattrs", "--xattrs-include=*", "--sparse", "-cf", tmp_path / "1.tar", ".")
    (tmp_path / "more/d").mkdir(parents=True)
    for file in ("d/.wh.file", ".wh.gone", "d/added"):
        (tmp_path / "more" / file).write_text("")
    run("tar", "-C", tmp_path / "more", "-cf", tmp_path / "2.tar", "d", ".wh.gone")
    layout = tmp_path / "layout"
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:x")
    for number in (1, 2):
        run("umoci", "raw", "add-layer", "--image", f"{layout}:x", tmp_path / f"{number}.tar")
    for form in ("oci", "v2s2"):
        name = f"{server.host}/theirs:{form}"
        skopeo("copy", "--dest-tls-verify=false", "--format", form, f"oci:{layout}:x", f"docker://{name}")
        record = pull(store, name)
        ours = listing.of_layers(store.lowers(store.image(record.manifest.digest)))
        theirs = listing.of(str(unpacked_by_umoci(layout, "x", tmp_path / "bundle")))
        assert "d/added" in ours
        assert listing.difference(ours, theirs) == []


def test_a_second_image_brings_only_what_is_new(store: Store, server: Server, tmp_path: Path) -> None:
    one = image(store, f"{server.host}/shared/one", 3)
    push(store, one.names[0], one.names[0])
    upper = tmp_path / "own/images/upper"
    upper.mkdir()
    (upper / "more").write_text("more")
    with store.using():
        layers = [*one.layers, commit(store, str(upper))]
        two = store.make_image({"os": "linux", "architecture": "amd64"}, layers, [parse(f"{server.host}/shared/two")])
    before = server.asked("PATCH", "/shared/two/")
    push(store, two.names[0], two.names[0])
    # One layer and the configuration were sent; the others were mounted from the first repository.
    assert server.asked("PATCH", "/shared/two/") - before == 2
    other = Store(str(tmp_path / "other"))
    pull(other, one.names[0])
    before = server.asked("GET", "/blobs/")
    pull(other, two.names[0])
    assert server.asked("GET", "/blobs/") - before == 2
    pull(other, two.names[0])
    assert server.asked("GET", "/blobs/") - before == 2


def test_two_pulls_at_once_fetch_once(server: Server, tmp_path: Path, store: Store) -> None:
    made = image(store, f"{server.host}/twice", 4)
    push(store, made.names[0], made.names[0])
    before = server.asked("GET", "/twice/blobs/")
    environment = {**os.environ, "CORTEN_HOME": str(tmp_path / "other")}
    command = [str(Path(sys.executable).parent / "corten"), "pull", "-q", made.names[0]]
    pulls = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert {process.communicate()[0] for process in pulls} == {f"{made.digest}\n"}
    assert server.asked("GET", "/twice/blobs/") - before == 5
    assert not os.listdir(tmp_path / "other/images/blobs/drafts")


def test_an_index_gives_what_fits_this_machine(store: Store, server: Server, tmp_path: Path) -> None:
    name = f"{server.host}/many"
    variants = []
    for platform in (Platform("linux", "riscv64"), Platform("linux", "arm64", "v8"), manifests.own_platform()):
        upper = tmp_path / "own/images/upper"
        upper.mkdir(parents=True)
        (upper / "platform").write_text(str(platform))
        raw = {"os": platform.os, "architecture": platform.architecture, "variant": platform.variant}
        with store.using():
            one = store.make_image(raw, [commit(store, str(upper))], [parse(f"{name}:{platform.architecture}")])
        push(store, one.names[0], one.names[0])
        variants.append(Descriptor(one.manifest.media_type, one.digest, one.size, platform))
    index = manifests.serialise(Index(tuple(variants)))
    with client.Registry(Settings(server.host)) as registry:
        registry.request("PUT", "/v2/many/manifests/latest", "index", "many", actions="pull,push", good=(201,),
                         headers={"Content-Type": manifests.INDEX}, content=index)  # fmt: skip
    other = Store(str(tmp_path / "other"))
    for wanted, platform in (("", manifests.own_platform()), ("riscv64", Platform("linux", "riscv64"))):
        record = pull(other, name, wanted)
        assert record.index
        found = other.find(f"{name}@{record.index.digest}")
        assert found is not None
        assert found.config.platform == platform
    with pytest.raises(InvalidInput, match=r"nothing for linux/s390x: there is linux/riscv64, linux/arm64/v8, linux/"):
        pull(other, name, "s390x")
    with pytest.raises(InvalidInput, match="nothing for linux/s390x: there is linux/riscv64"):
        pull(other, f"{name}:riscv64", "s390x")


def test_basic_authentication_over_tls_of_an_own_authority(
    store: Store, tmp_path: Path, command: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "registry").mkdir()
    server = Server(tmp_path / "registry", auth=True, tls=True)
    corten = command
    assert callable(corten)
    try:
        made = image(store, f"{server.host}/private")
        with pytest.raises(Error, match=r"its certificate is not trusted: .*name the authority as ca"):
            push(store, made.names[0], made.names[0])
        (tmp_path / "registries.toml").write_text(f'[registry."{server.host}"]\nca = "registry/ca.crt"\n')
        with pytest.raises(InvalidInput, match="asked without credentials: see 'corten login localhost"):
            push(store, made.names[0], made.names[0])
        login = ("login", "--username", USER, "--password-stdin", server.host)
        wrong = corten(*login, stdin=None, input="wrong")
        assert (wrong.returncode, wrong.stderr.count("\n")) == (125, 1), wrong.stderr
        assert "wrong" not in wrong.stderr
        assert not (tmp_path / "auth.json").exists()
        good = corten(*login, stdin=None, input=f"{PASSWORD}\n")
        assert good.returncode == 0, good.stderr
        assert (tmp_path / "auth.json").stat().st_mode & 0o777 == 0o600
        assert push(store, made.names[0], made.names[0]) == made.digest
        assert pull(Store(str(tmp_path / "other")), made.names[0]).manifest.digest == made.digest
        # What podman's tools keep is understood, and the reverse.
        monkeypatch.setenv("SSL_CERT_FILE", str(server.ca))
        assert made.digest in skopeo("inspect", f"docker://{made.names[0]}")
        assert corten("logout", server.host).returncode == 0
        assert corten("logout", server.host).returncode == 125
        assert credentials.find(server.host) is None
        run("skopeo", "login", "--username", USER, "--password-stdin", server.host, input=PASSWORD)
        assert pull(Store(str(tmp_path / "third")), made.names[0]).manifest.digest == made.digest
    finally:
        server.close()


def test_credentials_of_a_helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text(
        '#!/bin/sh\nread server\n[ "$1 $server" = "get r.example" ] || { echo credentials not found; exit 1; }\n'
        'echo \'{"ServerURL": "r.example", "Username": "ann", "Secret": "x"}\'\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "auth.json").write_text(json.dumps({"credHelpers": {"r.example": "test", "other.example": "absent"}}))
    found = credentials.find("r.example")
    assert found
    assert (found.user, found.password, found.source) == ("ann", "x", "docker-credential-test")
    with pytest.raises(Error, match="docker-credential-absent: not found: install it"):
        credentials.find("other.example")
    (tmp_path / "auth.json").write_text(json.dumps({"credsStore": "test"}))
    assert credentials.find("third.example") is None


def test_mirrors_are_asked_first_and_default_registry_is_configured(
    store: Store, server: Server, tmp_path: Path
) -> None:
    made = image(store, f"{server.host}/library/mirrored")
    push(store, made.names[0], made.names[0])
    (tmp_path / "registries.toml").write_text(
        f'default = "r.invalid"\n[registry."r.invalid"]\nmirrors = ["localhost:1", "{server.host}"]\n'
    )
    lines: list[str] = []

    class Told(client.SILENT.__class__):  # type: ignore[name-defined,misc]
        def say(self, line: str) -> None:
            lines.append(line)

    client.FIRST_WAIT, kept = 0.001, client.FIRST_WAIT
    try:
        other = Store(str(tmp_path / "other"))
        record = pull(other, "library/mirrored", watcher=Told())
        assert record.name == "r.invalid/library/mirrored:latest"
        assert any("mirror localhost:1: " in line and "refused" in line for line in lines)
        found = other.find("library/mirrored")
        assert found is not None
        assert found.digest == made.digest
        with pytest.raises(Error, match=r"registry r.invalid: there is no such host"):
            pull(other, "library/absent")
    finally:
        client.FIRST_WAIT = kept
    with pytest.raises(NotFound, match="not found: registry localhost"):
        pull(store, f"{server.host}/library/absent")


def test_plain_http_is_only_for_this_machine(server: Server) -> None:
    with client.Registry(Settings("127.0.0.1.nip.invalid:1")) as registry, pytest.raises(Error, match="no such host"):
        registry.check()
    # The same server under a name that is not local.
    elsewhere = Settings(server.host.replace("localhost", os.uname().nodename))
    with client.Registry(elsewhere) as registry, pytest.raises(Error) as caught:
        registry.check()
    assert "registries.toml" in str(caught.value) or "refused" in str(caught.value) or "host" in str(caught.value)
