"""Hooks: which run, where, in what order, what they are told, and what happens when one fails or hangs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from oci_runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ALL = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def hook(script: str, **more: Any) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin", "MARK=here"], **more}


def with_hooks(told: Path, **others: list[dict[str, Any]]) -> Callable[[dict[str, Any]], None]:
    """Every hook writes its name, its namespaces and its input to a file; startContainer sees the container's files."""

    def change(config: dict[str, Any]) -> None:
        config["mounts"].append(
            {"destination": "/told", "type": "bind", "source": str(told), "options": ["bind", "rw"]}
        )
        config["hooks"] = {}
        for name in ALL:
            at = "/told" if name == "startContainer" else str(told)
            line = f'echo "{name} $MARK $(readlink /proc/self/ns/mnt) $(cat)" >> {at}/log'
            config["hooks"][name] = others.get(name, [hook(line)])
        config["annotations"] = {"color": "blue"}

    return change


@pytest.fixture
def told(tmp_path: Path, rootfs: Path) -> Path:
    (rootfs / "told").mkdir(exist_ok=True)
    place = tmp_path / "told"
    place.mkdir()
    return place


def test_order_place_and_input(oci: Runtime, bundle: Callable[..., Path], identity: str, told: Path) -> None:
    place = bundle("sh", "-c", "echo program >> /told/log; exec sleep 1000", change=with_hooks(told))
    oci.quietly("create", "--bundle", str(place), identity)
    pid = oci.state(identity)["pid"]
    assert [line.split()[0] for line in (told / "log").read_text().splitlines()] == list(ALL[:3])
    oci("start", identity, check=True)
    inside = os.readlink(f"/proc/{pid}/ns/mnt")
    oci("delete", "--force", identity, check=True)
    lines = [line.split(" ", 3) for line in (told / "log").read_text().splitlines() if line != "program"]
    assert [line[0] for line in lines] == list(ALL)
    statuses = {}
    for name, mark, space, text in lines:
        state = json.loads(text)
        statuses[name] = (state["status"], state["pid"])
        assert (state["id"], state["bundle"], state["annotations"]) == (identity, str(place), {"color": "blue"})
        assert mark == "here"
        assert (space == inside) == (name in ("createContainer", "startContainer"))
    creating = ("creating", pid)
    assert statuses == {
        "prestart": creating, "createRuntime": creating, "createContainer": creating,
        "startContainer": ("created", pid), "poststart": ("running", pid), "poststop": ("stopped", 0),
    }  # fmt: skip
    # poststart comes after the program's start, which does not wait for it: the program is there by then
    assert "program" in (told / "log").read_text()


@pytest.mark.parametrize("name", ALL[:3])
@pytest.mark.parametrize(
    ("script", "why"), [("echo no >&2; exit 3", "exit status 3: no"), ("sleep 100", "longer than 1 s")]
)
def test_failure_undoes_the_creation(
    oci: Runtime, bundle: Callable[..., Path], identity: str, told: Path, name: str, script: str, why: str
) -> None:
    bad = {name: [hook(script, timeout=1)]}
    done = oci("run", "--bundle", str(bundle("true", change=with_hooks(told, **bad))), identity)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{name} hook /bin/sh: " in done.stderr
    assert why in done.stderr
    assert not os.listdir(oci.root)
    assert "poststop" in (told / "log").read_text()


@pytest.mark.parametrize("name", ["poststart", "poststop"])
def test_late_failure_is_a_warning(
    oci: Runtime, bundle: Callable[..., Path], identity: str, told: Path, name: str
) -> None:
    change = with_hooks(told, **{name: [hook("exit 3"), hook(f"echo second >> {told}/log")]})
    log = told / "errors"
    done = oci("--log", str(log), "run", "--bundle", str(bundle("sh", "-c", "exit 5", change=change)), identity)
    assert done.returncode == 5
    assert "second" in (told / "log").read_text()
    assert "level=warning" in log.read_text()
    assert f"{name} hook" in log.read_text()


def test_failing_start_hook_ends_the_container(
    oci: Runtime, bundle: Callable[..., Path], identity: str, told: Path
) -> None:
    change = with_hooks(told, startContainer=[hook("exit 3")])
    done = oci("run", "--bundle", str(bundle("true", change=change)), identity)
    assert (done.returncode, "startContainer hook /bin/sh: exit status 3" in done.stderr) == (1, True)
    assert not os.listdir(oci.root)


def test_missing_hook(oci: Runtime, bundle: Callable[..., Path], identity: str) -> None:
    place = bundle("true", change=lambda config: config.update(hooks={"createRuntime": [{"path": "/absent"}]}))
    done = oci("run", "--bundle", str(place), identity)
    assert (done.returncode, "createRuntime hook /absent: cannot be run" in done.stderr) == (1, True)
