"""The bytes of a tar archive, whatever it is compressed with, counted against limits while they are read.

Rule 1: what it is compressed with is told by its first bytes, never by its name.
Rule 2: no call returns more than it was asked for, so a bomb is stopped before it is in memory.
"""

from __future__ import annotations

import os
import sys
from typing import cast

from corten.errors import InvalidInput, errno_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO, Protocol

    from corten.images.archive import Limits

    class _Bytes(Protocol):
        def read(self, size: int) -> bytes: ...

    class _Inflate(Protocol):
        eof: bool
        unused_data: bytes
        unconsumed_tail: bytes

        def decompress(self, data: bytes, size: int, /) -> bytes: ...

    class _Hash(Protocol):
        def update(self, data: bytes, /) -> None: ...


HEAD = 8
"""Bytes that tell what an archive is compressed with."""
_CHUNK = 1 << 18
_ZSTD_WINDOW = 1 << 27  # bytes; what zstd itself accepts without --long
_OTHERS = ((b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2"), (b"PK\3\4", "zip"), (b"\x04\x22\x4d\x18", "lz4"))


class Packed:
    """The file or pipe as it is, and how much of it has been read."""

    def __init__(self, fd: int) -> None:
        self.fd, self.count = fd, 0
        self._ahead = b""

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end, which `read` gives again. OSError: it cannot be read."""
        while len(self._ahead) < size and (data := os.read(self.fd, size - len(self._ahead))):
            self._ahead += data
        return self._ahead

    def read(self, size: int) -> bytes:
        """At most `size` bytes, empty at the end. OSError."""
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
        else:
            data = os.read(self.fd, size)
        self.count += len(data)
        return data


class Gunzip:
    """Gzip, of one member or several; zeros after the last are padding, anything else is damage.

    isal is some three times as fast as zlib, and works outside the interpreter's lock.
    """

    def __init__(self, packed: _Bytes) -> None:
        self._packed, self._rest, self._ended = packed, b"", False
        self._member = _gunzip()

    def read(self, size: int) -> bytes:
        """At most `size` bytes, empty at the end. ValueError, IsalError: damaged."""
        while True:
            if self._member.eof:
                self._rest = self._rest or self._member.unused_data
                if not self._next_member():
                    return b""
            self._rest = self._rest or self._packed.read(_CHUNK)
            if not self._rest:
                raise ValueError("the gzip data ends too early")
            data = self._member.decompress(self._rest, size)
            self._rest = self._member.unconsumed_tail
            if data:
                return data

    def _next_member(self) -> bool:
        if self._ended:
            return False
        more = self._rest if len(self._rest) > 1 else self._rest + self._packed.read(_CHUNK)
        if more.startswith(b"\x1f\x8b"):
            self._rest, self._member = more, _gunzip()
            return True
        while more:
            if more.strip(b"\0"):
                raise ValueError("there is garbage after the gzip data")
            more = self._packed.read(_CHUNK)
        self._ended = True
        return False


class Unzstd:
    """Zstandard, of one frame or several."""

    def __init__(self, packed: _Bytes) -> None:
        if sys.version_info >= (3, 14):
            from compression import zstd

            options = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW.bit_length() - 1}
            self._stream: _Bytes = zstd.ZstdFile(packed, options=options)
            self.failure: type[Exception] = zstd.ZstdError
        else:
            import zstandard

            decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
            source = cast("BinaryIO", packed)
            self._stream = decompressor.stream_reader(source, read_size=_CHUNK, read_across_frames=True)
            self.failure = zstandard.ZstdError

    def read(self, size: int) -> bytes:
        """At most `size` bytes, empty at the end. ValueError: damaged."""
        try:
            return self._stream.read(size)
        except (self.failure, EOFError) as error:
            raise ValueError(f"the zstd data is damaged: {error}") from None


class Contents:
    """The unpacked bytes of an archive, held to the limits; `name` is for errors, which are InvalidInput.

    seen: a hash that is given all that is read.
    """

    def __init__(self, fd: int, name: str, limits: Limits, seen: _Hash | None = None) -> None:
        self._name, self._limits, self._seen = name, limits, seen
        self._packed = Packed(fd)
        try:
            self._stream: _Bytes = _stream(self._packed, name)
        except OSError as error:
            raise InvalidInput(f"archive {name!r}: cannot be read: {errno_words(error.errno or 0)}") from None
        self.count = 0
        self._allowed: int | None = None

    def allow(self, size: int | None) -> None:
        """Let at most `size` more bytes be read (None: no bound): for headers, which end up in memory whole."""
        self._allowed = None if size is None else self.count + size

    def read(self, size: int) -> bytes:
        """At most `size` bytes, empty at the end; for `tarfile`, which asks again when it wants more."""
        try:
            data = self._stream.read(min(size, _CHUNK))
        except OSError as error:
            raise InvalidInput(f"archive {self._name!r}: cannot be read: {errno_words(error.errno or 0)}") from None
        except (ValueError, EOFError, _gzip_error()) as error:
            raise InvalidInput(f"archive {self._name!r}: is damaged or truncated: {error}") from None
        self.count += len(data)
        if self._seen is not None:
            self._seen.update(data)
        limits = self._limits
        # Headers and padding come on top of what files may hold: at most two blocks for each of them.
        if self.count > limits.total + limits.header + 1024 * limits.entries:
            raise InvalidInput(f"archive {self._name!r}: unpacks to more than {limits.total} bytes: refused")
        if self.count > limits.ratio_from and self.count > limits.ratio * self._packed.count:
            raise InvalidInput(
                f"archive {self._name!r}: unpacks to more than {limits.ratio} times its size: refused as a bomb"
            )
        if self._allowed is not None and self.count > self._allowed:
            raise InvalidInput(f"archive {self._name!r}: has a header of more than {limits.header} bytes: refused")
        return data


def _gunzip() -> _Inflate:
    from isal import isal_zlib

    return cast("_Inflate", isal_zlib.decompressobj(wbits=31))


def _gzip_error() -> type[Exception]:
    from isal import isal_zlib

    return cast("type[Exception]", isal_zlib.IsalError)


def packing(head: bytes, name: str) -> str:
    """What an archive that begins so is compressed with: gzip, zstd or none. InvalidInput: with something else."""
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F):
        return "zstd"
    for magic, kind in _OTHERS:
        if head.startswith(magic):
            raise InvalidInput(f"archive {name!r}: is {kind}: only plain, gzip and zstd tar archives can be unpacked")
    return "none"


def _stream(packed: Packed, name: str) -> _Bytes:
    kind = packing(packed.peek(HEAD), name)
    return Gunzip(packed) if kind == "gzip" else Unzstd(packed) if kind == "zstd" else packed
