"""Names and decompression as properties."""

from __future__ import annotations

import gzip
import os
import tempfile

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from corten.errors import InvalidInput
from corten.images.archive import Limits
from corten.images.decompress import Contents
from corten.images.unpack import Refused, components

PARTS = st.sampled_from(["a", "b", ".", "..", "", "...", "..a", "a..", " ", "~", "\n", "é", "\udcff", "\0", "$HOME"])


@given(st.lists(PARTS, max_size=8).map("/".join))
def test_a_name_is_below_the_root_or_refused(name: str) -> None:
    bad = name.startswith("/") or ".." in name.split("/") or "\0" in name
    try:
        parts = components(name)
    except Refused:
        assert bad
        return
    assert not bad
    assert not {"", ".", ".."} & set(parts)
    base = "/some/root"
    resolved = os.path.normpath(os.path.join(base, name))
    assert resolved == os.path.join(base, *parts)
    assert components("/".join(parts)) == parts


@given(st.text(max_size=40))
def test_any_text_gives_parts_or_is_refused(name: str) -> None:
    try:
        parts = components(name)
    except Refused:
        return
    assert all(part and "/" not in part and part not in (".", "..") for part in parts)


def contents(data: bytes, sizes: int) -> bytes:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        stream = Contents(file.fileno(), "x", Limits())
        found = b""
        while part := stream.read(sizes):
            assert len(part) <= sizes
            found += part
        return found


PIECES = st.lists(st.binary(max_size=2000), min_size=1, max_size=4)


@given(PIECES, st.integers(1, 3000), st.sampled_from(["gzip", "zstd"]))
def test_compressed_in_any_pieces_reads_back(pieces: list[bytes], sizes: int, kind: str) -> None:
    pack = gzip.compress if kind == "gzip" else zstandard.compress
    assert contents(b"".join(map(pack, pieces)), sizes) == b"".join(pieces)


@given(st.binary(min_size=1, max_size=500), st.data())
def test_gzip_that_was_cut_is_never_taken_for_whole(data: bytes, draw: st.DataObject) -> None:
    packed = gzip.compress(data)
    cut = draw.draw(st.integers(2, len(packed) - 1))
    with pytest.raises(InvalidInput, match="damaged or truncated"):
        contents(packed[:cut], 4096)
