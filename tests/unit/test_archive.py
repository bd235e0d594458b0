"""Archives: what is taken, what is refused, and that nothing half made stays."""

from __future__ import annotations

import gzip
import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from corten.errors import Error, InvalidInput, NotFound
from corten.images import sources
from corten.images.archive import Limits, unpacked
from corten.images.store import once

Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", **fields: int) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, link, len(data), 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def folder(name: str, mode: int = 0o755) -> Entry:
    return entry(name, kind=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, to: str) -> Entry:
    return entry(name, kind=tarfile.SYMTYPE, link=to)


def hard_link(name: str, to: str) -> Entry:
    return entry(name, kind=tarfile.LNKTYPE, link=to)


def tar_bytes(*entries: Entry) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class Place:
    """An archive, a home and, beside them, files that must stay as they are."""

    def __init__(self, path: Path) -> None:
        self.home = path / "home"
        self.home.mkdir()
        self.archive = path / "root.tar"
        self.outside = path / "outside"
        self.outside.mkdir()
        (self.outside / "sentinel").write_text("untouched")

    def unpack(self, data: bytes, limits: Limits | None = None) -> Path:
        self.archive.write_bytes(data)
        return Path(unpacked(str(self.archive), str(self.home), limits or Limits()))

    def refuse(self, data: bytes, *words: str, limits: Limits | None = None) -> str:
        before = self.kept()
        with pytest.raises(InvalidInput) as caught:
            self.unpack(data, limits)
        text = str(caught.value)
        assert "\n" not in text
        for word in (str(self.archive), *words):
            assert word in text, text
        self.check_untouched()
        assert self.kept() == before
        return text

    def kept(self) -> list[str]:
        archives = self.home / "archives"
        return sorted(os.listdir(archives)) if archives.exists() else []

    def check_untouched(self) -> None:
        assert [path.name for path in self.outside.iterdir()] == ["sentinel"]
        assert (self.outside / "sentinel").read_text() == "untouched"
        assert (self.outside / "sentinel").stat().st_nlink == 1


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


GOOD = (folder("./"), folder("bin", mode=0o555), entry("bin/sh", b"#!", mode=0o755), symlink("sbin", "/bin"))


@pytest.mark.parametrize(
    "pack",
    [
        bytes,
        gzip.compress,
        zstandard.compress,
        lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]),
        lambda data: zstandard.compress(data[:700]) + zstandard.compress(data[700:]),
        lambda data: gzip.compress(data) + b"\0" * 1000,
        lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]) + b"\0",
    ],
    ids=["plain", "gzip", "zstd", "gzip-members", "zstd-frames", "gzip-padded", "gzip-members-padded"],
)
def test_it_is_unpacked_whatever_it_is_compressed_with(place: Place, pack: Callable[[bytes], bytes]) -> None:
    root = place.unpack(pack(tar_bytes(*GOOD)))
    assert (root / "bin/sh").read_bytes() == b"#!"
    assert stat.S_IMODE((root / "bin/sh").stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "bin").stat().st_mode) == 0o555
    assert (root / "sbin").readlink() == Path("/bin")
    assert (root / "bin/sh").stat().st_mtime == 0


def test_the_second_time_is_a_stat_and_imports_nothing_heavy(place: Place) -> None:
    root = place.unpack(gzip.compress(tar_bytes(*GOOD)))
    before = root.stat().st_ctime_ns
    code = (
        "import sys; from corten.images import sources;"
        f"print(sources.resolve({str(place.archive)!r}, home={str(place.home)!r}).lowers);"
        "print([n for n in ('tarfile', 'zlib', 'gzip', 'zstandard', 'typing', 'hashlib') if n in sys.modules])"
    )
    path = os.path.dirname(os.path.dirname(os.path.dirname(sources.__file__)))
    code = f"import sys; sys.path.insert(0, {path!r}); {code}"
    result = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == f"('{root}',)\n[]\n"
    assert root.stat().st_ctime_ns == before
    place.archive.write_bytes(tar_bytes(entry("other", b"1")))
    assert os.listdir(unpacked(str(place.archive), str(place.home))) == ["other"]


@pytest.mark.parametrize("name", ["/etc/x", "../outside/new", "a/../../outside/new", "a/..", "..", "a/./../b"])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_names_that_are_not_below_the_root_are_refused(place: Place, name: str, kind: bytes) -> None:
    text = place.refuse(tar_bytes(*GOOD, entry(name, kind=kind, link="bin/sh")), repr(name))
    assert "absolute" in text or "'..'" in text


@pytest.mark.parametrize(
    "target", ["{outside}", "../../../outside", "../../../../outside", "/proc/self/cwd", "a/../.."]
)
def test_nothing_is_written_through_a_link_that_leads_out(place: Place, target: str) -> None:
    target = target.format(outside=place.outside)
    data = tar_bytes(
        symlink("out", target),
        symlink("file", f"{target}/sentinel"),
        entry("file", b"evil"),
        symlink("other", f"{target}/new"),
        folder("other", mode=0o777),
        symlink("again", target),
        entry("again", b"evil", mode=0o777),
    )
    root = place.unpack(data)
    assert (root / "out").readlink() == Path(target)
    assert (root / "file").read_bytes() == b"evil"
    assert not (root / "other").is_symlink()
    place.check_untouched()
    # Through the link: inside if the place is there, else refused; outside never.
    try:
        place.unpack(tar_bytes(folder("outside"), symlink("out", target), entry("out/sentinel", b"evil")))
    except InvalidInput as error:
        assert "'out/sentinel'" in str(error)
    place.check_untouched()


def test_hard_links_reach_only_inside(place: Place) -> None:
    outside = str(place.outside / "sentinel")
    place.refuse(tar_bytes(hard_link("x", outside)), "'x'", "absolute")
    place.refuse(tar_bytes(hard_link("x", "../../../outside/sentinel")), "'x'", "'..'")
    place.refuse(tar_bytes(symlink("d", str(place.outside)), hard_link("x", "d/sentinel")), "'x'", "not there")
    place.refuse(tar_bytes(hard_link("x", "x")), "'x'")
    place.refuse(tar_bytes(folder("d"), hard_link("x", "d")), "'x'")
    # A hard link to a link is that link once more, not what it names.
    root = place.unpack(tar_bytes(symlink("s", outside), hard_link("h", "s")))
    assert (root / "h").is_symlink()
    place.check_untouched()
    # Then a write to it: the link is replaced, what it names is not opened.
    root = place.unpack(tar_bytes(symlink("s", outside), hard_link("h", "s"), entry("h", b"evil")))
    assert (root / "h").read_bytes() == b"evil"
    root = place.unpack(tar_bytes(entry("a", b"1"), hard_link("b", "./a"), entry("b", b"2")))
    assert ((root / "a").read_bytes(), (root / "b").read_bytes()) == (b"1", b"2")
    place.check_untouched()


def test_a_directory_replaced_by_a_link_does_not_lead_out(place: Place) -> None:
    swap = symlink("d", str(place.outside))
    place.refuse(tar_bytes(folder("d"), entry("d/a", b"1"), swap, entry("d/new", b"evil")), "'d'", "not empty")
    place.refuse(tar_bytes(folder("d"), swap, entry("d/new", b"evil")), "'d/new'")
    place.refuse(tar_bytes(folder("d/e"), entry("d/e/x", b""), swap, entry("d/new", b"")), "'d'")
    # The metadata of a directory comes last: not onto what its name leads to by then.
    mode = place.outside.stat().st_mode
    place.unpack(tar_bytes(folder("d", mode=0o777), swap))
    # ... nor by another name for it.
    alias = symlink("y", "x"), folder("y/d", mode=0o777)
    place.unpack(tar_bytes(folder("x/d"), *alias, symlink("x/d", str(place.outside))))
    assert place.outside.stat().st_mode == mode
    place.check_untouched()


def test_duplicates_take_the_last_and_links_inside_are_followed_for_parents(place: Place) -> None:
    root = place.unpack(
        tar_bytes(
            folder("usr/bin"),
            symlink("bin", "/usr/bin"),
            entry("bin/a", b"1"),
            entry("usr/bin/a", b"2"),
            folder("usr/bin", mode=0o700),
            entry("implied/deep/file", b"3"),
        )
    )
    assert (root / "usr/bin/a").read_bytes() == b"2"
    assert stat.S_IMODE((root / "usr/bin").stat().st_mode) == 0o700
    assert stat.S_IMODE((root / "implied/deep").stat().st_mode) == 0o755


def test_what_is_below_dev_is_left_out_and_devices_elsewhere_are_refused(place: Place) -> None:
    disk = entry("./dev/sda", kind=tarfile.BLKTYPE, devmajor=8, devminor=0)
    below = entry("dev/big", b"x" * 9_000_000), symlink("dev/x", "/")
    root = place.unpack(tar_bytes(folder("dev"), disk, *below, entry("after", b"1")))
    assert list((root / "dev").iterdir()) == []
    assert (root / "after").read_bytes() == b"1"
    place.refuse(tar_bytes(entry("sda", kind=tarfile.BLKTYPE, devmajor=8)), "'sda'", "device")
    place.refuse(tar_bytes(entry("etc/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3)), "'etc/null'", "device")
    through = symlink("x", "dev"), entry("x/null", kind=tarfile.CHRTYPE, devmajor=1)
    place.refuse(tar_bytes(folder("dev"), *through), "x/null")
    root = place.unpack(tar_bytes(entry("gone", kind=tarfile.CHRTYPE), entry("pipe", kind=tarfile.FIFOTYPE)))
    about = (root / "gone").lstat()
    assert stat.S_ISCHR(about.st_mode)
    assert about.st_rdev == 0
    assert stat.S_ISFIFO((root / "pipe").lstat().st_mode)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_a_truncated_archive_is_refused_wherever_it_ends(place: Place, pack: Callable[[bytes], bytes]) -> None:
    data = tar_bytes(*GOOD, entry("noise", os.urandom(3000)), entry("last", b"x"))
    end = data.rindex(b"last")
    for cut in (100, 512, 700, 2048, end - 512, end, end + 300, end + 512, end + 600, end + 1024):
        packed = pack(data[:cut])
        place.refuse(packed, "truncated")
    packed = pack(data)
    if pack is not bytes:
        for cut in (3, 12, 30, len(packed) // 2, len(packed) - 700):
            place.refuse(packed[:cut])


def test_damage_and_garbage_are_refused(place: Place) -> None:
    good = tar_bytes(*GOOD)
    place.refuse(b"", "empty")
    place.refuse(b"no archive at all, but more than one block of it. " * 30, "no tar archive")
    place.refuse(gzip.compress(b"not a tar" * 100), "no tar archive")
    place.refuse(gzip.compress(good) + b"garbage", "garbage")
    place.refuse(zstandard.compress(good) + b"garbage", "zstd")
    place.refuse(b"BZh91AY&SY", "bzip2", "zstd")
    broken = bytearray(good)
    broken[1024 + 10] ^= 0xFF  # in the second header
    place.refuse(bytes(broken), "header")
    packed = bytearray(gzip.compress(good))
    packed[-5] ^= 0xFF  # the checksum
    place.refuse(bytes(packed))


def test_bombs_are_stopped_before_they_are_on_disk(place: Place) -> None:
    zeros = tar_bytes(entry("zeros", bytes(3_000_000)))
    place.refuse(gzip.compress(zeros), "bomb", limits=Limits(ratio=100, ratio_from=1_000_000))
    place.refuse(zstandard.compress(zeros), "bomb", limits=Limits(ratio=100, ratio_from=1_000_000))
    place.refuse(zeros, "more than 2000000 bytes", limits=Limits(total=2_000_000))
    place.refuse(tar_bytes(*(entry(f"f{i}") for i in range(30))), "entries", limits=Limits(entries=20))
    padding = zstandard.compress(tar_bytes(entry("a", b"1")) + bytes(50_000_000))
    place.refuse(padding, "more than", limits=Limits(total=1000, entries=1000))
    # A header is in memory whole, so it has a limit of its own.
    huge = tarfile.TarInfo("x")
    huge.pax_headers = {"comment": "c" * 6_000_000}
    place.refuse(gzip.compress(tar_bytes((huge, b""))), "header")
    info = tarfile.TarInfo("x" * 6_000_000)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(info)
    place.refuse(buffer.getvalue(), "header")


def pax(headers: dict[str, str], name: str = "x", data: bytes = b"") -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.pax_headers = len(data), headers
    return tar_bytes((info, data), entry("after", b"1"))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "headers",
    [
        {"size": "-1000"},
        {"size": "99999999999999999999999"},
        {"size": "9000000000000000000"},
        {"uid": "-5"},
        {"uid": "99999999999"},
        {"path": "a\0b"},
        {"path": "/abs"},
        {"linkpath": "\0"},
        {"GNU.sparse.size": "100", "GNU.sparse.map": "0,10,5,10"},
        {"GNU.sparse.size": "100", "GNU.sparse.map": "50,100"},
        {"GNU.sparse.size": "100", "GNU.sparse.map": "nonsense"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "10"},
    ],
)
def test_headers_that_lie_are_one_line(place: Place, headers: dict[str, str]) -> None:
    place.refuse(pax(headers, data=b"12345\n" * 10) if "linkpath" not in headers else pax_link(headers))


def pax_link(headers: dict[str, str]) -> bytes:
    info, _ = symlink("x", "y")
    info.pax_headers = headers
    return tar_bytes((info, b""))


@pytest.mark.parametrize("mtime", ["nan", "inf", "-inf", "1e300", "-1", "12.5"])
def test_strange_times_are_taken_as_far_as_they_make_sense(place: Place, mtime: str) -> None:
    root = place.unpack(pax({"mtime": mtime}))
    assert (root / "x").stat().st_mtime == {"-1": -1, "12.5": 12.5}.get(mtime, 0)


def test_long_names_and_depth(place: Place) -> None:
    name = "/".join(["d" * 200] * 15) + "/file"
    root = place.unpack(tar_bytes(entry(name, b"1"), entry("n\udcff\nx", b"2")))
    assert (root / name).read_bytes() == b"1"
    assert (root / "n\udcff\nx").read_bytes() == b"2"
    place.refuse(tar_bytes(entry("n" * 300, b"1")), "ENAMETOOLONG")
    place.refuse(tar_bytes(entry("a/" * 300 + "b", b"1")), "deeper")
    # Depth gained through links, which no single name shows.
    links = [symlink("l0", "."), *(symlink(f"l{i + 1}", f"l{i}/" + "d/" * 100) for i in range(4))]
    steps = [folder(f"l{i}/" + "d/" * 100) for i in range(4)]
    place.refuse(tar_bytes(*(part for pair in zip(links, steps, strict=False) for part in pair)), "deeper")


def test_holes_stay_holes(place: Place, tmp_path: Path) -> None:
    source = tmp_path / "sparse"
    with source.open("wb") as file:
        file.write(b"start")
        file.seek(40_000_000)
        file.write(b"middle")
        file.truncate(80_000_000)
    (tmp_path / "end").write_text("after")
    for form in ("gnu", "posix --sparse-version=0.0", "posix --sparse-version=0.1", "posix --sparse-version=1.0"):
        options = f"--format={form}".split()
        command = ["tar", "-cSf", str(place.archive), *options, "-C", str(tmp_path), "sparse", "end"]
        subprocess.run(command, check=True)
        root = Path(unpacked(str(place.archive), str(place.home)))
        assert (root / "end").read_text() == "after"
        with (root / "sparse").open("rb") as file:
            assert file.read(10) == b"start" + bytes(5)
            file.seek(40_000_000)
            assert file.read(10) == b"middle" + bytes(4)
        about = (root / "sparse").stat()
        assert about.st_size == 80_000_000
        assert about.st_blocks * 512 < 1_000_000


def test_paths_that_are_no_archives(place: Place, tmp_path: Path) -> None:
    home = str(place.home)
    for image, words, kind in (
        ("debian", "image 'debian': is not in the store", NotFound),
        ("./missing.tar", "no such file", NotFound),
        ("missing.tar.zst", "no such file", NotFound),
        (str(tmp_path), "use --rootfs", InvalidInput),
        ("/dev/null", "not a regular file", InvalidInput),
        ("./a\0/b", "not a path", InvalidInput),
        ("a\0/b", "is no part of a name", InvalidInput),
    ):
        with pytest.raises(kind) as caught:
            sources.resolve(image, home=home, pull="never")
        assert words in str(caught.value)
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(InvalidInput, match="not a regular file"):
        sources.resolve(str(tmp_path / "pipe.tar"), home=home)
    assert list(place.home.iterdir()) == []


def test_a_rootfs_directory_is_checked(tmp_path: Path) -> None:
    def root(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    static = root("static")
    (static / "prog").write_bytes(b"")
    (static / "prog").chmod(0o755)
    merged = root("merged")
    (merged / "bin").symlink_to("/usr/bin")
    assert sources.directory(str(static)) == str(static)
    assert sources.directory(str(merged) + "/") == str(merged)
    documents = root("documents")
    (documents / "letter").write_text("dear")
    for path, words in (
        ("/", "host"),
        (str(root("empty")), "empty"),
        (str(documents), "does not look like"),
        (str(documents / "letter"), "not a directory"),
        (str(tmp_path / "missing"), "no such directory"),
    ):
        with pytest.raises(InvalidInput) as caught:
            sources.directory(path)
        assert words in str(caught.value)


def test_what_a_killed_command_left_is_swept_but_not_what_is_being_made(place: Place) -> None:
    archives = place.home / "archives"
    read, write = os.pipe()
    child = os.fork()
    if child == 0:

        def stop(draft: str) -> None:
            Path(draft, "file").write_text("half")
            Path(draft, "closed").mkdir(0o000)
            os.write(write, b"1")
            signal.pause()

        try:
            once.make(str(archives), "key", stop, "a test")
        finally:
            os._exit(1)
    assert os.read(read, 1) == b"1"
    assert sources.sweep(str(place.home)) == 0
    assert (archives / ".key.new/file").exists()
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert sources.sweep(str(place.home)) == 1
    assert list(archives.iterdir()) == []
    assert sources.sweep(str(place.home)) == 0


def test_many_at_once_unpack_it_once(place: Place) -> None:
    place.archive.write_bytes(tar_bytes(*GOOD, entry("big", os.urandom(2_000_000))))
    children = []
    for _ in range(8):
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if os.path.isdir(unpacked(str(place.archive), str(place.home))) else 1)
            finally:
                os._exit(2)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    assert len(list((place.home / "archives").iterdir())) == 1


def test_an_error_while_making_leaves_nothing_and_is_one_line(place: Place) -> None:
    def interrupted(draft: str) -> None:
        Path(draft, "file").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once.make(f"{place.home}/archives", "key", interrupted, "a test")
    (place.home / "blocked").write_text("a file where a directory should be")
    with pytest.raises(Error, match=r"cannot make a test in .*blocked"):
        once.make(f"{place.home}/blocked", "key", interrupted, "a test")
    assert list((place.home / "archives").iterdir()) == []
