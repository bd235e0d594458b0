"""`kill -9` at any change of the disk: what is there then is whole, all works afterwards, and leftovers are swept."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import listing
from corten.images.archives.loading import load
from corten.images.archives.saving import save
from corten.images.layers.commit import commit
from corten.images.references import parse
from corten.images.registry.pulling import pull
from corten.images.registry.pushing import push
from corten.images.store import removal
from corten.images.store.images import Image, Store
from images_lab import Server, image

KILL_AT = Path(__file__).parent / "kill_at.py"
MOST = 28  # kills for each command


def killed(number: int, *words: str) -> subprocess.CompletedProcess[str]:
    """`corten WORDS`, killed before its change of that number."""
    command = [sys.executable, str(KILL_AT), str(number), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def points(*words: str) -> list[int]:
    """Where to kill a command: the first and the last changes, and some of those between."""
    done = killed(0, *words)
    assert done.returncode == 0, done.stderr
    count = int(done.stderr.splitlines()[-1])
    assert count > 20
    between = range(9, count - 8)
    some = random.Random(1).sample(between, min(len(between), MOST - 16))
    return sorted({*range(1, 9), *some, *range(count - 8, count)})


def trees(store: Store) -> dict[str, dict[str, listing.Entry]]:
    """What is in the layers."""
    return {diff_id: listing.of(store.layers.path(diff_id)) for diff_id in store.layers.all()}


def check(store: Store, good: dict[str, dict[str, listing.Entry]], made: Image) -> bool:
    """See that all is whole that has its final name; whether the image has its name."""
    for digest in store.blobs.all():
        with open(store.blobs.path(digest), "rb") as file:
            assert digest == "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    for diff_id, tree in trees(store).items():
        assert listing.difference(tree, good[diff_id]) == []
    found = list(store.images())
    assert {one.digest for one in found} <= {made.digest}
    for one in found:
        assert all(store.blobs.has(layer.blob.digest) for layer in one.layers)
        assert all(store.layers.has(layer.diff_id) for layer in one.layers)
    return bool(found)


def nothing_is_left(store: Store) -> None:
    """After pruning there is nothing but empty directories, the lock, and broken downloads that may go on."""
    removal.prune(store, everything=True)
    store.blobs.sweep(kept=0)
    left = [str(path.relative_to(store.directory)) for path in Path(store.directory).rglob("*") if not path.is_dir()]
    assert [path for path in left if not path.startswith("unsynced/")] == ["lock"]
    assert not os.listdir(store.layers.directory)


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Store]:
    """Makes stores that the commands use, too."""

    def make(number: int) -> Store:
        monkeypatch.setenv("CORTEN_HOME", str(tmp_path / f"other{number}"))
        return Store(str(tmp_path / f"other{number}"))

    return make


def attack(
    other: Callable[[int], Store], store: Store, made: Image, words: tuple[str, ...], again: Callable[[Store], object],
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:  # fmt: skip
    """Kill a command at many points, each in a store of its own, and see what is left."""
    good = trees(store)
    other(0)
    named, codes = [], []
    for number in points(*words):
        broken = other(number)
        codes.append(killed(number, *words).returncode)
        named.append(check(broken, good, made))
        if number % 9 == 0:  # as a person would see it
            done = command("run", "--pull", "never", made.names[0], "true")
            assert done.returncode == (0 if named[-1] else 125), done.stderr
        again(broken)
        assert check(broken, good, made)
        if number % 9 == 0:
            assert command("run", made.names[0], "cat", "/etc/layer2").stdout == f"{made.names[0]} 2"
        nothing_is_left(broken)
    assert named[0] is False
    # What comes in pieces over a network is not always as many changes.
    assert set(codes[:-8]) == {-signal.SIGKILL}
    assert set(codes) <= {-signal.SIGKILL, 0}


@pytest.mark.slow
def test_load(
    other: Callable[[int], Store], store: Store, tmp_path: Path,
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:  # fmt: skip
    made = image(store, "docker.io/library/loaded:latest", 3)
    archive = str(tmp_path / "image.tar")
    assert command("save", made.names[0], "-o", archive).returncode == 0
    attack(other, store, made, ("load", "-q", archive), lambda broken: load(broken, archive), command)


@pytest.mark.slow
def test_pull(
    other: Callable[[int], Store], store: Store, server: Server,
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:  # fmt: skip
    made = image(store, f"{server.host}/killed:latest", 3)
    push(store, made.names[0], made.names[0])
    attack(other, store, made, ("pull", "-q", made.names[0]), lambda broken: pull(broken, made.names[0]), command)


@pytest.mark.slow
def test_remove_and_prune(
    other: Callable[[int], Store], store: Store, tmp_path: Path,
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:  # fmt: skip
    """A removal that was killed leaves an image that is whole, or garbage."""
    made = image(store, "docker.io/library/removed:latest", 3)
    archive = str(tmp_path / "image.tar")
    assert command("save", made.names[0], "-o", archive).returncode == 0
    good = trees(store)
    for words in (("rmi", made.names[0]), ("image", "prune", "--all")):
        load(other(0), archive)
        done = killed(0, *words)
        assert done.returncode == 0, done.stderr
        count = int(done.stderr.splitlines()[-1])
        for number in sorted(random.Random(2).sample(range(1, count), min(count - 1, 14))):
            broken = other(number)
            load(broken, archive)
            assert killed(number, *words).returncode == -signal.SIGKILL
            check(broken, good, made)
            load(broken, archive)
            assert check(broken, good, made)
            nothing_is_left(broken)


def half_made(layers: Path) -> int:
    """How many files the layers have that are being made."""
    found = 0
    for name in os.listdir(layers) if layers.exists() else ():
        try:
            found += len(os.listdir(layers / name / "tree")) if name.endswith(".new") else 0
        except OSError:  # not yet, or not any more
            continue
    return found


def test_a_whole_tree_of_processes_killed_while_it_unpacks(
    other: Callable[[int], Store], store: Store, tmp_path: Path
) -> None:
    """The helpers that unpack large layers die with the command; their half layers are swept by the next."""
    upper = tmp_path / "own/images/upper"
    upper.mkdir(parents=True)
    for number in range(3000):
        (upper / f"f{number}").write_bytes(random.Random(number).randbytes(1000))
    with store.using():
        made = store.make_image({"os": "linux"}, [commit(store, str(upper))], [parse("many")])
    archive = str(tmp_path / "many.tar")
    with open(archive, "wb") as file:
        save(store, [made], file.fileno())
    good = trees(store)
    broken = other(1)
    drafts = Path(broken.layers.directory)
    for wanted in (1, 700, 2500):
        words = [str(Path(sys.executable).parent / "corten"), "load", "-q", archive]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
            while half_made(drafts) < wanted:
                assert process.poll() is None
            process.kill()
        check(broken, good, made)
        assert list(broken.images()) == []
    load(broken, archive)
    assert check(broken, good, made)
    nothing_is_left(broken)
