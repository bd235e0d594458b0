"""Containers that are made before they are asked for are what they would have been if they had been made then.

Those are the ones whose first process is a copy of the launcher: here, because they have no init.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import corten
from corten.engine import listing
from corten.engine.options import make as make_options
from corten.engine.prepare import prepare
from corten.runtime import spawner_client
from corten.views.top.reading import Reader
from leaks import left_behind, picture
from small_root import make


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root file system with a shell."""
    return make(tmp_path / "root")


def ask(root: Path, words: str, **options: object) -> corten.Result:
    options = {"memory": "64m", "cpus": 1, "pids": 32, "writable": "throwaway", "init": False, **options}
    return corten.run(rootfs=str(root), argv=["/bin/sh", "-c", words], **options)  # type: ignore[arg-type]


def waiting() -> list[int]:
    """The processes of containers that wait to be asked for: children of our spawner."""
    found = []
    for spawner in children(os.getpid()):
        if Path(f"/proc/{spawner}/comm").read_text().strip() == "corten:spawner":
            found += children(spawner)
    return found


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def made_ahead(root: Path, words: str = "true", **options: object) -> int:
    """Ask until the next one is being made; its pid."""
    others = set(waiting())
    for _ in range(50):
        ask(root, words, **options)
        if found := set(waiting()) - others:
            return found.pop()
    pytest.fail("50 containers of the same kind, and none was made ahead")


def test_one_that_is_asked_for_again_and_again_is_made_ahead(root: Path) -> None:
    pid = made_ahead(root)
    options = {"memory": "64m", "cpus": 1, "pids": 32, "writable": "throwaway", "init": False}
    with corten.start(rootfs=str(root), argv=["/bin/sh", "-c", "true"], **options) as container:  # type: ignore[arg-type]
        assert container.pid == pid
        assert container.wait().exit_code == 0


def test_each_is_used_once_and_has_a_name_of_its_own(root: Path) -> None:
    words = "cat /proc/sys/kernel/hostname /etc/hostname; ls /; echo x >/mark; echo $$"
    seen = [ask(root, words).stdout.splitlines() for _ in range(8)]
    assert all(lines[0] == lines[1] for lines in seen)
    assert len({lines[0] for lines in seen}) == len(seen)
    assert not any("mark" in lines for lines in seen)
    assert len({lines[-1] for lines in seen}) == 1


def test_the_files_are_those_of_the_moment_of_the_call(root: Path) -> None:
    made_ahead(root, "cat /etc/word 2>/dev/null; cat /dir/word 2>/dev/null")
    for number in range(5):
        (root / "dir").exists() and (root / "dir").rename(root / f"dir{number}")
        (root / "dir").mkdir()
        (root / "dir/word").write_text(f"dir {number}\n")
        (root / "etc").exists() and (root / "etc").rename(root / f"etc{number}")
        (root / "etc").mkdir()
        (root / "etc/word").write_text(f"etc {number}\n")
        result = ask(root, "cat /etc/word 2>/dev/null; cat /dir/word 2>/dev/null")
        assert result.stdout == f"etc {number}\ndir {number}\n"


def test_the_mounts_are_those_of_the_moment_of_the_call(root: Path, tmp_path: Path) -> None:
    (root / "data").mkdir()
    words = "cat /data/word"
    (root / "data/word").write_text("below\n")
    shown = {"volumes": [f"{root}/data:/data"]}
    made_ahead(root, words, **shown)
    assert ask(root, words, **shown).stdout == "below\n"
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root / "data"], check=True)
    try:
        (root / "data/word").write_text("above\n")
        assert ask(root, words, **shown).stdout == "above\n"
        assert ask(root, words, **shown).stdout == "above\n"
    finally:
        subprocess.run(["umount", root / "data"], check=True)
    assert ask(root, words, **shown).stdout == "below\n"


def test_the_user_is_looked_up_at_the_call(root: Path) -> None:
    (root / "etc").mkdir(exist_ok=True)
    for number in (5, 5, 5, 6, 7):
        (root / "etc/passwd").write_text(f"ann:x:{number}:{number}::/:\n")
        assert ask(root, "id -u", user="ann").stdout == f"{number}\n"


def test_limits_hold_in_it(root: Path) -> None:
    words = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null"
    made_ahead(root, words)
    assert ask(root, words).stdout.split() == [str(64 << 20)]
    fill = "head -c 100000000 /dev/zero | tail -c 99999999 >/dev/null"
    made_ahead(root, fill)
    assert ask(root, fill).oom_killed


def test_it_holds_nothing_of_others(root: Path) -> None:
    """While others run, with pipes and sockets of their own; and inside there are the three streams only."""
    words = "ls -l /proc/self/fd | wc -l"
    options = {"memory": "64m", "cpus": 1, "pids": 32, "writable": "throwaway", "init": False}
    with corten.start(rootfs=str(root), argv=["/bin/cat"], stdin=corten.PIPE, **options) as other:  # type: ignore[arg-type]
        pid = made_ahead(root, words)
        held = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        assert not [target for target in held if target.startswith("pipe:") or other.id in target]
        assert len([target for target in held if target.startswith("socket:")]) == 1
        assert other.stdin is not None
        other.stdin.close()
        assert other.wait().exit_code == 0
    assert len({ask(root, words).stdout for _ in range(5)}) == 1


def test_one_that_was_killed_is_not_handed_out(root: Path) -> None:
    for _ in range(3):
        pid = made_ahead(root)
        ended = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        assert poll.poll(10_000)
        os.close(ended)
        assert ask(root, "true").exit_code == 0


def test_it_goes_with_its_library_however_that_ends(root: Path, home: Path) -> None:
    before = picture(home)
    script = f"""
import corten, os, signal
for _ in range(6):
    corten.run(rootfs={str(root)!r}, argv=["/bin/true"], memory="64m", writable="throwaway", init=False)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not left_behind(before, home)


def test_what_nobody_wants_any_more_is_ended(root: Path, home: Path) -> None:
    before = picture(home)
    made_ahead(root)
    assert not left_behind(before, home)


def test_a_kind_that_others_have_pushed_out_leaves_nothing(root: Path) -> None:
    """Asked for again, and at the same moment more other kinds are asked for than the spawner keeps."""
    silent = {"stdout": corten.DEVNULL, "stderr": corten.DEVNULL}
    options = {"cpus": 1, "pids": 32, "writable": "throwaway", "init": False, **silent}
    for _ in range(3):
        ask(root, "true")
    begun = [corten.start(rootfs=str(root), argv=["/bin/sh", "-c", "true"], memory="64m", **options)]  # type: ignore[arg-type]
    prepared = [prepare(make_options(rootfs=str(root), argv=["/bin/true"], memory=f"{64 + n}m")) for n in range(9)]
    for one in prepared:
        container = corten.Container(one)
        container.begin((corten.DEVNULL, corten.DEVNULL, corten.DEVNULL))
        begun.append(container)
    for container in begun:
        container.wait(30)
        container.close()
    spawner_client.drop()
    assert waiting() == []


def test_it_is_not_listed_before_it_is_asked_for(root: Path) -> None:
    pid = made_ahead(root)
    assert pid not in [one.pid for one in listing.live()]
    (one,) = [one for one in listing.live(ahead=True) if one.pid == pid]
    assert one.status == "ahead"
    reader = Reader()
    assert reader.rows() == ()
    with corten.start(rootfs=str(root), argv=["/bin/sh", "-c", "true; sleep 60"], memory="64m") as other:
        assert other.pid in [one.pid for one in listing.live()]
        assert [row.live.id for row in reader.rows()] == [other.id]
        other.kill()


def test_a_program_cannot_hide_by_its_name(root: Path) -> None:
    words = "printf corten:ahead >/proc/self/comm; echo up; exec 2>&1; read x"
    with corten.start(rootfs=str(root), argv=["/bin/sh", "-c", words], init=False, stdin=corten.PIPE) as box:
        assert box.stdout is not None
        assert box.stdout.readline() == b"up\n"
        assert Path(f"/proc/{box.pid}/comm").read_text() == "corten:ahead\n"
        while box.id not in [one.id for one in listing.live()]:
            os.sched_yield()  # for the five seconds in which it is believed
        box.kill()
