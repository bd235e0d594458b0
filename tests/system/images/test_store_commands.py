"""The store as people see it: ls, inspect, history, tag, rm, prune, df; damage, a full disk, many at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from corten.images.archives.loading import load
from corten.images.layers.commit import commit
from corten.images.references import parse
from corten.images.store import removal
from corten.images.store.images import Image, Store
from images_lab import image

CORTEN = str(Path(sys.executable).parent / "corten")
Corten = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def said(command: Corten) -> Callable[..., str]:
    """What a command prints that ends well."""

    def call(*words: str) -> str:
        done = command(*words)
        assert (done.returncode, done.stderr) == (0, ""), done
        return str(done.stdout)

    return call


@pytest.fixture
def refused(command: Corten) -> Callable[..., str]:
    """The one line with which a command ends that cannot work."""

    def call(*words: str, code: int = 125, **options: object) -> str:
        done = command(*words, **options)
        assert done.returncode == code, done
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("corten: ")
        assert "mistake in corten" not in done.stderr
        return str(done.stderr)

    return call


def test_names_come_and_go(store: Store, said: Callable[..., str], refused: Callable[..., str]) -> None:
    made = image(store, "app", 2, User="alice")
    short = made.digest[7:19]
    assert said("tag", "app", "app:2", "r.example:5000/team/app") == ""
    rows = [line.split()[:3] for line in said("images").splitlines()]
    assert rows == [["REPOSITORY", "TAG", "IMAGE"], ["app", "2", short], ["app", "latest", short],
                    ["r.example:5000/team/app", "latest", short]]  # fmt: skip
    assert [line.split()[1] for line in said("images", "team").splitlines()[1:]] == ["latest"]
    assert said("images", "-q") == f"{short}\n"
    assert json.loads(said("images", "--json"))[0]["digest"] == made.digest
    found, = json.loads(said("image", "inspect", short))
    assert found["names"] == sorted(found["names"])
    assert len(found["names"]) == 3
    assert found["config"]["config"]["User"] == "alice"
    assert [Path(path).is_dir() for path in found["unpacked"]] == [True, True]
    assert "3 names" in refused("rmi", short)
    assert "sha256 has 64 digits" in refused("tag", "app", "app@sha256:12")
    assert "its digest is not" in refused("tag", "app", f"app@sha256:{'0' * 64}")
    assert "lower case" in refused("tag", "app", "APP")
    assert "not in the store" in refused("tag", "absent", "x")
    assert said("tag", "app", f"app@{made.digest}") == ""
    assert said("rmi", f"app@{made.digest}") == f"untagged docker.io/library/app@{made.digest}\n"
    assert said("rmi", "app", "app:2").count("untagged") == 2
    assert "not found" in refused("rmi", "app:2")
    assert said("image", "rm", "--force", short).splitlines()[-1] == f"removed {made.digest}"
    assert [*store.blobs.all(), *store.layers.all()] == []


def test_a_tag_that_moves_leaves_an_image_that_prune_takes(
    store: Store, said: Callable[..., str], tmp_path: Path
) -> None:
    old = image(store, "moving", 2)
    new = image(store, "moving", 3)
    assert [line.split()[0] for line in said("images").splitlines()[1:]].count("<none>") == 1
    before = json.loads(said("system", "df", "--json"))
    assert (before["images"]["count"], before["images"]["used"], before["images"]["unused"]) == (2, 0, 0)
    assert before["layers"]["count"] == len({*old.config.diff_ids, *new.config.diff_ids})
    assert before["images"]["size"] == sum(store.blobs.size(one) for one in store.blobs.all())
    pruned = said("image", "prune")
    assert pruned.startswith(f"removed {old.digest}\nfreed ")
    assert json.loads(said("system", "df", "--json"))["images"]["count"] == 1
    assert store.find("moving").digest == new.digest  # type: ignore[union-attr]
    assert said("run", "moving", "cat", "/etc/layer2") == "moving 2"
    assert "freed 0 bytes in 0 blobs, and 0 unpacked layers" in said("image", "prune")
    said("image", "prune", "--all")
    assert [*store.blobs.all(), *store.layers.all(), *store.names.all()] == []


def test_history_shows_what_there_is_and_nothing_a_terminal_obeys(store: Store, said: Callable[..., str]) -> None:
    upper = Path(store.directory) / "upper"
    with store.using():
        layers = []
        for number in range(2):
            upper.mkdir(parents=True)
            (upper / f"f{number}").write_text("x")
            layers.append(commit(store, str(upper)))
        history = [
            {"created": "2020-01-01T00:00:00Z", "created_by": "ADD \x1b[31m  red\nline"},
            {"created_by": "ENV A=1", "empty_layer": True, "comment": "why"},
            {"created": "not a \x1b time", "created_by": "x" * 200},
        ]
        store.make_image({"os": "linux", "history": history, "created": "\x1b]0;title\7"}, layers, [parse("told")])
    lines = said("history", "told").splitlines()
    assert [line.split()[0] for line in lines] == [
        "LAYER", layers[1].blob.digest[7:19], "-", layers[0].blob.digest[7:19],
    ]  # fmt: skip
    assert lines[3].endswith("ADD ?[31m red line")
    assert lines[2].endswith("ENV A=1 # why")
    assert lines[1].endswith("x…")
    for words in (("history", "told"), ("images",), ("history", "--no-trunc", "told")):
        assert all(char.isprintable() or char == "\n" for char in said(*words))
    assert [entry["digest"] for entry in json.loads(said("history", "--json", "told"))] == [
        layers[1].blob.digest, "", layers[0].blob.digest,
    ]  # fmt: skip
    json.loads(said("image", "inspect", "told"))


def test_one_damaged_image_is_named_and_the_others_go_on(
    store: Store, command: Corten, said: Callable[..., str], refused: Callable[..., str], tmp_path: Path
) -> None:
    image(store, "good", 2)
    bad = image(store, "bad", 3)
    assert command("save", "bad", "-o", str(tmp_path / "bad.tar")).returncode == 0
    os.unlink(store.blobs.path(bad.manifest.config.digest))
    for words in (("images",), ("system", "df"), ("image", "prune"), ("run", "bad"), ("history", "bad"),
                  ("save", "bad", "-o", str(tmp_path / "x.tar")), ("tag", "bad", "new")):  # fmt: skip
        line = refused(*words)
        assert "image docker.io/library/bad:latest: is damaged: blob sha256:" in line
        assert "get it again, or remove it" in line
    assert "good" in command("images").stdout
    assert said("run", "good", "cat", "/etc/layer1") == "good 1"
    assert said("load", "-q", str(tmp_path / "bad.tar"))  # get it again
    assert said("run", "bad", "cat", "/etc/layer2") == "bad 2"
    record = Path(store.names.directory, "docker.io%2Flibrary%2Fbad:latest")
    record.write_text('{"name": ')
    assert "image docker.io/library/bad:latest: is damaged, in" in refused("images")
    assert "is damaged" in refused("run", "bad")
    assert said("load", "-q", str(tmp_path / "bad.tar"))
    assert said("run", "bad", "cat", "/etc/layer2") == "bad 2"
    record.write_text("")
    assert said("rmi", "bad") == "untagged docker.io/library/bad:latest\n"
    os.unlink(store.blobs.path(store.find("good").digest))  # type: ignore[union-attr]
    assert said("rmi", "good").startswith("untagged")
    assert [*store.blobs.all(), *store.layers.all()] == []


def test_an_unpacked_layer_that_is_gone_is_unpacked_again(store: Store, said: Callable[..., str]) -> None:
    made = image(store, "again", 3)
    assert store.layers.remove(made.config.diff_ids[1])
    assert said("run", "again", "cat", "/etc/layer1") == "again 1"


def test_many_at_once_load_the_same_and_different_images(
    store: Store, command: Corten, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And prune, all the while; nothing is lost and nothing is made twice."""
    archives = []
    for number in range(2):
        image(store, f"many{number}", 3 + number)
        archives.append(str(tmp_path / f"{number}.tar"))
        assert command("save", f"many{number}", "-o", archives[-1]).returncode == 0
    monkeypatch.setenv("CORTEN_HOME", str(tmp_path / "other"))
    words = [[CORTEN, "load", "-q", archives[number % 2]] for number in range(6)]
    words += [[CORTEN, "image", "prune"]] * 2
    running = [subprocess.Popen(one, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for one in words]
    ended = [(process.communicate(), process.returncode) for process in running]
    for (_, complaint), code in ended[:6]:
        assert (code, complaint) == (0, "")
    for (_, complaint), code in ended[6:]:
        assert code == 0 or "prune when that is over" in complaint
    other = Store(str(tmp_path / "other"))
    assert len(list(other.images())) == 2
    for number in range(2):
        done = command("run", f"many{number}", "cat", "/etc/layer2")
        assert (done.returncode, done.stdout) == (0, f"many{number} 2")
    removal.prune(other, everything=True)
    assert [*other.blobs.all(), *other.layers.all()] == []


@pytest.fixture
def disk(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a shell script with $HOME_DIR on a small disk of its own; nothing of it is seen elsewhere."""
    place = tmp_path / "disk"
    place.mkdir()

    def call(size: str, script: str) -> subprocess.CompletedProcess[str]:
        mount = f"mount -t tmpfs -o size={size} small {place} && export CORTEN_HOME={place}/home && {script}"
        words = ["unshare", "--mount", "sh", "-c", mount]
        return subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    return call


def noise(store: Store, name: str, *sizes: int) -> Image:
    """An image with layers that cannot be packed."""
    upper = Path(store.directory) / "upper"
    with store.using():
        layers = []
        for number, size in enumerate(sizes):
            upper.mkdir(parents=True)
            (upper / f"noise{number}").write_bytes(os.urandom(size))
            layers.append(commit(store, str(upper)))
        return store.make_image({"os": "linux", "config": {"Cmd": ["x"]}}, layers, [parse(name)])


@pytest.mark.parametrize("size", ["100k", "1m", "3m", "5m", "7m", "11m"])
def test_a_full_disk_is_one_line_and_leaves_nothing_in_use(
    store: Store, disk: Callable[..., subprocess.CompletedProcess[str]], command: Corten, tmp_path: Path, size: str
) -> None:
    """Load, import, tag: whatever the disk has room for."""
    noise(store, "big", 2_000_000, 4_000_000, 300_000)
    archive, flat = str(tmp_path / "big.tar"), str(tmp_path / "flat.tar")
    assert command("save", "big", "-o", archive).returncode == 0
    assert command("image", "export", "big", "-o", flat).returncode == 0
    after = f"{CORTEN} images -q; {CORTEN} image prune; find $CORTEN_HOME/images ! -type d ! -name lock"
    for words in (f"load -q {archive}", f"import {flat} big"):
        done = disk(size, f"{CORTEN} {words}; echo code $?; {after}")
        assert done.stderr.count("\n") == 1, done.stderr
        assert "ENOSPC" in done.stderr
        assert "CORTEN_HOME" in done.stderr
        assert done.stdout.splitlines()[0] == "code 125"
        assert len(done.stdout.splitlines()) == 2, done.stdout  # no image, no file


def test_a_disk_that_is_full_to_the_last_byte(
    store: Store, disk: Callable[..., subprocess.CompletedProcess[str]], command: Corten, tmp_path: Path
) -> None:
    """What is there goes on to run, and can be removed; what is not is not half there."""
    image(store, "small", 2)
    archive = str(tmp_path / "small.tar")
    assert command("save", "small", "-o", archive).returncode == 0
    script = [
        f"{CORTEN} load -q {archive}", f"{CORTEN} run small true", "cat /dev/zero > $CORTEN_HOME/../filler 2>/dev/null",
        f"{CORTEN} tag small more", f"{CORTEN} images -q small",
        f"{CORTEN} run --writable tmpfs small cat /etc/layer1", f"{CORTEN} rmi small",
        "rm $CORTEN_HOME/../filler", f"{CORTEN} image prune --all", "find $CORTEN_HOME/images -type f",
    ]  # fmt: skip
    done = disk("8m", "; ".join(script))
    digest, short, ran, untagged, removed, *rest = done.stdout.splitlines()
    assert digest[7:19] == short
    assert (ran, untagged) == ("small 1untagged docker.io/library/small:latest", f"removed {digest}"), done
    assert (removed.startswith("freed"), rest[0].endswith("/lock")) == (True, True), done
    assert done.stderr.count("\n") == 1
    assert "the name docker.io/library/more:latest" in done.stderr
    assert "ENOSPC" in done.stderr


@pytest.mark.slow
def test_a_layer_of_a_hundred_thousand_files(store: Store, command: Corten, tmp_path: Path) -> None:
    root = tmp_path / "many"
    for number in range(100):
        (root / f"d{number}").mkdir(parents=True)
        for file in range(1000):
            (root / f"d{number}/f{file}").touch()
    archive = tmp_path / "many.tar"
    subprocess.run(["tar", "-cf", archive, "-C", root, "."], check=True)
    done = command("import", str(archive), "many")
    assert done.returncode == 0, done.stderr
    found = store.find("many")
    assert found
    tree = Path(store.lowers(found)[0])
    assert sum(len(files) for _, _, files in os.walk(tree)) == 100_000
    assert command("image", "export", "many", "-o", str(tmp_path / "back.tar")).returncode == 0
    listed = subprocess.run(["tar", "-tf", tmp_path / "back.tar"], capture_output=True, text=True, check=True).stdout
    assert listed.count("\n") == 100_101
    assert command("save", "many", "-o", str(tmp_path / "saved.tar")).returncode == 0
    other = Store(str(tmp_path / "other"))
    loaded, = load(other, str(tmp_path / "saved.tar"))
    assert loaded.digest == found.digest
    assert command("rmi", "many").returncode == 0
    assert not tree.exists()
