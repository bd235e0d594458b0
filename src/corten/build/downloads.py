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

    from corten.images.registry.halt import Halt

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


def fetch(url: str, checksum: str, directory: str, halt: Halt) -> tuple[BinaryIO, str]:
    """The open file with what an address gives, its time as the server has it, and its SHA-256.

    directory: on whose file system it lies; halt: ends it. SelectionError: it cannot be had, or is not what `checksum`
    says.
    """
    import hashlib
    import ssl
    from email.utils import parsedate_to_datetime

    import httpx

    def noted(request: httpx.Request) -> None:
        request.extensions["trace"] = halt.trace

    seen = hashlib.sha256()
    file: BinaryIO = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - the caller closes it
    settings = httpx.Client(
        verify=ssl.create_default_context(), follow_redirects=True, timeout=_PATIENCE,
        event_hooks={"request": [noted]}, headers={"Accept-Encoding": "identity", "User-Agent": "corten"},
    )  # fmt: skip
    try:
        with settings as client, client.stream("GET", url) as answer:
            if answer.status_code != 200:
                raise SelectionError(f"{url}: the server answers {answer.status_code} {answer.reason_phrase}")
            for data in answer.iter_raw(_CHUNK):
                seen.update(data)
                file.write(data)
            changed = answer.headers.get("last-modified")
        file.flush()
        seconds = int(parsedate_to_datetime(changed).timestamp()) if changed else 0
        os.utime(file.fileno(), (seconds, seconds))
        check(url, checksum, seen.hexdigest())
    except SelectionError:
        file.close()
        raise
    except (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL) as error:
        file.close()
        raise SelectionError(f"{url}: cannot be fetched: {' '.join(str(error).split())}") from None
    return file, seen.hexdigest()
