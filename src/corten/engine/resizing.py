"""New limits for a group that is in use: the same words as at the start, written in a safe order and read back."""

from __future__ import annotations

from corten.engine import options as options_module
from corten.engine.facts import host_facts
from corten.engine.resources import resources
from corten.linux.cgroup import resources as limits
from corten.linux.cgroup.group import Group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def resize(group: Group, swap_was_given: bool = False, **wanted: Any) -> None:
    """Change limits. wanted: memory, cpus, pids, memory_reservation, memory_swap as for `run`; None leaves one alone.

    Memory and swap together follow the memory, as at the start, unless swap_was_given then or is given now.
    `InvalidInput`: not values; `Unsupported`: the kernel cannot; `KernelError`: it refused, for example a memory limit
    below what is in use.
    """
    asked = options_module.make("host", **wanted)
    changes = resources(asked, host_facts(asked)).replace(devices=())
    if changes.memory and wanted.get("memory_swap") is None and swap_was_given:
        changes = changes.replace(memory=changes.memory.replace(swap=None))
    for write in limits.writes(changes, group, limits.now(group)):
        group.apply(write)
