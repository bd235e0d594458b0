"""Layers that Hypothesis makes up, laid over each other: the same tree as umoci's, which unpacks one into the other."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import listing
from corten.errors import InvalidInput
from corten.images import manifests
from corten.images.archives.loading import load
from corten.images.store.images import Store
from layer_lab import Entry, tar_bytes

DIRECTORY = 0o040000
folders = st.sampled_from(["a", "b", "a/b", "a/c"])
leaves = st.sampled_from(["x", "y", "z", "long" * 40])
places = st.one_of(leaves, st.tuples(folders, leaves).map("/".join))
about = {
    "mode": st.sampled_from([0o644, 0o755, 0o4711, 0o1777, 0o000]),
    "uid": st.sampled_from([0, 1000]),
    "gid": st.sampled_from([0, 7]),
    "mtime": st.sampled_from([1_000_000_000, 1_200_000_000]),
    "xattrs": st.sampled_from([{}, {}, {"user.t": b"\0v"}]),
}
entries = st.one_of(
    st.builds(Entry, st.just("dir"), st.one_of(folders, folders, places), **about),
    st.builds(Entry, st.just("dir"), st.one_of(folders, folders, places), **about),
    st.builds(Entry, st.sampled_from(["file", "sparse"]), places, data=st.sampled_from([b"", b"1", b"22" * 999]),
              holes=st.just(8192), **about),
    st.builds(Entry, st.just("symlink"), places, link=st.sampled_from(["/a", "x", "../y", "nowhere"]), **about),
    st.builds(Entry, st.just("link"), places, link=places),
    st.builds(Entry, st.just("fifo"), places, **about),
    st.builds(Entry, st.just("char"), places, device=st.just((1, 3)), **about),
    st.builds(Entry, st.just("file"), st.tuples(st.sampled_from(["", "a/", "b/", "a/b/"]), st.sampled_from(
        [".wh.x", ".wh.y", ".wh.a", ".wh.b", ".wh..wh..opq"])).map("".join)),
)  # fmt: skip
layers = st.lists(entries, max_size=7)


def layout(top: Path, archives: list[bytes]) -> Path:
    """An OCI layout of one image with these layers, called `x`."""
    place = top / "layout"
    (place / "blobs/sha256").mkdir(parents=True)

    def blob(kind: str, data: bytes) -> dict[str, object]:
        digits = hashlib.sha256(data).hexdigest()
        (place / "blobs/sha256" / digits).write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digits}", "size": len(data)}

    diff_ids = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in archives]
    config = {"os": "linux", "architecture": "amd64", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
              "history": []}  # fmt: skip
    manifest = {
        "schemaVersion": 2, "mediaType": manifests.MANIFEST,
        "config": blob(manifests.CONFIG, json.dumps(config).encode()),
        "layers": [blob(manifests.LAYER_GZIP, gzip.compress(data, mtime=0)) for data in archives],
    }  # fmt: skip
    name = {"org.opencontainers.image.ref.name": "x"}
    index = {"schemaVersion": 2, "manifests": [
        {**blob(manifests.MANIFEST, json.dumps(manifest).encode()), "annotations": name}]}
    (place / "index.json").write_text(json.dumps(index))
    (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return place


def plain(found: dict[str, listing.Entry], listed: set[str]) -> dict[str, listing.Entry]:
    """Without the times of directories that no layer lists."""
    return {
        path: entry if path in listed else (*entry[:3], 0, *entry[4:]) if entry[0] == DIRECTORY else entry
        for path, entry in found.items()
    }


@settings(derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(layers, min_size=1, max_size=3))
@example([[Entry("file", "a/x", data=b"1")], [Entry("file", ".wh.a"), Entry("file", "a/y", data=b"2")]])
@example([[Entry("dir", "a", mode=0o700, uid=5), Entry("file", "a/x")], [Entry("file", "a/y")]])
@example([[Entry("file", "a/x")], [Entry("dir", "a"), Entry("file", "a/.wh..wh..opq"), Entry("file", "a/y")]])
def test_the_same_tree_as_umoci(made: list[list[Entry]]) -> None:
    top = Path(tempfile.mkdtemp(prefix="corten-judge-"))
    try:
        place = layout(top, [tar_bytes(listed) for listed in made])
        words = ["umoci", "unpack", "--image", f"{place}:x", str(top / "bundle")]
        theirs = subprocess.run(words, capture_output=True, text=True, check=False)
        store = Store(str(top / "home"))
        try:
            image, = load(store, str(place))
        except InvalidInput as error:
            assert "\n" not in str(error)
            return
        if theirs.returncode:
            return
        listed = {entry.name for entries in made for entry in entries if entry.kind == "dir"}
        (top / "empty").mkdir()  # for a single layer is not mounted, but looked at as it is
        lowers = (*dict.fromkeys(store.lowers(image)), str(top / "empty"))
        ours = plain(listing.of_layers(lowers), listed)
        judge = plain(listing.of(str(top / "bundle/rootfs")), listed)
        # Where something is deleted in a directory that is not there, we make that, as docker does, and umoci does not.
        for path in [path for path, entry in ours.items() if entry[0] == DIRECTORY and path not in (*judge, *listed)]:
            del ours[path]
        assert listing.difference(ours, judge) == []
    finally:
        shutil.rmtree(top)
