"""The life of a container, command by command, as callers use them."""

from __future__ import annotations

import array
import json
import os
import socket
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


def test_create_start_kill_delete(oci: Runtime, bundle: Make, identity: str, tmp_path: Path) -> None:
    place = bundle("sh", "-c", "touch /tmp/started; exec sleep 1000")
    pid_file = tmp_path / "pid"
    oci.quietly("create", "--bundle", str(place), "--pid-file", str(pid_file), identity)
    pid = int(pid_file.read_text())
    assert pid_file.read_text() == str(pid)
    state = oci.state(identity)
    assert (state["status"], state["pid"], state["id"], state["bundle"]) == ("created", pid, identity, str(place))
    # The file system is there, the program is not.
    assert Path(f"/proc/{pid}/root/usr/bin").is_dir()
    assert "sleep" not in Path(f"/proc/{pid}/cmdline").read_text()
    oci("start", identity, check=True)
    assert oci.state(identity)["status"] == "running"
    while (name := Path(f"/proc/{pid}/comm").read_text().strip()).startswith("memfd:"):
        os.sched_yield()  # what executes the program is a program itself
    assert name in ("sh", "sleep")
    refused = oci("start", identity)
    assert (refused.returncode, "already running" in refused.stderr) == (1, True)
    refused = oci("delete", identity)
    assert refused.returncode == 1
    assert f"cannot delete container {identity} that is not stopped: running" in refused.stderr
    oci("kill", identity, "KILL", check=True)
    await_end(oci, identity)
    assert oci.state(identity)["pid"] == 0
    refused = oci("kill", identity, "KILL")
    assert (refused.returncode, "container not running" in refused.stderr) == (1, True)
    oci("kill", "--all", identity, "KILL", check=True)
    oci("delete", identity, check=True)
    refused = oci("state", identity)
    assert (refused.returncode, "does not exist" in refused.stderr) == (1, True)
    oci("delete", "--force", identity, check=True)


def await_end(oci: Runtime, identity: str) -> None:
    """Wait for the container's first process as a caller would: by pidfd."""
    state = oci.state(identity)
    if state["pid"]:
        try:
            fd = os.pidfd_open(state["pid"])
        except ProcessLookupError:
            return
        import select

        assert select.select([fd], [], [], TIMEOUT)[0]
        os.close(fd)
    assert oci.state(identity)["status"] == "stopped"


def test_init_belongs_to_the_callers_subreaper(oci: Runtime, bundle: Make, identity: str, tmp_path: Path) -> None:
    place = bundle(*SLEEP)
    # As conmon does: a subreaper calls `create`, and the container's first process becomes its child.
    script = (
        "import ctypes, os, subprocess, sys\n"
        "ctypes.CDLL(None).prctl(36, 1)\n"
        "subprocess.run(sys.argv[1:], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,\n"
        "               stderr=subprocess.DEVNULL)\n"
        "print(open('/proc/thread-self/children').read(), flush=True)\n"
        "print(os.wait()[1], flush=True)\n"
    )
    command = [CORTEN_OCI, "--root", str(oci.root), "create", "--bundle", str(place), identity]
    with subprocess.Popen(["python3", "-c", script, *command], stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout is not None
        children = caller.stdout.readline().split()
        assert children == [str(oci.state(identity)["pid"])]
        oci("kill", identity, "KILL", check=True)
        assert caller.stdout.readline().strip() == "9"
    oci("delete", identity, check=True)


def test_stdio_is_passed_through_and_nothing_else(oci: Runtime, bundle: Make, identity: str) -> None:
    place = bundle("sh", "-c", "cat; ls /proc/self/fd >&2; exit 7")
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        done = oci("run", "--bundle", str(place), identity, input="hello", stdin=None, close_fds=False)
    finally:
        os.close(reader)
        os.close(writer)
    assert (done.stdout, done.stderr.split(), done.returncode) == ("hello", ["0", "1", "2", "3"], 7)


def test_preserved_descriptors(oci: Runtime, bundle: Make, identity: str) -> None:
    place = bundle("sh", "-c", "cat <&3; ls /proc/self/fd")
    reader, writer = os.pipe()
    os.write(writer, b"through\n")
    os.close(writer)
    command = f"exec {CORTEN_OCI} --root {oci.root} run --preserve-fds 1 --bundle {place} {identity} 3<&{reader}"
    done = subprocess.run(
        ["bash", "-c", command], pass_fds=(reader,), capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    os.close(reader)
    assert done.stdout.split() == ["through", "0", "1", "2", "3", "4"], done.stderr
    # Sockets of an activation too, if they are for us; runc tells the program in the same words.
    place = bundle("sh", "-c", "cat <&3; env | grep LISTEN")
    for mine, wanted in (("$$", ["text", "LISTEN_FDS=1", "LISTEN_PID=1"]), ("1", [])):
        reader, writer = os.pipe()
        os.write(writer, b"text\n")
        os.close(writer)
        run = f"exec {CORTEN_OCI} --root {oci.root} run --bundle {place} {identity} 3<&{reader}"
        words = ["bash", "-c", f"export LISTEN_FDS=1 LISTEN_PID={mine}; {run}"]
        done = subprocess.run(words, pass_fds=[reader], capture_output=True, text=True, check=False)
        os.close(reader)
        assert done.stdout.split() == wanted
    refused = oci("run", "--preserve-fds", "9", "--bundle", str(place), identity)
    assert (refused.returncode, "--preserve-fds: descriptor" in refused.stderr) == (1, True)


def test_exit_codes(oci: Runtime, bundle: Make, identity: str) -> None:
    for command, code in (
        ("exit 0", 0),
        ("exit 42", 42),
        ("kill -9 $$", 0),
        ("exec sh -c 'ulimit -c 0; kill -SEGV $$'", 0),
    ):
        # The first process of a PID namespace cannot kill itself; a child of it can.
        script = command if command.startswith("exit") else f"({command}) & wait $!; exit $?"
        done = oci("run", "--bundle", str(bundle("sh", "-c", script)), identity)
        assert done.returncode == (code or done.returncode), done.stderr
    done = oci("run", "--bundle", str(bundle("absent")), identity)
    assert (done.returncode, "executable file not found in $PATH" in done.stderr) == (1, True)
    done = oci("run", "--bundle", str(bundle("/etc/passwd")), identity)
    assert (done.returncode, "permission denied" in done.stderr.lower()) == (1, True)
    assert not os.listdir(oci.root)


def receive_descriptor(server: socket.socket) -> tuple[bytes, int]:
    """The payload and descriptor that a runtime sends to a console or pidfd socket."""
    server.settimeout(TIMEOUT)
    connection, _ = server.accept()
    with connection:
        data, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
    found = array.array("i")
    found.frombytes(ancillary[0][2])
    return data, found[0]


def listening(path: Path) -> socket.socket:
    """A stream socket that waits for one connection."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(path))
    server.listen(1)
    return server


def read_until(fd: int, wanted: bytes) -> bytes:
    """What a terminal says, up to some words."""
    import select

    seen = b""
    while wanted not in seen:
        assert select.select([fd], [], [], TIMEOUT)[0], seen
        seen += os.read(fd, 4096)
    return seen


def test_terminal_by_console_socket(oci: Runtime, bundle: Make, identity: str, tmp_path: Path) -> None:
    size = {"height": 33, "width": 99}
    place = bundle("sh", "-c", "tty; stty size; read line; echo got $line", terminal=True, consoleSize=size)
    with listening(tmp_path / "console") as server:
        oci.quietly("create", "--bundle", str(place), "--console-socket", str(tmp_path / "console"), identity)
        name, master = receive_descriptor(server)
    assert name == b"/dev/pts/0"
    oci("start", identity, check=True)
    assert b"/dev/pts/0\r\n33 99\r\n" in read_until(master, b"99\r\n")
    os.write(master, b"word\n")
    read_until(master, b"got word")
    os.close(master)
    await_end(oci, identity)
    oci("delete", identity, check=True)


def end_ours(pid: int) -> None:
    """End a process that fell to us: until it is reaped, the kernel keeps the PID namespace and its init."""
    os.kill(pid, 9)
    os.waitpid(pid, 0)


def test_exec(oci: Runtime, bundle: Make, identity: str, tmp_path: Path) -> None:
    oci.quietly("run", "--detach", "--bundle", str(bundle(*SLEEP)), identity)
    done = oci(
        "exec", identity, "sh", "-c", "hostname; readlink /proc/self/ns/net /proc/self/ns/mnt; cat /proc/self/cgroup"
    )
    pid = oci.state(identity)["pid"]
    inside = [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("net", "mnt")]
    assert done.stdout.split()[:3] == ["inside", *inside]
    assert done.stdout.split("\n", 3)[3] == Path(f"/proc/{pid}/cgroup").read_text()
    # Options end at the id: what follows is the command's own.
    assert oci("exec", identity, "echo", "--help", "-d", "--pid-file").stdout == "--help -d --pid-file\n"
    assert oci("exec", identity, "sh", "-c", "exit 9").returncode == 9
    assert oci("exec", identity, "sh", "-c", "kill -9 $$").returncode == 137
    assert oci("exec", identity, "absent").returncode == 255
    done = oci("exec", "--env", "A=1,2", "--user", "1000:1000", "-g", "7", "--cwd", "/tmp", identity, "sh", "-c",
               "echo $A; id -u; id -g; id -G; pwd; echo $HOME")  # fmt: skip
    assert done.stdout.split("\n")[:-1] == ["1,2", "1000", "1000", "1000 7", "/tmp", "/home/someone"]
    refused = oci("exec", "absent", "true")
    assert (refused.returncode, "does not exist" in refused.stderr) == (255, True)
    process = tmp_path / "process.json"
    process.write_text(json.dumps({"args": ["sleep", "1000"], "cwd": "/", "env": ["PATH=/usr/bin"]}))
    oci.quietly("exec", "--process", str(process), "--detach", "--pid-file", str(tmp_path / "pid"), identity)
    extra = int((tmp_path / "pid").read_text())
    assert Path(f"/proc/{extra}/cgroup").read_text() == Path(f"/proc/{pid}/cgroup").read_text()
    assert json.loads(oci("ps", "--format", "json", identity).stdout) == sorted([pid, extra])
    end_ours(extra)
    oci("delete", "--force", identity, check=True)


def test_exec_with_a_terminal(oci: Runtime, bundle: Make, identity: str, tmp_path: Path) -> None:
    oci.quietly("run", "--detach", "--bundle", str(bundle(*SLEEP)), identity)
    with listening(tmp_path / "console") as server:
        oci.quietly("exec", "--tty", "--detach", "--console-socket", str(tmp_path / "console"), identity, "tty")
        name, master = receive_descriptor(server)
    assert name.startswith(b"/dev/pts/")
    read_until(master, name)
    os.close(master)
    os.wait()  # it fell to us, see end_ours
    with listening(tmp_path / "pidfd") as server:
        oci.quietly("exec", "--detach", "--pidfd-socket", str(tmp_path / "pidfd"), identity, *SLEEP)
        _, pidfd = receive_descriptor(server)
    fields = dict(line.split(":\t") for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines())
    assert "sleep" in Path(f"/proc/{fields['Pid'].strip()}/comm").read_text()
    os.close(pidfd)
    end_ours(int(fields["Pid"]))
    oci("delete", "--force", identity, check=True)


def test_pause_resume_update_events(oci: Runtime, bundle: Make, identity: str) -> None:
    oci.quietly("run", "--detach", "--bundle", str(bundle(*SLEEP)), identity)
    oci("pause", identity, check=True)
    assert oci.state(identity)["status"] == "paused"
    assert "cannot exec in a paused container" in oci("exec", identity, "true").stderr
    assert oci("pause", identity).returncode == 1
    oci("resume", identity, check=True)
    assert oci.state(identity)["status"] == "running"
    assert "container not paused" in oci("resume", identity).stderr
    oci(
        "update",
        "--memory",
        "64M",
        "--pids-limit",
        "40",
        "--cpu-quota",
        "50000",
        "--cpu-period",
        "100000",
        identity,
        check=True,
    )
    data = json.loads(oci("events", "--stats", identity, check=True).stdout)
    assert (data["type"], data["id"]) == ("stats", identity)
    assert (data["data"]["memory"]["usage"]["limit"], data["data"]["pids"]["limit"]) == (64 << 20, 40)
    oci("update", "--resources", "-", identity, check=True, stdin=None, input='{"memory": {"limit": 33554432}}')
    data = json.loads(oci("events", "--stats", identity, check=True).stdout)
    assert data["data"]["memory"]["usage"]["limit"] == 32 << 20
    oci("pause", identity, check=True)
    oci("delete", "--force", identity, check=True)  # also when paused


def test_events_tell_of_memory_running_out(oci: Runtime, bundle: Make, identity: str) -> None:
    def limit(config: dict[str, Any]) -> None:
        config["linux"]["resources"] = {"memory": {"limit": 32 << 20, "swap": 32 << 20}}

    eater = "read go; (exec python3 -c 'bytearray(100 << 20)'); read end"
    place = bundle("sh", "-c", eater, change=limit)
    reader, writer = os.pipe()
    done = oci("run", "--detach", "--bundle", str(place), identity, capture_output=False, stdin=reader,
               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    assert done.returncode == 0
    os.close(reader)
    command = [CORTEN_OCI, "--root", str(oci.root), "events", "--interval", "100ms", identity]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as events:
        assert events.stdout is not None
        assert json.loads(events.stdout.readline())["type"] == "stats"  # it watches
        os.write(writer, b"go\n")
        kinds = []
        while "oom" not in kinds:
            kinds.append(json.loads(events.stdout.readline())["type"])
        os.close(writer)
        events.stdout.read()
    assert events.returncode == 0  # it ends with the container
    oci("delete", "--force", identity, check=True)


def test_kill_at_any_point_leaves_what_delete_understands(oci: Runtime, bundle: Make, identity: str) -> None:
    """`create` is killed after a growing time; then `state`, `delete --force` and a new `create` behave."""
    place = bundle(*SLEEP)
    for milliseconds in range(0, 120, 8):
        with subprocess.Popen(
            [CORTEN_OCI, "--root", str(oci.root), "create", "--bundle", str(place), identity],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as creating:  # fmt: skip
            try:
                creating.wait(milliseconds / 1000)
            except subprocess.TimeoutExpired:
                creating.kill()
        found = oci("state", identity)
        if found.returncode == 0:
            assert json.loads(found.stdout)["status"] in ("created", "stopped")
        else:
            assert "does not exist" in found.stderr
        oci("delete", "--force", identity, check=True)
        assert oci("state", identity).returncode == 1
    oci.quietly("create", "--bundle", str(place), identity)
    oci("delete", identity, check=True)


def test_a_reused_pid_is_not_life(oci: Runtime, bundle: Make, identity: str) -> None:
    oci.quietly("create", "--bundle", str(bundle(*SLEEP)), identity)
    file = oci.root / identity / "state.json"
    stored = json.loads(file.read_text())
    oci("kill", identity, "KILL", check=True)
    stored["pid"] = os.getpid()  # as if the kernel had given the number to us
    file.write_text(json.dumps(stored))
    assert oci.state(identity)["status"] == "stopped"
    assert "container not running" in oci("kill", identity, "KILL").stderr
    oci("delete", "--force", identity, check=True)


@pytest.mark.parametrize("format_", ["json", "text"])
def test_errors_in_the_log(oci: Runtime, bundle: Make, identity: str, tmp_path: Path, format_: str) -> None:
    log = tmp_path / "log"
    done = oci("--log", str(log), "--log-format", format_, "run", "--bundle", str(bundle("absent")), identity)
    assert done.returncode == 1
    lines = log.read_text().splitlines()
    assert len(lines) == 1
    if format_ == "json":
        entry = json.loads(lines[0])
        assert sorted(entry) == ["level", "msg", "time"]
        assert entry["level"] == "error"
        assert entry["msg"] in done.stderr
    else:
        assert "level=error" in lines[0]


def test_list_and_parsing(oci: Runtime, bundle: Make, identity: str) -> None:
    assert json.loads(oci("list", "--format", "json", check=True).stdout) is None
    oci.quietly("create", "--bundle", str(bundle(*SLEEP)), identity)
    found = json.loads(oci("list", "--format=json", check=True).stdout)
    assert [(one["id"], one["status"], one["owner"]) for one in found] == [(identity, "created", "root")]
    table = oci("list", check=True).stdout.splitlines()
    assert table[0].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert oci("list", "-q", check=True).stdout == f"{identity}\n"
    oci("--root", str(oci.root), "--debug", "--systemd-cgroup=false", "delete", "-force", identity, check=True)


def test_probes_of_callers(oci: Runtime) -> None:
    assert oci("--version", check=True).stdout.startswith("runc version ")
    assert oci("checkpoint", "--help", check=True).returncode == 0
    assert "flag needs an argument" in oci("restore", "--lsm-mount-context").stderr
    features = json.loads(oci("features", check=True).stdout)
    assert {"rro", "ro", "rbind", "idmap"} <= set(features["mountOptions"])
    assert oci("--root", "/", "list").returncode == 1
