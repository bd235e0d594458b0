"""The same bundle under `runc` and `corten-oci`: what the program sees, how it ends, and the state must be the same."""

from __future__ import annotations

import difflib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oci_bundles import LOOK, TABLE, USERNS, namespaces, normal
from oci_runtime import Runtime, config_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

def compare(oci: Runtime, runc: Runtime, place: Path, identity: str) -> None:
    """Run it under both."""
    ended = [runtime("run", "--bundle", str(place), identity) for runtime in (runc, oci)]
    theirs, ours = (normal(done.stdout) for done in ended)
    assert ours == theirs, "\n".join([ended[1].stderr, *difflib.unified_diff(theirs, ours, "runc", "corten-oci", n=0)])
    assert ended[1].returncode == ended[0].returncode, (ended[0].stderr, ended[1].stderr)
    if ended[0].returncode != 33:
        assert ended[1].stderr


@pytest.mark.parametrize("name", TABLE)
def test_table(
    oci: Runtime, runc: Runtime, bundle: Callable[..., Path], identity: str, rootfs: Path, name: str
) -> None:
    if name == "writable root":
        import shutil

        copy = rootfs.with_name(rootfs.name + "-copy")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(rootfs, copy, symlinks=True)
    if name == "mounts":
        (rootfs / "mnt").mkdir(exist_ok=True)
    compare(oci, runc, bundle("sh", "-c", LOOK, change=TABLE[name]), identity)


capability = st.sampled_from(
    ["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW", "CAP_SETUID", "CAP_SYS_CHROOT", "CAP_AUDIT_WRITE"]
)
identifier = st.integers(0, 1999)


@st.composite
def configurations(draw: st.DrawFn) -> Callable[[dict[str, Any]], None]:
    """A random container that both should be able to make."""
    held = draw(st.lists(capability, unique=True))
    effective = draw(st.lists(st.sampled_from(held), unique=True)) if held else []
    user = {"uid": draw(identifier), "gid": draw(identifier)}
    groups = draw(st.lists(identifier, max_size=3, unique=True))
    if groups:
        user["additionalGids"] = groups  # type: ignore[assignment]
    kinds = ["mount", "pid", *draw(st.lists(st.sampled_from(["network", "ipc", "uts", "cgroup"]), unique=True))]
    in_userns = draw(st.booleans())
    files = draw(st.integers(16, 1024))
    values = {
        "user": user,
        "capabilities": {"bounding": held, "permitted": held, "effective": effective},
        "noNewPrivileges": draw(st.booleans()),
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": draw(st.integers(16, files)), "hard": files}],
        "env": [
            "PATH=/usr/bin:/bin",
            *draw(st.lists(st.from_regex(r"[A-Z]{1,8}X=[a-z ]{0,8}", fullmatch=True), max_size=3)),
        ],
        "cwd": draw(st.sampled_from(["/", "/tmp", "/usr/bin"])),
    }
    limit = draw(st.integers(20, 2000))

    def change(config: dict[str, Any]) -> None:
        config["process"].update(values)
        if in_userns and "network" in kinds:  # without its own network, a user namespace cannot have sysfs
            config["linux"].update(USERNS)
            kinds[:] = [*kinds, "user"]
        config["linux"].update(namespaces=namespaces(*dict.fromkeys(kinds)), resources={"pids": {"limit": limit}})
        if "uts" not in kinds:
            del config["hostname"]

    return change


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=configurations())
def test_random(oci: Runtime, runc: Runtime, tmp_path: Path, rootfs: Path, identity: str, change: Any) -> None:
    config = config_of(rootfs, "sh", "-c", LOOK)
    change(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    compare(oci, runc, tmp_path, identity)


def test_state(oci: Runtime, runc: Runtime, bundle: Callable[..., Path], identity: str) -> None:
    place = bundle("sleep", "1000", change=lambda config: config.update(annotations={"a.b": "c", "d": "<&>"}))
    seen = []
    for runtime in (runc, oci):
        states = []
        runtime.quietly("create", "--bundle", str(place), identity)
        states.append(runtime.state(identity))
        runtime("start", identity, check=True)
        states.append(runtime.state(identity))
        runtime("pause", identity, check=True)
        states.append(runtime.state(identity))
        runtime("delete", "--force", identity, check=True)
        seen.append(states)
    for theirs, ours in zip(*seen, strict=True):
        for state in (theirs, ours):
            assert state.pop("pid") > 0
            assert state.pop("created")
            assert state.pop("ociVersion")
        assert list(ours.items()) == list(theirs.items())
