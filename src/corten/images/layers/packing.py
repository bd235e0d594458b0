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


_BLOCK = 1 << 18


class _Plain:
    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


class _Blocks:
    """Hands a packer pieces of one size, for what it makes of the same bytes depends on the pieces they come in."""

    def __init__(self, packer: Packer) -> None:
        self._packer, self._waiting = packer, bytearray()

    def compress(self, data: bytes) -> bytes:
        waiting = self._waiting
        waiting += data
        whole = len(waiting) - len(waiting) % _BLOCK
        packed = [self._packer.compress(bytes(waiting[at : at + _BLOCK])) for at in range(0, whole, _BLOCK)]
        del waiting[:whole]
        return b"".join(packed)

    def flush(self) -> bytes:
        return self._packer.compress(bytes(self._waiting)) + self._packer.flush()


def packer(kind: str) -> Packer:
    """A compressor: gzip, zstd or none. InvalidInput: another."""
    if kind == "none":
        return _Plain()
    if kind == "gzip":
        from isal import isal_zlib

        return _Blocks(isal_zlib.compressobj(level=3, wbits=31))  # no name and no time in the header
    if kind == "zstd":
        if sys.version_info >= (3, 14):
            from compression import zstd

            return _Blocks(zstd.ZstdCompressor(level=3))
        import zstandard

        return _Blocks(zstandard.ZstdCompressor(level=3).compressobj())
    raise InvalidInput(f"compression {kind!r}: is none of {', '.join(KINDS)}")
