"""A bundle's configuration made into a plan: what `create` will do is decided here, and nothing is started.

What the specification leaves to the runtime is settled as runc settles it: the default devices may be used, the umask
is 0022, capabilities that are not given are none.
"""

from __future__ import annotations

import os

from corten.engine import cgroup_path, home, notifying, systemd_properties
from corten.engine.systemd_properties import Scope
from corten.errors import InvalidInput, NotFound, Unsupported, errno_words
from corten.linux import capabilities, paths, seccomp
from corten.linux.capabilities import Sets
from corten.linux.cgroup import layout as layouts
from corten.linux.cgroup import resources as limits
from corten.linux.cgroup.files import Write
from corten.linux.cgroup.group import Group
from corten.linux.cgroup.resources import Resources
from corten.records import Record
from corten.runtime import defaults
from corten.runtime.compile import Filter, Setting, compile_plan
from corten.runtime.plan import Plan
from corten.runtime.spec import Hooks, Linux, Mount, Process, Spec
from corten.runtime.spec.decoding import decode_as
from corten.runtime.spec.files import LARGEST, parse
from corten.runtime.spec.validation import validate
from corten.runtime.step import Step
from corten.runtime.steps import group_binds, groups, hooks, labels, listener, scheduling

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.engine.systemd_properties import Property


class MakeOptions(Record):
    """What the command line says about making a container.

    bundle: absolute; preserve_fds: how many descriptors from 3 on the program gets; listening: how many of them are
    sockets of its activation (which it is told as sd_listen_fds(3) has it); cgroups: off leaves the process in
    the caller's group; notify: its program may tell that it is ready (`engine/notifying`).
    """

    bundle: str
    pivot: bool = True
    keyring: bool = True
    preserve_fds: int = 0
    listening: int = 0
    systemd_cgroup: bool = False
    cgroups: bool = True
    notify: bool = False


class Bundle(Record):
    """A container that could be made now. text: the configuration as it was read; listener: a socket for the filter's
    listener and what it is told, "" without one; warnings: for the log; sealed: the filter lets the program be executed
    by the trampoline; scope: of systemd, to be made with `properties` after the clone, and then `on_scope` is done."""

    text: str
    spec: Spec
    plan: Plan
    hooks: Hooks
    group: Group | None
    listener: tuple[str, str] = ("", "")
    warnings: tuple[str, ...] = ()
    sealed: bool = True
    scope: Scope | None = None
    properties: tuple[Property, ...] = ()
    on_scope: tuple[Step, ...] = ()


def read_text(path: str) -> str:
    """The text of a configuration. Errors: `NotFound`, `InvalidInput`."""
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file or directory: a bundle has a config.json") from None
    except OSError as error:
        raise InvalidInput(f"{path}: {errno_words(error.errno or 0)}") from None
    if len(data) > LARGEST:
        raise InvalidInput(f"{path}: larger than {LARGEST >> 20} MiB")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: byte {error.start} is not UTF-8") from None


def load(text: str) -> tuple[Spec, dict[str, Any] | None]:
    """The configuration, validated, and apart from it the seccomp profile as it stands (large, and often kept
    compiled already)."""
    data = parse(text.encode(), "config.json")
    profile = None
    if isinstance(data, dict) and isinstance(data.get("linux"), dict):
        profile = data["linux"].pop("seccomp", None)
    spec = decode_as(Spec, data)
    validate(spec)
    return spec, profile


def prepare(identity: str, directory: str, options: MakeOptions, config: str = "") -> Bundle:
    """Decide everything about a container. directory: its own, in the state root; config: the file, if not the
    bundle's config.json. Errors: `InvalidInput`, `NotFound`, `Unsupported`."""
    text = read_text(config or f"{options.bundle}/config.json")
    spec, profile = load(text)
    warnings: list[str] = []
    spec = _settled(spec, options.bundle, warnings)
    process, linux = spec.process, spec.linux
    assert process is not None
    assert linux is not None
    if options.listening:
        process = process.replace(env=(*process.env, f"LISTEN_FDS={options.listening}", "LISTEN_PID=1"))
        spec = spec.replace(process=process)
    if options.notify:
        spec = _notifying(spec, directory)
    _require(process, linux)
    layout = layouts.detect()
    scope = None
    if options.systemd_cgroup and options.cgroups:
        scope = systemd_properties.scope_of(linux.cgroups_path, identity, user=os.geteuid() != 0)
        linux = linux.replace(cgroups_path=_path_of(scope))
    group, writes = _group(options, linux, layout, identity)
    found, listening = (None, ("", "")) if profile is None else filter_of(profile)
    if found and listening[0] and process.no_new_privileges is False:
        raise Unsupported("linux.seccomp.listenerPath: needs process.noNewPrivileges here")
    all_hooks = spec.hooks or Hooks()
    setting = Setting(
        directory=directory,
        group=group,
        writes=writes,
        layout=layout,
        filter=found,
        privileged=os.geteuid() == 0,
        init=False,
        keep_fds=options.preserve_fds,
        detached=True,
        keyring=f"_ses.{identity}" if options.keyring else "",
        pivot=options.pivot,
        entering=scheduling_steps(process, linux),
        before_pivot=(*_hook_steps(all_hooks), *label_steps(process)),
    )
    plan = compile_plan(spec, setting)
    if found and listening[0]:
        notifying = listener.LoadNotifyingFilter(found.program, found.flags)
        plan = plan.replace(inside=(*plan.inside, notifying), payload=())
    sealed = profile is None or allows(profile, "execveat")
    made = Bundle(text, spec, plan, all_hooks, group, listening, tuple(warnings), sealed)
    return made if scope is None or group is None else _with_scope(made, scope, group, writes, identity)


def _path_of(scope: Scope) -> str:
    from corten.engine.systemd import Manager

    with Manager(scope.user) as manager:
        return manager.path(scope)


def _with_scope(made: Bundle, scope: Scope, group: Group, writes: tuple[Write, ...], identity: str) -> Bundle:
    """The same with what is done to its control group put off until systemd has made that."""
    kinds = (group_binds.MakeOrAdoptGroup, groups.WriteLimit, groups.LimitDevices)
    late = [step for step in made.plan.host if isinstance(step, kinds)]
    devices = [step.resources.devices for step in late if isinstance(step, groups.LimitDevices)]
    properties = [
        *systemd_properties.of_scope(scope, identity, made.spec.annotations),
        *systemd_properties.of_limits(writes),
    ]
    if devices:
        with open("/proc/devices", encoding="utf-8") as file:
            known = systemd_properties.device_groups(file.read())
        properties += systemd_properties.of_devices(devices[0], known)
    host = tuple(step for step in made.plan.host if step not in late)
    return made.replace(
        plan=made.plan.replace(host=host, group=None), scope=scope, properties=tuple(properties),
        on_scope=(group_binds.AdoptScope(group), *late[1:]),
    )  # fmt: skip


# --- what the specification leaves open


def _settled(spec: Spec, bundle: str, warnings: list[str]) -> Spec:
    root, linux = spec.root, spec.linux or Linux()
    assert root is not None
    path = os.path.normpath(os.path.join(bundle, root.path))
    if not os.path.isdir(path):
        raise NotFound(f"root.path: {path}: no such file or directory")
    kinds = [space.type for space in linux.namespaces]
    resources = linux.resources or Resources()
    rules = (defaults.DEVICE_RULES[0], *resources.devices, *defaults.DEVICE_RULES[1:])
    assert spec.process is not None
    return spec.replace(
        root=root.replace(path=path),
        process=settled_process(spec.process, "user" in kinds, warnings),
        mounts=tuple(_with_mode(_absolute(mount, bundle), path) for mount in spec.mounts),
        linux=linux.replace(resources=resources.replace(devices=rules)),
    )


def _notifying(spec: Spec, directory: str) -> Spec:
    """With the directory of its socket, and the variable that says where that is."""
    assert spec.process is not None
    options = ("bind", "nosuid", "noexec", "nodev", "ro")
    mount = Mount(notifying.PLACE, "bind", notifying.directory(directory), options)
    env = tuple(entry for entry in spec.process.env if not entry.startswith("NOTIFY_SOCKET="))
    process = spec.process.replace(env=(*env, f"NOTIFY_SOCKET={notifying.ADDRESS}"))
    return spec.replace(process=process, mounts=(*spec.mounts, mount))


def _absolute(mount: Mount, bundle: str) -> Mount:
    binds = mount.type == "bind" or "bind" in mount.options or "rbind" in mount.options
    source = os.path.join(bundle, mount.source) if binds else mount.source
    if binds and not os.path.lexists(source):
        raise NotFound(f"mounts {mount.destination}: source {source}: no such file or directory")
    return mount.replace(source=source, destination="/" + mount.destination.lstrip("/"))


def _with_mode(mount: Mount, root: str) -> Mount:
    """A tmpfs over a directory of the root has that one's mode, if it is given none of its own."""
    if mount.type != "tmpfs" or any(option.startswith("mode=") for option in mount.options):
        return mount
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        place = paths.open_in_root(top, mount.destination, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return mount  # it will be made, or is in a mount of the container
    finally:
        os.close(top)
    mode = os.fstat(place).st_mode & 0o7777
    os.close(place)
    return mount.replace(options=(*mount.options, f"mode={mode:04o}"))


def settled_process(process: Process, new_rights: bool, warnings: list[str]) -> Process:
    """The process with what runc assumes where the configuration is silent.

    new_rights: it will be in a user namespace, where it has every capability to begin with. Capabilities that cannot
    be granted are left out with a warning, as the specification asks.
    """
    asked = process.capabilities or Sets()
    known = set(capabilities.ALL[: capabilities.last() + 1])
    held = None if new_rights else capabilities.current()
    given: dict[str, tuple[str, ...]] = {}
    for field in ("bounding", "permitted", "inheritable", "effective", "ambient"):
        names: tuple[str, ...] = getattr(asked, field)
        limit = known if held is None else known & set(held.bounding if field in ("bounding", "inheritable")
                                                       else held.permitted)  # fmt: skip
        if field in ("effective", "ambient"):
            limit &= set(given["permitted"])
        if field == "ambient":
            limit &= set(given["inheritable"])
        given[field] = tuple(name for name in names if name in limit)
        left = [name for name in names if name not in limit]
        if left:
            warnings.append(f"process.capabilities.{field}: cannot be granted: {', '.join(left)}")
    user = process.user
    return process.replace(
        capabilities=Sets(**given),
        user=user if user.umask is not None else user.replace(umask=defaults.UMASK),
    )


# --- what goes into the plan besides


def scheduling_steps(process: Process, linux: Linux | None) -> tuple[Step, ...]:
    """The steps that say how the kernel schedules the process."""
    steps: list[Step] = []
    if process.scheduler:
        one = process.scheduler
        steps.append(scheduling.SetScheduler(
            one.policy, one.flags, one.nice, one.priority, one.runtime, one.deadline, one.period
        ))  # fmt: skip
    if process.io_priority:
        steps.append(scheduling.SetIOPriority(process.io_priority.class_, process.io_priority.priority))
    if linux and linux.memory_policy:
        policy = linux.memory_policy
        steps.append(scheduling.SetMemoryPolicy(policy.mode, policy.nodes, policy.flags))
    if linux and linux.personality:
        steps.append(scheduling.SetPersonality(linux.personality.domain))
    return tuple(steps)


def label_steps(process: Process) -> tuple[Step, ...]:
    """The steps that ask for a label at the next exec."""
    steps: list[Step] = []
    if process.apparmor_profile and labels.apparmor_enabled():
        steps.append(labels.LabelProgram("apparmor", process.apparmor_profile))
    if process.selinux_label:
        steps.append(labels.LabelProgram("selinux", process.selinux_label))
    return tuple(steps)


def _hook_steps(all_hooks: Hooks) -> tuple[Step, ...]:
    steps: list[Step] = []
    if all_hooks.prestart or all_hooks.create_runtime:
        steps.append(hooks.AwaitRuntimeHooks())
    steps += [hooks.RunHook(hook, "createContainer") for hook in all_hooks.create_container]
    return tuple(steps)


def _require(process: Process, linux: Linux) -> None:
    """`Unsupported` naming the field for what this machine cannot do and no later step would refuse clearly."""
    labels.require(process.apparmor_profile, process.selinux_label)
    if linux.mount_label and not labels.selinux_enabled():
        raise Unsupported(f"linux.mountLabel: {linux.mount_label}: SELinux is not enabled in this kernel")
    if linux.mount_label:
        raise Unsupported(f"linux.mountLabel: {linux.mount_label}: mounts are not labelled here: leave it out")
    if linux.intel_rdt:
        if not os.path.exists("/sys/fs/resctrl/schemata"):
            raise Unsupported("linux.intelRdt: /sys/fs/resctrl is not mounted, or this CPU has no such control")
        raise Unsupported("linux.intelRdt: cache and memory bandwidth are not managed by this version: leave it out")
    spaces = [space for space in linux.namespaces if space.type == "mount"]
    if not spaces:
        raise Unsupported('linux.namespaces: none for mounts, which would be the host\'s: add {"type": "mount"}')
    if spaces[0].path:
        raise Unsupported(f"linux.namespaces: mount: {spaces[0].path}: not in another's: leave the path out")


def filter_of(profile: dict[str, Any]) -> tuple[Filter, tuple[str, str]]:
    """The compiled filter of a profile as JSON has it, and its listener: (socket, metadata).

    The digest of the profile finds the filter in the cache, so it is read whole only when it must be compiled.
    """
    from _blake2 import blake2b

    from corten.json_text import dumps

    if not isinstance(profile, dict):
        raise InvalidInput("linux.seccomp: expected object")
    flags = tuple(profile.get("flags") or ())
    path, metadata = profile.get("listenerPath") or "", profile.get("listenerMetadata") or ""
    rules = {key: value for key, value in profile.items() if key not in ("flags", "listenerPath", "listenerMetadata")}
    key = "oci-" + blake2b(dumps(rules).encode(), digest_size=20).hexdigest()

    def read() -> seccomp.Seccomp:
        return decode_as(seccomp.Seccomp, profile, "linux.seccomp")

    program = seccomp.cached(read, f"{home.directory()}/filters", key)
    if seccomp.needs_listener(program) and not path:
        raise InvalidInput("linux.seccomp.listenerPath: missing; SCMP_ACT_NOTIFY needs a listener")
    return Filter(program, flags, "of the bundle", for_init=False), (path, str(metadata))


def allows(profile: dict[str, Any], name: str) -> bool:
    """Whether a profile as JSON has it allows a system call whatever its arguments."""
    passing = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG")
    rules = [rule for rule in profile.get("syscalls") or () if name in (rule.get("names") or ())]
    if not rules:
        return profile.get("defaultAction") in passing
    return all(rule.get("action") in passing and not rule.get("args") for rule in rules)


def _group(
    options: MakeOptions, linux: Linux, layout: layouts.Layout, identity: str
) -> tuple[Group | None, tuple[Write, ...]]:
    resources = linux.resources or Resources()
    if not options.cgroups:
        if resources.replace(devices=()) != Resources():
            raise InvalidInput("linux.resources: cannot be applied with control groups disabled")
        return None, ()
    if os.geteuid():
        resources = resources.replace(devices=())
    group = cgroup_path.place(layout, linux.cgroups_path, identity, limits.needs(resources))
    if not group.dirs:
        return None, ()
    return group, limits.writes(resources, group)
