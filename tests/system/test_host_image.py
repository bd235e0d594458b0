"""The `host` image mounted for real, as root and as an ordinary user: programs run, secrets do not show."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corten.images import host_mask, sources
from corten.images.sources import RootSource
from corten.linux import mounts, paths, syscalls

_NEWNS, _NEWUSER = 0x00020000, 0x10000000
_SET_DUMPABLE = 4
NOBODY = 65534


@pytest.fixture(autouse=True)
def release() -> Iterator[None]:
    """As if the process had ended: masks that a test made are let go."""
    before = dict(host_mask._held)
    yield
    host_mask._known.clear()
    for path in set(host_mask._held) - set(before):
        os.close(host_mask._held.pop(path))


def in_child(work: Callable[[], None]) -> None:
    """Run it in a forked child, which keeps what it mounts to itself; its failure is ours."""
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
    status = os.waitpid(child, 0)[1]
    assert status == 0, said


def enter(source: RootSource, place: Path, uid: int = 0) -> None:
    """Mount a root as the runtime does and change into it; as another user in a namespace of his own."""
    if uid:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        syscalls.call("prctl", _SET_DUMPABLE, 1, 0, 0, 0)
        syscalls.call("unshare", _NEWUSER | _NEWNS)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {uid} 1")):
            Path("/proc/self", name).write_text(text)
    else:
        syscalls.call("unshare", _NEWNS)
    mounts.set_propagation("/", mounts.SLAVE)

    def overlay(lowers: tuple[str, ...], name: str) -> int:
        for part in ("", "upper", "work"):
            (place / name / part).mkdir()
            os.chown(place / name / part, -1, os.getegid())
        layer = place / name
        options = [f"lowerdir={':'.join(lowers)}", f"upperdir={layer}/upper", f"workdir={layer}/work"]
        return mounts.new("overlay", [*options, *(["userxattr"] if uid else [])])

    trees = [(bind.target, mounts.open_tree(bind.source, recursive=bind.recursive)) for bind in source.binds]
    root = overlay(source.lowers, "top")
    (place / "mount").mkdir()
    target = os.open(place / "mount", os.O_PATH)
    mounts.attach(root, target)
    layers = [(layer.target, overlay(layer.lowers, f"layer{i}")) for i, layer in enumerate(source.layers)]
    for path, tree in layers + trees:
        if (path, tree) in trees:
            mounts.set_attributes(tree, add=mounts.RDONLY, recursive=True)
        find = paths.directory_in_root if paths.is_directory(tree) else paths.file_in_root
        mounts.attach(tree, find(root, path))
    os.fchdir(root)
    os.chroot(".")


def run_inside(*argv: str, env: dict[str, str] | None = None) -> str:
    """The output of a program, which must succeed."""
    read, write = os.pipe()
    child = os.posix_spawnp(
        argv[0], argv, env or {"PATH": "/usr/bin:/bin"}, file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)]
    )
    os.close(write)
    with open(read) as file:
        text = file.read()
    assert os.waitpid(child, 0)[1] == 0, argv
    return text


@pytest.fixture(params=[0, NOBODY], ids=["root", "user"])
def someone(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[int, Path]:
    """A user, and a directory of his that he can reach."""
    place = tmp_path
    while str(place) != "/":
        if place.stat().st_mode & 0o001 == 0:
            place.chmod(place.stat().st_mode | 0o011)
        place = place.parent
    own = tmp_path / "own"
    own.mkdir()
    os.chown(own, request.param, 0)
    own.chmod(0o2775)  # of a group that his namespace does not have
    return request.param, own


def source_for(uid: int, own: Path) -> RootSource:
    """The image as that user sees it; the caches are his."""
    if not uid:
        return sources.resolve("host", home=str(own / "home"))
    os.setegid(uid)
    os.seteuid(uid)
    try:
        # The test's own Python may lie where this user cannot go: then it cannot be bound either.
        found = sources.resolve("host", home=str(own / "home"))
        return found.replace(binds=tuple(bind for bind in found.binds if reachable(bind.source)), workdir="/")
    finally:
        os.seteuid(0)
        os.setegid(0)


def reachable(path: str) -> bool:
    return os.access(path, os.R_OK, effective_ids=True)


def test_secrets_do_not_show_and_programs_run(someone: tuple[int, Path]) -> None:
    uid, own = someone
    source = source_for(uid, own)
    host_tmp = set(os.listdir("/tmp"))

    def work() -> None:
        enter(source, own, uid)
        # As the most powerful user of the container: nothing here rests on permissions.
        for path in "/etc/shadow /etc/gshadow /etc/ssl/private /etc/.pwd.lock /root/.bashrc /.dockerenv".split():
            assert not os.path.lexists(path), path
        for path in "/home /run /srv /mnt /media /boot /var/log /var/tmp /dev /proc /sys".split():
            shown = {name for name in os.listdir(path) if not any(b.target.startswith(path) for b in source.binds)}
            assert shown == set(), path
        given = {"pytest-of-root", *(b.target.split("/")[2] for b in source.binds if b.target.startswith("/tmp/"))}
        assert not (host_tmp - given) & set(os.listdir("/tmp"))
        allowed = {*host_mask.VISIBLE, "etc", *(name for name in host_mask.STAND_INS if "/" not in name)}
        allowed |= {bind.target.split("/")[1] for bind in source.binds}
        assert set(os.listdir("/")) <= allowed
        assert "root:" in Path("/etc/passwd").read_text()
        assert run_inside("python3", "-c", "import json, ssl; print(json.dumps(1))") == "1\n"
        assert run_inside("sh", "-c", "ls -d /usr/bin; cat /etc/resolv.conf /etc/hostname") == "/usr/bin\n"
        assert os.stat("/tmp").st_mode & 0o7777 == 0o1777

    in_child(work)


def test_writes_vanish(someone: tuple[int, Path]) -> None:
    uid, own = someone
    source = source_for(uid, own)
    marker = f"corten-test-{os.getpid()}"

    def work() -> None:
        enter(source, own, uid)
        for directory in ("/", "/usr/bin", "/etc", "/home", "/root", "/tmp", "/var/lib"):
            if uid and directory.startswith("/usr"):
                continue  # the host's root owns it, and is nobody there
            Path(directory, marker).write_text("written")
        Path("/etc/shadow").write_text("our own")
        Path("/etc/passwd").write_text("our own")

    in_child(work)
    for directory in ("/", "/usr/bin", "/etc", "/home", "/root", "/tmp", "/var/lib", f"{source.lowers[0]}/etc"):
        assert not Path(directory, marker).exists()
    for passwd in (Path("/etc/passwd"), Path(source.lowers[0], "etc/passwd")):
        assert "our own" not in passwd.read_text()
    assert not Path(source.lowers[0], "etc/shadow").exists()


def test_this_python_runs_inside_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/script.py").write_text("import pytest, sys; print(sys.prefix)")
    (tmp_path / "beside").write_text("not shown")
    monkeypatch.chdir(tmp_path / "work")
    source = sources.resolve("host", home=str(tmp_path / "home"))

    def work() -> None:
        enter(source, tmp_path / "own")
        os.chdir(source.workdir)
        assert run_inside(sys.executable, "script.py") == f"{sys.prefix}\n"
        assert os.listdir(tmp_path) == ["work"]
        for path in (f"{source.workdir}/new", f"{sys.prefix}/new"):
            with pytest.raises(OSError, match="Read-only"):
                Path(path).write_text("")

    (tmp_path / "own").mkdir()
    in_child(work)


def test_a_secret_of_opt_is_hidden_by_its_whiteout(tmp_path: Path) -> None:
    machine = tmp_path / "machine"
    (machine / "opt/tool").mkdir(parents=True)
    (machine / "etc").mkdir()
    for name, mode in (("opt/tool/key", 0o600), ("opt/tool/data", 0o644), ("etc/key", 0o600), ("etc/data", 0o644)):
        (machine / name).write_text(name)
        (machine / name).chmod(mode)
    mask = host_mask.current(str(tmp_path / "home"), str(machine))

    def work() -> None:
        syscalls.call("unshare", _NEWNS)
        mounts.set_propagation("/", mounts.PRIVATE)
        (tmp_path / "at").mkdir()
        overlay = mounts.new("overlay", [f"lowerdir={mask.path}/hidden/opt:{machine}/opt"])
        mounts.attach(overlay, os.open(tmp_path / "at", os.O_PATH))
        assert os.listdir(tmp_path / "at/tool") == ["data"]
        assert not (tmp_path / "at/tool/key").exists()
        assert (tmp_path / "at/tool").stat().st_mode == (machine / "opt/tool").stat().st_mode

    in_child(work)
    assert sorted(os.listdir(f"{mask.root}/etc")) == sorted(["data", "mtab", *host_mask.BLANK])
    # A secret that comes later is not in what containers of this mask already see.
    (machine / "etc/later").write_text("secret")
    assert "later" not in os.listdir(f"{mask.root}/etc")


def test_with_a_file_system_mounted_below_usr_it_is_shown_too(someone: tuple[int, Path]) -> None:
    uid, own = someone

    def work() -> None:
        syscalls.call("unshare", _NEWNS)
        mounts.set_propagation("/", mounts.PRIVATE)
        disk = mounts.new("tmpfs")
        mounts.attach(disk, os.open("/usr/games", os.O_PATH))
        os.close(os.open("on-a-disk", os.O_CREAT | os.O_WRONLY, dir_fd=disk))
        host_mask._known.clear()
        source = source_for(uid, own)
        assert "/usr" not in [layer.target for layer in source.layers]
        enter(source, own, uid)
        assert os.listdir("/usr/games") == ["on-a-disk"]
        with pytest.raises(OSError, match="Read-only"):
            Path("/usr/games/new").write_text("")
        assert run_inside("python3", "-c", "print(1)") == "1\n"

    in_child(work)


