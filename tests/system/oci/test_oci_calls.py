"""The calls of podman, conmon, containerd, CRI-O and BuildKit, word for word, and every flag of runc's command line.

docs/oci.md says which test holds which behaviour that callers rely on.
"""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
from pathlib import Path

import pytest

from oci_runtime import CORTEN_OCI, TIMEOUT, Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Make = Callable[..., Path]

SLEEP = ("sleep", "1000")
EVERY = {
    "create": "-b=. --bundle=. --console-socket=x --pidfd-socket=x --pid-file=x --no-pivot --no-new-keyring "
              "--preserve-fds=0 -f=x --config=x --no-subreaper",
    "run": "-b=. --bundle=. --console-socket=x --pidfd-socket=x --pid-file=x --no-pivot --no-new-keyring "
           "--preserve-fds=0 -d --detach --keep --no-subreaper -no-subreaper",
    "exec": "--console-socket=x --pidfd-socket=x --cwd=/ -e=A=1 --env=A=1 -t --tty -u=1 --user=1:1 -g=1 "
            "--additional-gids=1 -p=x --process=x -d --detach --pid-file=x --process-label=x --apparmor=x "
            "--no-new-privs -c=CAP_KILL --cap=CAP_KILL --preserve-fds=0 --cgroup=x --ignore-paused --no-subreaper",
    "kill": "-a --all",
    "delete": "-f --force",
    "list": "-f=json --format=json -q --quiet",
    "ps": "-f=json --format=json",
    "events": "--interval=5s --stats",
    "update": "-r=x --resources=x --blkio-weight=1 --cpu-period=1 --cpu-quota=1 --cpu-burst=1 --cpu-share=1 "
              "--cpu-rt-period=1 --cpu-rt-runtime=1 --cpuset-cpus=0 --cpuset-mems=0 --memory=1 --cpu-idle=1 "
              "--memory-reservation=1 --memory-swap=1 --pids-limit=1 --kernel-memory=1 --kernel-memory-tcp=1",
    "checkpoint": "--image-path=x --work-path=x --parent-path=x --leave-running --tcp-established "
                  "--tcp-skip-in-flight --link-remap --ext-unix-sk --shell-job --lazy-pages --status-fd=1 "
                  "--page-server=a:1 --file-locks --pre-dump --manage-cgroups-mode=soft "
                  "--empty-ns=network --auto-dedup",
    "restore": "--console-socket=x --image-path=x --work-path=x --tcp-established --ext-unix-sk --shell-job "
               "--file-locks --manage-cgroups-mode=soft -b=. --bundle=. -d --detach --pid-file=x --no-subreaper "
               "-no-subreaper --no-pivot --empty-ns=network --auto-dedup --lazy-pages --lsm-profile=selinux:x "
               "--lsm-mount-context=x --tcp-close --network-lock=x",
    "pause": "", "resume": "", "state": "", "start": "", "features": "", "spec": "-b=. --bundle=. --rootless",
}  # fmt: skip


@pytest.mark.parametrize("command", EVERY)
def test_every_flag_of_runc_is_known(oci: Runtime, command: str) -> None:
    """As one token and as two, where it has a value; asked with --help behind it, which comes to nothing else."""
    for flag in EVERY[command].split():
        name, equals, value = flag.partition("=")
        one = [f"{name}={value}"] if equals and name.startswith("--") else []
        two = [name, value] if equals else [name]
        for words in filter(None, (one, two)):
            done = oci(command, *words, "--help")
            assert (done.returncode, done.stderr) == (0, ""), words
            assert done.stdout.startswith(f"Usage: corten-oci {command}")


def test_flags_that_cannot_be_honoured_are_refused(oci: Runtime, bundle: Make, identity: str) -> None:
    oci.quietly("create", "--bundle", str(bundle(*SLEEP)), identity)
    for flag in ("--l3-cache-schema=L3:0=f", "--mem-bw-schema=MB:0=20"):
        refused = oci("update", flag, identity)
        assert (refused.returncode, "/sys/fs/resctrl" in refused.stderr) == (1, True)
    for flag in ("--apparmor=some", "--process-label=some"):
        refused = oci("exec", flag, identity, "true")
        field = "apparmorProfile" if flag.startswith("--app") else "selinuxLabel"
        assert (refused.returncode, f"process.{field}" in refused.stderr) == (255, True), refused.stderr
    for flag in ("--apparmr=x", "--fre"):
        assert oci("create", flag, identity).stderr.count("\n") == 1


def test_as_conmon_and_the_shim_create(oci: Runtime, bundle: Make, identity: str, tmp_path: Path) -> None:
    """Relative paths are of the caller's directory, and not of the bundle, which becomes ours."""
    place = bundle(*SLEEP)
    log = tmp_path / "log.json"
    words = ("--log", str(log), "--log-format", "json", "--root", str(oci.root), "create", "--bundle", place.name,
             "--pid-file", "init.pid", "--no-new-keyring", identity)  # fmt: skip
    done = oci(*words, cwd=tmp_path, capture_output=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert done.returncode == 0
    assert (tmp_path / "init.pid").read_text() == str(oci.state(identity)["pid"])
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("init.pid")) == ["init.pid"]
    assert not log.exists() or log.read_text() == "", "nothing is logged of what went well"
    oci("start", identity, check=True)
    oci("delete", "--force", identity, check=True)


def test_the_pidfd_of_the_first_process(oci: Runtime, bundle: Make, identity: str, tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "pidfd"))
        server.listen(1)
        oci.quietly("create", "--bundle", str(bundle(*SLEEP)), "--pidfd-socket", str(tmp_path / "pidfd"), identity)
        server.settimeout(TIMEOUT)
        connection, _ = server.accept()
        with connection:
            _, (fd,), _, _ = socket.recv_fds(connection, 64, 1)
    about = Path(f"/proc/self/fdinfo/{fd}").read_text()
    os.close(fd)
    assert f"Pid:\t{oci.state(identity)['pid']}\n" in about


@pytest.mark.parametrize("word", ["TERM", "SIGTERM", "term", "sigterm", "15", None])
def test_kill_takes_every_spelling(oci: Runtime, bundle: Make, identity: str, word: str | None) -> None:
    """Only TERM ends this one: the first process of a PID namespace hears nothing that it has set no trap for."""
    oci.quietly("run", "--detach", "--bundle", str(bundle("bash", "-c", "trap exit TERM; sleep 99 & wait")), identity)
    pid = oci.state(identity)["pid"]
    fd = os.pidfd_open(pid)
    try:
        while not _caught(pid) >> (signal.SIGTERM - 1) & 1:
            os.sched_yield()
        oci("kill", identity, *([word] if word else []), check=True)
        assert select.select([fd], [], [], TIMEOUT)[0]
    finally:
        os.close(fd)
    oci("delete", identity, check=True)


def _caught(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("\nSigCgt:")[2].split()[0], 16)


def test_kill_reaches_all_where_the_processes_are_the_hosts(oci: Runtime, bundle: Make, identity: str) -> None:
    def change(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"] = [one for one in config["linux"]["namespaces"] if one["type"] != "pid"]

    for words in (("kill", identity, "KILL"), ("kill", "--all", identity, "9"), ("kill", "-a", identity, "9")):
        place = bundle("sh", "-c", "sleep 1000 & sleep 1000 & wait", change=change)
        oci.quietly("run", "--detach", "--bundle", str(place), identity)
        pids = json.loads(oci("ps", "--format", "json", identity).stdout)
        while len(pids) < 3:
            pids = json.loads(oci("ps", "--format", "json", identity).stdout)
        held = [os.pidfd_open(pid) for pid in pids]
        oci(*words, check=True)
        for fd in held:
            assert select.select([fd], [], [], TIMEOUT)[0], "it lives"
            os.close(fd)
        oci("delete", "--force", identity, check=True)
        oci.clear()


def test_exec_changes_the_process_as_runc_does(oci: Runtime, runc: Runtime, bundle: Make, identity: str) -> None:
    look = "grep -E '^(Uid|Gid|Groups|CapEff|CapBnd|CapPrm|CapInh|NoNewPrivs)' /proc/self/status; echo $A; pwd"
    calls = (
        ("--cap", "CAP_NET_RAW", "--cap", "CAP_SYS_TIME"),
        ("--no-new-privs",),
        ("-u", "1000"),
        ("-u", "1000:7", "-g", "8", "-g", "9"),
        ("-e", "A=b,c", "--cwd", "/tmp"),
    )
    found = []
    for runtime in (oci, runc):
        place = bundle(*SLEEP, noNewPrivileges=False)
        runtime.quietly("run", "--detach", "--bundle", str(place), identity)
        found.append([(done := runtime("exec", *words, identity, "sh", "-c", look)).stdout + done.stderr
                      for words in calls])  # fmt: skip
        runtime("delete", "--force", identity, check=True)
    assert found[0] == found[1]
    assert len(set(found[0])) == len(calls)


def test_exec_in_a_paused_container(oci: Runtime, bundle: Make, identity: str) -> None:
    oci.quietly("run", "--detach", "--bundle", str(bundle(*SLEEP)), identity)
    oci("pause", identity, check=True)
    command = [CORTEN_OCI, "--root", str(oci.root), "exec", "--ignore-paused", identity, "echo", "on"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert oci.state(identity)["status"] == "paused"
        oci("resume", identity, check=True)
        assert process.communicate(timeout=TIMEOUT)[0] == "on\n"
    assert process.returncode == 0
    oci("delete", "--force", identity, check=True)


def test_exec_below_the_containers_group(oci: Runtime, bundle: Make, identity: str) -> None:
    oci.quietly("run", "--detach", "--bundle", str(bundle(*SLEEP)), identity)
    pid = oci.state(identity)["pid"]
    own = dict(line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    made = Path(f"/sys/fs/cgroup/pids{own['pids']}/inner")
    made.mkdir()
    try:
        done = oci("exec", "--cgroup", "pids:/inner", identity, "cat", "/proc/self/cgroup", check=True)
        there = dict(line.split(":", 2)[1:] for line in done.stdout.splitlines())
        assert there["pids"] == own["pids"] + "/inner"
        assert {key: path for key, path in there.items() if key != "pids"} == {
            key: path for key, path in own.items() if key != "pids"
        }
        refused = oci("exec", "--cgroup", "pids:/../..", identity, "true")
        assert refused.returncode == 255
    finally:
        made.rmdir()
    oci("delete", "--force", identity, check=True)


def test_exec_in_the_foreground_with_a_terminal(oci: Runtime, bundle: Make, identity: str, tmp_path: Path) -> None:
    """As CRI-O calls it: without --detach, its streams a terminal."""
    oci.quietly("run", "--detach", "--bundle", str(bundle(*SLEEP)), identity)
    process = {"args": ["sh", "-c", "tty; stty size; exit 5"], "cwd": "/", "env": ["PATH=/usr/bin"], "terminal": True,
               "user": {"uid": 0, "gid": 0}}  # fmt: skip
    (tmp_path / "process.json").write_text(json.dumps(process))
    master, slave = pty.openpty()
    words = ("exec", "--process", str(tmp_path / "process.json"), identity)
    done = oci(*words, capture_output=False, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    seen = os.read(master, 4096)
    os.close(master)
    assert done.returncode == 5
    assert seen.startswith(b"/dev/pts/"), seen
    oci("delete", "--force", identity, check=True)


def test_run_that_is_kept(oci: Runtime, bundle: Make, identity: str) -> None:
    """As BuildKit calls it."""
    place = bundle("sh", "-c", "cat; exit 3")
    done = oci("run", "--bundle", str(place), "--keep", identity, stdin=None, input="in")
    assert (done.stdout, done.returncode) == ("in", 3)
    assert oci.state(identity)["status"] == "stopped"
    refused = oci("kill", identity, "9")
    assert (refused.returncode, "container not running" in refused.stderr) == (1, True)
    oci("delete", identity, check=True)


def test_ps_as_a_table(oci: Runtime, bundle: Make, identity: str) -> None:
    oci.quietly("run", "--detach", "--bundle", str(bundle(*SLEEP)), identity)
    pid = str(oci.state(identity)["pid"])
    titles, row = oci("ps", identity, check=True).stdout.splitlines()
    assert "PID" in titles
    assert pid in row.split()
    lines = oci("ps", "--format", "table", identity, "-o", "pid,comm", check=True).stdout.splitlines()
    assert [line.split() for line in lines] == [["PID", "COMMAND"], [pid, "sleep"]]
    oci("delete", "--force", identity, check=True)


UPDATES: dict[str, tuple[tuple[str, ...], str, str]] = {
    # the flags, and the control file they change
    "cpu share": (("--cpu-share", "300"), "cpu", "cpu.shares"),
    "cpu quota": (("--cpu-period", "50000", "--cpu-quota", "20000"), "cpu", "cpu.cfs_quota_us"),
    "cpus": (("--cpuset-cpus", "0"), "cpuset", "cpuset.cpus"),
    "memory nodes": (("--cpuset-mems", "0"), "cpuset", "cpuset.mems"),
    "memory": (("--memory", "40M"), "memory", "memory.limit_in_bytes"),
    "reservation": (("--memory-reservation", "20m"), "memory", "memory.soft_limit_in_bytes"),
    "swap": (("--memory", "40M", "--memory-swap", "50M"), "memory", "memory.memsw.limit_in_bytes"),
    "no limit": (("--memory", "-1", "--memory-swap", "-1"), "memory", "memory.limit_in_bytes"),
    "processes": (("--pids-limit", "77"), "pids", "pids.max"),
    "hidden": (("--kernel-memory", "1", "--kernel-memory-tcp", "1", "--pids-limit", "78"), "pids", "pids.max"),
}


def test_every_limit_can_be_updated(oci: Runtime, runc: Runtime, bundle: Make, identity: str) -> None:
    found = []
    for runtime in (oci, runc):
        runtime.quietly("run", "--detach", "--bundle", str(bundle(*SLEEP)), identity)
        own = {}
        for line in Path(f"/proc/{runtime.state(identity)['pid']}/cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            own.update(dict.fromkeys(names.split(","), path))
        seen = {}
        for name, (words, controller, file) in UPDATES.items():
            done = runtime("update", *words, identity)
            assert done.returncode == 0, (runtime.program, words, done.stderr)
            seen[name] = Path(f"/sys/fs/cgroup/{controller}{own[controller]}/{file}").read_text()
        runtime("delete", "--force", identity, check=True)
        found.append(seen)
    assert found[0] == found[1]


def test_update_says_which_file_the_kernel_has_not(oci: Runtime, bundle: Make, identity: str) -> None:
    """Real-time CPU time, burst, idle and disk weight are not in every kernel; none of them is passed over."""
    oci.quietly("run", "--detach", "--bundle", str(bundle(*SLEEP)), identity)
    group = "/sys/fs/cgroup/cpu" + next(
        line.split(":", 2)[2] for line in Path(f"/proc/{oci.state(identity)['pid']}/cgroup").read_text().splitlines()
        if "cpu" in line.split(":")[1].split(",")
    )  # fmt: skip
    for words, file, value in (
        (("--cpu-quota", "50000", "--cpu-burst", "1000"), f"{group}/cpu.cfs_burst_us", "1000"),
        (("--cpu-idle", "1"), f"{group}/cpu.idle", "1"),
        (("--cpu-rt-runtime", "1000"), f"{group}/cpu.rt_runtime_us", "1000"),
        (("--blkio-weight", "100"), f"{group.replace('/cpu/', '/blkio/')}/blkio.bfq.weight", "100"),
    ):
        done = oci("update", *words, identity)
        if os.path.exists(file):
            assert done.returncode == 0, (words, done.stderr)
            assert Path(file).read_text().split()[-1] == value
        else:
            assert done.returncode == 1, words
            assert done.stderr.count("\n") == 1
    oci("delete", "--force", identity, check=True)


def test_checkpoint_flags_reach_criu(oci: Runtime, bundle: Make, identity: str, tmp_path: Path) -> None:
    """podman's and containerd's calls: each ends in criu's own words, or well; the container lives on."""
    oci.quietly("run", "--detach", "--bundle", str(bundle(*SLEEP)), identity)
    common = ("--image-path", str(tmp_path / "image"), "--work-path", str(tmp_path), "--tcp-established",
              "--file-locks", "--ext-unix-sk", "--shell-job", "--manage-cgroups-mode", "soft")  # fmt: skip
    for words in (("--leave-running",), ("--pre-dump",)):
        done = oci("checkpoint", *common, *words, identity)
        assert done.returncode == 0 or "criu" in done.stderr, done.stderr
        assert oci.state(identity)["status"] == "running"
    oci("delete", "--force", identity, check=True)


def test_features_have_every_field_of_the_specification(oci: Runtime, runc: Runtime) -> None:
    found = json.loads(oci("features", check=True).stdout)
    theirs = json.loads(runc("features", check=True).stdout)
    for name in ("hooks", "mountOptions"):
        assert set(theirs[name]) <= set(found[name])
    for name in ("namespaces", "capabilities"):
        assert set(theirs["linux"][name]) <= set(found["linux"][name])
    for name in ("actions", "operators", "archs"):
        assert set(theirs["linux"]["seccomp"][name]) <= set(found["linux"]["seccomp"][name])
    assert set(found) == {
        "ociVersionMin", "ociVersionMax", "hooks", "mountOptions", "linux", "annotations",
        "potentiallyUnsafeConfigAnnotations",
    }  # fmt: skip
    assert found["hooks"] == [
        "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"
    ]  # fmt: skip
    linux = found["linux"]
    assert set(linux) == {
        "namespaces", "capabilities", "cgroup", "seccomp", "apparmor", "selinux", "intelRdt", "memoryPolicy",
        "mountExtensions", "netDevices",
    }  # fmt: skip
    assert set(linux["namespaces"]) == {"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"}
    assert set(linux["cgroup"]) == {"v1", "v2", "systemd", "systemdUser", "rdma"}
    assert set(linux["seccomp"]) == {"enabled", "actions", "operators", "archs", "knownFlags", "supportedFlags"}
    assert set(linux["intelRdt"]) == {"enabled", "schemata", "monitoring"}
    assert set(linux["memoryPolicy"]) == {"modes", "flags"}
    for name, value in (("SCMP_ACT_NOTIFY", "actions"), ("SCMP_CMP_MASKED_EQ", "operators"),
                        ("SCMP_ARCH_AARCH64", "archs"), ("SECCOMP_FILTER_FLAG_LOG", "supportedFlags")):  # fmt: skip
        assert name in linux["seccomp"][value]
    assert {"rro", "rrw", "rnosuid", "idmap", "ridmap", "tmpcopyup", "rbind", "rprivate"} <= set(found["mountOptions"])
    assert set(linux["capabilities"]) >= {"CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"}
