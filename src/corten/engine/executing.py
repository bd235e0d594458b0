"""`exec`: another program in a running container.

The order of things (each has a reason in the kernel's history): our memory is closed to others before we join anything
(CVE-2016-9962); the container's first process is held by pidfd and its start time looked at after that; its control
group is joined before its cgroup namespace hides where that is; one setns for the namespaces that differ from ours;
then the clone whose child is in the PID namespace; then the rights, the filter and the exec.
"""

from __future__ import annotations

import os

from corten.engine import bundle as bundles
from corten.engine import signalling
from corten.engine.child import Child, Outlets, check_preserved, check_terminal
from corten.engine.lifecycle import Found, WrongStatus
from corten.errors import InvalidInput, KernelError
from corten.json_text import loads
from corten.linux import clone
from corten.linux.cgroup import layout as layouts
from corten.linux.cgroup.group import Group, GroupDir
from corten.records import Record
from corten.runtime import compile as compiling
from corten.runtime import joining, parked
from corten.runtime.plan import Plan, Program
from corten.runtime.spec import Process
from corten.runtime.spec.decoding import decode_as
from corten.runtime.spec.validation import validate_process
from corten.runtime.step import Stage, Step, perform
from corten.runtime.steps import groups, identity, labels, listener, root, scheduling

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from corten.linux.signals import Mask


class ExecOptions(Record):
    """What the command line says about an exec. process: as JSON has it; cgroup: a path below the container's group,
    or (controllers, path) pairs; detach: nobody waits for it here."""

    process: dict[str, Any]
    detach: bool = False
    preserve_fds: int = 0
    cgroups: tuple[tuple[str, str], ...] = ()


def stored_config(path: str) -> dict[str, Any]:
    """The configuration that a container was made from, as JSON data."""
    with open(f"{path}/config.json", encoding="utf-8") as file:
        data: dict[str, Any] = loads(file.read())
    return data


def launch(
    found: Found, options: ExecOptions, outlets: Outlets, warn: Callable[[str], None], mask: Mask | None = None
) -> Child:
    """Start the program's process; it still waits for `leave`. On an error nothing is left."""
    config = stored_config(found.path)
    wanted = decode_as(Process, options.process, "process")
    validate_process(wanted)
    check_terminal(wanted.terminal, outlets, options.detach)
    check_preserved(options.preserve_fds)
    first = signalling.open_first(found)
    if first is None:
        raise WrongStatus("cannot exec in a stopped container")
    try:
        return _launch(found, options, config, wanted, outlets, warn, mask, first)
    finally:
        os.close(first)


def _launch(
    found: Found, options: ExecOptions, config: dict[str, Any], wanted: Process, outlets: Outlets,
    warn: Callable[[str], None], mask: Mask | None, first: int,
) -> Child:  # fmt: skip
    kinds = differing(found.pid)
    warnings: list[str] = []
    settled = bundles.settled_process(wanted, "user" in kinds, warnings)
    for warning in warnings:
        warn(warning)
    labels.require(settled.apparmor_profile, settled.selinux_label)
    group = _group(found, options.cgroups)
    plan = _plan(settled, config, group, options, kinds)
    profile = (config.get("linux") or {}).get("seccomp")
    sealed = profile is None or bundles.allows(profile, "execveat")
    stage = Stage()
    stage.root = -1
    initial = settled.exec_cpu_affinity.initial if settled.exec_cpu_affinity else ""
    if initial:
        scheduling.SetAffinity(initial).run(stage)

    def before() -> None:
        # With our own rights and our own view of the control groups, and after it nothing of the host's is written.
        perform(_entering(settled, group), stage)

    def become(blocked: Mask) -> NoReturn:
        parked.run_program(plan, stage, blocked, sealed=sealed)

    child = Child(plan, joining.Joins(of=first, kinds=kinds, before=before), stage, become, mask)
    try:
        child.converse(b"{}", lambda: None, _no_listener)
        child.announce(outlets)
    except BaseException:
        child.end()
        raise
    return child


def _no_listener(fd: int) -> None:
    os.close(fd)
    raise InvalidInput("linux.seccomp.listenerPath: an exec into a container with a listener is not done")


def differing(pid: int) -> tuple[str, ...]:
    """The kinds of namespaces in which a process is and we are not. `KernelError`: it has gone."""
    kinds = []
    for kind, (_, name) in clone.NAMESPACES.items():
        try:
            # The children's PID namespace is what an exec would join; an init is always in its own.
            theirs, ours = os.stat(f"/proc/{pid}/ns/{name}"), os.stat(f"/proc/self/ns/{name}")
        except FileNotFoundError:
            if os.path.exists(f"/proc/self/ns/{name}"):
                raise KernelError(f"look at the namespaces of process {pid}", 3) from None
            continue
        if not os.path.samestat(theirs, ours):
            kinds.append(kind)
    return tuple(kinds)


def _entering(settled: Process, group: Group | None) -> tuple[Step, ...]:
    """What is done as ourselves, in the process that will join the namespaces."""
    steps: list[Step] = []
    if group:
        steps.append(groups.JoinGroup(group))
    if settled.exec_cpu_affinity and settled.exec_cpu_affinity.final:
        steps.append(scheduling.SetAffinity(settled.exec_cpu_affinity.final))
    if settled.oom_score_adj is not None:
        steps.append(identity.OomScore(settled.oom_score_adj))
    steps += [identity.LimitResource(limit.type, limit.soft, limit.hard) for limit in settled.rlimits]
    steps += bundles.scheduling_steps(settled, None)
    return tuple(steps)


def _plan(
    settled: Process, config: dict[str, Any], group: Group | None, options: ExecOptions, kinds: tuple[str, ...]
) -> Plan:
    inside: list[Step] = [identity.Shield()]
    if "user" in kinds:
        inside.append(identity.BecomeMappedRoot(0, 0))
    inside += bundles.label_steps(settled)
    inside.append(identity.NewSession())
    if settled.terminal:
        size = settled.console_size
        inside.append(OpenTerminalInside(settled.user.uid, *((size.height, size.width) if size else (0, 0))))
    inside.append(root.WorkingDirectory(settled.cwd))
    user = settled.user
    extra: tuple[int, ...] | None = user.additional_gids
    if "user" in kinds and not user.additional_gids:
        extra = None if _setgroups_denied() else ()
    become = identity.BecomeUser(user.uid, user.gid, extra, user.umask, settled.capabilities)
    profile = (config.get("linux") or {}).get("seccomp")
    payload: tuple[Step, ...] = ()
    if profile is None:
        inside.append(become)
    else:
        found, listening = bundles.filter_of(profile)
        load: Step = identity.LoadFilter(found.program, found.flags, found.name)
        if listening[0]:
            load = listener.LoadNotifyingFilter(found.program, found.flags)
        if settled.no_new_privileges:
            inside.append(become)
            payload = (load,)
        else:
            inside += [load, become]
    if settled.no_new_privileges:
        inside.append(identity.NoNewPrivileges())
    search = next((entry[5:] for entry in settled.env if entry.startswith("PATH=")), compiling.DEFAULT_SEARCH)
    return Plan(
        host=(), namespaces=(), uid_maps=(), gid_maps=(), inside=tuple(inside), payload=payload,
        program=Program(settled.args, settled.env, search), undo=(), init=False, group=group,
        keep_fds=options.preserve_fds,
    )  # fmt: skip


def _setgroups_denied() -> bool:
    with open("/proc/self/setgroups") as file:
        return file.read().strip() == "deny"


class OpenTerminalInside(Step):
    """Make a terminal in the devpts of the container that we are in, and take it."""

    uid: int
    rows: int = 0
    columns: int = 0

    def run(self, stage: Stage) -> None:  # noqa: D102 - see Step
        from corten.linux import sockets, terminal

        master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        peer, number = terminal.open_peer(master)
        os.fchown(peer, self.uid, -1)
        if self.rows or self.columns:
            terminal.set_size(master, self.rows, self.columns)
        terminal.take(peer)
        assert stage.channel is not None
        sockets.send(stage.channel, f"Terminal\0/dev/pts/{number}".encode(), (master,))
        os.close(master)
        for fd in (0, 1, 2):
            os.dup2(peer, fd)
        if peer > 2:
            os.close(peer)

    def describe(self) -> str:  # noqa: D102 - see Step
        return "open a terminal in the container"


def _group(found: Found, below: tuple[tuple[str, str], ...]) -> Group | None:
    """The container's group, or what `--cgroup` names below it; on v2, where that has limited children and so takes no
    process, the one that the first process is in."""
    group = found.group
    if group is None:
        return None
    dirs = []
    for own in group.dirs:
        path = own.path
        for controllers, sub in below:
            served = {name.removeprefix("name=") for name in own.controllers}
            if not controllers or served.intersection(controllers.split(",")):
                path = os.path.normpath(f"{own.path}/{sub.strip('/')}")
                if not (path + "/").startswith(own.path + "/"):
                    raise InvalidInput(f"--cgroup {sub}: leaves the container's control group")
                if not os.path.isdir(path):
                    raise InvalidInput(f"--cgroup {sub}: {path} does not exist")
        dirs.append(GroupDir(own.version, own.controllers, path, own.enable))
    made = Group(tuple(dirs))
    if not below and [own.version for own in dirs] == [2]:
        return _v2_with_processes(found, made)
    return made


def _v2_with_processes(found: Found, group: Group) -> Group:
    own = group.dirs[0]
    with open(f"{own.path}/cgroup.subtree_control") as file:
        if not file.read().strip():
            return group
    with open(f"/proc/{found.pid}/cgroup") as file:
        path = next(line[3:].rstrip("\n") for line in file if line.startswith("0::"))
    hierarchy = next(one for one in layouts.detect().hierarchies if one.version == 2)
    return Group((GroupDir(2, own.controllers, hierarchy.mount + path, own.enable),))
