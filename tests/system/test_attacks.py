"""What SECURITY.md promises, attacked from inside: as root with the default options, as nobody, in a user namespace.

Rule: one container per variant runs every attack (`attacker.py`); each test asks for the refusal of one. After that the
host is looked at, for a refusal that came too late is none.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

import corten
from attacker import ATTACKS
from leaks import groups_named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

SOURCE = Path(__file__).with_name("attacker.py").read_text()
TOKEN = "a-secret-of-the-caller-5c1d"
VARIANTS: dict[str, dict[str, Any]] = {
    "root": {},
    "nobody": {"user": "nobody"},
    "user namespace": {"uidmap": ["0:100000:65536"], "gidmap": ["0:100000:65536"]},
    "without init": {"init": False},
    "read-only": {"read_only": True, "tmpfs": ["/tmp"]},
}
PAIRS = [  # without an init process 1 is the attacker itself
    (name, variant) for name in ATTACKS for variant in VARIANTS if variant != "without init" or name[:5] != "init_"
]
MACHINE = ("kernel/core_pattern", "kernel/hostname", "net/ipv4/ip_forward", "vm/overcommit_memory", "fs/file-max")


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int | str]]:
    """Things of the host that an attacker would like to have, alive for as long as the attacks last."""
    libc = ctypes.CDLL(None, use_errno=True)
    directory = tmp_path_factory.mktemp("host")
    marker = directory / "marker"
    marker.write_text("the host's")
    key, create = 0x0C0127E4, 0o1600
    ids = libc.shmget(key, 4096, create), libc.msgget(key, create), libc.semget(key, 1, create)
    assert min(ids) >= 0
    queue, shm = "/corten-attack", Path("/dev/shm/corten-attack")
    mq = libc.mq_open(queue.encode(), os.O_CREAT | os.O_RDWR, 0o666, None)
    assert mq >= 0
    shm.write_text("the host's")
    tcp = socket.create_server(("0.0.0.0", 0))
    addresses = {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), 0, socket.AF_INET)}
    abstract, unix = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    abstract.bind("\0corten-attack")
    abstract.listen()
    unix.bind(str(directory / "socket"))
    unix.listen()
    os.environ["CORTEN_TEST_TOKEN"] = TOKEN
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as victim:
        yield {
            "marker": str(marker),
            "key": key,
            "queue": queue,
            "shm": shm.name,
            "port": tcp.getsockname()[1],
            "addresses": " ".join(addresses),
            "abstract": "corten-attack",
            "unix": str(directory / "socket"),
            "victim": victim.pid,
            "root_device": Path("/").stat().st_dev,
            "token": TOKEN,
        }
        victim.kill()
    del os.environ["CORTEN_TEST_TOKEN"]
    for sock in (tcp, abstract, unix):
        sock.close()
    libc.shmctl(ids[0], 0, None)
    libc.msgctl(ids[1], 0, None)
    libc.semctl(ids[2], 0, 0)
    os.close(mq)
    libc.mq_unlink(queue.encode())
    shm.unlink()


def machine() -> dict[str, object]:
    """The host as an attack could have changed it."""
    found: dict[str, object] = {name: Path(f"/proc/sys/{name}").read_text() for name in MACHINE}
    found["interpreter"] = (Path("/proc/self/exe").stat().st_mtime_ns, Path("/proc/self/exe").stat().st_size)
    found["groups"] = sorted(map(str, groups_named("own")))
    found["nodes"] = sorted(str(path) for top in ("/tmp", "/dev", "/usr/local") for path in Path(top).glob("node-*"))
    found["files"] = [Path(path).exists() for path in ("/tmp/there", "/tmp/suid", "/tmp/jail", "/tmp/group")]
    return found


@pytest.fixture(scope="module")
def outcomes(facts: dict[str, int | str]) -> Callable[[str], dict[str, str]]:
    """The outcome of every attack, by variant."""
    known: dict[str, dict[str, str]] = {}

    def outcome(variant: str) -> dict[str, str]:
        if variant not in known:
            before = machine()
            result = corten.run(
                "host",
                ["python3", "-", json.dumps(facts)],
                input=SOURCE,
                memory="200m",
                pids=50,
                timeout=60,
                **VARIANTS[variant],
            )
            assert result.exit_code == 0, f"{result.reason}\n{result.stderr!r}"
            known[variant] = json.loads(result.stdout)
            assert machine() == before
        return known[variant]

    return outcome


@pytest.mark.parametrize(("name", "variant"), PAIRS)
def test_is_refused(name: str, variant: str, outcomes: Callable[[str], dict[str, str]]) -> None:
    outcome = outcomes(variant)[name]
    assert not outcome.startswith("SUCCEEDED"), outcome


def test_the_host_is_as_it_was(facts: dict[str, int | str], outcomes: Callable[[str], dict[str, str]]) -> None:
    for variant in VARIANTS:
        outcomes(variant)
    assert Path(str(facts["marker"])).read_text() == "the host's"
    assert Path(f"/proc/{facts['victim']}/comm").read_text().strip() == "sleep"
    assert Path(f"/proc/{facts['victim']}/stat").read_text().rpartition(")")[2].split()[0] == "S"
    assert Path(f"/dev/shm/{facts['shm']}").read_text() == "the host's"


@pytest.mark.parametrize("variant", ["without mask", "with capabilities"])
def test_the_attacker_can_win(variant: str, facts: dict[str, int | str]) -> None:
    """An attacker that never gets anything proves nothing: given more, it gets more."""
    if variant == "without mask":
        options: dict[str, Any] = {"unmask": ["ALL"], "network": "host", "ipc": "host", "pid": "host"}
        wins = {"loopback", "abstract_socket", "shared_memory", "message_queue", "semaphores", "host_process_killed"}
    else:
        options = {"cap_add": ["SYS_ADMIN", "SYSLOG"]}
        wins = {"mounts_new", "mounts_old", "unmask", "other_namespaces", "user_namespace", "kernel_log", "host_name"}
    code = f"{SOURCE.partition('def main()')[0]}\nATTACKS = {{n: ATTACKS[n] for n in {sorted(wins)!r}}}\n"
    code += "descriptors = ATTACKS['descriptors'] = lambda facts: os.close(-1)\n"
    code += f"def main(){SOURCE.partition('def main()')[2]}"
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as victim:
        given = {**facts, "victim": victim.pid}
        result = corten.run("host", ["python3", "-", json.dumps(given)], input=code, timeout=60, **options)
        victim.kill()
    assert result.exit_code == 0, result.stderr
    outcome = json.loads(result.stdout)
    assert {name for name in wins if not outcome[name].startswith("SUCCEEDED")} == set(), outcome
