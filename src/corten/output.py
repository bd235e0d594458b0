"""Standard input, output and error as a command meets them: closed, full, or with nobody who reads.

Rule 1: the three descriptors are open before anything else is opened: what was closed would be the next file's number,
        and that file would get what is meant for people.
Rule 2: results that cannot be written are one clear error; where their reader has gone there is nobody to tell.
Rule 3: what is said on standard error and cannot be written is lost; the exit code tells the same.
"""

from __future__ import annotations

import os
import sys

from corten.errors import Error, errno_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO


class OutputError(Error):
    """What was printed could not be written."""


class Output:
    """A text stream of which a failed write is an `OutputError`, and a lost reader a `BrokenPipeError`.

    After either the stream is silent: what it still holds would fail once more when it is flushed at the end.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lost = False

    def write(self, text: str) -> int:
        """Write; the number of characters."""
        if not self._lost:
            try:
                self._stream.write(text)
            except OSError as error:
                self._fail(error)
            except UnicodeEncodeError as error:  # another encoding than UTF-8, or a file name that is no text
                plain = text.translate(_PLAIN).encode(error.encoding, "backslashreplace")
                self.write(plain.decode(error.encoding))
        return len(text)

    def flush(self) -> None:
        """Hand all that was written to the kernel."""
        if not self._lost:
            try:
                self._stream.flush()
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        self._lost = True
        raise _meaning(error) from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_PLAIN = str.maketrans("├└│─…", "|`|-.")


class Remarks(Output):
    """The same for standard error: what cannot be written is lost."""

    def _fail(self, error: OSError) -> None:  # noqa: ARG002
        self._lost = True


def _meaning(error: OSError) -> Exception:
    if isinstance(error, BrokenPipeError):
        return error
    return OutputError(f"write to standard output: {errno_words(error.errno or 0)}")


def write(data: bytes) -> None:
    """Write all of it to standard output, past `sys.stdout`. `OutputError`, `BrokenPipeError`."""
    while data:
        try:
            data = data[os.write(1, data) :]
        except BlockingIOError:  # whoever shares it with us has made it so
            import select  # seldom, and `corten-oci state` loads next to nothing

            room = select.poll()
            room.register(1, select.POLLOUT)
            room.poll()
        except OSError as error:
            raise _meaning(error) from None


def remark(line: str) -> None:
    """Say a line on standard error, past `sys.stderr`."""
    try:
        os.write(2, f"{line}\n".encode(errors="backslashreplace"))
    except OSError:
        pass


def prepare() -> None:
    """Make `sys.stdout` and `sys.stderr` such streams, and see to rule 1. Once, at the start of a program."""
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        _open_the_closed()
    sys.stdout, sys.stderr = Output(sys.stdout), Remarks(sys.stderr)


def _open_the_closed() -> None:
    """Open /dev/null for the wrong direction, so that to use it fails as if it were closed."""
    for fd, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)  # the lowest number that is free: this one
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
