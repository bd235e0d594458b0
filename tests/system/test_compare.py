"""Does a container have what its plan promised? Every kind of it is compared; every broken promise is seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import corten
import small_root
from corten.engine import listing
from corten.engine.container import plan_for
from corten.engine.options import make
from corten.errors import NotFound
from corten.linux import inspect
from corten.views.comparing import Comparison, compare
from ordinary_user import User

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

UP = "echo up; sleep 60"
MANY: dict[str, Any] = {
    "memory": "64m",
    "cpus": 1.5,
    "pids": 20,
    "hostname": "box",
    "tmpfs": ["/scratch:size=1m,mode=1700"],
    "volumes": ["/usr:/mnt:ro"],
    "ulimits": ["nofile=100:200"],
    "sysctls": ["net.core.somaxconn=5"],
    "oom_score_adj": 100,
    "name": "compared",
}
KINDS: dict[str, dict[str, Any]] = {
    "limits": MANY,
    "a user namespace": {"uidmap": ["0:100000:65536"], "gidmap": ["0:200000:65536"], "user": "1000:1000", **MANY},
    "a plain user": {"user": "alice", "group_add": ["77"], "umask": "077", "read_only": True, "cap_drop": ["CHOWN"]},
    "the host's namespaces": dict.fromkeys(("pid", "network", "uts", "ipc", "cgroupns", "timens"), "host"),
    "no protection": {"security_opt": ["seccomp=unconfined", "no-new-privileges=false"], "cap_add": ["ALL"]},
    "shifted clocks": {"time_offset": ["boottime=7d"]},
    "no init": {"init": False, "writable": "tmpfs"},
    "a device": {"devices": ["/dev/fuse:/dev/fuse:rw"], "workdir": "/tmp"},
}


def words(found: Comparison) -> list[str]:
    return [one.line() for one in found.differences]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_container_has_what_was_promised(kind: str) -> None:
    with small_root.start(UP, **KINDS[kind]) as box:
        assert small_root.line(box) == "up"
        found = compare(box._plan, box.pid)
        assert words(found) == []
        assert len(found.findings) > 80
        # Two things the kernel does not show: where descriptors led to, and where a program has gone since.
        assert {one.about for one in found.unknown} <= {"root layers", "working directory"}
        if box._plan.init:
            (program,) = inspect.children(box.pid)
            assert words(compare(box._plan, program)) == []


PROMISES: dict[str, tuple[dict[str, Any], set[str]]] = {
    # what another plan promises, and what is then found to differ
    "limits": ({"pids": 19}, {"limit pids.max"}),
    "rights": ({"cap_add": ["NET_ADMIN"]}, {f"{name} capabilities" for name in ("bounding", "effective", "permitted")}),
    "filter": (
        {"security_opt": ["seccomp=unconfined"]},
        {"system call filters of the program", "system call filters of the init"},
    ),
    "user": ({"user": "7:8"}, {"user", "group", "effective capabilities", "permitted capabilities"}),
    "no_new_privs": ({"security_opt": ["no-new-privileges=false"]}, {"no_new_privs"}),
    # not /dev/mqueue: without the host's the plan mounts a new one
    "namespaces": ({"ipc": "host"}, {"ipc namespace", "mount /dev/shm"}),
    "host name": ({"hostname": "other"}, {"host name", "file /etc/hostname", "file /etc/hosts"}),
    "mount": ({"tmpfs": ["/scratch:size=2m,mode=1700"]}, {"mount /scratch size"}),
    "mount options": ({"volumes": ["/usr:/mnt:ro,noexec"]}, {"mount /mnt options"}),
    "another mount": ({"tmpfs": ["/scratch:size=1m,mode=1700", "/tmp"]}, {"mount /tmp"}),
    "read-only": ({"read_only": True}, {"root is read-only"}),
    "resource limits": ({"ulimits": ["nofile=101:200"]}, {"RLIMIT_NOFILE"}),
    "sysctls": ({"sysctls": ["net.core.somaxconn=6"]}, {"sysctl net/core/somaxconn"}),
    "oom score": ({"oom_score_adj": 101}, {"oom_score_adj"}),
    "working directory": ({"workdir": "/tmp"}, {"working directory"}),
    "umask": ({"umask": "027"}, {"umask"}),
    "devices": ({"device_cgroup_rules": ["c 10:229 rwm"]}, {"allowed devices"}),
    "device nodes": ({"devices": ["/dev/fuse"]}, {"device /dev/fuse", "allowed devices"}),
    "clocks": ({"time_offset": ["boottime=7d"]}, {"boottime clock, ahead by seconds"}),
    "paths": ({"security_opt": ["mask=/bin"]}, {"hidden /bin"}),
}


@pytest.fixture(scope="module")
def box() -> Any:
    with small_root.start(UP, **{**MANY, "name": "kept"}) as made:
        assert small_root.line(made) == "up"
        yield made


@pytest.fixture
def user() -> Iterator[User]:
    made = User()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """One container lives through all tests of this file; `test_listing` and others look after what is left."""


@pytest.mark.parametrize("broken", PROMISES)
def test_a_promise_that_was_not_kept_is_seen(broken: str, box: corten.Container) -> None:
    other, differ = PROMISES[broken]
    where = {"rootfs": small_root.shared(), "writable": "throwaway"}
    plan = plan_for(make("", ["sh", "-c", UP], **{**MANY, **where, **other}))
    assert {one.about for one in compare(plan, box.pid).differences} == differ


def test_a_limit_changed_since(box: corten.Container) -> None:
    box.update(pids=21)
    (one,) = compare(box._plan, box.pid).differences
    assert one.line() == "DIFFERS  limit pids.max: promised 20, found 21"
    box.update(pids=20)


def test_a_process_that_is_no_container(box: corten.Container) -> None:
    found = compare(box._plan, os.getpid())
    assert {"pid namespace", "mount namespace", "root", "pids group", "no_new_privs"} <= {
        one.about for one in found.differences
    }


def test_vanished(box: corten.Container) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    with pytest.raises(NotFound, match="there is none"):
        compare(box._plan, gone.pid)
    zombie = subprocess.Popen(["true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(NotFound, match="there is none"):
        compare(box._plan, zombie.pid)
    zombie.wait()


def test_an_ordinary_user_compares_its_own(user: User) -> None:
    options = ["--best-effort", "--hostname", "mine", "--rootfs", str(user.root)]
    words = user.corten_words("run", *options, "sh", "-c", UP)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=user.home) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        (one,) = listing.live(str(user.home / ".local/share/corten"))
        assert one.pid is not None
        (program,) = inspect.children(one.pid)
        for pid, unknown in ((one.pid, 11), (program, 3)):  # an init is shielded from its own user
            done = user.corten("plan", "--json", "--compare-with", str(pid), *options, "sh", "-c", UP)
            assert done.stderr == ""
            found = json.loads(done.stdout)
            assert [row for row in found["findings"] if row["agrees"] is False] == []
            assert len([row for row in found["findings"] if row["agrees"] is None]) == unknown
        process.terminate()


def test_the_command(box: corten.Container) -> None:
    options = ["--memory", "64m", "--cpus", "1.5", "--pids-limit", "20", "--hostname", "box", "-v", "/usr:/mnt:ro"]
    options += ["--tmpfs", "/scratch:size=1m,mode=1700", "--ulimit", "nofile=100:200", "--oom-score-adj", "100"]
    options += ["--sysctl", "net.core.somaxconn=5", "--writable", "throwaway", "--rootfs", small_root.shared()]
    done = run("plan", "--compare-with", "kept", *options, "sh")
    assert (done.returncode, done.stderr) == (0, "")
    assert " 0 not, 0 unknown" in done.stdout.splitlines()[-1]
    done = run("plan", "--json", "--compare-with", str(box.pid), *options, "--read-only", "sh")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert [one["about"] for one in found["findings"] if one["agrees"] is False] == ["root is read-only"]
    for other, said in (("nobody", "no live container 'nobody'"), ("999999999", "process 999999999")):
        done = run("plan", "--compare-with", other, *options, "sh")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1)
        assert said in done.stderr


def run(*given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([small_root.CORTEN, *given], capture_output=True, text=True, check=False)


def test_it_is_no_part_of_a_start() -> None:
    script = "import sys, corten.cli.plan, corten.cli.run; print([n for n in sys.modules if 'corten.views' in n])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
