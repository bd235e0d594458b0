"""The program itself: who it is, where it stands, what it may, and how its end is told."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import corten
from corten.linux import capabilities
from small_root import CORTEN, line, refused, run, sh, shared, start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

Command = "Callable[..., subprocess.CompletedProcess[str]]"


def status(**options: Any) -> dict[str, str]:
    """/proc/self/status of a program in a container."""
    rows = sh("exec cat /proc/self/status", **options).splitlines()
    return {key: value.strip() for key, _, value in (row.partition(":") for row in rows)}


# --- identity


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (None, "0:0:0"),
        ("alice", "1001:1002:1002 44"),
        ("1001", "1001:1002:1002 44"),
        ("alice:video", "1001:44:44"),
        ("1001:77", "1001:77:77"),
        ("5000", "5000:0:0"),
        ("5000:6000", "5000:6000:6000"),
    ],
)
def test_user_by_the_root_file_systems_own_lists(user: str | None, expected: str) -> None:
    assert sh('echo "$(id -u):$(id -g):$(id -G)"', user=user).strip() == expected


def test_further_groups() -> None:
    assert sh("id -G", group_add=["extra", "4242"]).split() == ["0", "77", "4242"]


def test_home_follows_the_user() -> None:
    assert sh("echo $HOME", user="alice").strip() == "/home/alice"
    assert sh("echo $HOME", user="alice", env={"HOME": "/elsewhere"}).strip() == "/elsewhere"


def test_umask() -> None:
    assert sh("umask; umask 0; touch /f; exec stat -c %a /f").split() == ["0022", "666"]
    assert sh("umask", umask="077").strip() == "0077"


def test_working_directory_is_made_if_missing() -> None:
    assert sh("pwd").strip() == "/"
    assert sh("pwd", workdir="/tmp").strip() == "/tmp"
    assert sh("pwd; stat -c %U:%a .", workdir="/new/and/deep").split() == ["/new/and/deep", "root:755"]


def test_working_directory_that_is_a_file() -> None:
    with pytest.raises(corten.KernelError, match="go to /etc/passwd: Not a directory"):
        run("true", workdir="/etc/passwd")


# --- environment


def test_environment_of_a_container_is_not_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_HOST", "1")
    names = {row.partition("=")[0] for row in sh("exec env", hostname="box").splitlines()}
    assert names - {"PWD", "SHLVL", "_"} == {"PATH", "HOSTNAME", "HOME"}


def test_environment_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = tmp_path / "list"
    listed.write_text("# a comment\nFILE=from the file\nBOTH=file\nPASSED\nABSENT_HERE\n")
    monkeypatch.setenv("PASSED", "through")
    monkeypatch.setenv("NAMED", "by name")
    script = 'echo "$FILE|$BOTH|$PASSED|${ABSENT_HERE-unset}|$NAMED|$EQ"'
    words = ["-e", "BOTH=option", "-e", "NAMED", "-e", "EQ=a=b c", "--env-file", str(listed)]
    done = subprocess.run(
        [CORTEN, "run", *words, "--rootfs", shared(), "--writable", "throwaway", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "from the file|option|through|unset|by name|a=b c\n"


def test_thread_counts_follow_the_cpu_limit() -> None:
    script = "echo $OMP_NUM_THREADS $PYTHON_CPU_COUNT $OPENBLAS_NUM_THREADS"
    assert sh(script).split() == []
    assert sh(script, cpus=1.5).split() == ["2", "2", "2"]
    assert sh(script, cpuset_cpus="0").split() == ["1", "1", "1"]
    assert sh(script, cpus=2, cpuset_cpus="0").split() == ["1", "1", "1"]
    assert sh(script, cpus=1, env=["OMP_NUM_THREADS=7"]).split() == ["7", "1", "1"]


# --- limits of the process


def test_ulimits() -> None:
    options = {"ulimits": ["nofile=100:200", "core=0", "nproc=50", "stack=4m"]}
    rows = sh("exec cat /proc/self/limits", **options).splitlines()
    found = {row[:26].strip(): row[26:].split()[:2] for row in rows}
    assert found["Max open files"] == ["100", "200"]
    assert found["Max core file size"] == ["0", "0"]
    assert found["Max processes"] == ["50", "50"]
    assert found["Max stack size"] == [str(4 << 20)] * 2


@pytest.mark.parametrize("userns", ["host", "private"])
def test_limits_too_low_for_what_comes_before_the_program(userns: str) -> None:
    maps = ["0:100000:65536"] if userns == "private" else None
    limits = ["nofile=10", "fsize=0"] if userns == "host" else ["nofile=64"]
    shown = sh("ulimit -n; ulimit -f", ulimits=limits, uidmap=maps, gidmap=maps).split()
    assert shown == (["10", "0"] if userns == "host" else ["64", "unlimited"])


def test_too_few_files_for_the_init() -> None:
    done = refused("--ulimit", "nofile=3", "--writable", "throwaway", "--rootfs", shared(), "true")
    assert done.returncode == 125
    assert "Too many open files (EMFILE): a limit of open files (--ulimit nofile) leaves no room" in done.stderr
    assert run("true", ulimits=["nofile=3"], init=False).exit_code == 0


def test_ulimit_above_what_may_be_given() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert "CAP_SYS_RESOURCE" not in capabilities.effective(), "this test is about a machine without it"
    done = refused("--ulimit", f"nofile={hard + 1}", "--rootfs", shared(), "true")
    assert done.returncode == 125
    assert str(hard) in done.stderr


def test_oom_score() -> None:
    own = int(Path("/proc/self/oom_score_adj").read_text())
    assert sh("cat /proc/self/oom_score_adj") == f"{own}\n"
    assert sh("cat /proc/self/oom_score_adj", oom_score_adj=500) == "500\n"


# --- rights


def _sets(**options: Any) -> dict[str, int]:
    found = status(**options)
    return {name: int(found[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}


DEFAULT = capabilities.DEFAULT.bounding


def bits(*names: str) -> int:
    return capabilities.mask(names)


def test_default_capabilities_are_podmans() -> None:
    expected = {
        "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE",
        "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
    }  # fmt: skip
    assert set(DEFAULT) == expected
    mask = bits(*expected)
    assert _sets() == {"CapInh": 0, "CapPrm": mask, "CapEff": mask, "CapBnd": mask, "CapAmb": 0}


def test_capabilities_added_and_dropped() -> None:
    mask = bits(*DEFAULT, "CAP_NET_ADMIN") & ~bits("CAP_CHOWN")
    found = _sets(cap_add=["net_admin"], cap_drop=["CAP_CHOWN"])
    assert found == {"CapInh": 0, "CapPrm": mask, "CapEff": mask, "CapBnd": mask, "CapAmb": 0}
    assert set(_sets(cap_drop=["ALL"]).values()) == {0}
    only = bits("CAP_KILL")
    assert _sets(cap_drop=["ALL"], cap_add=["KILL"])["CapBnd"] == only


def test_capabilities_of_an_ordinary_user() -> None:
    everything = bits(*DEFAULT)
    assert _sets(user="alice") == {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": everything, "CapAmb": 0}
    one = bits("CAP_NET_BIND_SERVICE")
    found = _sets(user="alice", cap_add=["NET_BIND_SERVICE"])
    assert found == {"CapInh": one, "CapPrm": one, "CapEff": one, "CapBnd": everything, "CapAmb": one}


def test_all_capabilities_are_those_that_the_caller_has() -> None:
    found = _sets(cap_add=["ALL"])
    assert found["CapEff"] == bits(*capabilities.effective())


def test_capability_that_the_caller_lacks_is_refused() -> None:
    done = refused("--cap-add", "SYS_RESOURCE", "--rootfs", shared(), "true")
    assert done.returncode == 125
    assert "SYS_RESOURCE" in done.stderr


def test_no_new_privileges_unless_told_otherwise() -> None:
    assert status()["NoNewPrivs"] == "1"
    assert status(security_opt=["no-new-privileges=false"])["NoNewPrivs"] == "0"
    assert status(security_opt=["no-new-privileges=false"])["Seccomp"] == "2"


def test_system_call_filter_by_default_and_without() -> None:
    assert status()["Seccomp"] == "2"
    assert status(seccomp="unconfined")["Seccomp"] == "0"
    # keyctl is not allowed; mount needs CAP_SYS_ADMIN besides.
    assert run("unshare -m true").exit_code != 0
    assert run("unshare -m true", cap_add=["SYS_ADMIN"]).exit_code == 0


def _profile(path: Path, *calls: str) -> str:
    rule = {"names": list(calls), "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    return str(path)


def test_custom_filter(tmp_path: Path) -> None:
    profile = _profile(tmp_path / "profile.json", "mkdir", "mkdirat")
    done = run("mkdir /x", seccomp=profile)
    assert done.exit_code != 0
    assert "not supported" in str(done.stderr)
    assert run("mkdir /x", security_opt=[f"seccomp={profile}"], init=False).exit_code != 0


def test_filter_that_depends_on_capabilities(tmp_path: Path) -> None:
    """Profiles of docker and podman have rules for those who hold a capability."""
    path = tmp_path / "profile.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_KILL"]}}
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    assert run("mkdir /x", seccomp=str(path)).exit_code == 0
    assert run("mkdir /x", seccomp=str(path), cap_drop=["KILL"]).exit_code != 0


def test_filter_that_forbids_clone_still_works_with_the_init(tmp_path: Path) -> None:
    profile = _profile(tmp_path / "profile.json", "clone", "clone3", "fork", "vfork", "wait4", "waitid")
    done = run("echo alone; true | true; echo not reached", seccomp=profile)
    assert done.stdout == "alone\n"
    assert "fork" in str(done.stderr)


@pytest.mark.parametrize("text", ["{", "[]", '{"defaultAction": "SCMP_ACT_NONSENSE"}'])
def test_filter_that_is_none(tmp_path: Path, text: str) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(text)
    done = refused("--security-opt", f"seccomp={profile}", "--rootfs", shared(), "true")
    assert done.returncode == 125
    assert "profile.json" in done.stderr


# --- names, parameters, hidden paths


def test_names_of_the_machine() -> None:
    assert sh("hostname; cat /etc/hostname", hostname="box").split() == ["box", "box"]
    assert sh("cat /proc/sys/kernel/domainname", domainname="example").strip() == "example"
    container = start("hostname; read x")
    with container:
        assert line(container) == container.id


def test_hosts_file_and_loopback() -> None:
    assert "127.0.1.1\tbox" in sh("cat /etc/hosts", hostname="box")
    assert sh("ping -c 1 -W 2 127.0.0.1 >/dev/null && echo up", cap_add=["NET_RAW"]).strip() == "up"


def test_sysctls() -> None:
    keys = {"net.ipv4.ip_unprivileged_port_start": "80", "kernel.shmmax": "1234567", "fs.mqueue.msg_max": "20"}
    shown = sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmax /proc/sys/fs/mqueue/msg_max",
               sysctls=keys)  # fmt: skip
    assert shown.split() == ["80", "1234567", "20"]
    assert Path("/proc/sys/kernel/shmmax").read_text().strip() != "1234567"


def test_sysctls_of_the_whole_machine_are_refused() -> None:
    for key in ("vm.swappiness=1", "kernel.panic=1", "net.ipv4.ip_forward=1"):
        network = ["--network", "host"] if key.startswith("net") else []
        done = refused("--sysctl", key, *network, "--rootfs", shared(), "true")
        assert done.returncode == 125
        assert key.partition("=")[0] in done.stderr


def test_masked_and_read_only_paths() -> None:
    assert sh("cat /proc/keys /proc/timer_list; ls /proc/acpi /sys/firmware 2>/dev/null; true", user="0") in (
        "", "/proc/acpi:\n\n/sys/firmware:\n", "/sys/firmware:\n")  # fmt: skip
    forward = "echo 1 >/proc/sys/net/ipv4/ip_forward"
    assert "Read-only file system" in str(run(forward, cap_add=["NET_ADMIN"]).stderr)
    assert run(forward, cap_add=["NET_ADMIN"], unmask=["/proc/sys"]).exit_code == 0
    assert sh("cat /proc/timer_list | wc -l", unmask=["/proc/timer_list"]).strip() != "0"
    assert sh("cat /etc/passwd; ls /bin", mask=["/etc/passwd"], security_opt=["mask=/tmp"]).startswith("[\n")
    everything = sh(f"{forward}; cat /proc/interrupts | wc -l", cap_add=["NET_ADMIN"], unmask=["ALL"])
    assert everything.strip() != "0"


# --- init


def test_without_init_the_program_is_process_1() -> None:
    assert sh("echo $$", init=False).strip() == "1"
    assert sh("echo $$").strip() == "2"
    assert run("exit 42", init=False).exit_code == 42
    assert run("exit 42").exit_code == 42


def test_init_reaps_orphans() -> None:
    # Five orphans end before their line is read: what has not been reaped would be shown with state Z.
    script = """
    for i in 1 2 3 4 5; do (sh -c 'echo $$; exec <&- >&-; :' &) ; done | sort >/tmp/orphans
    tries=0
    while for p in $(cat /tmp/orphans); do [ -e /proc/$p ] && break; done; [ -e /proc/$p ]; do
        tries=$((tries + 1)); [ $tries -lt 100000 ] || { echo zombies; exit 1; }
    done
    wc -l </tmp/orphans
    """
    assert sh(script).strip() == "5"


SIGNALS = ("HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "WINCH", "ALRM", "CONT")


@pytest.mark.parametrize("init", [True, False])
def test_signals_reach_the_program(init: bool) -> None:
    traps = "\n".join(f"trap 'echo {name}' {name}" for name in SIGNALS)
    with start(f"{traps}\necho ready\nwhile :; do read x; done", stdin=corten.PIPE, init=init) as container:
        assert line(container) == "ready"
        assert container.stdin is not None
        for name in SIGNALS:
            container.kill(name)
            container.stdin.write(b"\n")  # busybox runs traps when `read` is over
            assert line(container) == name


def test_signal_that_ends_the_program() -> None:
    with start("echo ready; exec sleep 1000") as container:
        assert line(container) == "ready"
        container.kill("TERM")
        result = container.wait()
    assert (result.exit_code, result.signal, result.reason) == (143, 15, "killed by SIGTERM")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGUSR1, signal.SIGPIPE])
def test_program_killed_by_a_signal_of_its_own(number: int) -> None:
    result = run(f"kill -{int(number)} $$")
    assert (result.exit_code, result.signal) == (128 + number, number)


def test_signal_mask_and_dispositions_are_the_defaults() -> None:
    found = status()
    # 32 and 33 are glibc's; posix_spawn leaves them ignored, nobody can send them by accident.
    assert int(found["SigIgn"], 16) & ~(0b11 << 31) == 0
    assert int(found["SigBlk"], 16) == 0


def test_what_the_caller_ignores_is_no_matter_of_the_program() -> None:
    """`nohup`, and the background of a script: the program hears all the same."""
    code = (
        "import sys; sys.path.insert(0, 'tests/system'); import small_root;"
        "print(small_root.sh('exec grep SigIgn /proc/self/status'))"
    )
    words = ["sh", "-c", 'trap "" HUP INT QUIT; exec "$@"', "sh", sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[1], 16) & ~(0b11 << 31) == 0


# --- which program


def test_search_path() -> None:
    assert sh("echo yes", env=["PATH=/nowhere:/bin"]).strip() == "yes"
    with pytest.raises(corten.CommandNotFound, match="sh: not found in the container on the search path /nowhere"):
        run("true", env=["PATH=/nowhere"])


def test_entrypoint() -> None:
    def said(**options: Any) -> str:
        result = corten.run(rootfs=shared(), writable="throwaway", **options)
        assert result.exit_code == 0
        return str(result.stdout)

    assert said(entrypoint="echo", argv=["a", "b"]) == "a b\n"
    assert said(entrypoint=["echo", "first"], argv=["a"]) == "first a\n"
    assert said(entrypoint='["echo", "first"]', argv=["a"]) == "first a\n"


@pytest.mark.parametrize("init", [True, False])
def test_exit_codes_of_the_engine(tmp_path: Path, init: bool) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    how = ["-v", f"{tmp_path}:/mnt:ro", f"--init={str(init).lower()}"]
    (tmp_path / "plain").write_text("text\n")
    (tmp_path / "garbage").write_bytes(b"\x00\x01\x02\x03")
    (tmp_path / "garbage").chmod(0o755)
    expected = {
        "absent": (127, "absent: not found in the container"),
        "/bin/absent": (127, "/bin/absent: not found in the container"),
        "/mnt/plain": (126, "permission denied"),
        "/mnt/plain/below": (127, "not found"),
        "/bin": (126, "it is a directory"),
        "/mnt/garbage": (126, "Exec format error"),
        "/mnt/script": (127, "interpreter"),
    }
    for name, (code, words) in expected.items():
        done = refused(*how, "--rootfs", shared(), "--writable", "throwaway", name)
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr


def test_exit_codes_of_the_program(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    for code in (0, 1, 42, 125, 126, 127, 255):
        done = command("run", "--rootfs", shared(), "--writable", "throwaway", "sh", "-c", f"exit {code}")
        assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
    done = command("run", "--rootfs", shared(), "--writable", "throwaway", "sh", "-c", "kill -USR1 $$")
    assert (done.returncode, done.stderr) == (128 + signal.SIGUSR1, "")


# --- streams

MEGABYTES = 100


@pytest.mark.parametrize("init", ["--init=true", "--init=false"])
def test_a_hundred_megabytes_through_stdin_and_stdout(init: str) -> None:
    block = os.urandom(1 << 20)
    words = [CORTEN, "run", "-i", init, "--rootfs", shared(), "--writable", "throwaway", "cat"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        pid = os.fork()
        if pid == 0:
            for _ in range(MEGABYTES):
                process.stdin.write(block)
            process.stdin.flush()
            os._exit(0)
        process.stdin.close()
        found = hashlib.sha256()
        while chunk := process.stdout.read(1 << 20):
            found.update(chunk)
        os.waitpid(pid, 0)
    assert process.returncode == 0
    assert found.digest() == hashlib.sha256(block * MEGABYTES).digest()


def test_stdin_only_when_asked_for(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    words = ["--rootfs", shared(), "--writable", "throwaway", "sh", "-c", "readlink /proc/self/fd/0; cat"]
    assert command("run", *words, stdin=None, input="text\n").stdout == "/dev/null\n"
    assert command("run", "-i", *words, stdin=None, input="text\n").stdout.endswith("text\n")


def test_reader_that_goes_away_ends_the_program() -> None:
    words = [CORTEN, "run", "--rootfs", shared(), "--writable", "throwaway", "yes"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(30) == 128 + signal.SIGPIPE
        assert process.stderr.read() == b""


def test_closed_streams_of_the_caller() -> None:
    words = f"{CORTEN} run --rootfs {shared()} --writable throwaway sh -c 'ls -l /proc/self/fd >&2; echo out'"
    done = subprocess.run(["sh", "-c", f"exec {words} <&-"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "out\n"), done.stderr
    done = subprocess.run(["sh", "-c", f"exec {words} >&-"], capture_output=True, text=True, check=False)
    assert "/dev/vda" not in done.stderr
    assert done.returncode in (0, 1)


def test_the_program_inherits_no_other_descriptor() -> None:
    open_file = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(open_file, True)
    try:
        words = [CORTEN, "run", "--rootfs", shared(), "--writable", "throwaway", "ls", "/proc/self/fd"]
        for init in ("--init=true", "--init=false"):
            done = subprocess.run(
                [*words[:2], init, *words[2:]], capture_output=True, text=True, check=True, close_fds=False
            )
            assert done.stdout.split() == ["0", "1", "2", "3"]  # 3: the directory itself
    finally:
        os.close(open_file)


# --- timeout


@pytest.mark.parametrize("pid", ["private", "host"])
def test_timeout_kills_everything(pid: str, command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    nap = f"sleep 10000{os.getpid()}"
    script = f"({nap} &); setsid sh -c '(setsid {nap} &)'; (trap '' HUP TERM; {nap}) >/dev/null & exec {nap}"
    words = ["--timeout", "300ms", "--pid", pid, "--rootfs", shared(), "--writable", "throwaway", "sh", "-c", script]
    done = command("run", *words)
    assert (done.returncode, done.stderr) == (137, "corten: killed: timeout (0.3 s)\n")
    assert not [entry for entry in Path("/proc").glob("[0-9]*/cmdline") if nap.split()[1].encode() in _read(entry)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_timeout_in_python() -> None:
    result = run("trap '' TERM INT; (sleep 1000 &); sleep 1000", timeout=0.3)
    assert (result.exit_code, result.signal, result.timed_out) == (137, 9, True)
    assert result.reason == "killed: timeout (0.3 s)"
    assert 0.3 <= result.duration < 5
    assert run("true", timeout=1000).timed_out is False
