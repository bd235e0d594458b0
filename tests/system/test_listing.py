"""The list of live containers: of the library, of the command line, of an ordinary user, OCI ones."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

import corten
import small_root
from corten.engine import listing
from ordinary_user import User

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def user() -> Iterator[User]:
    made = User()
    yield made
    made.close()


def test_containers_of_the_library() -> None:
    with small_root.start("sleep 60 & echo up; wait", name="first", memory="32m") as box, small_root.start(
        "echo up; sleep 60"
    ) as other:
        assert [small_root.line(box), small_root.line(other)] == ["up", "up"]
        found = {one.id: one for one in listing.live()}
        one = found[box.id]
        assert (one.name, one.kind, one.status, one.pid) == ("first", "run", "running", box.pid)
        assert (found[other.id].name, found[other.id].pid) == ("", other.pid)
        assert len(one.pids()) == 3  # init, sh, sleep
        assert one.group is not None
        assert listing.find("first") == listing.find(box.id) == listing.find(box.id[:11]) == one
        owners = listing.by_process(found.values())
        assert owners[box.pid].id == box.id
        one.group.freeze()
        assert listing.find("first").status == "paused"
        one.group.thaw()
    assert not {box.id, other.id} & {one.id for one in listing.live()}
    with pytest.raises(corten.Error, match="no live container 'first'"):
        listing.find("first")


def test_a_container_whose_launcher_was_killed_is_not_listed() -> None:
    words = [small_root.CORTEN, "run", "--name", "gone", "--writable", "throwaway", "--rootfs", small_root.shared()]
    with subprocess.Popen([*words, "sh", "-c", "echo up; sleep 60"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        assert listing.find("gone").pid is not None
        process.send_signal(signal.SIGKILL)
    assert "gone" not in [one.name for one in listing.live()]
    assert corten.run("host", ["true"]).ok
    subprocess.run([small_root.CORTEN, "run", *words[4:], "true"], check=True)  # a new process sweeps


def test_a_container_without_a_group_is_found_by_its_lock(user: User) -> None:
    words = user.corten_words("run", "--best-effort", "--rootfs", str(user.root), "sh", "-c", "echo up; sleep 60")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=user.home) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        (one,) = listing.live(str(user.home / ".local/share/corten"))
        assert one.group is None
        assert one.pid is not None
        status = Path(f"/proc/{one.pid}/status").read_text()
        assert f"PPid:\t{process.pid}\n" in status
        assert len(one.pids()) == 2  # init, and sh that became sleep
        process.kill()
    subprocess.run(user.corten_words("run", "--best-effort", "--rootfs", str(user.root), "true"), check=True)


def test_a_place_where_nothing_is(tmp_path: Path) -> None:
    assert listing.live(str(tmp_path / "none"), str(tmp_path / "none")) == ()
    assert not (tmp_path / "none").exists()
    assert listing.first_process((os.getpid(),)) == os.getpid()
    assert listing.first_process(()) is None
