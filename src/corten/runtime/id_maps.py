"""The id maps of a plan, given to its first process from outside."""

from __future__ import annotations

import os

from corten.linux.idmap import write_maps
from corten.runtime.plan import Plan


def give(plan: Plan, pid: int) -> None:
    """Write them, where the plan has a user namespace of its own. Who is no root and has one map only loses
    setgroups(2) inside: the kernel would not take the map otherwise. Errors: those of `write_maps`."""
    if "user" in plan.namespaces:
        may_set_groups = os.geteuid() == 0 or len(plan.gid_maps) > 1
        write_maps(pid, plan.uid_maps, plan.gid_maps, setgroups_deny=not may_set_groups)
