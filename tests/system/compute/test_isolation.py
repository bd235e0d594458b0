"""What the fresh mode promises: nothing of one call is there for the next; and what calls try against their makers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import corten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SECRET = "a-secret-of-the-caller"


def leave_traces() -> str:
    """Leave as much as a process can."""
    import builtins
    import contextlib
    import random
    import sys

    for place in ("/tmp/trace", "/dev/shm/trace", "/run/trace", "/root/trace", "/var/tmp/trace"):
        with contextlib.suppress(OSError):
            Path(place).write_text("here")
    os.environ["TRACE"] = "here"
    builtins.trace = "here"  # type: ignore[attr-defined]
    sys.modules["json"].trace = "here"  # type: ignore[attr-defined]
    random.seed(1)
    os.umask(0)
    os.open("/dev/null", os.O_RDONLY)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("\0trace")
    listener.listen()
    server = socket.socket()
    server.bind(("127.0.0.1", 7777))
    server.listen()
    if os.fork() == 0:
        os.setsid()
        while True:
            time.sleep(1000)
    _queue("create")
    return "left"


def _queue(what: str) -> bool:
    """A System V message queue, by the C library: whether there is one of this key."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.msgget(4711, 0o1000 | 0o666 if what == "create" else 0) >= 0)


def look_for_traces() -> dict[str, Any]:
    import builtins
    import random
    import sys

    def connects(family: int, address: Any) -> bool:
        with socket.socket(family) as sock:
            return sock.connect_ex(address) == 0

    places = ("/tmp", "/dev/shm", "/run", "/root", "/var/tmp")
    return {
        "files": [place for place in places if os.path.exists(f"{place}/trace")],
        "environment": os.environ.get("TRACE"),
        "memory": [hasattr(builtins, "trace"), hasattr(sys.modules["json"], "trace")],
        "random": random.random() == 0.13436424411240122,
        "umask": os.umask(0o22),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "abstract socket": connects(socket.AF_UNIX, "\0trace"),
        "port": connects(socket.AF_INET, ("127.0.0.1", 7777)),
        "processes": [pid for pid in os.listdir("/proc") if pid.isdigit()],
        "queue": _queue("look"),
    }


def test_nothing_of_one_call_is_visible_to_the_next() -> None:
    @corten.function(imports=["json", "random"], cpus=1)
    def act(leave: bool) -> Any:
        return leave_traces() if leave else look_for_traces()

    before = act.remote(False)
    assert act.remote(True) == "left"
    after = act.remote(False)
    assert after == before
    assert after == {
        "files": [], "environment": None, "memory": [False, False], "random": False, "umask": 0o22,
        "descriptors": before["descriptors"], "abstract socket": False, "port": False, "processes": ["1", "2"],
        "queue": False,
    }  # fmt: skip
    assert before["descriptors"] <= 6  # three streams, the call's socket, the directory being listed


def test_the_traces_would_be_seen() -> None:
    """In a reused container they are: so the test above can fail."""

    @corten.function(imports=["json", "random"], reuse=True)
    def act(leave: bool) -> Any:
        return leave_traces() if leave else look_for_traces()

    pool = corten.Pool(act, max=1)
    with pool:
        before = pool.remote(False)
        pool.remote(True)
        after = pool.remote(False)
    differing = {name for name in before if before[name] != after[name]}
    assert differing >= {
        "files", "environment", "memory", "umask", "descriptors", "abstract socket", "port", "processes", "queue",
    }  # fmt: skip


def test_random_numbers_differ_between_calls() -> None:
    @corten.function(imports=["numpy.random", "random", "uuid", "ssl", "secrets"])
    def draw() -> tuple[Any, ...]:
        import random
        import secrets
        import ssl
        import uuid

        import numpy as np

        return (random.random(), float(np.random.rand()), str(uuid.uuid4()), ssl.RAND_bytes(8), secrets.token_hex(8))

    drawn = [draw.remote() for _ in range(4)]
    for column in zip(*drawn, strict=True):
        assert len(set(column)) == 4, column


def test_limits_rights_and_filter_are_those_of_any_container() -> None:
    """The same questions asked by a program that `corten run` starts, and by a call."""
    question = (
        "import os\n"
        "fields = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())\n"
        "found = {k: fields[k].strip() for k in ('CapEff', 'CapPrm', 'CapBnd', 'CapInh', 'CapAmb', 'NoNewPrivs',"
        " 'Seccomp', 'Uid', 'Gid', 'Groups')}\n"
        "found['limits'] = open('/proc/self/limits').read()\n"
        "found['cgroup'] = open('/proc/self/cgroup').read()\n"
        "found['mounts'] = sorted(line.split()[4:6] + line.split(' - ')[1].split()[:1]"
        " for line in open('/proc/self/mountinfo'))\n"
        "found['cwd'] = os.getcwd()\n"
        "found['score'] = open('/proc/self/oom_score_adj').read()\n"
    )
    options: dict[str, Any] = {
        "memory": "200m", "cpus": 1, "pids": 50, "ulimits": ["nofile=100:100"], "oom_score_adj": 500,
        "cap_drop": ["CHOWN"], "writable": "tmpfs",
    }  # fmt: skip
    import json

    result = corten.run("host", [sys.executable, "-c", question + "import json; print(json.dumps(found))"], **options)
    program = json.loads(result.stdout)

    def ask() -> Any:
        names: dict[str, Any] = {}
        exec(question, names)
        return names["found"]

    call = json.loads(json.dumps(corten.function(**options)(ask).remote()))
    program["cgroup"] = call["cgroup"] = None if "corten-" not in program["cgroup"] else "of its own"
    for name, value in program.items():
        assert call[name] == value, name


def test_a_call_cannot_reach_the_zygote_or_the_host(home: Path) -> None:
    secret = home / "secret"
    secret.write_text(SECRET)
    os.environ["CORTEN_TEST_SECRET"] = SECRET
    try:

        @corten.function
        def attack() -> dict[str, Any]:
            found: dict[str, Any] = {"processes": [pid for pid in os.listdir("/proc") if pid.isdigit()]}
            found["environ"] = Path("/proc/self/environ").read_bytes().decode(errors="replace")
            # All of our memory: what the zygote holds is here, too.
            hits = 0
            needle = "-".join(["a", "secret", "of", "the", "caller"]).encode()
            for line in Path("/proc/self/maps").read_text().splitlines():
                span, rights, *_ = line.split()
                if "r" not in rights or "[v" in line:
                    continue
                start, end = (int(number, 16) for number in span.split("-"))
                try:
                    with open("/proc/self/mem", "rb") as memory:
                        memory.seek(start)
                        hits += memory.read(end - start).count(needle)
                except OSError:
                    continue
            found["hits"] = hits
            try:
                open("/proc/self/exe", "r+b").close()
                found["exe"] = "open for writing"
            except OSError as error:
                found["exe"] = error.errno
            os.kill(1, signal.SIGKILL)  # not heard: it is the init of a PID namespace
            try:
                open("/proc/1/mem", "rb").close()
                found["init"] = "open"
            except OSError as error:
                found["init"] = error.errno
            found["link"] = os.readlink("/proc/self/exe")
            return found

        found = attack.remote()
    finally:
        del os.environ["CORTEN_TEST_SECRET"]
    assert found["processes"] == ["1", "2"]
    assert SECRET not in found["environ"]
    assert found["hits"] <= 1  # the needle itself
    assert isinstance(found["exe"], int)
    assert isinstance(found["init"], int)
    assert found["link"].startswith("/memfd:corten:python")


class _Evil:
    """Unpickling it runs a command where that happens."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def test_a_malicious_pickle_does_not_run_code_in_the_parent(tmp_path: Path) -> None:
    mark = tmp_path / "was-here"

    @corten.function
    def evil(how: str) -> Any:
        if how == "result":
            return _Evil(str(mark))
        if how == "argument":
            raise ValueError(_Evil(str(mark)))
        error = RuntimeError("x")
        error.payload = _Evil(str(mark))  # type: ignore[attr-defined]
        raise error

    with pytest.raises(corten.InvalidInput, match="untrusted code may not send"):
        evil.remote("result")
    with pytest.raises(ValueError, match="_Evil"):
        evil.remote("argument")
    with pytest.raises(RuntimeError):
        evil.remote("state")
    assert not mark.exists()
    # The attack works where the function is said to be trusted: so the test can fail.
    evil.with_options(trusted=True).remote("result")
    assert mark.exists()


def _forge(data: bytes) -> Any:
    """Write bytes of one's own to the socket of the call."""
    import stat

    for name in os.listdir("/proc/self/fd"):
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                socket.socket(fileno=os.dup(int(name))).send(data)
        except OSError:
            continue
    return "went on"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"x", b"R" + b"\0" * 100, b"R\0\xff\xff\xff\xff" + b"\xff" * 12, b"Q" * 5000,
        b"R\0\0\0\0\0" + (12345).to_bytes(4, "little") + bytes(8),
    ],
)  # fmt: skip
def test_forged_messages_fail_the_call_and_nothing_else(data: bytes) -> None:
    function = corten.function(_forge)
    call = function.spawn(data)
    try:
        assert call.get(30) == "went on"
    except corten.Error as error:
        assert "\n" not in str(error)
    assert corten.function(lambda: "others are well").remote() == "others are well"


def test_untrusted_snippets_each_end_with_their_reason_while_others_finish() -> None:
    snippets = {
        "fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        "memory": "x = bytearray(1 << 30)",
        "disk": "f = open('/tmp/fill', 'wb')\nwhile True: f.write(b'x' * (1 << 20))",
        "sleep": "import time; time.sleep(10**6)",
        "secrets": "answer = open('/etc/shadow').read()",
        "well": "answer = sum(range(10))",
    }

    @corten.function(memory="64m", pids=20, timeout=5, cpus=0.5)
    def snippet(code: str) -> Any:
        names: dict[str, Any] = {}
        exec(code, names)
        return names.get("answer")

    calls = {name: snippet.spawn(code) for name, code in snippets.items()}
    ends: dict[str, Any] = {}
    for name, call in calls.items():
        try:
            ends[name] = call.get(120)
        except Exception as error:
            ends[name] = error
    assert ends["well"] == 45
    assert isinstance(ends["fork bomb"], (corten.Timeout, corten.OutOfMemory)), ends["fork bomb"]
    assert isinstance(ends["memory"], (corten.OutOfMemory, MemoryError))
    assert isinstance(ends["disk"], (corten.OutOfMemory, OSError)), ends["disk"]
    assert isinstance(ends["sleep"], corten.Timeout)
    assert isinstance(ends["secrets"], (PermissionError, FileNotFoundError)) or ends["secrets"] == ""
    assert snippet.remote("answer = 1") == 1


PARENT = """
import sys, os, time, corten
@corten.function(memory="64m")
def forever():
    print("in", flush=True)
    time.sleep(1000)
call = forever.spawn()
next(call.lines())
print("running", flush=True)
{rest}
"""


@pytest.mark.parametrize("how", ["kill -9", "SIGTERM", "Ctrl-C", "exit"])
def test_a_dying_parent_leaves_nothing_running(how: str) -> None:
    rest = "sys.exit(0)" if how == "exit" else "call.get()"
    program = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(rest=rest)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "running\n"
    if how != "exit":
        numbers = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}
        program.send_signal(numbers[how])
    _, said = program.communicate(timeout=30)
    if how in ("kill -9", "SIGTERM"):
        assert said == "", "none of its processes complains"
    # and the leak check sees to the rest


def test_a_zygote_that_is_killed_is_replaced() -> None:
    @corten.function
    def parent_of() -> int:
        return os.getpid()

    assert parent_of.remote() == 2
    [zygote] = _zygotes()
    os.kill(zygote, signal.SIGKILL)
    assert [parent_of.remote() for _ in range(4)] == [2] * 4
    assert zygote not in _zygotes()


def _zygotes() -> list[int]:
    tasks = Path("/proc/self/task").iterdir()
    children = [pid for task in tasks for pid in (task / "children").read_text().split()]
    return [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text() == "corten:zygote\n"]
