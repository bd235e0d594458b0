"""Images of an ordinary user: owners with ranges of /etc/subuid and without, and no copies."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.images.registry.pushing import push
from corten.images.store.images import Store
from images_lab import Server, image
from ordinary_user import RANGE, UID, User


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    one = User()
    yield one
    one.close()


@pytest.fixture
def fresh(user: User) -> Iterator[User]:
    """The user with an empty home."""
    yield user
    assert user.leftovers() == []
    done = user.with_ranges().corten("image", "prune", "--all")
    assert done.returncode == 0, done.stderr
    done = user.with_ranges().process("find", str(user.home / ".local/share/corten/images"), "-type", "f")
    assert [line for line in done.stdout.splitlines() if not line.endswith("/lock")] == []


def owned(path: Path, root: Path) -> str:
    """An archive of a root file system in which others own something, and with a device."""
    with tarfile.open(path, "w") as archive:
        archive.add(root, ".", filter=_of_root)
        for name, uid, gid, mode in (("home/alice", 1001, 1002, 0o700), ("srv/web", 33, 34, 0o2750)):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode, folder.uid, folder.gid = tarfile.DIRTYPE, mode, uid, gid
            archive.addfile(folder)
            file = tarfile.TarInfo(f"{name}/file")
            file.uid, file.gid, file.mode, file.size = uid, gid, 0o640, 4
            archive.addfile(file, io.BytesIO(b"data"))
        suid = tarfile.TarInfo("bin/suid")
        suid.mode, suid.uid, suid.gid = 0o4755, 33, 0
        archive.addfile(suid)
        node = tarfile.TarInfo("dev/sda")
        node.type, node.devmajor, node.devminor = tarfile.BLKTYPE, 8, 0
        archive.addfile(node)
    path.chmod(0o644)
    return str(path)


def _of_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    return info


FILES = "/etc/passwd /home/alice /home/alice/file /srv/web/file /bin/suid"
LOOK = f"stat -c '%n %u:%g %a' {FILES}; ls /dev/sda 2>&1 | wc -l"
RIGHT = "/etc/passwd 0:0 644\n/home/alice 1001:1002 700\n/home/alice/file 1001:1002 640\n/srv/web/file 33:34 640\n" \
        "/bin/suid 33:0 4755\n1\n"  # fmt: skip


def test_owners_are_right_where_there_are_ranges(fresh: User) -> None:
    user = fresh.with_ranges()
    archive = owned(fresh.top / "owned.tar", fresh.root)
    done = user.corten("import", "-c", "USER alice", archive, "owned")
    assert (done.returncode, done.stderr) == (0, "")
    assert user.corten("run", "--user", "0", "owned", "sh", "-c", LOOK).stdout == RIGHT
    # Alice is alice: what is hers she may read, what is others' not.
    script = "id -u; cat ~/file; cat /srv/web/file; echo new > ~/new; stat -c %u ~/new"
    done = user.corten("run", "owned", "sh", "-c", script)
    assert done.stdout == "1001\ndata1001\n"
    assert "Permission denied" in done.stderr
    # On the host they belong to the range.
    home = fresh.home / ".local/share/corten/images/layers"
    layer, = home.iterdir()
    assert (layer / "tree/home/alice").stat().st_uid == RANGE[0] + 1000
    assert (layer / "tree/etc/passwd").stat().st_uid == UID
    # Another map of ids, the same files: an ordinary user cannot show them otherwise, and nothing is copied.
    script = "id -u; cat /etc/passwd > /dev/null && echo read"
    done = user.corten("run", "--userns", "keep-id", "owned", "sh", "-c", script)
    assert (done.stdout, done.stderr) == (f"{UID}\nread\n", "")
    assert list(home.iterdir()) == [layer]
    done = user.corten("image", "export", "owned", "-o", f"{fresh.home}/flat.tar")
    assert (done.returncode, done.stderr) == (0, "")
    with tarfile.open(fresh.home / "flat.tar") as flat:
        found = {info.name: (info.uid, info.gid, info.mode) for info in flat}
    assert found["home/alice"] == (1001, 1002, 0o700)
    assert found["bin/suid"] == (33, 0, 0o4755)


def test_without_ranges_it_is_told_and_put_right_later(fresh: User) -> None:
    archive = owned(fresh.top / "owned.tar", fresh.root)
    done = fresh.corten("import", archive, "owned")
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "image docker.io/library/owned:latest: 5 of its files belong to others than root" in done.stderr
    assert "has no range in /etc/subuid" in done.stderr
    squashed = fresh.corten("run", "owned", "sh", "-c", LOOK)
    assert squashed.stdout.splitlines()[1:5] == [
        "/home/alice 0:0 700", "/home/alice/file 0:0 640", "/srv/web/file 0:0 640", "/bin/suid 0:0 755",
    ]  # fmt: skip
    assert squashed.stderr == ""
    user = fresh.with_ranges()
    mended = user.corten("run", "owned", "sh", "-c", LOOK)
    assert (mended.stdout, mended.stderr) == (RIGHT, "")
    layer, = (fresh.home / ".local/share/corten/images/layers").iterdir()
    before = layer.stat().st_ino
    assert user.corten("run", "owned", "sh", "-c", LOOK).stdout == RIGHT
    assert layer.stat().st_ino == before  # and only once


def test_pull_push_and_run(fresh: User, server: Server, store: Store) -> None:
    name = f"{server.host}/users/app"
    made = image(store, name, 3, User="alice", Cmd=["sh", "-c", "id -un; cat /etc/layer2"])
    push(store, name, name)
    user = fresh.with_ranges()
    done = user.corten("run", name)
    assert (done.returncode, done.stdout) == (0, f"alice\n{name} 2"), done
    assert user.corten("pull", "-q", name).stdout == f"{made.digest}\n"
    other = f"{server.host}/users/again"
    assert user.corten("push", "-q", name, other).stdout == f"{made.digest}\n"
    saved = fresh.home / "saved.tar"
    assert user.corten("save", name, "-o", str(saved)).returncode == 0
    assert user.corten("rmi", name).returncode == 0
    assert user.corten("load", str(saved)).stdout == f"loaded {name}:latest\n"
    assert user.corten("run", "--pull", "never", name).stdout == f"alice\n{name} 2"


def test_ids_beyond_the_ranges_are_refused_by_name(fresh: User) -> None:
    archive = fresh.top / "far.tar"
    with tarfile.open(archive, "w") as tar:
        info = tarfile.TarInfo("far")
        info.uid = 4_000_000
        tar.addfile(info)
    archive.chmod(0o644)
    done = fresh.with_ranges().corten("import", str(archive), "far")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1)
    assert "member 'far': it belongs to user 4000000, but there are 65537 here: see /etc/subuid" in done.stderr


def test_a_layer_that_only_its_owner_may_enter_can_be_removed(fresh: User) -> None:
    archive = fresh.top / "closed.tar"
    with tarfile.open(archive, "w") as tar:
        for name, mode in (("closed", 0), ("closed/deep", 0), ("closed/deep/er", 0o500)):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, mode, 77, 77
            tar.addfile(info)
    archive.chmod(0o644)
    user = fresh.with_ranges()
    assert user.corten("import", str(archive), "closed").returncode == 0
    assert user.corten("system", "df").returncode == 0
    assert user.corten("rmi", "closed").returncode == 0
    assert os.listdir(fresh.home / ".local/share/corten/images/layers") == []
