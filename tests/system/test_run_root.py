"""The root file system: what is mounted in it, what can be written, what is shared with the host."""

from __future__ import annotations

import gzip
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

import corten
from small_root import CORTEN, line, make, refused, run, sh, shared, start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


def table(**options: Any) -> dict[str, tuple[str, set[str]]]:
    """Mounts inside: place -> (type, options)."""
    rows = [row.split() for row in sh("cat /proc/mounts", **options).splitlines()]
    return {row[1]: (row[2], set(row[3].split(","))) for row in rows}


@pytest.mark.parametrize("name", ["a:b", "a,b", "a\\b", "a b", 'a"b', "long"])
def test_a_home_of_any_name(name: str, tmp_path: Path) -> None:
    home = tmp_path / name if name != "long" else tmp_path / "/".join(["d" * 100] * 3)
    for maps in ([], ["--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"]):
        words = [CORTEN, "run", *maps, "host", "sh", "-c", "echo ok >/x; cat /x"]
        done = subprocess.run(
            words, capture_output=True, text=True, env={**os.environ, "CORTEN_HOME": str(home)}, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


TIGHT = {"nosuid", "nodev", "noexec"}


def test_standard_mounts() -> None:
    found = table()
    assert "relatime" not in found["/dev"][1]
    assert found["/"][0] == "overlay"
    expected = {
        "/proc": ("proc", TIGHT | {"rw"}),
        "/dev": ("tmpfs", {"rw", "nosuid", "noexec", "mode=755", "size=65536k"}),
        "/dev/pts": ("devpts", {"rw", "nosuid", "noexec", "gid=5", "mode=620", "ptmxmode=666"}),
        "/dev/shm": ("tmpfs", TIGHT | {"rw", "size=65536k"}),
        "/dev/mqueue": ("mqueue", TIGHT | {"rw"}),
        "/sys": ("sysfs", TIGHT | {"ro"}),
        "/sys/fs/cgroup": ("tmpfs", TIGHT | {"ro"}),
        "/sys/fs/cgroup/memory": ("cgroup", TIGHT | {"ro", "memory"}),
        "/proc/sys": ("proc", TIGHT | {"ro"}),
    }
    for place, (kind, options) in expected.items():
        assert found[place][0] == kind, place
        assert options <= found[place][1], place
    hosts = {row.split()[0] for row in Path("/proc/mounts").read_text().splitlines() if row.startswith("/dev/")}
    assert not {row.split()[0] for row in sh("cat /proc/mounts").splitlines()} & hosts


def test_standard_devices_and_links() -> None:
    names = "null zero full random urandom tty"
    links = ["fd", "stdin", "stdout", "stderr", "ptmx"]
    script = f"cd /dev; stat -c '%n %F %t:%T %a' {names}; for l in {' '.join(links)}; do readlink $l; done; ls"
    rows = sh(script).splitlines()
    numbers = {"null": "1:3", "zero": "1:5", "full": "1:7", "random": "1:8", "urandom": "1:9", "tty": "5:0"}
    assert rows[:6] == [f"{name} character special file {number} 666" for name, number in numbers.items()]
    assert rows[6:11] == ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx"]
    assert sorted(rows[11:]) == sorted([*names.split(), *links, "mqueue", "pts", "shm"])
    assert sh("stat -c '%a %F' /dev/shm /dev/mqueue; touch /dev/shm/x").splitlines() == ["1777 directory"] * 2


@pytest.mark.parametrize(
    ("options", "kilobytes"),
    [
        ({}, 65536),
        ({"memory": "100m"}, 51200),
        ({"shm_size": "10m"}, 10240),
        ({"memory": "64m", "shm_size": "1m"}, 1024),
    ],
)
def test_shared_memory_follows_the_memory_limit(options: dict[str, str], kilobytes: int) -> None:
    assert f"size={kilobytes}k" in table(**options)["/dev/shm"][1]


def test_the_old_root_is_gone() -> None:
    """pivot_root, not chroot: nothing above `/`, and no other mount of the host."""
    # A process that keeps CAP_SYS_CHROOT walks out of a mere chroot.
    assert sh("ls /..; ls -d /../../../work 2>&1 | grep -c 'No such'").split()[-1] == "1"
    parents = [row.split() for row in sh("cat /proc/self/mountinfo").splitlines()]
    ids = {row[0] for row in parents}
    assert [row[4] for row in parents if row[1] not in ids] == ["/"]


# --- writable layers


def test_writes_vanish_and_the_root_stays_as_it_is() -> None:
    before = sorted(os.listdir(shared()))
    assert sh("echo x >/new; echo y >>/etc/passwd; rm /bin/ls; mkdir -p /a/b/c; cat /new").strip() == "x"
    assert sorted(os.listdir(shared())) == before
    assert "y" not in Path(shared(), "etc/passwd").read_text().splitlines()
    assert run("cat /new").exit_code == 1
    assert sh("ls / | wc -l") != ""


def test_kept_layer(tmp_path: Path) -> None:
    kept = str(tmp_path)
    sh("echo one >/kept; rm /etc/group", writable=kept)
    assert sh("cat /kept; ls /etc", writable=kept).split() == ["one", "hostname", "hosts", "passwd"]
    assert (tmp_path / "upper/kept").read_text() == "one\n"
    assert not Path(shared(), "kept").exists()


def test_a_kept_layer_has_one_writer(tmp_path: Path) -> None:
    with start("echo ready; read x", stdin=corten.PIPE, writable=str(tmp_path)) as first:
        assert line(first) == "ready"
        with pytest.raises(corten.NameInUse, match=f"the layer {tmp_path} is in use"):
            run("true", writable=str(tmp_path))
        assert first.running()
    assert sh("echo free", writable=str(tmp_path)) == "free\n"


def test_users_of_a_kept_layer(tmp_path: Path) -> None:
    sh("echo carol:x:3003:3003::/:/bin/sh >>/etc/passwd", writable=str(tmp_path))
    assert sh("id -u", user="carol", writable=str(tmp_path)).strip() == "3003"


def test_layer_in_memory(home: Path) -> None:
    with start("echo x >/in-memory; echo ready; read x", writable="tmpfs", stdin=corten.PIPE) as container:
        assert line(container) == "ready"
        assert not list((home / "containers" / container.id).rglob("in-memory"))


def test_layer_on_disk_is_removed(home: Path) -> None:
    with start("echo x >/on-disk; echo ready; read x", stdin=corten.PIPE) as container:
        assert line(container) == "ready"
        assert (home / "containers" / container.id / "upper/on-disk").read_text() == "x\n"
    assert not (home / "containers" / container.id).exists()


def test_direct_is_the_default_of_a_rootfs(tmp_path: Path, command: Callable[..., Any]) -> None:
    mine = make(tmp_path / "root")
    done = command("run", "--rootfs", str(mine), "sh", "-c", "echo x >/written; mount | head -1")
    assert done.returncode == 0
    assert "overlay" not in done.stdout
    assert (mine / "written").read_text() == "x\n"
    assert not (mine / "etc/hostname").exists()


def test_what_the_layer_was_left_like_is_no_hindrance(home: Path) -> None:
    sh("mkdir -p /a/b && touch /a/b/c && chmod 0 /a/b /a && mkfifo /pipe && ln -s /nowhere /link", user="0")
    assert list((home / "containers").iterdir()) == []


@pytest.mark.parametrize("writable", ["throwaway", "tmpfs", "direct"])
def test_read_only_root(writable: str) -> None:
    options: dict[str, Any] = {"read_only": True, "writable": writable, "tmpfs": ["/tmp"]}
    assert "Read-only file system" in str(run("echo x >/new", **options).stderr)
    assert "Read-only file system" in str(run("echo x >/etc/passwd", **options).stderr)
    written = sh("echo x >/dev/shm/x; echo y >/tmp/y; cat /dev/shm/x /tmp/y; echo >/dev/null", **options)
    assert written.split() == ["x", "y"]
    assert run("mount -o remount,rw /", **options).exit_code != 0


# --- where it comes from


def pack(path: Path, kind: str) -> str:
    plain = path / "root.tar"
    with tarfile.open(plain, "w") as archive:
        archive.add(shared(), ".")
    if kind == "tar":
        return str(plain)
    if kind == "tar.gz":
        packed = path / "root.tar.gz"
        packed.write_bytes(gzip.compress(plain.read_bytes(), 1))
        return str(packed)
    import zstandard

    packed = path / "root.tar.zst"
    packed.write_bytes(zstandard.compress(plain.read_bytes()))
    return str(packed)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.zst"])
def test_archives(tmp_path: Path, kind: str, command: Callable[..., Any]) -> None:
    image = pack(tmp_path, kind)
    script = "id -u alice; stat -c %a /tmp; readlink /bin/sh; echo x >/new && cat /new; mount | grep ' on / '"
    for _ in range(2):  # the second time it is unpacked already, and what the first wrote is gone
        done = command("run", image, "sh", "-c", f"[ ! -e /new ] && {script}")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split()[:4] == ["1001", "1777", "busybox", "x"]
        assert done.stdout.splitlines()[4].startswith("overlay on / ")


def test_the_host_image(tmp_path: Path) -> None:
    result = corten.run("host", ["python3", "-c", "print(6 * 7)"])
    assert (result.stdout, result.exit_code) == ("42\n", 0), result.stderr
    marker = f"/etc/corten-test-{os.getpid()}"
    assert corten.run("host", ["sh", "-c", f"echo x >{marker} && cat {marker}"]).stdout == "x\n"
    assert not Path(marker).exists()


# --- binds


def test_bind_read_write_and_read_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host")
    assert sh("cat /mnt/file; echo new >/mnt/new", volumes=[f"{tmp_path}:/mnt"]) == "of the host"
    assert (tmp_path / "new").read_text() == "new\n"
    for form in ({"volumes": [f"{tmp_path}:/mnt:ro"]}, {"mounts": [f"type=bind,src={tmp_path},dst=/mnt,readonly"]}):
        assert sh("cat /mnt/file", **form) == "of the host"
        assert "Read-only file system" in str(run("echo x >/mnt/file", **form).stderr)


@pytest.fixture
def submount(tmp_path: Path) -> Iterator[Path]:
    """A directory with a tmpfs on its `below`."""
    (tmp_path / "top/below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "corten-test", tmp_path / "top/below"], check=True)
    (tmp_path / "top/below/file").write_text("below")
    yield tmp_path / "top"
    subprocess.run(["umount", "-R", tmp_path / "top/below"], check=True)


def test_what_is_mounted_below_a_bind(submount: Path) -> None:
    bind = f"type=bind,src={submount},dst=/mnt"
    assert sh("cat /mnt/below/file; echo x >/mnt/below/new", mounts=[bind]) == "below"
    read_only = run("cat /mnt/below/file; echo x >/mnt/below/file", mounts=[f"{bind},readonly"])
    assert read_only.stdout == "below"
    assert "Read-only file system" in str(read_only.stderr)
    assert "Read-only file system" in str(run("echo x >/mnt/below/file", volumes=[f"{submount}:/mnt:ro"]).stderr)
    assert sh("echo y >/mnt/below/new", mounts=[f"{bind},readonly,bind-recursive=writable"]) == ""
    assert (submount / "below/new").read_text() == "y\n"
    for alone in (f"{bind},bind-recursive=disabled", f"{bind},bind-nonrecursive"):
        assert sh("ls /mnt/below", mounts=[alone]) == ""


def test_bind_of_a_file_and_of_places_that_are_missing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "dir").mkdir()
    binds = [f"{tmp_path}/file:/etc/passwd:ro", f"{tmp_path}/file:/new/deep/file", f"{tmp_path}/dir:/new/dir"]
    assert sh("cat /etc/passwd /new/deep/file; stat -c %F /new/dir", volumes=binds, user="0") == "texttextdirectory\n"
    assert not Path(shared(), "new").exists()


def test_nested_targets_from_the_outside_in(tmp_path: Path) -> None:
    (tmp_path / "outer").mkdir()
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/file").write_text("inner")
    binds = [f"{tmp_path}/inner:/mnt/a/b:ro", f"{tmp_path}/outer:/mnt"]
    assert sh("cat /mnt/a/b/file; touch /mnt/a/made", volumes=binds, tmpfs=["/mnt/a"]) == "inner"
    assert sh("cat /mnt/a/b/file", volumes=binds) == "inner"


def test_the_same_source_twice(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    binds = [f"{tmp_path}:/mnt", f"{tmp_path}:/tmp:ro"]
    result = run("echo y >/mnt/file; echo z >/tmp/file", volumes=binds)
    assert "Read-only" in str(result.stderr)
    assert (tmp_path / "file").read_text() == "y\n"


def test_relative_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("here")
    assert sh("cat /mnt/file", volumes=[".:/mnt"]) == "here"
    assert sh("cat /mnt/file", mounts=["type=bind,src=./,dst=/mnt"]) == "here"


def test_links_in_the_root_do_not_lead_out(tmp_path: Path) -> None:
    mine = make(tmp_path / "root")
    outside = tmp_path / "outside"
    outside.mkdir()
    (mine / "out").symlink_to(outside)
    (mine / "up").symlink_to("../../../.." + str(outside))
    (tmp_path / "source").mkdir()
    for name in ("out", "up"):
        with pytest.raises(corten.KernelError, match=f"on /{name}/target: No such file or directory"):
            sh("true", rootfs=str(mine), volumes=[f"{tmp_path}/source:/{name}/target"])
        sh(f"touch /{name}/made 2>/dev/null; true", rootfs=str(mine))
    assert list(outside.iterdir()) == []


def test_flags_of_a_bind(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "script").chmod(0o755)
    assert sh("/mnt/script", volumes=[f"{tmp_path}:/mnt"]) == "ran\n"
    assert run("/mnt/script", volumes=[f"{tmp_path}:/mnt:noexec"]).exit_code == 126
    found = table(volumes=[f"{tmp_path}:/mnt:ro,nosuid,nodev,noexec,noatime"])["/mnt"][1]
    assert {"ro", "nosuid", "nodev", "noexec", "noatime"} <= found


# --- propagation


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Path]:
    """A directory whose mount is shared, as all are on a machine with systemd."""
    subprocess.run(["mount", "--bind", tmp_path, tmp_path], check=True)
    subprocess.run(["mount", "--make-shared", tmp_path], check=True)
    (tmp_path / "late").mkdir()
    yield tmp_path
    subprocess.run(["umount", "-R", tmp_path], check=True)


SEEN = {"": "", "rprivate": "", "rslave": "later", "rshared": "later"}


@pytest.mark.parametrize(("propagation", "seen"), SEEN.items())
def test_mounts_made_later_on_the_host(peer: Path, propagation: str, seen: str) -> None:
    options = f":{propagation}" if propagation else ""
    script = "echo ready; read x; ls /mnt/late; echo end"
    with start(script, volumes=[f"{peer}:/mnt{options}"], stdin=corten.PIPE) as container:
        assert line(container) == "ready"
        subprocess.run(["mount", "-t", "tmpfs", "corten-test", peer / "late"], check=True)
        (peer / "late/later").write_text("")
        assert container.stdin is not None
        container.stdin.write(b"\n")
        assert line(container) == (seen or "end")


@pytest.mark.parametrize(("propagation", "leaves"), [("", False), ("rslave", False), ("rshared", True)])
def test_mounts_made_inside(peer: Path, propagation: str, leaves: bool) -> None:
    options = f":{propagation}" if propagation else ""
    script = "mount -t tmpfs x /mnt/late && touch /mnt/late/inside && echo mounted; read x"
    rights: dict[str, Any] = {"cap_add": ["SYS_ADMIN"], "seccomp": "unconfined", "stdin": corten.PIPE}
    with start(script, volumes=[f"{peer}:/mnt{options}"], **rights) as container:
        assert line(container) == "mounted"
        assert (peer / "late/inside").exists() == leaves


def test_all_else_is_private() -> None:
    rows = sh("cat /proc/self/mountinfo").splitlines()
    assert rows
    assert not [row for row in rows if "shared:" in row or "master:" in row]


# --- idmapped binds

MAPS = {"uidmap": ["0:100000:65536"], "gidmap": ["0:100000:65536"]}


@pytest.mark.parametrize("form", ["volume", "mount"])
def test_idmapped_bind_in_a_user_namespace(tmp_path: Path, form: str) -> None:
    (tmp_path / "file").write_text("mine")
    os.chown(tmp_path / "file", 1001, 1002)
    tmp_path.chmod(0o755)
    where = {"volume": {"volumes": [f"{tmp_path}:/mnt:idmap"]},
             "mount": {"mounts": [f"type=bind,src={tmp_path},dst=/mnt,idmap"]}}[form]  # fmt: skip
    script = "stat -c %u:%g /mnt/file; touch /mnt/new; stat -c %u /mnt/new"
    assert sh(script, **where, **MAPS).split() == ["1001:1002", "0"]
    assert (tmp_path / "new").stat().st_uid == 0
    assert sh("stat -c %u:%g /mnt/file", volumes=[f"{tmp_path}:/mnt"], **MAPS).strip() == "65534:65534"


def test_idmapped_bind_with_maps_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    os.chown(tmp_path / "file", 1001, 1002)
    maps = "idmap=uids=1001-5000-1#0-0-1;gids=1002-6000-1#0-0-1"
    script = "stat -c %u:%g /mnt/file"
    assert sh(script, volumes=[f"{tmp_path}:/mnt:{maps}"]).strip() == "5000:6000"
    both = [f"{tmp_path}:/mnt:{maps}", f"{tmp_path}:/tmp"]
    assert sh(f"{script} /tmp/file", volumes=both).split() == ["5000:6000", "1001:1002"]


def test_idmap_where_the_file_system_refuses_it() -> None:
    """proc has no idmapped mounts; the line names the step and the reason."""
    done = refused("-v", "/proc:/mnt:bind,idmap", "--uidmap", "0:100000:10", "--gidmap", "0:100000:10", "--rootfs",
                   shared(), "true")  # fmt: skip
    assert done.returncode == 125
    assert "open /proc, ids mapped: Invalid argument (EINVAL)" in done.stderr
    done = refused("-v", "/tmp:/mnt:idmap", "--rootfs", shared(), "true")
    assert "user namespace" in done.stderr


# --- tmpfs


def test_tmpfs_options() -> None:
    words = ["/mnt:size=1m,mode=700,exec,nr_inodes=100,uid=1001,gid=1002", "/new/deep"]
    found = table(tmpfs=words)
    assert found["/mnt"][0] == "tmpfs"
    assert {"size=1024k", "mode=700", "nr_inodes=100", "uid=1001", "gid=1002", "nosuid", "nodev"} <= found["/mnt"][1]
    assert "noexec" not in found["/mnt"][1]
    assert found["/new/deep"][1] >= TIGHT
    assert sh("stat -c %a /new/deep", tmpfs=words).strip() == "1777"
    full = run("dd if=/dev/zero of=/mnt/x bs=1M count=2 2>&1", tmpfs=["/mnt:size=1m"])
    assert "No space left" in str(full.stdout)


def test_tmpfs_by_mount() -> None:
    found = table(mounts=["type=tmpfs,dst=/mnt,tmpfs-size=2m,tmpfs-mode=755,readonly"])["/mnt"]
    assert found[0] == "tmpfs"
    assert {"ro", "size=2048k", "mode=755"} <= found[1]


def test_own_mounts_replace_the_default_ones(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    assert sh("ls /dev/shm", volumes=[f"{tmp_path}:/dev/shm"]).split() == ["x"]
    assert "size=3072k" in table(tmpfs=["/dev/shm:size=3m"])["/dev/shm"][1]
    hosts = tmp_path / "hosts"
    hosts.write_text("1.2.3.4 four\n")
    assert sh("cat /etc/hosts", volumes=[f"{hosts}:/etc/hosts:ro"]) == "1.2.3.4 four\n"


