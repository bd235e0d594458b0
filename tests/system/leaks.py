"""What the machine looks like from here: a picture before and after must be the same."""

from __future__ import annotations

import os
import time
from pathlib import Path

PATIENCE = 5.0


def picture(home: Path) -> dict[str, object]:
    """Mounts, control groups, processes, namespaces, descriptors, files that are ours or could be."""
    own, lost = _ours()
    processes = own | lost
    return {
        "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if _counts(line, home)],
        "control groups": sorted(_groups(processes)),
        "processes": sorted(_names(processes)),
        "namespaces": sorted(_namespaces(processes)),
        "descriptors": sorted(_descriptors(own, home)),
        "files": sorted(_files(home)),
    }


def _counts(mount: str, home: Path) -> bool:
    """Below a temporary directory, only what is in ours: there others mount for themselves."""
    place = mount.split(" ")[4]
    return not place.startswith(("/tmp/", "/var/tmp/")) or place.startswith(f"{home.parent}/")


def _files(home: Path) -> list[str]:
    """What lies there; os.walk passes over what goes meanwhile."""
    return [
        f"{top}/{name}"
        for part in ("containers", "names")
        for top, folders, files in os.walk(home / part)
        for name in (*folders, *files)
    ]


def left_behind(before: dict[str, object], home: Path) -> list[str]:
    """What is new and what has gone, as soon as there is nothing, at the latest after `PATIENCE` seconds.

    The kernel ends namespaces a little after their last process; groups of others on this machine come and go, so only
    what stays counts.
    """
    deadline = time.monotonic() + PATIENCE
    left = difference(before, picture(home))
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        now = difference(before, picture(home))
        left = [line for line in left if line in now]
    return left


def difference(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """What is new and what has gone, a line each; empty if nothing."""
    lines = []
    for name, old in before.items():
        new = after[name]
        assert isinstance(old, list)
        assert isinstance(new, list)
        lines += [f"{name}: new {item}" for item in new if item not in old]
        if name in _OTHERS:
            continue
        lines += [f"{name}: gone {item}" for item in old if item not in new]
        if len(new) > len(old) and not lines:
            lines.append(f"{name}: {len(old)} before, {len(new)} after")
    return lines


_OTHERS = ("control groups", "processes", "namespaces")
"""What may also be of others who run such tests beside us, and then may go at any time."""


def _groups(ours: set[int]) -> list[str]:
    """Those of Corten, less those in which others of this machine run something."""
    found = []
    for top, names, _ in os.walk("/sys/fs/cgroup"):  # which passes over what has just gone
        for path in (Path(top, name) for name in names if name.startswith("corten-")):
            try:
                inside = {int(pid) for pid in (path / "cgroup.procs").read_text().split()}
            except OSError:
                continue
            if not inside or inside & ours:
                found.append(str(path))
    return found


def groups_named(name: str) -> list[Path]:
    """The directories of control groups of that name, while those of others come and go (which `rglob` fails at)."""
    return [Path(top, name) for top, names, _ in os.walk("/sys/fs/cgroup") if name in names]


def _parents() -> dict[int, int]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            found[int(entry.name)] = int(fields[1])
    return found


def _ours() -> tuple[set[int], set[int]]:
    """This process and its descendants; and whatever calls itself Corten's child and has lost its parent, which may be
    that of others."""
    parents = _parents()
    ours = {os.getpid()}
    while True:
        more = {pid for pid, parent in parents.items() if parent in ours} - ours
        if not more:
            break
        ours |= more
    lost = {pid for pid, parent in parents.items() if parent == 1 and _name(pid).startswith("corten:")}
    return ours, lost


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _names(processes: set[int]) -> list[str]:
    # The spawner stays for the next container.
    return [name for pid in processes if (name := _name(pid)) not in ("", "corten:spawner")]


def _namespaces(processes: set[int]) -> set[str]:
    found = set()
    for pid in processes:
        for kind in ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"):
            try:
                found.add(str(Path(f"/proc/{pid}/ns/{kind}").readlink()))
            except OSError:
                continue
    return found


def _descriptors(processes: set[int], home: Path) -> list[str]:
    """Without those by which this process holds the host image's masks: a new one whenever /etc has changed."""
    found = []
    for pid in processes:
        if pid != os.getpid() and _name(pid) != "corten:spawner":
            continue
        try:
            descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
        except OSError:
            continue
        for entry in descriptors:
            try:
                target = str(entry.readlink())
            except OSError:
                continue
            # Numbers differ from run to run; what kind of thing is open is what counts.
            target = target.replace(f"/proc/{pid}/", "/proc/self/")
            kind = target.partition(":")[0] if target.startswith(("socket:", "pipe:", "anon_inode:")) else target
            if "/proc/self/fd" not in target and not target.startswith(f"{home}/host/"):
                found.append(f"{'spawner' if pid != os.getpid() else 'test'} {kind}")
    return found
