"""Archives on the real kernel: owners, modes and attributes as root and as a user, and a full disk."""

from __future__ import annotations

import io
import os
import stat
import struct
import tarfile
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from corten.errors import Error
from corten.images.archive import unpacked
from corten.linux import mounts, syscalls

_NEWNS = 0x00020000
NOBODY = 65534
# vfs_cap_data, revision 2, effective: cap_net_raw. Source: include/uapi/linux/capability.h.
NET_RAW = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)


def archive(path: Path, filler: int = 0) -> str:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        big = ("big", 0o644, os.urandom(filler))
        for name, mode, data in (("bin/su", 0o4755, b"1"), ("bin/ping", 0o755, b"2"), big):
            info = tarfile.TarInfo(name)
            info.mode, info.size, info.uid, info.gid, info.mtime = mode, len(data), 1234, 5678, 1_000_000_000
            if name == "bin/ping":
                info.pax_headers = {
                    "SCHILY.xattr.security.capability": NET_RAW.decode("utf-8", "surrogateescape"),
                    "SCHILY.xattr.user.note": "kept",
                    "SCHILY.xattr.user.overlay.redirect": "/etc",
                    "SCHILY.xattr.trusted.overlay.redirect": "/etc",
                }
            tar.addfile(info, io.BytesIO(data))
        info = tarfile.TarInfo("closed")
        info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, 0o000, 1234, 5678
        tar.addfile(info)
        info = tarfile.TarInfo("closed/file")
        tar.addfile(info)
        info = tarfile.TarInfo("link")
        info.type, info.linkname, info.uid = tarfile.SYMTYPE, "/etc/shadow", 1234
        tar.addfile(info)
    path.chmod(0o644)
    return str(path)


def in_child(work: Callable[[], None]) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os.write(write, traceback.format_exc().encode()[-60_000:])
        finally:
            os._exit(1)
    os.close(write)
    with open(read, "rb") as file:
        said = file.read().decode()
    assert os.waitpid(child, 0)[1] == 0, said


def test_root_keeps_owners_modes_and_attributes(tmp_path: Path) -> None:
    shadow = os.stat("/etc/shadow")
    root = Path(unpacked(archive(tmp_path / "a.tar"), str(tmp_path / "home")))
    about = (root / "bin/su").stat()
    assert (about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode)) == (1234, 5678, 0o4755)
    assert about.st_mtime == 1_000_000_000
    assert {name: os.getxattr(root / "bin/ping", name) for name in os.listxattr(root / "bin/ping")} == {
        "security.capability": NET_RAW,
        "user.note": b"kept",
    }
    assert stat.S_IMODE((root / "closed").stat().st_mode) == 0
    assert (root / "link").lstat().st_uid == 1234
    assert (os.stat("/etc/shadow").st_uid, os.stat("/etc/shadow").st_mtime) == (shadow.st_uid, shadow.st_mtime)
    # A program with the set-user-id bit, put there by a stranger, is not within reach of other users.
    assert stat.S_IMODE((tmp_path / "home/archives").stat().st_mode) == 0o700


def test_a_user_owns_what_he_unpacks(tmp_path: Path) -> None:
    place = tmp_path
    while str(place) != "/":
        if place.stat().st_mode & 0o001 == 0:
            place.chmod(place.stat().st_mode | 0o011)
        place = place.parent
    path = archive(tmp_path / "a.tar")
    (tmp_path / "home").mkdir()
    os.chown(tmp_path / "home", NOBODY, NOBODY)

    def work() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        root = Path(unpacked(path, str(tmp_path / "home")))
        about = (root / "bin/su").stat()
        assert (about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode)) == (NOBODY, NOBODY, 0o755)
        assert os.listxattr(root / "bin/ping") == ["user.note"]
        assert stat.S_IMODE((root / "closed").stat().st_mode) == 0

    in_child(work)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", filler=3_000_000)
    disk = tmp_path / "disk"
    disk.mkdir()

    def work() -> None:
        syscalls.call("unshare", _NEWNS)
        mounts.set_propagation("/", mounts.PRIVATE)
        mounts.attach(mounts.new("tmpfs", ["size=1m"]), os.open(disk, os.O_PATH))
        with pytest.raises(Error) as caught:
            unpacked(path, str(disk))
        text = str(caught.value)
        assert "\n" not in text
        for word in (path, "ENOSPC", "CORTEN_HOME"):
            assert word in text
        assert os.listdir(disk / "archives") == []

    in_child(work)
