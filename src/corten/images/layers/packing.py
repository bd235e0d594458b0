"""What a layer is compressed with. Each kind gives the same bytes for the same input.

isal is several times as fast as zlib, and both release the interpreter's lock while they work.
"""

from __future__ import annotations

import sys

from corten.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Packer(Protocol):
        """Takes bytes in pieces."""

        def compress(self, data: bytes, /) -> bytes:
            """Packed bytes, as far as there are some."""

        def flush(self) -> bytes:
            """The rest."""


KINDS = ("gzip", "zstd", "none")


class _Plain:
    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def packer(kind: str) -> Packer:
    """A compressor: gzip, zstd or none. InvalidInput: another."""
    if kind == "none":
        return _Plain()
    if kind == "gzip":
        from isal import isal_zlib

        return isal_zlib.compressobj(level=3, wbits=31)  # no name and no time in the header
    if kind == "zstd":
        if sys.version_info >= (3, 14):
            from compression import zstd

            return zstd.ZstdCompressor(level=3)
        import zstandard

        return zstandard.ZstdCompressor(level=3).compressobj()
    raise InvalidInput(f"compression {kind!r}: is none of {', '.join(KINDS)}")
