"""What the tests of `corten-oci` share: bundles on the machine's own /usr, and both runtimes to run them with."""

from __future__ import annotations

import ctypes
import json
import os
import select
from pathlib import Path

import pytest

from oci_runtime import CORTEN_OCI, PODMAN_PARENT, TIMEOUT, Runtime, config_of, make_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Mounts, control groups of our names, processes and descriptors are as they were.

    Meanwhile we are the one to whom the first processes of containers fall, as conmon and containerd's shim are.
    """
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    run = tmp_path_factory.getbasetemp().name
    before = picture(run)
    yield
    for pid in set(children()) - {pid for pid, _ in before["processes"]}:
        reap(pid)
    after = picture(run)
    ctypes.CDLL(None).prctl(36, 0)
    left = [f"{kind}: {item}" for kind, items in before.items() for item in {*items} ^ {*after[kind]}]
    assert not left, "left behind or gone:\n" + "\n".join(left)


def picture(run: str) -> dict[str, list[Any]]:
    """What could be left behind. Others may make containers of their own beside us."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    groups = [
        os.path.join(place, name)
        for place, names, _ in os.walk("/sys/fs/cgroup")
        for name in names
        if name.startswith(f"corten-{os.getpid()}-") or (f"/{PODMAN_PARENT}" in place and name != "conmon")
    ]
    return {
        "mounts": [line for line in mounts if _counts(line, run)],
        "control groups": groups,
        "processes": [(pid, Path(f"/proc/{pid}/comm").read_text()) for pid in children()],
        "descriptors": os.listdir("/proc/self/fd"),
    }


def _counts(mount: str, run: str) -> bool:
    """Not what others have in temporary directories, nor the mount of the control groups, whose options runc may
    reset on v2."""
    place = mount.split(" ")[4]
    ours = f"/{run}/" in place or f"/corten-ctr-{os.getpid()}" in place
    return (ours or not place.startswith(("/tmp/", "/var/tmp/"))) and place != "/sys/fs/cgroup"


def children() -> list[int]:
    """Our own children, also those that fell to us."""
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def reap(pid: int) -> None:
    """Wait for a child that fell to us, such as a conmon that has still to clean up."""
    fd = os.pidfd_open(pid)
    ended = select.select([fd], [], [], TIMEOUT / 4)[0]
    os.close(fd)
    if ended:
        os.waitpid(pid, 0)


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system: the machine's own /usr is bound into it by `config_of`."""
    return make_root(tmp_path_factory.mktemp("rootfs"))


@pytest.fixture
def oci(nothing_left_behind: None, tmp_path: Path) -> Iterator[Runtime]:
    """`corten-oci` with its containers below the test's directory."""
    runtime = Runtime(CORTEN_OCI, tmp_path / "state")
    yield runtime
    runtime.clear()


@pytest.fixture
def runc(nothing_left_behind: None, tmp_path: Path) -> Iterator[Runtime]:
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
