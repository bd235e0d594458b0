"""`corten-oci` beside `runc` and `crun` where there is nothing but cgroup v2. Run in the virtual machine, in one boot,
by test_oci_v2.py; starting a program is slow there, so each thing is done once and looked at from many sides."""

from __future__ import annotations

import difflib
import json
import re
import time
from pathlib import Path

import pytest

import oci_runtime
from oci_bundles import LOOK, TABLE, both, normal
from oci_runtime import CORTEN_OCI, Runtime, config_of, make_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Several rows of the table in one configuration: later ones win.
ROWS = {
    "a user": ("all capability sets", "limits", "oom score", "sysctl", "working directory"),
    "a user namespace": ("user namespace",),
    "control groups, mounts and devices": ("control groups", "mounts", "devices", "new privileges"),
    "a control group namespace": ("control group namespace",),
    "an absent program": ("absent program",),
}
# No shares: Debian's runc still has the old conversion to weights, in which 1024 are 39 and not the default of 100.
RESOURCES = {"memory": {"limit": 64 << 20, "swap": 64 << 20}, "pids": {"limit": 33},
             "cpu": {"quota": 25000, "period": 50000}}  # fmt: skip


oci_runtime.TIMEOUT = 240  # seconds: the processor is emulated


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_root(tmp_path_factory.mktemp("rootfs"))
    (root / "mnt").mkdir()
    return root


def bundle(place: Path, rootfs: Path, change: Callable[[dict[str, Any]], None], *args: str) -> Path:
    config = config_of(rootfs, *args)
    change(config)
    place.mkdir()
    (place / "config.json").write_text(json.dumps(config))
    return place


PROCESS = re.compile(r"(Uid|Gid|Groups|Umask|Cap...|NoNewPrivs|Seccomp):|Limit|Max |uid=|[A-Z]+X?=|\s+\d+\s+\d+\s+\d+$")


def groups_apart(lines: list[str]) -> list[str]:
    """Without a cgroup namespace runc shows the whole tree of the host, read-only, and we the container's own group.

    The tree's options are those of whoever mounted it last: runc resets them.
    """
    found = []
    for line in lines:
        fields = line.split(" ")
        found.append("\t".join(fields[1:4]) if fields[1:2] == ["/sys/fs/cgroup"] else line)
    return sorted(found)


def of_process(lines: list[str]) -> list[str]:
    """Rights, limits, ids, environment. Mounts, devices and the place of the group crun has in its own way."""
    return [line for line in lines if PROCESS.match(line)]


@pytest.mark.parametrize("name", ROWS)
def test_table(rootfs: Path, tmp_path: Path, name: str) -> None:
    changes = both(*(TABLE[row] for row in ROWS[name]))
    place = bundle(tmp_path / "bundle", rootfs, changes, "sh", "-c", LOOK)
    done = {}
    for program in (CORTEN_OCI, "runc", "crun"):
        done[program] = Runtime(program, tmp_path / "state")("run", "--bundle", str(place), "same")
    ours = done.pop(CORTEN_OCI)
    for program, theirs in done.items():
        left, right = (groups_apart(normal(one.stdout)) for one in (ours, theirs))
        if program == "crun":
            left, right = of_process(left), of_process(right)
        different = list(difflib.unified_diff(right, left, program, "corten-oci", n=0))
        assert not different, "\n".join([ours.stderr, theirs.stderr, *different])
        assert ours.returncode == theirs.returncode, (ours.stderr, theirs.stderr)


def test_limits_and_life(rootfs: Path, tmp_path: Path) -> None:
    """The same control files, the same states, and the same after an update."""

    def change(config: dict[str, Any]) -> None:
        TABLE["control group namespace"](config)
        config["linux"]["resources"] = RESOURCES

    place = bundle(tmp_path / "bundle", rootfs, change, "sleep", "1000")
    seen = []
    for program in ("runc", CORTEN_OCI):
        runtime = Runtime(program, tmp_path / "state")
        found: list[Any] = []
        runtime.quietly("run", "--detach", "--bundle", str(place), "same")
        state = runtime.state("same")
        group = Path("/sys/fs/cgroup" + Path(f"/proc/{state['pid']}/cgroup").read_text().strip()[3:])
        found += [state["status"], limits_of(group)]
        limits = ("--memory", "96m", "--memory-swap", "96m", "--pids-limit", "44", "--cpuset-cpus", "0")
        runtime("update", *limits, "same", check=True)
        found.append((group / "cpuset.cpus").read_text())
        found.append(limits_of(group))
        runtime("pause", "same", check=True)
        found += [runtime.state("same")["status"], (group / "cgroup.events").read_text()]
        runtime("resume", "same", check=True)
        done = runtime("exec", "same", "cat", "/proc/self/cgroup", "/sys/fs/cgroup/pids.max")
        found += [done.stdout, done.returncode]
        runtime("delete", "--force", "same", check=True)
        found.append(group.exists())
        seen.append(found)
    assert seen[0] == seen[1]


def limits_of(group: Path) -> dict[str, str]:
    names = ("memory.max", "memory.swap.max", "memory.low", "pids.max", "cpu.max", "cpu.weight")
    return {name: (group / name).read_text() for name in names}


def test_checkpoint_and_restore(rootfs: Path, tmp_path: Path) -> None:
    """What it has counted goes on where it stood, under the same limits, and nothing of the host's mounts changed."""

    def change(config: dict[str, Any]) -> None:
        TABLE["control group namespace"](config)
        config["linux"]["resources"] = {"pids": {"limit": 33}}

    script = "i=0; while :; do i=$((i+1)); echo $i >/tmp/count; read -t 1 x </dev/zero; done"
    place = bundle(tmp_path / "bundle", rootfs, change, "bash", "-c", script)
    oci = Runtime(CORTEN_OCI, tmp_path / "state")
    before = Path("/proc/self/mountinfo").read_text()
    oci.quietly("run", "--detach", "--bundle", str(place), "saved")
    image = str(tmp_path / "image")

    def count() -> int:
        return int(Path(f"/proc/{oci.state('saved')['pid']}/root/tmp/count").read_text() or 0)

    def more_than(least: int) -> int:
        while (now := count()) <= least:
            time.sleep(0.1)
        return now

    first = more_than(0)
    oci("checkpoint", "--image-path", image, "saved", check=True)
    assert "does not exist" in oci("state", "saved").stderr
    oci.quietly("restore", "--detach", "--image-path", image, "--bundle", str(place), "saved")
    assert oci.state("saved")["status"] == "running"
    assert more_than(first) > first
    assert oci("exec", "saved", "cat", "/sys/fs/cgroup/pids.max", "/proc/1/cgroup").stdout.split() == ["33", "0::/"]
    oci("delete", "--force", "saved", check=True)
    refused = oci("restore", "--image-path", str(tmp_path), "--bundle", str(place), "saved")
    assert (refused.returncode, "no image of criu" in refused.stderr) == (1, True)
    assert Path("/proc/self/mountinfo").read_text() == before
    assert not list(Path("/sys/fs/cgroup").rglob("saved"))
