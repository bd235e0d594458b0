"""Corten without root: one id or a range of them, no control group, nothing installed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

import small_root
from corten.linux import syscalls
from ordinary_user import RANGE, RUN, UID, User

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def somebody() -> Iterator[User]:
    made = User()
    yield made
    made.close()


@pytest.fixture
def user(somebody: User) -> Iterator[User]:
    """Somebody without subordinate ids."""
    yield somebody
    assert somebody.leftovers() == []


@pytest.fixture
def ranged(somebody: User) -> Iterator[User]:
    """The same with subordinate ids and newuidmap."""
    yield somebody.with_ranges()
    assert somebody.leftovers() == []


def lines(text: str) -> dict[str, str]:
    """`key value` lines as a table."""
    return {key: value.strip() for key, _, value in (line.partition(" ") for line in text.splitlines())}


# --- what a container is, with one id


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("CORTEN_HOME=/etc", "/etc cannot be written to by this user: set CORTEN_HOME"),
        ("HOME=/etc", "cannot make /etc/.local/share/corten: Permission denied: set CORTEN_HOME"),
        ("XDG_DATA_HOME=relative", "no home directory: relative is not absolute: set HOME, or CORTEN_HOME"),
        ("--unset=HOME", "no home directory: ~/.local/share is not absolute: set HOME, or CORTEN_HOME"),
    ],
)
def test_a_home_that_cannot_be_had(setting: str, said: str, user: User) -> None:
    words = user.corten_words("run", "host", "true")
    at = words.index("PYTHONDONTWRITEBYTECODE=1") + 1
    done = subprocess.run(
        [*words[:at], "env", setting, *words[at:]], cwd="/", capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr.startswith(f"corten: {said}")) == (125, True), done.stderr
    assert done.stderr.count("\n") == 1


def test_a_root_of_somebody_else(user: User) -> None:
    root = user.top / "theirs"
    (root / "bin").mkdir(parents=True)
    shutil.copy(small_root.BUSYBOX, root / "bin/busybox")
    done = user.corten("run", "--rootfs", str(root), "busybox", "true")
    assert (done.returncode, done.stdout) == (125, "")
    assert f"rootfs {root}: has no proc, dev, sys, and you may not make it there: --writable throwaway" in done.stderr
    assert user.corten("run", "--rootfs", str(root), "--writable", "throwaway", "busybox", "true").returncode == 0


def test_a_place_for_the_group_is_not_ignored(user: User) -> None:
    done = user.corten("run", "--cgroup-parent", "/mine", "host", "true")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("corten: --cgroup-parent /mine: no control group for freezer: run as root")
    done = user.corten("run", "--best-effort", "--cgroup-parent", "/mine", "host", "true")
    assert (done.returncode, done.stderr.startswith("corten: not applied: --cgroup-parent /mine")) == (0, True)


def test_a_directory_as_root(user: User) -> None:
    script = """
        echo id $(id -u) $(id -g) $(id -G)
        echo uids $(cat /proc/self/uid_map); echo gids $(cat /proc/self/gid_map)
        echo setgroups $(cat /proc/self/setgroups)
        for key in NoNewPrivs Seccomp CapEff; do echo $key $(grep ^$key: /proc/self/status | cut -f 2); done
        echo host $(hostname); echo pid $$; echo processes $(ls -d /proc/[0-9]* | wc -l)
        echo zeros $(head -c 4 /dev/zero | wc -c); echo null >/dev/null && echo null ok
        echo devices $(ls /dev | tr '\\n' ' ')
        echo shm $(touch /dev/shm/x && echo ok); echo proc $(grep -c ' /proc proc ' /proc/mounts)
        echo write $(touch /new && stat -c %u:%g /new)
        echo sysctl $(echo 1 2>&- >/proc/sys/kernel/printk || echo refused)
        echo node $(mknod /tmp/kmem c 1 2 2>/dev/null || echo refused)
    """
    found = lines(user.sh(script, "--hostname", "box"))
    assert found["id"] == "0 0 0"
    assert found["uids"] == found["gids"] == f"0 {UID} 1"
    assert found["setgroups"] == "deny"
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    assert found["CapEff"] != "0000000000000000"
    assert (found["host"], found["pid"]) == ("box", "2")
    assert int(found["processes"]) <= 8
    assert (found["zeros"], found["null"], found["shm"], found["proc"]) == ("4", "ok", "ok", "1")
    assert found["devices"].split() == [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom",
        "zero",
    ]  # fmt: skip
    assert found["write"] == "0:0"
    assert found["sysctl"] == found["node"] == "refused"
    assert not (user.root / "new").exists()


def test_writing_straight_into_a_directory_of_ones_own(user: User) -> None:
    assert user.corten("run", "--rootfs", str(user.root), "touch", "/tmp/direct").returncode == 0
    path = user.root / "tmp/direct"
    assert (path.stat().st_uid, path.stat().st_gid) == (UID, UID)
    path.unlink()


def test_the_host_image(user: User) -> None:
    work = user.home / "work"
    work.mkdir()
    (work / "data").write_text("visible\n")
    (user.home / "secret").write_text("hidden\n")
    for path in (work, work / "data", user.home / "secret"):
        os.chown(path, UID, UID)
    program = f"""
import os, json, pathlib
def refused(act):
    try:
        act()
    except OSError as error:
        return error.errno
there = os.path.exists
print(json.dumps([
    os.getuid(), os.getcwd(), open("data").read(), refused(lambda: open("data", "a")),
    there({str(user.home / "secret")!r}), there("/root/.profile"), there("/etc/shadow"), os.listdir("/home"),
    pathlib.Path("/etc/new").write_text("x"), pathlib.Path("/usr/new").write_text("x"),
    refused(lambda: open("/usr/bin/new", "w")),
    refused(lambda: os.setgroups([0])), refused(lambda: os.chown("/tmp", 5, 5)),
]))
"""
    done = user.corten("run", "host", "python3", "-c", program, cwd=work)
    assert done.returncode == 0, done.stderr
    uid, cwd, data, append, secret, profile, shadow, homes, *written, below, groups, chown = json.loads(done.stdout)
    assert (uid, cwd, data) == (0, str(work), "visible\n")
    assert append == 30  # EROFS
    assert (secret, profile, shadow, homes) == (False, False, False, [])
    assert written == [1, 1]
    assert below == 13  # EACCES: it belongs to the machine's root, who is nobody here
    assert groups == 1  # EPERM
    assert chown == 22  # EINVAL: an id that is not mapped
    assert not Path("/usr/new").exists()
    # The home directory itself is never shown.
    done = user.corten("run", "host", "sh", "-c", f"pwd; ls -A {user.home}", cwd=user.home)
    assert done.stdout.splitlines()[0] == "/"
    assert "secret" not in done.stdout


def test_an_archive_is_unpacked_as_the_user(user: User) -> None:
    archive = user.top / "image.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        for entry in sorted(user.root.rglob("*")):
            if entry.parent == user.root or entry.parent.name == "bin":
                file.add(entry, str(entry.relative_to(user.root)), recursive=False)
        locked = tarfile.TarInfo("locked")
        locked.type, locked.mode, locked.uid = tarfile.DIRTYPE, 0o000, 33
        file.addfile(locked)
    archive.chmod(0o644)
    for _ in range(2):  # unpacked, then found
        script = "id -u; touch /written; stat -c '%u %a' /locked /bin/busybox"
        done = user.corten("run", str(archive), "sh", "-c", script)
        assert done.stdout.splitlines() == ["0", "0 0", "0 755"], done.stderr
    kept = list((user.home / ".local/share/corten/archives").iterdir())
    assert len(kept) == 1
    assert not (kept[0] / "root/written").exists()
    assert (kept[0] / "root/bin").stat().st_uid == UID


def test_networks(user: User) -> None:
    script = "ls /sys/class/net; ping -c 1 -q 127.0.0.1 | grep -o '1 packets received'; wc -l </proc/net/route"
    alone = user.sh(script, "--cap-add", "net_raw")
    assert alone.splitlines() == ["lo", "1 packets received", "1"]
    shared = user.sh(
        "ls /sys/class/net; grep ' /sys ' /proc/self/mountinfo; mkdir /sys/x 2>/dev/null || echo read-only; readlink "
        "/proc/self/ns/net",
        "--network",
        "host",
    )
    assert set(os.listdir("/sys/class/net")) <= set(shared.splitlines())
    assert "read-only" in shared
    assert os.readlink("/proc/self/ns/net") in shared
    assert os.readlink("/proc/self/ns/net") not in user.sh("readlink /proc/self/ns/net")


def test_own_files_come_and_go_with_their_owner(user: User) -> None:
    mine, others = user.home / "mine", user.top / "others"
    for path, owner in ((mine, UID), (others, 0)):
        path.mkdir()
        path.chmod(0o755)
        (path / "file").write_text("x\n")
        for each in (path, path / "file"):
            os.chown(each, owner, owner)
    script = """
        stat -c '%u:%g' /mine/file /others/file
        echo more >>/mine/file; mkdir -m 750 /mine/made; touch /mine/made/new
        for place in /others/file /ro/file; do (echo no >>$place) 2>/dev/null || echo refused; done
    """
    words = ("-v", f"{mine}:/mine", "-v", f"{others}:/others", "-v", f"{mine}:/ro:ro")
    assert user.sh(script, *words).split() == ["0:0", "65534:65534", "refused", "refused"]
    assert (mine / "file").read_text() == "x\nmore\n"
    made = (mine / "made/new").stat()
    assert (made.st_uid, made.st_gid) == (UID, UID)
    assert stat.S_IMODE((mine / "made").stat().st_mode) == 0o750


def test_a_read_only_root_with_memory_to_write_to(user: User) -> None:
    script = "touch /x 2>/dev/null || echo refused; touch /scratch/x && echo ok; df -k /scratch | awk 'END {print $2}'"
    assert user.sh(script, "--read-only", "--tmpfs", "/scratch:size=1m").split() == ["refused", "ok", "1024"]


def test_who_the_program_is(user: User) -> None:
    who = "id -u; id -g; cat /proc/self/uid_map"
    assert user.sh(who, "-u", "0").split() == ["0", "0", "0", str(UID), "1"]
    assert user.sh(who, "--userns", "keep-id").split() == [str(UID), str(UID), str(UID), str(UID), "1"]
    for words, what in ((("-u", "5"), "user 5"), (("-u", "0:5"), "group 5"), (("--group-add", "5"), "group 5")):
        done = user.corten("run", *words, "--rootfs", str(user.root), "true")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1)
        assert f"has no {what}: {UID} has no range in /etc/subuid: an administrator can add one" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["sh", "-c", "exit 3"], 3, ""),
        (["sh", "-c", "kill -9 $$"], 137, ""),
        (["nothing-like-it"], 127, "corten: nothing-like-it: not found"),
        (["/etc/passwd"], 126, "corten: /etc/passwd: cannot be executed"),
        (["--timeout", "0.2", "sh", "-c", "sleep 60 & sleep 60"], 137, "corten: killed: timeout (0.2 s)"),
        (["--userns", "host", "true"], 125, "corten: userns: only root can share"),
        (["--pid", "host", "true"], 125, "corten: --pid host without a control group: "),
        (["-v", "/etc:/x:idmap", "true"], 125, "corten: -v: idmap: only root may map"),
    ],
)
def test_how_it_ends(user: User, words: list[str], code: int, says: str) -> None:
    options = words[: next(i for i, word in enumerate(words) if word in ("sh", "true") or i + 1 == len(words))]
    done = user.corten("run", *options, "--rootfs", str(user.root), *words[len(options) :])
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(says) if says else done.stderr == ""
    assert done.stderr.count("\n") == bool(says)


def test_a_signal_reaches_the_program(user: User) -> None:
    script = "trap 'echo got it; exit 7' TERM; echo up; while :; do sleep 0.1; done"
    words = user.corten_words("run", "--rootfs", str(user.root), "sh", "-c", script)
    with subprocess.Popen(words, cwd=user.home, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        running.terminate()
        assert running.stdout.read() == "got it\n"
    assert running.returncode == 7


def test_from_python(user: User) -> None:
    program = f"""
import corten, threading
argv = ["sh", "-c", "id -u; cat; exit 4"]
result = corten.run(rootfs={str(user.root)!r}, argv=argv, input="fed\\n", pids=5, best_effort=True)
print([result.stdout, result.exit_code, result.reason, result.not_applied])
try:
    corten.run("host", ["true"], memory="64m")
except corten.Unsupported as error:
    print("unsupported", error)
ends = []
def work(number):
    ends.append(corten.run("host", ["sh", "-c", f"exit {{number}}"]).exit_code)
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sorted(ends))
with corten.start("host", ["sh", "-c", "echo up; sleep 60"]) as running:
    print(running.stdout.readline(), running.running())
    running.kill()
    print(running.wait(10).signal)
"""
    done = user.run_python(program)
    assert done.returncode == 0, done.stderr
    first, unsupported, ends, started, killed = done.stdout.splitlines()
    assert first.startswith(r"['0\nfed\n', 4, 'exited with code 4', ('not applied: pids limits: no control group ")
    assert unsupported.startswith("unsupported no control group for memory: ")
    assert unsupported.endswith("--best-effort goes on without it")
    assert (ends, started, killed) == (str(list(range(8))), r"b'up\n' True", "9")


# --- limits


def test_a_limit_without_a_control_group_is_an_error_that_says_what_to_do(user: User) -> None:
    for words, what in ((("-m", "64m"), "memory"), (("--cpus", "1"), "cpu"), (("--pids-limit", "9"), "pids")):
        done = user.corten("run", *words, "--rootfs", str(user.root), "true")
        assert (done.returncode, done.stderr.count("\n")) == (125, 1)
        assert done.stderr.startswith(f"corten: no control group for {what}: run ")
        assert "as root" in done.stderr


def test_best_effort_says_what_it_leaves_out(user: User) -> None:
    words = ("--best-effort", "-m", "64m", "--pids-limit", "9", "--rootfs", str(user.root))
    done = user.corten("run", *words, "sh", "-c", "echo ran; echo $OMP_NUM_THREADS; df -k /dev/shm | tail -1")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "ran")
    assert [line.partition(":")[2].split(":")[0:2] for line in done.stderr.splitlines()] == [
        [" not applied", " memory limits"],
        [" not applied", " pids limits"],
    ]
    assert "32768" in done.stdout  # what can be had is: /dev/shm of half the memory


# --- where the kernel says no


def test_user_namespaces_are_forbidden(user: User) -> None:
    # Not on this machine: in a user namespace of our own, whose limit for namespaces below it is ours to set.
    program = f"""
import ctypes, os
assert ctypes.CDLL(None).unshare(0x10000000) == 0
for name, text in (("setgroups", "deny"), ("uid_map", "{UID} {UID} 1"), ("gid_map", "{UID} {UID} 1")):
    open(f"/proc/self/{{name}}", "w").write(text)
open("/proc/sys/user/max_user_namespaces", "w").write("0")
os.execv({user.python!r}, [{user.python!r}, "-c", "from corten.cli.main import command; command()",
    "run", "--rootfs", {str(user.root)!r}, "true"])
"""
    done = user.run_python(program)
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert done.stderr.startswith("corten: clone with new namespaces ")
    assert "raise the sysctl user.max_user_namespaces" in done.stderr


def test_a_home_that_no_overlay_can_be_written_to(user: User) -> None:
    # As in another engine's container, or on a home directory from the network.
    parts = [user.top / name for name in ("lower", "upper", "work", "merged")]
    for part in parts:
        part.mkdir()
        os.chown(part, UID, UID)
    lower, upper, work, merged = parts
    inside = user.with_ranges()
    mounting = f"mount -t overlay -o lowerdir={lower},upperdir={upper},workdir={work} x {merged}"
    inside.before = ("unshare", "--mount", "sh", "-c", f'{mounting} && exec "$@"', "sh")
    words = ("env", f"CORTEN_HOME={merged}", inside.python, "-c", RUN, "run")
    done = inside.process(*words, "host", "true")
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert done.stderr.startswith("corten: mount overlay of ")
    assert "to a local disk: set CORTEN_HOME to a directory there, or --writable tmpfs" in done.stderr
    done = inside.process(*words, "--writable", "tmpfs", "host", "sh", "-c", "touch /x && echo ok")
    assert (done.stdout, done.stderr) == ("ok\n", "")


# --- what is left


def test_directories_without_permissions_are_removed(user: User) -> None:
    user.sh("mkdir -p /a/b/c /d/e; touch /a/b/c/f /d/e/f; chmod 0 /a/b/c /a/b /a; chmod 300 /d/e; chmod 600 /d")


def test_a_tree_deeper_than_any_stack_is_removed(user: User) -> None:
    user.sh("i=0; while [ $i -lt 1500 ]; do mkdir d && cd d && chmod 500 . || exit 1; i=$((i+1)); done")


def _killed(user: User, script: str) -> None:
    """Run a script, and kill the command with SIGKILL once it has said a word."""
    words = ("run", "--rootfs", str(user.root), "--writable", "throwaway", "--name", "doomed")
    doomed = user.corten_words(*words, "sh", "-c", f"{script}; echo up; sleep 60")
    syscalls.call("prctl", 36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: the container's init becomes ours, to wait for
    try:
        with subprocess.Popen(doomed, cwd=user.home, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == "up\n"
            init = int(Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text())
            running.kill()
        assert os.WTERMSIG(os.waitpid(init, 0)[1]) == signal.SIGKILL
    finally:
        syscalls.call("prctl", 36, 0, 0, 0, 0)
    assert user.leftovers() != []


def test_the_next_command_sweeps_what_a_killed_one_left(user: User) -> None:
    _killed(user, "mkdir -p /a/b; touch /a/b/c; chmod 0 /a/b /a")
    user.sh("true")
    user.sh("true", "--name", "doomed")


# --- with subordinate ids


def test_the_range_is_mapped(ranged: User) -> None:
    script = """
        cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups
        touch /a; chown 33:44 /a; stat -c '%u:%g' /a; id -G; id -u
    """
    words = ranged.sh(script).split()
    assert words[:12] == ["0", str(UID), "1", "1", str(RANGE[0]), str(RANGE[1])] * 2
    assert words[12:] == ["allow", "33:44", "0", "0"]
    assert ranged.sh("id -u; id -g; id -G", "-u", "33:7", "--group-add", "5").split() == ["33", "7", "7", "5"]
    kept = ranged.sh("id -u; cat /proc/self/uid_map", "--userns", "keep-id").split()
    assert kept[:4] == [str(UID), "0", str(RANGE[0]), str(UID)]
    done = ranged.corten("run", "-u", "70000", "--rootfs", str(ranged.root), "true")
    assert done.stderr == "corten: --user: the container's user namespace has no user 70000\n"


def test_files_of_many_users_as_a_package_manager_makes_them(ranged: User) -> None:
    shared = ranged.home / "shared"
    shared.mkdir()
    os.chown(shared, UID, UID)
    script = """
        set -e; mkdir -p /var/p/deep; touch /var/p/deep/f; chown -R 33:33 /var/p; chmod 2750 /var/p/deep
        tar -cf /tmp/p.tar -C /var p; mkdir /opt/out; tar -xpf /tmp/p.tar -C /opt/out
        stat -c '%u:%g %a' /opt/out/p/deep
        chown 101:102 /var/p; setpriv --reuid 33 --regid 33 --groups 7 sh -c 'id -u; id -G'
        touch /shared/f; chown 12:34 /shared/f
        chmod 1777 /var/p; touch /var/p/mine; chown 44 /var/p/mine; chmod 0 /var/p/deep; chmod 700 /opt/out/p
    """
    done = ranged.corten("run", "-v", f"{shared}:/shared", "host", "sh", "-c", script, cwd="/")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["33:33", "2750", "33", "33", "7"]
    about = (shared / "f").stat()
    assert (about.st_uid, about.st_gid) == (RANGE[0] + 11, RANGE[0] + 33)
    (shared / "f").unlink()


def test_what_subordinate_ids_own_is_swept_after_a_kill(ranged: User) -> None:
    _killed(ranged, "mkdir -p /a/b; touch /a/b/c /a/d; chown -R 33:33 /a; chmod 0 /a/b /a")
    ranged.sh("true", "--name", "doomed")


def test_without_newuidmap_there_is_one_id_and_the_plan_says_why(somebody: User) -> None:
    bare = somebody.with_ranges("/usr/bin/newuidmap")
    assert bare.sh("cat /proc/self/uid_map").split() == ["0", str(UID), "1"]
    done = bare.corten("plan", "--rootfs", str(bare.root), "true")
    assert done.stdout.splitlines()[-1].startswith("note: one user and one group inside: newuidmap is not installed: ")
    assert "note:" not in somebody.with_ranges().corten("plan", "--rootfs", str(bare.root), "true").stdout
    assert somebody.leftovers() == []
