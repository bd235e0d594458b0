"""Steps about control groups."""

from __future__ import annotations

from corten.linux.cgroup.files import Write
from corten.linux.cgroup.group import Group
from corten.linux.cgroup.resources import Resources
from corten.runtime.step import Stage, Step


class MakeGroup(Step):
    """Make the control group, in each hierarchy."""

    group: Group

    def run(self, stage: Stage) -> None:
        self.group.create()

    def describe(self) -> str:
        return "make control group " + " ".join(f"{'+'.join(d.controllers) or 'v2'}:{d.path}" for d in self.group.dirs)


class WriteLimit(Step):
    """Write one limit and read it back."""

    group: Group
    write: Write

    def run(self, stage: Stage) -> None:
        self.group.apply(self.write)

    def describe(self) -> str:
        return f"limit {self.write.file} = {self.write.value}"


class LimitDevices(Step):
    """Allow only the listed devices (v1 list, v2 BPF program)."""

    group: Group
    resources: Resources

    def run(self, stage: Stage) -> None:
        self.group.apply_devices(self.resources)

    def describe(self) -> str:
        rules = self.resources.devices
        allowed = [
            f"{rule.type or 'a'} {'*' if rule.major is None else rule.major}"
            f":{'*' if rule.minor is None else rule.minor} {rule.access}"
            for rule in rules
            if rule.allow
        ]
        others = "" if all(rule.allow for rule in rules) else "; deny others"
        return f"allow devices {', '.join(allowed) or 'none'}{others}"


class JoinGroup(Step):
    """Move the child itself into the group, before it has a cgroup namespace."""

    group: Group

    def run(self, stage: Stage) -> None:
        # Into v2 it was cloned; the rest by hand.
        self.group.join(v2=False)

    def describe(self) -> str:
        return "join the control group"


class RemoveGroup(Step):
    """End what still runs in the group, then remove it."""

    group: Group

    def run(self, stage: Stage) -> None:
        if self.group.procs():
            self.group.kill()
        self.group.remove()

    def describe(self) -> str:
        return "remove the control group"
