"""Makes the pictures of docs/views.md: 160 real containers in 10 jobs, drawn by Corten itself. As root:

unshare --pid --fork --mount-proc .venv/bin/python docs/pictures/scene.py

In a PID namespace of its own, so that what else runs on the machine is not in the picture.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from typing import Any

import corten
from corten import views
from corten.linux.cgroup import layout

HERE = os.path.dirname(os.path.abspath(__file__))
CORTEN = os.path.join(os.path.dirname(sys.executable), "corten")
JOBS, CONTAINERS = 10, 16
SCRIPT = "for i in 1 2 3 4; do sleep 600 & done; head -c {}m /dev/zero >/dev/shm/x; echo up; wait"


def start(stack: ExitStack, job: int, number: int, chance: random.Random, **more: Any) -> corten.Container:
    limit = chance.choice((16, 32, 64))
    used = int(limit * min(0.96, chance.betavariate(1.5, 4)))
    maps = ["0:100000:65536"]
    options = {"uidmap": maps, "gidmap": maps} if job == 9 else {}
    box = stack.enter_context(corten.start(
        "host", ["sh", "-c", SCRIPT.format(used)], name=f"{'train' if job < 8 else 'serve'}-{job}-{number}",
        memory=f"{limit}m", memory_swap=f"{limit}m", shm_size=f"{limit}m", pids=32, cgroup_parent=f"/jobs/job-{job}",
        **options, **more,
    ))  # fmt: skip
    assert box.stdout is not None
    assert box.stdout.readline() == b"up\n"
    return box


def limit_jobs() -> None:
    """Each job as a whole is limited, too, the fourth one tightly."""
    for tree in views.cgroups("memory", "/jobs").trees:
        name = "memory.limit_in_bytes" if tree.version == 1 else "memory.max"
        for node in tree.nodes:
            if node.path.count("/") == 2:
                factor = 1.04 if node.name == "job-3" else 1.3 + 0.2 * int(node.name[-1])
                with open(f"{tree.mount}{node.path}/{name}", "w") as file:
                    file.write(str(int((node.figures["memory"].use or 0) * factor) >> 20 << 20))


def draw(name: str, *words: str) -> None:
    subprocess.run([CORTEN, *words, "--output", os.path.join(HERE, name)], check=True)


def main() -> None:
    chance = random.Random(7)
    with tempfile.TemporaryDirectory(prefix="corten-scene-") as home, ExitStack() as stack:
        os.environ["CORTEN_HOME"] = home
        before = None
        for job in range(JOBS):
            for number in range(CONTAINERS):
                shared = {"network": f"ns:/proc/{before.pid}/ns/net"} if before and number % 4 == 3 else {}
                before = start(stack, job, number, chance, **shared) if job < 9 else start(stack, job, number, chance)
        limit_jobs()
        draw("namespaces-dark.png", "namespaces", "--theme", "dark")
        draw("cgroups.svg", "cgroups", "--controller", "memory", "/jobs")
        draw("cgroups-light.png", "cgroups", "--controller", "memory", "/jobs", "--theme", "light")
    for hierarchy in layout.detect().hierarchies:
        for path, _, _ in os.walk(f"{hierarchy.mount}/jobs", topdown=False):
            os.rmdir(path)


if __name__ == "__main__":
    main()
