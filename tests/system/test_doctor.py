"""`corten doctor`: as root, as an ordinary user and on pure cgroup v2 it says three different things, each true.

What it says is held against what is found here by other ways, and each command that mends is run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from corten.linux.cgroup import layout
from corten.views.doctor.abilities import Ability, Report, Trial, text
from corten.views.doctor.trials import attempt
from ordinary_user import RUN, UID, User

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

ROOT = Path(__file__).parents[2]
RUN_IN_VM = ROOT.parent / "shared" / "vm" / "run-in-vm"


@pytest.fixture
def user() -> Iterator[User]:
    made = User()
    yield made
    made.close()


def by_name(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in report["abilities"]}


def groups(beginning: str) -> list[str]:
    """Groups whose names begin so, the deepest first; os.walk passes over what others remove meanwhile."""
    found = [str(Path(top, name)) for top, names, _ in os.walk("/sys/fs/cgroup") for name in names]
    return sorted((path for path in found if path.rpartition("/")[2].startswith(beginning)), reverse=True)


def test_as_root(command: Callable[..., subprocess.CompletedProcess[str]], home: Path) -> None:
    before = sorted(path.name for path in home.iterdir())
    done = command("doctor", "--json")
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert report["user"] == "root"
    assert (done.returncode, report["exit_status"]) == (0, 0)
    assert report["machine"].endswith(f"cgroup {layout.detect().kind}")
    found = by_name(report)
    assert {one["state"] for one in report["abilities"] if one["needed"]} == {"ok"}
    for name in ("memory", "pids", "cpu", "overlay on disk", "a new /proc", "libseccomp", "device rules", "nft"):
        assert found[name]["state"] == "ok"
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(home)], capture_output=True, text=True, check=True).stdout
    assert found["file system"]["found"].split()[-1][:3] == kind[:3]
    assert (found["GPU"]["state"] == "missing") is not Path("/dev/nvidiactl").exists()
    listed = Path("/etc/subuid").read_text() if Path("/etc/subuid").exists() else ""
    assert (found["ranges of ids"]["state"] == "ok") is ("root:" in listed)
    for one in report["abilities"]:
        assert one["found"]
        assert (one["state"] == "ok") is (one["follows"] == "")
    assert groups("corten-doctor-") == []
    assert sorted(path.name for path in home.iterdir()) == before


def test_as_an_ordinary_user(user: User) -> None:
    # A shell of its own, which the command that mends puts into a group.
    doctor = f"{user.python} -c '{RUN}' doctor --json"
    words = [*user.prefix(), "sh", "-c", f"read x; cd; {doctor}; read x; {doctor}"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        shell.stdin.write("\n")
        report = document(shell.stdout)
        assert (report["user"], report["exit_status"]) == (f"user {UID}", 1)
        found = by_name(report)
        own = found["a group of one's own"]
        assert own["state"] == "degraded"
        assert found["ranges of ids"]["state"] == "degraded"
        mend = found["ranges of ids"]["mend"]
        assert mend == f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {UID}"
        assert found["user namespaces"]["state"] == found["overlay on disk"]["state"] == "ok"
        assert found["id-mapped mounts"]["state"] == "degraded"
        mend = own["mend"].removeprefix("as root: ")
        assert f"echo {shell.pid} >" in mend
        try:
            subprocess.run(["sh", "-c", mend], check=True)
            shell.stdin.write("\n")
            mended = document(shell.stdout)
            assert mended["exit_status"] == 0
            assert by_name(mended)["memory"]["state"] == by_name(mended)["pids"]["state"] == "ok"
        finally:
            shell.stdin.close()
            shell.wait()
            for path in groups(f"user-{UID}"):
                Path(path).rmdir()
    assert list(user.home.iterdir()) == []


def document(stream: Any) -> dict[str, Any]:
    """A JSON object of several lines, read to its end."""
    lines = []
    for line in stream:
        lines.append(line)
        if line == "}\n":
            break
    found: dict[str, Any] = json.loads("".join(lines))
    return found


def test_a_user_with_ranges(user: User) -> None:
    assert by_name(json.loads(user.with_ranges().corten("doctor", "--json").stdout))["ranges of ids"]["state"] == "ok"
    twin = user.with_ranges("/usr/bin/newuidmap")
    one = by_name(json.loads(twin.corten("doctor", "--json").stdout))["ranges of ids"]
    assert one["state"] == "degraded"
    assert "newuidmap" in one["found"]


@pytest.mark.slow
@pytest.mark.timeout(1100)
def test_on_pure_v2() -> None:
    if not RUN_IN_VM.exists():
        pytest.fail(f"there is no {RUN_IN_VM}: pure cgroup v2 cannot be tried here", pytrace=False)
    corten = str(Path(sys.executable).parent / "corten")
    words = [str(RUN_IN_VM), "--timeout", "1000", "--", "env", "CORTEN_HOME=/tmp/home", corten, "doctor", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    report = json.loads(done.stdout)
    found = by_name(report)
    assert report["machine"].endswith("cgroup v2")
    assert found["device rules"]["found"] == "a BPF program was set"
    assert found["memory"]["found"].startswith("memory.max")
    assert found["swap"]["found"].startswith("memory.swap.max")
    assert (done.returncode, report["exit_status"]) == (0, 0)


def test_a_machine_without(command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """Taken away one after the other: programs, and room for an overlay."""
    hidden = tmp_path / "bin"
    hidden.mkdir()
    done = command("doctor", "--json", env={**os.environ, "CORTEN_HOME": "/dev/shm/corten-none/home"})
    found = by_name(json.loads(done.stdout))
    assert found["file system"]["state"] == "degraded"
    assert "tmpfs" in found["file system"]["found"]
    script = "mount --bind /dev/null /usr/sbin/nft; exec \"$@\""
    corten = str(Path(sys.executable).parent / "corten")
    words = ["unshare", "--mount", "sh", "-c", script, "sh", corten, "doctor", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    one = by_name(json.loads(done.stdout))["nft"]
    assert (one["state"], one["found"]) == ("missing", "not installed")
    assert one["mend"].endswith("nftables")
    script = "umount --recursive --lazy /sys/fs/cgroup; exec \"$@\""
    words[4] = script
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert (done.returncode, report["exit_status"]) == (2, 2)
    assert by_name(report)["layout"]["state"] == "missing"


def test_modules_in_the_working_directory_are_not_run(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    for name in ("json", "shutil", "corten"):
        (tmp_path / f"{name}.py").write_text("import os; os.mkdir('run')")
    assert command("doctor", "--json", cwd=tmp_path).returncode == 0
    assert not (tmp_path / "run").exists()


def test_a_trial_that_breaks() -> None:
    assert attempt(lambda: "fine") == Trial(True, "fine")
    assert attempt(lambda: os._exit(3)) == Trial(False, "the trial ended with 3")
    assert attempt(lambda: str(1 // 0)) == Trial(False, "ZeroDivisionError: integer division or modulo by zero")
    assert attempt(lambda: str(os.open("/none", 0))).words == "No such file or directory"


def test_exit_status_and_words() -> None:
    fine = Ability("A", "one", "ok", "works", needed=True)
    less = Ability("A", "two", "degraded", "half", "slower", "do this")
    worst = fine.replace(state="missing", follows="no")
    for rows, status, last in (
        ((fine, less), 0, "All that containers need is here; 1 that it can do without are not."),
        ((fine, less.replace(needed=True)), 1, "Not as it should be: two."),
        ((worst, less), 2, "Not as it should be: one. 1 more can be done without."),
    ):
        report = Report("root", "Linux", rows)
        assert report.exit_status == status
        page = text(report, 90)
        assert page.splitlines()[-1] == last
        assert "mend: do this" in page
