"""The `host` image on a made-up machine: what of it shows, and when it is looked at again."""

from __future__ import annotations

import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.errors import Error
from corten.images import host, host_mask
from corten.images.host_mask import Mask
from corten.images.host_scan import scan, shown, unchanged
from corten.images.sources import Bind, Layer
from corten.images.store import once


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A root with secrets, readable to others or not."""
    root = tmp_path / "machine"
    for name in "usr/bin usr/local/etc etc/ssl/private etc/apt opt/tool/conf/deep home/u root run".split():
        (root / name).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    for name, mode in {
        "etc/passwd": 0o644,
        "etc/shadow": 0o640,
        "etc/hostname": 0o644,
        "etc/resolv.conf": 0o644,
        "etc/ssl/private/key": 0o644,
        "etc/apt/auth": 0o600,
        "etc/apt/list": 0o755,
        "usr/bin/prog": 0o755,
        "usr/local/etc/token": 0o600,
        "opt/tool/token": 0o600,
        "opt/tool/conf/token": 0o600,
        "opt/tool/conf/open": 0o644,
        "home/u/diary": 0o644,
    }.items():
        (root / name).write_text(f"content of {name}")
        (root / name).chmod(mode)
    (root / "etc/ssl/private").chmod(0o710)
    (root / "etc/link").symlink_to("/etc/shadow")
    os.mkfifo(root / "etc/pipe")
    os.chmod(root / "etc/pipe", 0o666)
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(root / "etc")  # a socket's name has at most 107 bytes
        listener.bind("socket")
        os.chdir(here)
    os.chmod(root / "etc/socket", 0o666)
    settle(root)
    return root


def settle(root: Path) -> None:
    """Wait until a change can be told from those before it: the kernel's clock must tick."""
    newest = max(path.lstat().st_ctime_ns for path in (root, *root.rglob("*")))
    while time.time_ns() < newest + host_mask._TICK:
        pass


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    release()


def release() -> None:
    """As if the process had ended."""
    host_mask._known.clear()
    for fd in host_mask._held.values():
        os.close(fd)
    host_mask._held.clear()


def names(top: str) -> set[str]:
    return {str(path.relative_to(top)) for path in Path(top).rglob("*")}


@given(st.integers(0, 0o7777), st.sampled_from([stat.S_IFREG, stat.S_IFDIR, stat.S_IFSOCK, stat.S_IFIFO, stat.S_IFBLK]))
def test_only_what_others_may_read_is_shown(bits: int, kind: int) -> None:
    if kind == stat.S_IFREG:
        assert shown(kind | bits) == (bits & 4 == 4)
    else:
        assert shown(kind | bits) == (kind == stat.S_IFDIR and bits & 1 == 1)


def test_the_scan_finds_the_secrets(machine: Path) -> None:
    found = scan(str(machine), (("/etc", 64), ("/opt", 3), ("/usr/local/etc", 64), ("/missing", 1)))
    assert found.hidden == (
        "/etc/apt/auth",
        "/etc/pipe",
        "/etc/shadow",
        "/etc/socket",
        "/etc/ssl/private",
        "/opt/tool/conf/token",
        "/opt/tool/token",
        "/usr/local/etc/token",
    )
    assert found.hidden_directories == ("/etc/ssl/private",)
    assert "/opt/tool/conf/token" not in scan(str(machine), (("/opt", 2),)).hidden
    assert unchanged(str(machine), found.directories + found.others)
    for change in (
        lambda: (machine / "etc/passwd").chmod(0o600),
        lambda: (machine / "etc/passwd").write_text("changed"),
        (machine / "etc/apt/list").unlink,
    ):
        found = scan(str(machine), (("/etc", 64),))
        settle(machine)
        change()
        assert not unchanged(str(machine), found.directories + found.others)


def test_the_root_is_made_of_what_may_be_seen(machine: Path, tmp_path: Path) -> None:
    mask = host_mask.current(str(tmp_path / "home"), str(machine))
    seen = names(mask.root)
    assert {name for name in seen if name.startswith("etc/")} == {
        "etc/apt",
        "etc/apt/list",
        "etc/hostname",
        "etc/hosts",
        "etc/link",
        "etc/machine-id",
        "etc/mtab",
        "etc/passwd",
        "etc/resolv.conf",
        "etc/ssl",
    }
    assert Path(mask.root, "etc/passwd").read_text() == "content of etc/passwd"
    assert Path(mask.root, "etc/resolv.conf").read_text() == ""
    assert Path(mask.root, "etc/hostname").read_text() == ""
    assert Path(mask.root, "bin").readlink() == Path("usr/bin")
    assert {name for name in seen if "/" not in name} == {"bin", "usr", "opt", "etc"} | {
        name for name in host_mask.STAND_INS if "/" not in name
    }
    for name, mode in host_mask.STAND_INS.items():
        assert stat.S_IMODE(Path(mask.root, name).stat().st_mode) == mode
    assert not any(name.startswith(("home/", "root/", "usr/", "opt/")) for name in seen)
    whiteouts = {name for name in names(f"{mask.path}/hidden") if not Path(mask.path, "hidden", name).is_dir()}
    assert whiteouts == {"opt/tool/token", "opt/tool/conf/token", "usr/local/etc/token"}
    for name in whiteouts:
        about = Path(mask.path, "hidden", name).lstat()
        assert stat.S_ISCHR(about.st_mode)
        assert about.st_rdev == 0
    text = "".join(path.read_text(errors="replace") for path in Path(mask.path).rglob("*") if path.is_file())
    for secret in ("shadow", "etc/apt/auth", "private/key", "token", "diary"):
        assert f"content of {secret}" not in text


def test_it_is_made_once_and_again_after_a_change(machine: Path, tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    first = host_mask.current(home, str(machine))
    release()
    assert host_mask._ready(f"{home}/host", str(machine)) == first
    (machine / "etc/shadow.new").write_text("content of shadow")
    (machine / "etc/shadow.new").chmod(0o600)
    settle(machine)
    release()
    assert host_mask._ready(f"{home}/host", str(machine)) is None
    second = host_mask.current(home, str(machine))
    assert second.path != first.path
    assert "etc/shadow.new" not in names(second.root)
    assert sorted(os.listdir(f"{home}/host")) == sorted([os.path.basename(second.path), "current"])
    assert host_mask.current(home, str(machine)) is second


def test_a_file_written_in_place_is_noticed_when_patience_is_over(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = str(tmp_path / "home")
    first = host_mask.current(home, str(machine))
    (machine / "etc/passwd").write_text("new content")
    (machine / "opt/tool/conf/open").chmod(0o600)
    settle(machine)
    release()
    assert host_mask.current(home, str(machine)) == first
    release()
    monkeypatch.setattr(host_mask, "PATIENCE", 0.0)
    second = host_mask.current(home, str(machine))
    assert Path(second.root, "etc/passwd").read_text() == "new content"
    assert "/opt/tool/conf/open" in second.hidden


def test_a_mask_in_use_is_not_removed(machine: Path, tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    first = host_mask.current(home, str(machine))
    elsewhere = once.hold(first.path)  # another process
    release()
    (machine / "etc/more").write_text("")
    settle(machine)
    second = host_mask.current(home, str(machine))
    assert os.path.isdir(first.root)
    os.close(elsewhere)
    release()
    (machine / "etc/more").unlink()
    (machine / "etc/third").write_text("")
    settle(machine)
    third = host_mask.current(home, str(machine))
    assert not os.path.exists(first.path)
    assert not os.path.exists(second.path)
    assert os.path.isdir(third.root)


def test_a_process_holds_what_it_was_given(machine: Path, tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    mine = host_mask.current(home, str(machine))
    (machine / "etc/more").write_text("")
    settle(machine)
    child = os.fork()
    if child == 0:
        try:
            host_mask._known.clear()
            host_mask._held.clear()
            os._exit(0 if host_mask.current(home, str(machine)).path != mine.path else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert os.path.isdir(mine.root)


def test_what_changed_in_this_very_moment_is_looked_at_again(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = str(tmp_path / "home")
    monkeypatch.setattr(host_mask, "_TICK", 10**15)
    mask = host_mask.current(home, str(machine))
    assert os.listdir(f"{home}/host") == [os.path.basename(mask.path)]
    release()
    assert host_mask.current(home, str(machine)) == mask


def test_several_processes_at_once_make_one(machine: Path, tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    children = []
    for _ in range(8):
        child = os.fork()
        if child == 0:
            try:
                mask = host_mask.current(home, str(machine))
                os._exit(0 if os.path.exists(f"{mask.root}/etc/passwd") else 1)
            finally:
                os._exit(2)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    assert len(os.listdir(f"{home}/host")) == 2


def test_a_home_that_cannot_be_written_is_one_line(machine: Path, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(Error, match=r"cannot make the parts of image 'host' in .*: Not a directory|File exists"):
        host_mask.current(str(tmp_path / "home"), str(machine))


MASK = Mask("/m", ("usr", "opt"), ("/etc/shadow", "/opt/a/key", "/opt/b"), ("/opt/b",))


def test_tops_are_layers_or_with_mounts_below_them_binds() -> None:
    assert host.tops(MASK, ("/", "/proc", "/usr", "/optical/x")) == (
        (Layer("/usr", ("/usr",)), Layer("/opt", ("/m/hidden/opt", "/opt"))),
        (),
    )
    layers, binds = host.tops(MASK, ("/usr/local", "/opt/data"))
    assert layers == ()
    assert binds == (
        Bind("/usr", "/usr"),
        Bind("/opt", "/opt"),
        Bind("/m/blank/file", "/opt/a/key"),
        Bind("/m/blank/directory", "/opt/b"),
    )
    assert all(bind.read_only and bind.recursive for bind in binds)
    assert host.tops(MASK.replace(hidden=("/opt",)), ())[0] == (Layer("/usr", ("/usr",)),)


@pytest.mark.parametrize(
    ("path", "may"),
    [
        ("/", False),
        ("/root", False),
        ("/home", False),
        ("/home/someone", False),
        ("/home/u", False),
        ("/home/u/project", True),
        ("/home/someone/shared", True),
        ("/tmp", False),
        ("/tmp/work", True),
        ("/var", False),
        ("/var/lib", False),
        ("/var/www/site", True),
        ("/run/user/0", False),
        ("/proc/self", False),
        ("/dev/shm", False),
        ("/sys", False),
        ("/workspace", True),
        ("/data/users", False),
        ("/data/users/u", False),
        ("/data/users/u/project", True),
    ],
)
def test_no_home_and_no_directory_of_the_system_is_bound(path: str, may: bool) -> None:
    user_home = "/data/users/u" if path.startswith("/data") else "/home/u"
    assert host.bindable(path, user_home) == may


def test_what_shows_without_a_bind() -> None:
    for path, seen in (
        ("/usr/lib/python3", True),
        ("/usr", True),
        ("/etc/passwd", True),
        ("/etc/shadow", False),
        ("/opt/b/c", False),
        ("/opt/bc", True),
        ("/home/u", False),
        ("/var/lib/dpkg", False),
        ("/", False),
    ):
        assert host.is_shown(path, MASK) == seen, path
    assert host.is_visible("/home/u/x/y", MASK, (Bind("/home/u/x", "/home/u/x"),))
    assert not host.is_visible("/home/u/xy", MASK, (Bind("/home/u/x", "/home/u/x"),))


PARTS = st.sampled_from(["a", "b", "a.b", "a-"])
PATHS = st.lists(PARTS, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(st.lists(PATHS))
def test_the_outermost_cover_all_and_none_lies_in_another(paths: list[str]) -> None:
    kept = host.outermost(paths)
    assert set(kept) <= set(paths)
    for path in paths:
        assert sum(path == above or path.startswith(f"{above}/") for above in kept) == 1


def test_the_source_follows_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    python = tmp_path / "python-3"
    (python / "bin").mkdir(parents=True)
    (python / "lib").mkdir()
    (python / "bin/python3").write_text("")
    environment = tmp_path / "environment"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin/python").symlink_to("python3")
    (environment / "bin/python3").symlink_to(python / "bin/python3")
    monkeypatch.chdir(work)
    monkeypatch.setenv("VIRTUAL_ENV", str(environment))
    source = host.source(str(tmp_path / "home"))
    targets = [bind.target for bind in source.binds]
    assert {str(work), str(environment), str(python)} <= set(targets)
    assert all(bind.read_only and bind.source == bind.target for bind in source.binds)
    assert source.workdir == str(work)
    assert source.env["PATH"].split(":")[0] == f"{environment}/bin"
    assert source.env["VIRTUAL_ENV"] == str(environment)
    mask = host_mask.current(str(tmp_path / "home"))
    assert host.is_visible(os.path.realpath(sys.executable), mask, source.binds)
    monkeypatch.setenv("HOME", str(work))
    source = host.source(str(tmp_path / "home"))
    assert source.workdir == "/"
    assert str(work) not in [bind.target for bind in source.binds]
    for below in targets:
        assert not any(below.startswith(f"{above}/") for above in targets)
    monkeypatch.chdir("/")
    assert host.source(str(tmp_path / "home")).workdir == "/"
    monkeypatch.chdir("/usr/lib")
    assert host.source(str(tmp_path / "home")).workdir == "/usr/lib"
