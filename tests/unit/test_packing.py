"""Compression of layers: the same bytes for the same input, whatever pieces it comes in."""

from __future__ import annotations

import gzip
import random

import pytest

from corten.images.layers.packing import packer

DATA = random.Random(1).randbytes(300_000) + b"abcdefgh" * 50_000 + random.Random(2).randbytes(100)


def packed(kind: str, pieces: int) -> bytes:
    pack, out, at = packer(kind), b"", 0
    sizes = random.Random(pieces)
    while at < len(DATA):
        size = sizes.randrange(1, 2 * len(DATA) // pieces)
        out, at = out + pack.compress(DATA[at : at + size]), at + size
    return out + pack.flush()


@pytest.mark.parametrize("kind", ["gzip", "zstd", "none"])
def test_pieces_do_not_matter(kind: str) -> None:
    assert packed(kind, 1) == packed(kind, 7) == packed(kind, 1000)


def test_it_is_gzip() -> None:
    assert gzip.decompress(packed("gzip", 10)) == DATA
