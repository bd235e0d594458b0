"""Members of layers that tests make archives of, and how Hypothesis comes by them."""

from __future__ import annotations

import io
import tarfile
from typing import Any

from hypothesis import strategies as st


class Entry:
    """One member of an archive."""

    def __init__(self, kind: str, name: str, **more: Any) -> None:
        self.kind, self.name = kind, name
        self.link: str = more.get("link", "")
        self.data: bytes = more.get("data", b"") if kind in ("file", "sparse") else b""
        self.mode: int = more.get("mode", 0o755)
        self.uid: int = more.get("uid", 0)
        self.gid: int = more.get("gid", 0)
        self.mtime: int = more.get("mtime", 0)
        self.device: tuple[int, int] = more.get("device", (0, 0))
        self.xattrs: dict[str, bytes] = more.get("xattrs", {})
        self.holes: int = more.get("holes", 0) if kind == "sparse" else 0

    def __repr__(self) -> str:
        return f"Entry({', '.join(f'{key}={value!r}' for key, value in vars(self).items() if value)})"


TYPES = {
    "file": tarfile.REGTYPE, "dir": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE, "link": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE, "char": tarfile.CHRTYPE, "block": tarfile.BLKTYPE, "sparse": tarfile.REGTYPE,
}  # fmt: skip


def tar_bytes(entries: list[Entry], form: int = tarfile.PAX_FORMAT) -> bytes:
    """The archive of entries; what its format cannot say is left out."""
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w", format=form, errors="surrogateescape") as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.type, info.linkname, info.mode = TYPES[entry.kind], entry.link, entry.mode
            info.uid, info.gid, info.mtime = entry.uid, entry.gid, entry.mtime
            info.devmajor, info.devminor = entry.device
            info.pax_headers = {
                f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape") for name, value in entry.xattrs.items()
            }
            data = entry.data
            if entry.kind == "sparse":  # format 1.0: the map of what there is comes before the data
                where = f"1\n{entry.holes}\n{len(data)}\n".encode()
                size = str(entry.holes + len(data))
                info.pax_headers |= {"GNU.sparse.major": "1", "GNU.sparse.minor": "0",
                                     "GNU.sparse.name": entry.name, "GNU.sparse.realsize": size}  # fmt: skip
                data = where.ljust(512, b"\0") + data
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return found.getvalue()



part = st.sampled_from(
    ["a", "b", "c", "a", "b", "d", "é", "x y", "n" * 130, "n\udcff", ".wh.a", ".wh.b", ".wh..wh..opq"]
)
simple = st.lists(st.sampled_from("abcd"), min_size=1, max_size=3).map("/".join)
odd = st.sampled_from(
    ["..", "a/../b", "../outside/sentinel", ".", "", ".wh.", ".wh..", ".wh..wh.plnk", "a/./b", "b//c"]
)
names = st.one_of(
    simple, simple,
    st.lists(part, min_size=1, max_size=3).map("/".join),
    odd,
    st.tuples(st.sampled_from(["./", "/"]), simple).map("".join),
)  # fmt: skip
targets = st.one_of(
    simple,
    simple.map(lambda path: f"/{path}"),
    simple.map(lambda path: f"../{path}"),
    st.sampled_from(["..", "/", ".", "../../outside", "/../outside/sentinel", "/proc/self/cwd", "/proc/self/root", ""]),
)
kinds = st.sampled_from(
    ["file", "file", "dir", "dir", "dir", "symlink", "symlink", "link", "fifo", "char", "block", "sparse"]
)
entries = st.builds(
    Entry, kinds, names,
    link=targets,
    data=st.sampled_from([b"", b"x", b"y" * 513, bytes(1024)]),
    mode=st.sampled_from([0o644, 0o755, 0o000, 0o4755, 0o1777, 0o2700]),
    uid=st.sampled_from([0, 1000, 4_000_000_000]),
    gid=st.sampled_from([0, 7]),
    mtime=st.sampled_from([0, 1_000_000_000, -5]),
    device=st.sampled_from([(0, 0), (1, 3)]),
    xattrs=st.dictionaries(
        st.sampled_from(["user.t1", "user.t2", "user.overlay.opaque", "trusted.overlay.redirect", "trusted.t"]),
        st.sampled_from([b"v", b"\xff\0\n", b""]), max_size=2,
    ),
    holes=st.sampled_from([0, 4096, 70_000]),
)  # fmt: skip
