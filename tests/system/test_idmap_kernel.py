"""Maps written into the kernel: directly, without privilege, through newuidmap, and for idmapped mounts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from corten.errors import InvalidInput, KernelError
from corten.linux import idmap
from corten.linux.idmap import IdMapping
from corten.linux.syscalls import call

# A process in a new user namespace, as uid 65534 unless told otherwise. It imports first: an ordinary user may not be
# able to read the checkout. PR_SET_DUMPABLE (4), since changing ids cleared it.
_PROLOGUE = """
import os, pwd, sys
from corten.linux import idmap
from corten.linux.syscalls import call, words
from corten.errors import Error

def drop():
    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
    call("prctl", 4, 1)

def child_in_userns():
    reader, writer = os.pipe()
    pid = call("clone3", words(0x10000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0), 88)
    if pid == 0:
        os.close(writer); os.read(reader, 1); os._exit(0)
    os.close(reader)
    return pid, writer

def show(pid, writer):
    for name in ("uid_map", "gid_map", "setgroups"):
        print(" ".join(open(f"/proc/{pid}/{name}").read().split()))
    os.close(writer)
    os.waitpid(pid, 0)

def attempt(uid_maps, gid_maps, deny=None):
    pid, writer = child_in_userns()
    try:
        idmap.write_maps(pid, uid_maps, gid_maps, deny)
    except Error as error:
        print(type(error).__name__, error)
    else:
        show(pid, writer)

def ranges_for_nobody(text):
    call("unshare", 0x20000)  # CLONE_NEWNS: newuidmap reads /etc/subuid, the machine's own stays untouched
    call("mount", b"none", b"/", None, 0x44000, None)  # MS_REC | MS_PRIVATE
    import tempfile
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text); file.flush(); os.chmod(file.name, 0o644)
        for target in (b"/etc/subuid", b"/etc/subgid"):
            call("mount", file.name.encode(), target, None, 0x1000, None)  # MS_BIND
"""


def _script(body: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", _PROLOGUE + body], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_root_writes_any_map() -> None:
    body = "m = (idmap.IdMapping(0, 100000, 10), idmap.IdMapping(10, 7, 1))\nattempt(m, m)"
    assert _script(body) == ["0 100000 10 10 7 1", "0 100000 10 10 7 1", "allow"]


def test_root_can_deny_setgroups() -> None:
    assert _script("m = idmap.single(0, 5)\nattempt(m, m, True)") == ["0 5 1", "0 5 1", "deny"]


def test_ordinary_user_maps_its_own_id() -> None:
    body = "drop()\nattempt(idmap.single(0, 65534), idmap.single(3, 65534))"
    assert _script(body) == ["0 65534 1", "3 65534 1", "deny"]


def test_ordinary_user_must_deny_setgroups() -> None:
    (line,) = _script("drop()\nattempt(idmap.single(0, 65534), idmap.single(0, 65534), False)")
    assert line.startswith("Unsupported a group map written without CAP_SETGID needs setgroups denied")


def test_ordinary_user_with_ranges() -> None:
    body = """
ranges_for_nobody("nobody:200000:65536\\n")
drop()
print(repr(idmap.subordinate_problem(65534)))
attempt(*idmap.rootless_maps(65534, 65534))
attempt(*idmap.rootless_maps(65534, 65534, 1000, 1000))
"""
    assert _script(body) == [
        "''",
        *2 * ["0 65534 1 1 200000 65536"],
        "allow",
        *2 * ["0 200000 1000 1000 65534 1 1001 201000 64536"],
        "allow",
    ]


def test_range_that_is_not_ours_names_range_and_line() -> None:
    body = """
ranges_for_nobody("nobody:200000:10\\n")
drop()
m = (idmap.IdMapping(0, 300000, 10),)
attempt(m, m)
"""
    (line,) = _script(body)
    assert line.startswith("Unsupported map 0-9 -> 300000-300009 of process ")
    assert "newuidmap: uid range [0-10) -> [300000-300010) not allowed" in line
    assert "/etc/subuid such as `nobody:100000:65536`" in line


def test_maps_are_written_once() -> None:
    body = """
pid, writer = child_in_userns()
m = idmap.single(0, 5)
idmap.write_maps(pid, m, m)
try:
    idmap.write_maps(pid, m, m)
except Error as error:
    print(error)
show(pid, writer)
"""
    line = _script(body)[0]
    assert line.startswith("write 0 5 1 to /proc/")
    assert "Operation not permitted (EPERM)" in line


def test_gone_process() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(KernelError, match=f"write 0 0 1 to /proc/{pid}/uid_map: No such file"):
        idmap.write_maps(pid, idmap.single(0, 0), idmap.single(0, 0))


def _fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def _children() -> str:
    with open(f"/proc/self/task/{os.getpid()}/children") as children:
        return children.read()


def test_userns_fd_outlives_its_helper() -> None:
    before, children = _fds(), _children()  # the spawner may be a child of ours
    maps = (IdMapping(0, 5000, 10),)
    fd = idmap.userns_fd(maps, maps)
    try:
        assert os.readlink(f"/proc/self/fd/{fd}").startswith("user:[")
        assert os.stat(fd).st_ino != os.stat("/proc/self/ns/user").st_ino
        assert not os.get_inheritable(fd)
        assert _children() == children
        assert len(_fds()) == len(before) + 1
    finally:
        os.close(fd)
    with pytest.raises(InvalidInput):
        idmap.userns_fd((IdMapping(0, 0, 0),), maps)
    assert _fds() == before


def test_idmapped_mount_shows_host_ids(tmp_path: object) -> None:
    """On disk 0 is `container_id` 0; the mount shows it as `host_id` 5000."""
    at_recursive_clone = 1 | 0x80000  # OPEN_TREE_CLONE | O_CLOEXEC
    call("mount", b"none", str(tmp_path).encode(), b"tmpfs", 0, None)  # a file system that surely takes id maps
    try:
        with open(f"{tmp_path}/file", "w"):
            pass
        maps = (IdMapping(0, 5000, 1),)
        userns = idmap.userns_fd(maps, maps)
        tree = call("open_tree", -100, str(tmp_path).encode(), at_recursive_clone)
        try:
            from corten.linux.syscalls import words

            # mount_setattr(tree, "", AT_EMPTY_PATH, {MOUNT_ATTR_IDMAP, 0, 0, userns}, 32)
            call("mount_setattr", tree, b"", 0x1000, words(0x100000, 0, 0, userns), 32)
            seen = os.stat("file", dir_fd=tree)
            assert (seen.st_uid, seen.st_gid) == (5000, 5000)
        finally:
            os.close(tree)
            os.close(userns)
    finally:
        call("umount2", str(tmp_path).encode(), 0)
