"""ADD of a URL: fetched anew for each build, since only its bytes say whether it is still the same.

A download is a file without a name: whatever happens, nothing of it is left.
"""

from __future__ import annotations

import os
import posixpath
import tempfile

from corten.build.selection import SelectionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

_PATIENCE = 60  # seconds without a byte
_CHUNK = 1 << 20


def is_url(word: str) -> bool:
    """Whether a source of ADD is fetched."""
    return word.startswith(("http://", "https://"))


def name_of(url: str) -> str:
    """The name that the file gets: the last part of the path; empty if there is none."""
    from urllib.parse import unquote, urlsplit

    return posixpath.basename(unquote(urlsplit(url).path))


def check(word: str, wanted: str, sha256: str) -> None:
    """Compare with `--checksum`. SelectionError: it is another file."""
    if wanted and wanted != f"sha256:{sha256}":
        raise SelectionError(f"{word}: has the digest sha256:{sha256}, not {wanted}")


def fetch(url: str, checksum: str, directory: str) -> tuple[BinaryIO, str]:
    """The open file with what an address gives, its time as the server has it, and its SHA-256.

    directory: on whose file system it lies. SelectionError: it cannot be had, or is not what `checksum` says.
    """
    import hashlib
    import urllib.error
    import urllib.request
    from email.utils import parsedate_to_datetime

    seen = hashlib.sha256()
    file: BinaryIO = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - the caller closes it
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:  # noqa: S310 - is_url has looked
            while data := answer.read(_CHUNK):
                seen.update(data)
                file.write(data)
            changed = answer.headers.get("Last-Modified")
        file.flush()
        seconds = int(parsedate_to_datetime(changed).timestamp()) if changed else 0
        os.utime(file.fileno(), (seconds, seconds))
        check(url, checksum, seen.hexdigest())
    except urllib.error.HTTPError as error:
        file.close()
        raise SelectionError(f"{url}: the server answers {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        file.close()
        if isinstance(error, SelectionError):
            raise
        why = error.reason if isinstance(error, urllib.error.URLError) else error
        raise SelectionError(f"{url}: cannot be fetched: {why}") from None
    return file, seen.hexdigest()
