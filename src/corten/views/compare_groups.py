"""The control group of a plan, read back from the process's own group."""

from __future__ import annotations

import os

from corten.linux.cgroup import devices, files, layout
from corten.runtime.step import Step
from corten.runtime.steps import group_binds, groups
from corten.views.findings import Finding, Subject, found, unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.views.findings import Table


def place(step: Step) -> str:
    """What a write is overtaken by: a later one to the same file that has one value only."""
    if isinstance(step, groups.WriteLimit) and len(step.write.expect.split()) < 2:
        return f"{step.write.controller}:{step.write.file}"
    return ""


def _made(step: groups.MakeGroup, subject: Subject) -> list[Finding]:
    rows = []
    for own in step.group.dirs:
        controller = own.controllers[0] if own.version == 1 else ""
        mount = next((h.mount for h in layout.detect().hierarchies if own.path.startswith(h.mount + "/")), "")
        wanted = subject.own(own.path).removeprefix(mount)
        there = subject.groups.get(controller)
        if there is not None and there.startswith(wanted + "/"):
            there = wanted  # the container has groups of its own below
        rows.append(found(f"{'+'.join(own.controllers) if own.version == 1 else 'v2'} group", wanted, there))
    return rows


def _limit(step: groups.WriteLimit, subject: Subject) -> list[Finding]:
    write = step.write
    directory = subject.own(step.group.directory(write.controller) or "")
    about = f"limit {write.file}"
    while write.otherwise is not None and not os.path.exists(f"{directory}/{write.file}"):
        write = write.otherwise
    if not write.expect:
        return [unknown(about, write.value, "the kernel does not show it")]
    text = files.text(f"{directory}/{write.read_from or write.file}")
    if text is None:
        return [Finding(about, write.value, f"no file {directory}/{write.file}", False)]
    held = " / ".join(text.split("\n")).strip(" /")
    return [Finding(about, write.expect.strip(), held, files.agrees(text, write.expect))]


def _devices(step: groups.LimitDevices, subject: Subject) -> list[Finding]:
    directory = subject.own(step.group.directory("devices") or "")
    wanted = devices.rules(step.resources.devices)
    if step.group.version("devices") == 1:
        default, others = devices.exceptions(wanted)
        lines = frozenset(["a *:* rwm"] if default else map(devices.line, others))
        text = files.text(f"{directory}/devices.list")
        return [found("allowed devices", lines, None if text is None else frozenset(text.splitlines()))]
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        there = len(devices.attached(fd)) > 0
    finally:
        os.close(fd)
    return [found("a program of allowed devices", True, there)]


TABLE: Table = {
    groups.MakeGroup: _made,
    group_binds.MakeOrAdoptGroup: _made,
    groups.WriteLimit: _limit,
    groups.LimitDevices: _devices,
}
