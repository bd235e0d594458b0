"""Many containers one after another and many at once; then what of mounts, groups, descriptors, ... is left.

before_after.py ROOTFS IN_A_ROW AT_ONCE prints JSON: the seconds both took, and by kind what was not there before.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time

import corten

SETTLE_S = 10.0
"""The kernel ends network namespaces, and so what they held, a little after their last process."""


def _lines(path: str) -> list[str]:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read().splitlines()


def groups() -> set[str]:
    """Control groups below our own, in every hierarchy."""
    mounts = {}
    for line in _lines("/proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if kind[0] == "cgroup2":
            mounts[""] = fields[4]
        elif kind[0] == "cgroup":
            mounts.update(dict.fromkeys(kind[2].split(","), fields[4]))
    found: set[str] = set()
    for line in _lines("/proc/self/cgroup"):
        _, controllers, own = line.split(":", 2)
        base = mounts.get(controllers.split(",")[0])
        if base:
            top = base + (own if own != "/" else "")
            # On pure v2 a limited group cannot be below a group with processes: it is beside it.
            found.update(path for path, _, _ in os.walk(top if controllers else os.path.dirname(top) or top))
    return found


def processes() -> dict[int, int]:
    """Processes with an ancestor in this one: pid and its parent."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    ours = {os.getpid()}
    while True:
        more = {pid for pid, parent in parents.items() if parent in ours} - ours
        if not more:
            return {pid: parents.get(pid, 0) for pid in ours - {os.getpid()}}
        ours |= more


def namespaces(pids: list[int]) -> set[str]:
    """Namespaces that these processes are in or hold open."""
    found = set()
    for pid in pids:
        for folder in ("ns", "fd"):
            try:
                for name in os.listdir(f"/proc/{pid}/{folder}"):
                    target = os.readlink(f"/proc/{pid}/{folder}/{name}")
                    if ":[" in target and not target.startswith(("pipe", "socket", "anon_inode")):
                        found.add(target)
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def home_files() -> set[str]:
    """What the engine keeps for live containers: records, locks, writable layers."""
    home = os.environ.get("CORTEN_HOME") or "/var/lib/corten"
    return {
        os.path.join(path, name)
        for kind in ("containers", "names")
        for path, folders, files in os.walk(f"{home}/{kind}")
        for name in (*folders, *files)
    }


def snapshot() -> dict[str, set[str]]:
    """Everything that must be as it was, by kind."""
    family = processes()
    pids = [os.getpid(), *family]
    return {
        "mounts": set(_lines("/proc/self/mountinfo")),
        "cgroups": groups(),
        "fds": {f"{pid}:{name}" for pid in pids for name in os.listdir(f"/proc/{pid}/fd")},
        "namespaces": namespaces(pids),
        "processes": {str(pid) for pid in family},
        "files": home_files(),
    }


def run_one(rootfs: str, failures: list[str]) -> None:
    try:
        result = corten.run(rootfs=rootfs, argv=["/bin/true"], writable="throwaway", memory="64m", cpus=1, pids=64)
        if result.exit_code:
            failures.append(result.reason)
    except corten.Error as error:
        failures.append(str(error))


def main() -> None:
    rootfs, in_a_row, at_once = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    failures: list[str] = []
    run_one(rootfs, failures)  # the spawner is started, and stays
    before = snapshot()
    start = time.perf_counter()
    for _ in range(in_a_row):
        run_one(rootfs, failures)
    row_s = time.perf_counter() - start
    threads = [threading.Thread(target=run_one, args=(rootfs, failures)) for _ in range(at_once)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    once_s = time.perf_counter() - start
    deadline = time.monotonic() + SETTLE_S
    while True:
        after = snapshot()
        left = {kind: sorted(after[kind] - before[kind]) for kind in before}
        if not any(left.values()) or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    print(json.dumps({"row_s": row_s, "once_s": once_s, "failures": failures, "left": left,
                      "before": {kind: len(things) for kind, things in before.items()},
                      "after": {kind: len(things) for kind, things in after.items()}}))  # fmt: skip


if __name__ == "__main__":
    main()
