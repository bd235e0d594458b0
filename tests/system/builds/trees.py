"""What an image holds, as a listing that can be compared: of our store, and of what another program has unpacked."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from corten.build.views import View
from corten.images.store.images import Image, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

Row = tuple[str, ...]


def listing(root: str, times: bool = False) -> dict[str, Row]:
    """path: (type and mode, owner, size, digest or target of a link, xattrs, names, mtime in s)."""
    return dict(_rows(root, times))


def _rows(root: str, times: bool) -> Iterator[tuple[str, Row]]:
    for top, directories, files in os.walk(root):
        for name in [*directories, *files]:
            path = os.path.join(top, name)
            about = os.lstat(path)
            what, names = "", 0
            if stat.S_ISREG(about.st_mode):
                what, names = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16], about.st_nlink
            elif stat.S_ISLNK(about.st_mode):
                what = os.readlink(path)
            size = about.st_size if stat.S_ISREG(about.st_mode) else 0
            attributes = [] if stat.S_ISLNK(about.st_mode) else _attributes(path)
            row = (stat.filemode(about.st_mode), f"{about.st_uid}:{about.st_gid}", str(size), what, *attributes,
                   f"names={names}", str(int(about.st_mtime)) if times else "")  # fmt: skip
            yield path[len(root) :], row


def _attributes(path: str) -> list[str]:
    kept = [n for n in os.listxattr(path) if n.startswith("user.") or n == "security.capability"]
    return [f"{n}={os.getxattr(path, n)!r}" for n in sorted(kept) if not n.startswith("user.overlay.")]


def ours(home: Path, image: Image, times: bool = False) -> dict[str, Row]:
    """The listing of an image of our store."""
    with View(tuple(dict.fromkeys(Store(str(home)).lowers(image)))) as view:
        return listing(f"/proc/self/fd/{view.fd}/.", times)


def read(home: Path, image: Image, path: str) -> str:
    """A file of an image."""
    with View(tuple(dict.fromkeys(Store(str(home)).lowers(image)))) as view:
        return Path(f"/proc/self/fd/{view.fd}/{path}").read_text()
