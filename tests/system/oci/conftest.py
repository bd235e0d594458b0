"""What the tests of `corten-oci` share: bundles on the machine's own /usr, and both runtimes to run them with."""

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path

import pytest

from leaks import difference, picture
from oci_runtime import CORTEN_OCI, Runtime, config_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


@pytest.fixture(autouse=True)
def nothing_left_behind(home: Path) -> Iterator[None]:
    """As for all system tests, but of the control groups only those with our own names: others may run beside us."""

    def ours() -> dict[str, object]:
        found = picture(home)
        groups = found["control groups"]
        assert isinstance(groups, list)
        return {**found, "control groups": [path for path in groups if f"/corten-{os.getpid()}-" in path]}

    before = ours()
    yield
    left = difference(before, ours())
    assert not left, "left behind:\n" + "\n".join(left)


@pytest.fixture(autouse=True)
def subreaper(home: Path, nothing_left_behind: None) -> Iterator[None]:
    """Be the one to whom the first processes of containers fall, as conmon and containerd's shim are."""
    ctypes.CDLL(None).prctl(36, 1)
    yield
    ctypes.CDLL(None).prctl(36, 0)


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system: the machine's own /usr is bound into it by `config_of`."""
    root = tmp_path_factory.mktemp("rootfs")
    root.chmod(0o755)
    for name in ("usr", "proc", "dev", "sys", "etc", "tmp", "root"):
        (root / name).mkdir()
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nsomeone:x:1000:1000::/home/someone:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    return root


@pytest.fixture
def oci(subreaper: None, tmp_path: Path) -> Iterator[Runtime]:
    """`corten-oci` with its containers below the test's directory."""
    runtime = Runtime(CORTEN_OCI, tmp_path / "state")
    yield runtime
    runtime.clear()


@pytest.fixture
def runc(subreaper: None, tmp_path: Path) -> Iterator[Runtime]:
    """The runtime to compare with."""
    runtime = Runtime("runc", tmp_path / "state-runc")
    yield runtime
    runtime.clear()


@pytest.fixture
def bundle(tmp_path: Path, rootfs: Path) -> Callable[..., Path]:
    """Make a bundle that runs a command. change: edits the configuration."""
    count = 0

    def make(*args: str, change: Callable[[dict[str, Any]], None] | None = None, **process: Any) -> Path:
        nonlocal count
        count += 1
        place = tmp_path / f"bundle{count}"
        place.mkdir()
        config = config_of(rootfs, *args, **process)
        if change:
            change(config)
        (place / "config.json").write_text(json.dumps(config))
        return place

    return make


@pytest.fixture
def identity(request: pytest.FixtureRequest) -> str:
    """An id of the test's own, by which the leak check finds its control group."""
    return f"corten-{os.getpid()}-{abs(hash(request.node.nodeid)) % 10**8}"
