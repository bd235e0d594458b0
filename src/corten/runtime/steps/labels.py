"""Steps about security modules: the label that the program will have from its exec on."""

from __future__ import annotations

import os

from corten.errors import Unsupported
from corten.runtime.step import Stage, Step


def apparmor_enabled() -> bool:
    """Whether this kernel enforces AppArmor profiles."""
    try:
        with open("/sys/module/apparmor/parameters/enabled") as file:
            return file.read().startswith("Y")
    except OSError:
        return False


def selinux_enabled() -> bool:
    """Whether this kernel enforces SELinux labels."""
    return os.path.exists("/sys/fs/selinux/enforce")


def require(apparmor: str, selinux: str, place: str = "process") -> None:
    """`Unsupported` naming the field, for a label of a module that is not there."""
    if apparmor and apparmor != "unconfined" and not apparmor_enabled():
        raise Unsupported(f"{place}.apparmorProfile: {apparmor}: AppArmor is not enabled in this kernel")
    if selinux and not selinux_enabled():
        raise Unsupported(f"{place}.selinuxLabel: {selinux}: SELinux is not enabled in this kernel")


class LabelProgram(Step):
    """Ask for a label at the next exec. Runs before the pivot, when /proc is still the host's."""

    module: str
    label: str

    def run(self, stage: Stage) -> None:
        apparmor = self.module == "apparmor"
        place = "/proc/self/attr/apparmor/exec" if apparmor else "/proc/self/attr/exec"
        if apparmor and not os.path.exists(place):
            place = "/proc/self/attr/exec"
        with open(place, "w") as file:
            file.write(f"exec {self.label}" if apparmor else self.label)

    def describe(self) -> str:
        return f"{self.module} label {self.label}"
