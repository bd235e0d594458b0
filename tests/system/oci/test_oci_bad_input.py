"""Bad input: one clear line on stderr and in the JSON log, the right exit code, and nothing left."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from leaks import groups_named
from oci_runtime import Runtime, config_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def edit(*keys: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    """Set one place of a configuration."""

    def change(config: dict[str, Any]) -> None:
        place: Any = config
        for key in keys[:-1]:
            place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]
        place[keys[-1]] = to

    return change


OVERLAP = [{"containerID": 0, "hostID": 0, "size": 10}, {"containerID": 5, "hostID": 100, "size": 10}]
USER = [{"type": kind} for kind in ("pid", "mount", "uts", "user")]

CONFIGS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "wrong type": (
        edit("linux", "resources", "memory", to={"limit": "x"}),
        "linux.resources.memory.limit: expected integer, got string",
    ),
    "wrong version": (edit("ociVersion", to="2.0.0"), "ociVersion: 2.0.0 is not supported"),
    "no process": (edit("process", to=None), "process: missing"),
    "no root": (edit("root", to=None), "root: missing"),
    "group path leaves": (edit("linux", "cgroupsPath", to="../../x"), 'linux.cgroupsPath: "../../x" contains ".."'),
    "maps overlap": (
        lambda config: config["linux"].update(namespaces=USER, uidMappings=OVERLAP, gidMappings=OVERLAP),
        "linux.uidMappings[0] and linux.uidMappings[1] overlap",
    ),
    "apparmor": (edit("process", "apparmorProfile", to="some"), "process.apparmorProfile"),
    "selinux": (edit("process", "selinuxLabel", to="some:label"), "process.selinuxLabel"),
    "mount label": (edit("linux", "mountLabel", to="some:label"), "linux.mountLabel"),
    "no mount namespace": (
        lambda config: config.update(
            mounts=[], linux={"namespaces": [{"type": "uts"}]}, root={"path": config["root"]["path"]}
        ),
        "linux.namespaces: none for mounts, which would be the host's: add",
    ),
    "another's mount namespace": (
        edit("linux", "namespaces", to=[{"type": "uts"}, {"type": "mount", "path": "/proc/1/ns/mnt"}]),
        "linux.namespaces: mount: /proc/1/ns/mnt: not in another's",
    ),
    "intel rdt": (edit("linux", "intelRdt", to={"closID": "x"}), "linux.intelRdt"),
    "scheduler": (edit("process", "scheduler", to={"policy": "SCHED_FIFO"}), "process.scheduler.priority"),
    "seccomp action": (edit("linux", "seccomp", to={"defaultAction": "SCMP_ACT_NONE"}), "linux.seccomp.defaultAction"),
    "listener absent": (
        edit("linux", "seccomp", to={
            "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
        }),
        "linux.seccomp.listenerPath: missing",
    ),
    "memory policy": (edit("linux", "memoryPolicy", to={"mode": "MPOL_BIND"}), "linux.memoryPolicy.nodes: missing"),
    "network device": (edit("linux", "netDevices", to={"absent0": {}}), 'linux.netDevices["absent0"]'),
    "unknown mount option": (
        lambda config: config["mounts"].append(
            {"destination": "/mnt", "type": "bind", "source": "/etc", "options": ["bind", "absent"]}
        ),
        "a bind mount has no option 'absent'",
    ),
    "kernel refuses a mount option": (
        lambda config: config["mounts"].append(
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["absent=1"]}
        ),
        "tmpfs: Unknown parameter 'absent'",
    ),
    "terminal without socket": (edit("process", "terminal", to=True), "--console-socket"),
    "limit above ours": (
        edit("process", "rlimits", to=[{"type": "RLIMIT_NOFILE", "soft": 1 << 40, "hard": 1 << 40}]), "RLIMIT_NOFILE",
    ),
}  # fmt: skip


def failing(
    oci: Runtime, tmp_path: Path, *words: str, code: int = 1, form: str = "json", **options: Any
) -> str:
    """The error of a command: one line on stderr, the same in the log, and nothing on stdout."""
    log = tmp_path / "errors"
    done = oci("--log", str(log), "--log-format", form, *words, **options)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    (line,) = done.stderr.splitlines()
    (logged,) = log.read_text().splitlines()
    if form == "json":
        entry = json.loads(logged)
        assert (entry["level"], f"corten-oci: {entry['msg']}") == ("error", line)
    else:
        assert logged.startswith("time=")
        assert logged.endswith(f" level=error msg={json.dumps(line.removeprefix('corten-oci: '), ensure_ascii=False)}")
    assert "mistake in corten-oci" not in line
    log.unlink()
    return line


@pytest.mark.parametrize("name", CONFIGS)
def test_configuration(oci: Runtime, bundle: Callable[..., Path], identity: str, tmp_path: Path, name: str) -> None:
    change, words = CONFIGS[name]
    place = bundle("true", change=change)
    assert words in failing(oci, tmp_path, "create", "--bundle", str(place), identity)
    assert not oci.root.exists() or not os.listdir(oci.root)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "config.json: line 1 column 1"),
        ('{"ociVersion": "1.0.2", "process": {', "config.json: line 1 column"),
        ("[]", "expected object, got array"),
        ('{"ociVersion": 3}', "ociVersion: expected string, got integer"),
        ("\0", "config.json: line 1"),
    ],
)
def test_text(oci: Runtime, tmp_path: Path, identity: str, text: str, words: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert words in failing(oci, tmp_path, "create", "--bundle", str(tmp_path), identity)


def test_truncated_anywhere(oci: Runtime, rootfs: Path, tmp_path: Path, identity: str) -> None:
    text = json.dumps(config_of(rootfs, "true"))
    for length in range(0, len(text), 150):
        (tmp_path / "config.json").write_text(text[:length])
        failing(oci, tmp_path, "create", "--bundle", str(tmp_path), identity)


def test_names_and_places(oci: Runtime, bundle: Callable[..., Path], identity: str, tmp_path: Path) -> None:
    place = str(bundle("sleep", "1000"))
    for bad in ("../x", "a/b", "", ".", "..", "a b", "x" * 2000, "\u00e4"):
        assert "invalid container id" in failing(oci, tmp_path, "create", "--bundle", place, bad)
    assert "no such file or directory" in failing(
        oci, tmp_path, "create", "--bundle", str(tmp_path / "absent"), identity
    )
    assert "no such file or directory" in failing(oci, tmp_path, "create", "--bundle", str(tmp_path), identity)
    assert "nobody listens" in failing(
        oci, tmp_path, "create", "--pidfd-socket", _stale(tmp_path), "--bundle", place, identity
    )
    assert "for a container with a terminal" in failing(
        oci, tmp_path, "create", "--console-socket", "/absent", "--bundle", place, identity
    )
    assert "--pid-file" in failing(oci, tmp_path, "create", "--pid-file", "/absent/pid", "--bundle", place, identity)
    assert not os.listdir(oci.root)
    oci.quietly("create", "--bundle", place, identity)
    assert "container with given ID already exists" in failing(oci, tmp_path, "create", "--bundle", place, identity)
    assert "not a signal" in failing(oci, tmp_path, "kill", identity, "ABSENT")
    assert "container not paused" in failing(oci, tmp_path, "resume", identity)
    assert "cpuset" in failing(oci, tmp_path, "update", "--cpuset-cpus", "1000", identity)
    oci("delete", identity, check=True)
    for command in ("start", "kill", "delete", "state", "pause", "resume", "ps", "update", "events"):
        assert "does not exist" in failing(oci, tmp_path, command, identity)
    assert "does not exist" in failing(oci, tmp_path, "exec", identity, "true", code=255)


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_a_caller_gets_wrong(
    oci: Runtime, bundle: Callable[..., Path], identity: str, tmp_path: Path, form: str
) -> None:
    def said(*words: str, change: Callable[[dict[str, Any]], None] = lambda config: None, **options: Any) -> str:
        place = str(bundle("sleep", "1000", change=change))
        return failing(oci, tmp_path, *words, "--bundle", place, identity, form=form, **options)

    def hook(script: str) -> Callable[[dict[str, Any]], None]:
        one = {"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 1}
        return edit("hooks", to={"createRuntime": [one]})

    assert "no such file or directory" in failing(
        oci, tmp_path, "run", "--bundle", str(tmp_path / "absent"), identity, form=form
    )
    assert "invalid container id" in failing(oci, tmp_path, "run", "../x", form=form)
    change, words = CONFIGS["maps overlap"]
    assert words in said("create", change=change)
    change, words = CONFIGS["group path leaves"]
    assert words in said("run", change=change)
    assert "exit status 3" in said("run", change=hook("exit 3"))
    assert "longer than 1 s" in said("create", change=hook("sleep 100"))
    stale = _stale(tmp_path)
    assert "nobody listens" in said(
        "create", "--console-socket", stale, change=edit("process", "terminal", to=True)
    )
    assert not os.listdir(oci.root)
    oci.quietly("create", "--bundle", str(bundle("sleep", "1000")), identity)
    assert "container with given ID already exists" in said("create")
    assert "container not paused" in failing(oci, tmp_path, "resume", identity, form=form)
    assert "cannot exec in a stopped container" not in oci("exec", identity, "true").stderr
    oci("delete", identity, check=True)


def test_checkpoints(oci: Runtime, bundle: Callable[..., Path], identity: str, tmp_path: Path) -> None:
    place = str(bundle("sleep", "1000"))
    image = ("--image-path", str(tmp_path / "image"))
    assert "no image of criu" in failing(oci, tmp_path, "restore", *image, "--bundle", place, identity)
    oci.quietly("create", "--bundle", place, identity)
    assert "cannot be checkpointed in created state" in failing(oci, tmp_path, "checkpoint", *image, identity)
    oci("start", identity, check=True)
    for option, value, words in (
        ("--page-server", "absent", "expected ADDRESS:PORT"),
        ("--status-fd", "99", "not an open descriptor"),
        ("--status-fd", "x", "not an open descriptor"),
        ("--work-path", "/proc/absent", "no such file or directory"),
    ):
        assert words in failing(oci, tmp_path, "checkpoint", *image, option, value, identity)
    assert oci.state(identity)["status"] == "running"
    assert list((tmp_path / "image").iterdir()) == []
    oci("delete", "--force", identity, check=True)
    assert "does not exist" in failing(oci, tmp_path, "checkpoint", *image, identity)


def _stale(tmp_path: Path) -> str:
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "stale"))
    return str(tmp_path / "stale")


def test_damaged_state(oci: Runtime, bundle: Callable[..., Path], identity: str, tmp_path: Path) -> None:
    oci.quietly("create", "--bundle", str(bundle("sleep", "1000")), identity)
    oci("kill", identity, "KILL", check=True)
    (oci.root / identity / "state.json").write_text("{")
    assert "not written by corten-oci" in failing(oci, tmp_path, "state", identity)
    oci("list", check=True)
    oci("delete", "--force", identity, check=True)
    for group in groups_named(identity):
        group.rmdir()  # which they were, only the state knew
