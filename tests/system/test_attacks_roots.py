"""Hostile root file systems: whatever lies where the engine mounts, writes or looks, nothing outside is touched.

The fixture `outside` is a directory of the host beside the root; each test ends by looking whether it is as it was, and
the leak check compares the host's mounts.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import corten
import small_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Command = Callable[..., subprocess.CompletedProcess[str]]

PLACES = (
    *("proc", "sys", "dev", "etc", "tmp", "run", "dev/shm", "dev/pts", "dev/mqueue", "sys/fs", "sys/fs/cgroup"),
    *("etc/hostname", "etc/hosts", "etc/resolv.conf", "data", "data/deep", "dev/null", "dev/console"),
)
OPTIONS: dict[str, Any] = {
    "tmpfs": ["/run", "/data/tmpfs"],
    "volumes": ["/usr/share:/data/volume:ro", "/etc/os-release:/data/file:ro", "/usr/share:/data/deep/er"],
    "mask": ["/data/masked", "/etc/hosts"],
    "devices": ["/dev/zero:/data/zero"],
    "workdir": "/data/work",
    "hostname": "attacked",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return small_root.make(tmp_path / "root")


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "outside"
    (path / "deep" / "masked").mkdir(parents=True)
    for name in ("victim", "hostname", "hosts", "null", "masked", "deep/secret"):
        target = path / name
        if not target.is_dir():
            target.write_text("the host's")
    before = _look(path)
    yield path
    assert _look(path) == before


def _look(path: Path) -> list[tuple[str, int, int, bytes]]:
    found = []
    for entry in sorted(path.rglob("*")):
        about = entry.lstat()
        found.append((str(entry), about.st_mode, about.st_uid, entry.read_bytes() if entry.is_file() else b""))
    return found


def _replace(root: Path, place: str, target: str) -> None:
    where = root / place
    where.parent.mkdir(parents=True, exist_ok=True)
    if where.is_dir():
        subprocess.run(["rm", "-r", str(where)], check=True)
    where.symlink_to(target)


def _attempt(root: Path, writable: str, argv: list[str], **options: Any) -> str:
    """What the program printed, or the error: either is an answer, as long as nothing outside has changed."""
    try:
        result = corten.run(rootfs=root, argv=argv, writable=writable, timeout=20, **options)
    except corten.Error as error:
        assert "\n" not in str(error)
        assert "mistake in corten" not in str(error)
        return str(error)
    assert not result.timed_out
    return f"{result.stdout!r}{result.stderr!r}"


SCRIPT = (
    "touch /proc/x /sys/x /dev/x /etc/x /data/x /run/x /tmp/x ./x; echo gotcha >/etc/hostname; echo gotcha >/etc/hosts"
)


@pytest.mark.parametrize("writable", ["direct", "throwaway"])
@pytest.mark.parametrize("place", PLACES)
def test_a_link_where_something_is_mounted(place: str, writable: str, root: Path, outside: Path) -> None:
    for number, target in enumerate((str(outside), "../" * 20 + str(outside), str(outside / "victim"))):
        copy = root.parent / f"root-{number}"
        subprocess.run(["cp", "-a", str(root), str(copy)], check=True)
        _replace(copy, place, target)
        _attempt(copy, writable, ["sh", "-c", SCRIPT], **OPTIONS)


@pytest.mark.parametrize("place", ["proc", "sys", "dev", "etc", "data"])
def test_a_link_to_a_directory_that_is_also_inside(place: str, root: Path, outside: Path) -> None:
    """The link leads somewhere inside of the root: there things are mounted, not at the same path outside."""
    inside = root / str(outside).lstrip("/")
    inside.mkdir(parents=True)
    _replace(root, place, str(outside))
    said = _attempt(root, "throwaway", ["sh", "-c", f"{SCRIPT}; ls {outside}"], **OPTIONS)
    expected = {"proc": "self", "sys": "kernel", "dev": "null", "etc": "hostname", "data": "volume"}[place]
    assert expected in said
    assert list(inside.iterdir()) == []


@pytest.mark.parametrize("place", ["dev", "dev/console", "dev/pts"])
def test_a_link_where_the_terminal_goes(place: str, root: Path, outside: Path, command: Command) -> None:
    _replace(root, place, str(outside / "victim" if place == "dev/console" else outside))
    done = command("run", "-t", "--rootfs", str(root), "--writable", "direct", "sh", "-c", "echo gotcha >/dev/console")
    assert "mistake in corten" not in done.stderr


@pytest.mark.parametrize("null", ["absent", "link to proc", "link outside", "file", "other device"])
def test_a_directory_of_devices_cannot_choose_what_hides_a_path(null: str, root: Path, outside: Path) -> None:
    """CVE-2025-31133: what is hidden was covered with the container's own /dev/null, a link to a file of /proc/sys."""
    devices = root.parent / "devices"
    devices.mkdir()
    match null:
        case "link to proc":
            (devices / "null").symlink_to("/proc/sys/kernel/core_pattern")
        case "link outside":
            (devices / "null").symlink_to(outside / "victim")
        case "file":
            (devices / "null").write_text("mine\n")
        case "other device":
            os.mknod(devices / "null", 0o020666, os.makedev(1, 5))
    result = corten.run(
        rootfs=root, argv=["stat", "-c", "%t:%T", "/proc/interrupts", "/proc/timer_list"], writable="throwaway",
        volumes=[f"{devices}:/dev"], timeout=20,
    )  # fmt: skip
    assert str(result.stdout).split() == ["1:3", "1:3"], result.stderr


def test_links_in_circles(root: Path, outside: Path) -> None:
    for place in ("proc", "data"):
        _replace(root, place, f"/{place}")
    said = _attempt(root, "throwaway", ["true"], **OPTIONS)
    assert "Too many levels of symbolic links (ELOOP)" in said


@pytest.mark.parametrize("place", ["proc", "sys", "dev", "etc/hosts", "etc"])
def test_something_else_where_something_is_mounted(place: str, root: Path, outside: Path) -> None:
    where = root / place
    if where.exists():
        subprocess.run(["rm", "-r", str(where)], check=True)
    for make in (lambda: os.mkfifo(where), lambda: where.write_text("x"), where.mkdir):
        make()
        _attempt(root, "throwaway", ["true"], **OPTIONS)
        where.rmdir() if where.is_dir() else where.unlink()


def test_a_proc_of_its_own(root: Path, outside: Path) -> None:
    """A directory that looks like /proc is mounted over before anybody looks into it."""
    fake = root / "proc/self"
    (fake / "ns").mkdir(parents=True)
    (fake / "fd").symlink_to(outside)
    (fake / "exe").symlink_to(outside / "victim")
    (fake / "attr").mkdir()
    (fake / "uid_map").write_text("0 0 1\n")
    assert small_root.sh("readlink /proc/self/exe; ls /proc/self/fd", rootfs=root).split()[0] == "/bin/busybox"


# --- whom to be, what to run, where to stand


@pytest.mark.parametrize("kind", ["fifo", "huge", "link outside", "link to shadow", "directory", "device", "proc"])
def test_a_hostile_list_of_users(kind: str, root: Path, outside: Path) -> None:
    for name in ("passwd", "group"):
        path = root / "etc" / name
        path.unlink()
        match kind:
            case "fifo":
                os.mkfifo(path)
            case "huge":
                with path.open("wb") as file:
                    file.write(b"x" * 100 + b"\n")
                    file.truncate(1 << 30)
            case "link outside":
                (outside / "victim").write_text("ghost:x:4711:4711::/:/bin/sh\nghost:x:4711:\n")
                path.symlink_to(outside / "victim")
            case "link to shadow":
                path.symlink_to("/etc/shadow")
            case "directory":
                path.mkdir()
            case "device":
                os.mknod(path, 0o020666, os.makedev(1, 5))
            case "proc":
                path.symlink_to("/proc/self/environ")
    result = small_root.run("grep Uid /proc/self/status", rootfs=root, user="77:78", timeout=20)
    assert str(result.stdout).split()[1] == "77"
    with pytest.raises(corten.InvalidInput, match=r"there is no user 'ghost'"):
        corten.run(rootfs=root, argv=["id"], writable="throwaway", user="ghost")
    (outside / "victim").write_text("the host's")


@pytest.mark.parametrize("init", [True, False])
@pytest.mark.parametrize("how", ["named", "linked", "first line", "first line, twice", "descriptor"])
def test_the_engine_itself_as_the_program(how: str, init: bool, root: Path) -> None:
    """CVE-2019-5736: the host's Python must not run with the container's loader and libraries."""
    tool, other = root / "bin/tool", root / "bin/other"
    match how:
        case "linked":
            tool.symlink_to("/proc/self/exe")
        case "first line":
            tool.write_text("#!/proc/self/exe\n")
        case "first line, twice":
            tool.write_text("#! /bin/other x\n")
            other.write_text("#!\t/proc/1/exe\n")
            other.chmod(0o755)
    if tool.exists() and not tool.is_symlink():
        tool.chmod(0o755)
    words = {"named": "/proc/self/exe", "descriptor": "/proc/self/fd/0"}.get(how, "/bin/tool")
    with Path("/bin/true").open("rb") as file, pytest.raises(corten.CommandNotRunnable, match=r"through /proc"):
        corten.start(rootfs=root, argv=[words], writable="throwaway", init=init, stdin=file.fileno())


def test_a_program_outside(root: Path, outside: Path) -> None:
    (root / "bin/tool").symlink_to("/usr/bin/env")
    (root / "bin/script").write_text(f"#!{outside}/victim\n")
    (root / "bin/script").chmod(0o755)
    for name in ("tool", "script"):
        with pytest.raises(corten.CommandNotFound):
            corten.run(rootfs=root, argv=[name], writable="throwaway")


def test_a_working_directory_outside(root: Path, outside: Path) -> None:
    """CVE-2024-21626: a descriptor that the engine left open, as the working directory."""
    (root / "out").symlink_to(outside)
    (root / "climb").symlink_to("../../../../../.." + str(outside))
    places = [f"/proc/self/fd/{number}" for number in range(3, 24)]
    places += ["/proc/1/cwd", "/proc/1/root", "/proc/self/cwd/../..", "/proc/self/root", "/out/new", "/climb/new"]
    top = root.stat()
    for place in places:
        look = "cat victim ../victim ../outside/victim; stat -c '%d %i' /; pwd"
        for writable in ("direct", "throwaway"):
            said = _attempt(root, writable, ["sh", "-c", look], workdir=place)
            assert "the host's" not in said, place
            assert str(outside) not in said.replace(f"{outside}/new", ""), place
    assert top.st_ino == root.stat().st_ino


def test_what_the_container_leaves_cannot_mislead_its_removal(root: Path, outside: Path) -> None:
    """Links, mounts' places, unreadable and deep directories in the writable layer."""
    script = (
        f"ln -s {outside} /link; ln -s {outside}/victim /file; mkdir -p /a/b/c; ln -s {outside} /a/b/c/d; chmod 0 /a/b;"
        "rm -r /etc; ln -s / /etc; mkfifo /pipe; cd /tmp; i=0; while [ $i -lt 300 ]; do mkdir d; cd d; i=$((i+1)); done"
    )
    result = corten.run(rootfs=root, argv=["sh", "-c", script], writable="throwaway")
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("owner", [0, 100000])
def test_other_users_of_the_machine_cannot_reach_the_layer(owner: int, root: Path, home: Path) -> None:
    """A set-user-id program that root makes in a container must not be within their reach (CVE-2021-41091)."""
    maps = [f"0:{owner}:65536"] if owner else None
    script = "cp /bin/busybox /suid; chmod 4755 /suid; echo made; exec cat"
    with small_root.start(script, rootfs=root, stdin=corten.PIPE, uidmap=maps, gidmap=maps) as box:
        assert small_root.line(box) == "made"
        directory = home / "containers" / box.id
        found = list(directory.rglob("suid"))
        assert found[0].stat().st_mode & 0o4000
        assert (directory.stat().st_uid, directory.stat().st_mode & 0o077) == (owner, 0)
