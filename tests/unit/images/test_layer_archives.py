"""Layers from strangers: any archive gives the tree of a simple model, or one clear line; nothing lands outside."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corten.errors import Error, InvalidInput
from corten.images.layers.unpacking import unpack_layer
from corten.linux import paths
from corten.runtime.removal import remove_tree
from layer_lab import Entry, entries, tar_bytes

ROOT = os.geteuid() == 0
MODES = 0o7777 if ROOT else 0o1777

# --- the model: a tree in memory, in which links lead only inside


class Node:
    """A thing in the tree."""

    def __init__(self, kind: str, entry: Entry | None = None) -> None:
        self.kind, self.entry = kind, entry
        self.children: dict[str, Node] = {}
        self.deleted: set[str] = set()
        self.opaque = False


class Refusal(Exception):
    """The model would not take it."""


class Model:
    """What a layer should become."""

    def __init__(self) -> None:
        self.root = Node("dir")
        self.links = 0

    def split(self, name: str) -> list[str]:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise Refusal
        return parts

    def walk(self, parts: list[str], make: bool) -> Node:
        """The directory of a path; missing parts are made. Links are followed as if the root were `/`."""
        self.links = 0
        return self._walk([self.root], parts, make)[-1]

    def _walk(self, way: list[Node], parts: list[str], make: bool) -> list[Node]:
        way = list(way)
        for part in parts:
            if part in ("", "."):
                continue
            if part == "..":
                way = way[:-1] or way
                continue
            child = way[-1].children.get(part)
            if child is None and make:
                child = way[-1].children[part] = Node("dir")
            if child is None:
                raise Refusal
            if child.kind == "symlink":
                assert child.entry
                self.links += 1
                if self.links > 40:
                    raise Refusal
                target = child.entry.link
                way = self._walk([self.root] if target.startswith("/") else way, target.split("/"), False)
            elif child.kind == "dir":
                way.append(child)
            else:
                raise Refusal
        return way

    def add(self, entry: Entry) -> None:
        parts = self.split(entry.name)
        name = parts[-1] if parts else ""
        if name == ".wh..wh..opq":
            self.walk(parts[:-1], True).opaque = True
        elif name.startswith(".wh..wh."):
            return
        elif name.startswith(".wh."):
            if name[4:] in ("", ".", ".."):
                raise Refusal
            self.walk(parts[:-1], True).deleted.add(name[4:])
        elif entry.kind == "dir":
            above = self.walk(parts[:-1], True) if parts else None
            node = above.children.get(name) if above else self.root
            if node is None or node.kind != "dir":
                assert above
                node = above.children[name] = Node("dir")
            node.entry = entry
        elif not parts:
            raise Refusal
        elif entry.kind in ("char", "block") and entry.device != (0, 0) and not ROOT:
            return
        else:
            self.place(entry, parts)

    def place(self, entry: Entry, parts: list[str]) -> None:
        if entry.kind == "symlink" and not entry.link:
            raise Refusal
        there = self.split(entry.link) if entry.kind == "link" else []
        if entry.kind == "link" and there in ([], parts):
            raise Refusal
        above = self.walk(parts[:-1], True)
        old = above.children.pop(parts[-1], None)
        if old and old.children:
            raise Refusal
        node = Node(entry.kind, entry)
        if entry.kind == "link":
            found = self.walk(there[:-1], False).children.get(there[-1])
            if found is None or found.kind == "dir":
                raise Refusal
            node = found
        above.children[parts[-1]] = node


def expected(entries: list[Entry]) -> dict[str, tuple[Any, ...]] | None:
    """The listing of what the model makes of them; None: it refuses."""
    model = Model()
    try:
        for entry in entries:
            model.add(entry)
    except Refusal:
        return None
    return dict(_of_model(model.root, ""))


def _of_model(node: Node, place: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    yield place, _described(node)
    for name in sorted(node.deleted - set(node.children)):
        yield f"{place}/{name}", ("whiteout",)
    for name, child in node.children.items():
        if name in node.deleted:
            child.opaque = True
        yield from _of_model(child, f"{place}/{name}")


def _described(node: Node) -> tuple[Any, ...]:
    entry, kind = node.entry, node.kind
    opaque = node.opaque and kind == "dir"
    if entry is None:
        return "dir", 0o755, (0, 0), opaque
    owner = (entry.uid, entry.gid) if ROOT else (0, 0)
    xattrs = {name: value for name, value in entry.xattrs.items() if name.startswith("user.t")}
    if kind == "dir":
        return "dir", entry.mode & MODES, owner, opaque, entry.mtime, xattrs
    if kind == "symlink":
        return "symlink", owner, entry.mtime, entry.link
    if kind in ("file", "sparse"):
        return "file", entry.mode & MODES, owner, entry.mtime, bytes(entry.holes) + entry.data, xattrs
    if kind == "char" and entry.device == (0, 0):
        return ("whiteout",)
    return kind, entry.mode & MODES, owner, entry.mtime, entry.device if kind in ("char", "block") else ()


# --- what is on disk


def listing(root: str, model: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """The same of a directory. model: tells which directories nobody has listed, whose times are open."""
    found = {}
    for top, directories, files in os.walk(root):
        for name in ("", *directories, *files):
            if name or top == root:
                path = f"{top}/{name}".rstrip("/")
                found[path[len(root) :]] = _on_disk(path, len(model.get(path[len(root) :], ())) == 4)
    return found


def _on_disk(path: str, implied: bool) -> tuple[Any, ...]:
    about = os.lstat(path)
    owner = (about.st_uid, about.st_gid) if ROOT else (0, 0)
    mode = stat.S_IMODE(about.st_mode)
    xattrs = {name: os.getxattr(path, name) for name in os.listxattr(path, follow_symlinks=False)}
    opaque = xattrs.pop("user.overlay.opaque", b"") == b"y"
    assert (xattrs.pop("trusted.overlay.opaque", b"") == b"y") == (opaque and ROOT)
    assert not [name for name in xattrs if "overlay" in name], xattrs
    kind = stat.S_IFMT(about.st_mode)
    if kind == stat.S_IFDIR:
        return ("dir", mode, owner, opaque) if implied else ("dir", mode, owner, opaque, int(about.st_mtime), xattrs)
    if kind == stat.S_IFLNK:
        return "symlink", owner, int(about.st_mtime), os.readlink(path)
    if kind == stat.S_IFREG:
        return "file", mode, owner, int(about.st_mtime), Path(path).read_bytes(), xattrs
    if kind == stat.S_IFCHR and about.st_rdev == 0:
        return ("whiteout",)
    word = {stat.S_IFIFO: "fifo", stat.S_IFCHR: "char", stat.S_IFBLK: "block"}[kind]
    device = (os.major(about.st_rdev), os.minor(about.st_rdev)) if word != "fifo" else ()
    return word, mode, owner, int(about.st_mtime), device


class Place:
    """An empty directory, and beside it files that must stay as they are."""

    def __init__(self) -> None:
        self.top = tempfile.mkdtemp(prefix="corten-layer-")
        self.tree = f"{self.top}/tree"
        os.makedirs(f"{self.top}/outside")
        Path(f"{self.top}/outside/sentinel").write_text("untouched")
        self.before = self.outside()

    def outside(self) -> list[Any]:
        found: list[Any] = [sorted(os.listdir(self.top)) if not os.path.exists(self.tree) else None]
        for path in (f"{self.top}/outside", f"{self.top}/outside/sentinel"):
            about = os.stat(path)
            found.append((about.st_mode, about.st_uid, about.st_mtime_ns, about.st_nlink, os.listxattr(path)))
        return [*found[1:], os.listdir(f"{self.top}/outside"), Path(f"{self.top}/outside/sentinel").read_text()]

    def unpack(self, packed: bytes, diff_id: str) -> str:
        """Unpack it; the refusal, "" if it was taken."""
        os.mkdir(self.tree, 0o755)
        fd = os.memfd_create("layer")
        try:
            os.write(fd, packed)
            os.lseek(fd, 0, os.SEEK_SET)
            unpack_layer(diff_id, self.tree, None, False, fd)
        except Error as error:
            return str(error)
        except OSError as error:  # the file system's own, which `once.make` turns into a line
            return f"OSError {error.errno}"
        finally:
            os.close(fd)
            assert self.outside() == self.before
        return ""

    def close(self) -> None:
        remove_tree(self.top)


@pytest.fixture(scope="module")
def place() -> Iterator[Callable[[], Place]]:
    """Makes places, and removes them."""
    made: list[Place] = []

    def make() -> Place:
        while made:
            made.pop().close()
        made.append(Place())
        return made[0]

    yield make
    for one in made:
        one.close()


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes, "gzip": lambda data: gzip.compress(data, 1), "zstd": zstandard.compress,
}  # fmt: skip

@settings(max_examples=400)
@given(st.lists(entries, max_size=9), st.sampled_from(sorted(PACKERS)))
@example([Entry("dir", "d"), Entry("dir", ".wh.d"), Entry("symlink", "d", link="e"), Entry("dir", "e")], "plain")
@example([Entry("file", "a"), Entry("file", ".wh.a"), Entry("dir", "a")], "plain")
@example([Entry("file", ".wh.a"), Entry("file", "a/b")], "plain")
@example([Entry("dir", "a"), Entry("symlink", "l", link="a"), Entry("dir", "l/x", mode=0), Entry("dir", "a/x")], "gzip")
@example([Entry("dir", "a"), Entry("symlink", "l", link="a"), Entry("file", "l/.wh.b"), Entry("file", "l")], "plain")
@example([Entry("file", "/a", data=b"1"), Entry("link", "/b", link="/a"), Entry("dir", "/")], "plain")
def test_a_layer_is_the_tree_of_the_model_or_refused(
    place: Callable[[], Place], listed: list[Entry], packer: str
) -> None:
    data = tar_bytes(listed)
    model = expected(listed)
    here = place()
    said = here.unpack(PACKERS[packer](data), digest(data))
    if model is None:
        assert said, "the model refuses it"
        assert "\n" not in said
        assert ": refused" in said or "cannot be made" in said, said
        return
    assert said == ""
    assert listing(here.tree, model) == model


noise = st.one_of(
    st.tuples(st.just("cut"), st.integers(0, 8000), st.just(b"")),
    st.tuples(st.just("set"), st.integers(0, 8000), st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("set"), st.integers(0, 40).map(lambda block: block * 512 + 156), st.sampled_from(
        [bytes([one]) for one in b"01234567LKxgSDVMNX\0\xff"])),
    st.tuples(st.just("set"), st.integers(0, 40).map(lambda block: block * 512 + 124), st.sampled_from(
        [b"77777777777\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"-0000000001\0", b"            "])),
    st.tuples(st.just("insert"), st.integers(0, 8000), st.binary(min_size=1, max_size=600)),
)  # fmt: skip


@settings(max_examples=400)
@given(
    st.lists(entries, min_size=1, max_size=6), st.lists(noise, min_size=1, max_size=3),
    st.sampled_from(sorted(PACKERS)), st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_a_damaged_archive_is_one_line_or_taken_for_what_it_says(
    place: Callable[[], Place], listed: list[Entry], changes: list[Any], packer: str, form: int, inside: bool,
    sums: bool,
) -> None:  # fmt: skip
    """inside: the damage is in the archive, not in what it is packed with; sums: checksums of headers are made good."""
    pack = PACKERS[packer]
    good = tar_bytes([entry for entry in listed if form == tarfile.PAX_FORMAT or entry.kind != "sparse"], form)
    data = bytearray(good if inside else pack(good))
    for kind, number, value in changes:
        at = number % (len(data) + 1)
        if kind == "cut":
            del data[at:]
        elif kind == "set":
            data[at : at + len(value)] = value
        else:
            data[at:at] = value
    if inside and sums:
        for start in range(0, len(data) - 511, 512):
            rest = data[start : start + 148] + data[start + 156 : start + 512]
            data[start + 148 : start + 156] = b"%06o\0 " % (sum(rest) + 256)
    packed = pack(bytes(data)) if inside else bytes(data)
    said = place().unpack(packed, digest(bytes(data) if inside else good))
    assert "\n" not in said
    if said and not said.startswith("OSError"):
        assert said.startswith(("archive 'layer sha256", "layer sha256")), said
    if not inside and bytes(data) != pack(good):
        assert said or packer != "plain"  # what says the same in other bytes may be taken


@settings(max_examples=50)
@given(st.binary(max_size=3000), st.sampled_from([b"", b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd", b"BZh9", b"\xfd7zXZ\0"]))
def test_noise_is_refused(place: Callable[[], Place], data: bytes, magic: bytes) -> None:
    said = place().unpack(magic + data, digest(data))
    assert said.startswith(("archive ", "layer "))
    assert "\n" not in said


def test_what_cannot_be_opened_in_the_model_is_not_opened_here(place: Callable[[], Place]) -> None:
    """A link to a magic link of /proc must not lead to what this very process has open."""
    here = place()
    data = tar_bytes([Entry("symlink", "p", link="/proc/self/cwd"), Entry("file", "p/evil", data=b"x")])
    assert "cannot be made" in here.unpack(data, digest(data))
    assert not Path("evil").exists()
    with pytest.raises(InvalidInput, match="empty"):
        unpack_layer(digest(b""), here.tree, None, False, os.open("/dev/null", os.O_RDONLY))
    fd = os.open(here.tree, os.O_PATH)
    with pytest.raises(OSError, match="No such file"):
        paths.open_in_root(fd, "/p", os.O_PATH)
    os.close(fd)
