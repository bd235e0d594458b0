"""Both halves: a host name, a root and at most 20 processes of its own. As root: run_child.py [PROGRAM ARG...]"""

from __future__ import annotations

import os
import sys

from corten.linux.cgroup import group, layout, resources
from corten.linux.mount_options import MountOptions
from corten.runtime.launcher import Launch
from corten.runtime.plan import Plan, Program
from corten.runtime.steps import groups, identity, mounts, root

PROOF = "hostname; touch /i-was-here; i=1; while sleep 9 & do i=$((i+1)); echo -n $i processes,; done"


def run(argv: tuple[str, ...]) -> None:
    """Make the plan, show it, carry it out."""
    limits = resources.Resources(pids=resources.Pids(limit=20))
    box = group.place(layout.detect(), f"corten-example-{os.getpid()}", need=resources.needs(limits))
    limit = [groups.WriteLimit(box, write) for write in resources.writes(limits, box)]
    child = (
        *(groups.JoinGroup(box), root.Isolate(), root.MountOverlay(("/",), layer="", at="/tmp")),
        mounts.Mount("proc", "proc", "/proc", MountOptions()),
        mounts.Mount("bind", "/dev", "/dev", MountOptions(bind=True)),
        *(identity.SetHostname("container"), root.Pivot(), root.WorkingDirectory("/")),
    )
    program = Program(argv, (f"PATH={os.environ['PATH']}",), os.environ["PATH"])
    host, undo = (groups.MakeGroup(box), *limit), (groups.RemoveGroup(box),)
    plan = Plan(host, ("uts", "pid", "mount"), (), (), child, (), program, undo, group=box)
    print(*plan.lines(), sep="\n", flush=True)
    account = Launch(plan, (0, 1, 2), lambda message, _: print(message, flush=True)).wait()
    print(f"refused to fork {account.pids_refused} times; on the host /i-was-here: {os.path.exists('/i-was-here')}")


if __name__ == "__main__":
    run(tuple(sys.argv[1:]) or ("sh", "-c", PROOF))
