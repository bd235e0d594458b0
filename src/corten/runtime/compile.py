"""An OCI spec made into a plan. Pure: nothing is opened, read or done here.

The order of the inside steps is the point of this module; each comment says why a step stands where it does.
"""

from __future__ import annotations

from corten.errors import InvalidInput
from corten.linux import mount_options, mounts
from corten.linux.cgroup.files import Write
from corten.linux.cgroup.group import Group
from corten.linux.cgroup.layout import Layout
from corten.linux.idmap import IdMapping, to_host
from corten.linux.mount_options import MountOptions
from corten.records import Record
from corten.runtime import aside, defaults
from corten.runtime.plan import Plan, Program
from corten.runtime.spec import Linux, Process, Spec
from corten.runtime.spec import Mount as MountSpec
from corten.runtime.step import Step
from corten.runtime.steps import aside as asides
from corten.runtime.steps import cover, group_binds, groups, identity, layer, namespaces, no_pivot, nodes, root
from corten.runtime.steps import mounts as mounting

_PROPAGATION = {
    "private": mounts.PRIVATE,
    "slave": mounts.SLAVE,
    "shared": mounts.SHARED,
    "unbindable": mounts.UNBINDABLE,
}
_MOST_LAYERS = 500  # OVL_MAX_STACK of the kernel's overlayfs
DEFAULT_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Overlay(Record):
    """A root made of layers. layer: directory with upper and work, made if missing; "" for one in memory.

    below: places below the root that are overlays of their own; holds: directories to lock against removal;
    directories: made in the root where they are missing.
    """

    lowers: tuple[str, ...]
    layer: str
    size: int = 0
    below: tuple[root.Below, ...] = ()
    holds: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()


class Filter(Record):
    """A compiled system call filter. for_init: it allows what an init does, so pid 1 may load it too."""

    program: bytes
    flags: tuple[str, ...]
    name: str
    for_init: bool


class Setting(Record):
    """What the spec does not say about where and how the container is made.

    directory: the container's own on the host; name_file: claimed for its name, "" without one; overlay: the root,
    None for the spec's `root.path` itself; group and writes: the control group and its limits; layout: of this
    machine; privileged: whether the launcher is root; files: (path, content) written into the root; timeout: seconds.
    ahead: nothing of the user's is claimed or written to by it, so it may be made before it is asked for;
    detached: the container outlives its launcher (OCI `create`): directory and group are claimed and removed by others,
    namespaces are joined by the clone, and the filter is loaded after all waiting; keyring: name of the new one, "" for
    none; pivot: by pivot_root, else by moving the root (OCI `--no-pivot`); entering, before_pivot: steps to add where
    the child is still the host's (its /proc is there) and when the root is filled. held: see `Plan.held`;
    below: (kind, path) of namespaces that the clone's new ones are to be children of.
    """

    directory: str
    note_file: str = ""
    note: tuple[str, ...] = ()
    name_file: str = ""
    overlay: Overlay | None = None
    group: Group | None = None
    writes: tuple[Write, ...] = ()
    layout: Layout | None = None
    filter: Filter | None = None
    privileged: bool = True
    init: bool = True
    timeout: float | None = None
    keep_fds: int = 0
    files: tuple[tuple[str, str], ...] = ()
    ahead: bool = False
    detached: bool = False
    keyring: str = "corten"
    pivot: bool = True
    entering: tuple[Step, ...] = ()
    before_pivot: tuple[Step, ...] = ()
    held: bool = False
    below: tuple[tuple[str, str], ...] = ()


def compile_plan(spec: Spec, setting: Setting) -> Plan:
    """The plan for a spec. InvalidInput for what contradicts itself or cannot be planned."""
    process, linux = spec.process, spec.linux
    if process is None or not process.args:
        raise InvalidInput("process.args: missing: there is nothing to run")
    if linux is None:
        raise InvalidInput("linux: missing")
    new = tuple(space.type for space in linux.namespaces if not space.path)
    joined = tuple((space.type, space.path) for space in linux.namespaces if space.path)
    in_userns = "user" in new or any(kind == "user" for kind, _ in joined)
    if "mount" not in new:
        raise InvalidInput("linux.namespaces: a mount namespace of its own is needed to change the root")
    # What is made new belongs to the user namespace that its maker is in; a PID namespace is only for later children.
    by_clone = setting.detached or any(kind in ("user", "pid") for kind, _ in joined)
    early, rest = _fill_root(spec, process, linux, setting, in_userns)
    limits = [identity.LimitResource(limit.type, limit.soft, limit.hard) for limit in process.rlimits]
    # Five files, or files of no bytes, may be enough for the program, but not for what is done before it: limits come
    # last. Only: root may raise hard ones, and has lost that right once inside of another user namespace.
    limits_first = setting.privileged and in_userns
    entering = _enter(process, linux, setting, new, joined, by_clone, limits if limits_first else [])
    first = (*entering, *early, *_name_and_tune(spec, linux, new))
    inside = (
        *first,
        *rest,
        *setting.before_pivot,
        *_finish_root(spec, linux, setting.pivot),
        root.WorkingDirectory(process.cwd),
        *((namespaces.ShareNamespaces(tuple(space.type for space in linux.namespaces)),) if setting.held else ()),
    )
    rights, payload = _give_up_rights(process, linux, setting)
    if not limits_first:
        rights = (*limits, *rights)
    search = next((entry[5:] for entry in process.env if entry.startswith("PATH=")), DEFAULT_SEARCH)
    # Root's launcher opens what is mounted from the host: the child, in another user namespace, has no rights there.
    opening = tuple(step for step in inside if isinstance(step, (mounting.OpenTree, root.OpenLayers)))
    inside = tuple(step for step in inside if step not in opening)
    return Plan(
        host=(*_prepare(linux, setting, (*joined, *setting.below)), *opening),
        # A cgroup namespace is rooted where its maker stands, and offsets are set before anybody is in: by steps.
        namespaces=tuple(k for k in new if k != "cgroup" and not (k == "time" and linux.time_offsets)),
        uid_maps=linux.uid_mappings,
        gid_maps=linux.gid_mappings,
        inside=(*inside, *rights),
        payload=payload,
        program=Program(process.args, process.env, search),
        undo=tuple(_undo(setting)),
        init=setting.init,
        timeout=setting.timeout,
        group=setting.group,
        keep_fds=setting.keep_fds,
        joined=(*joined, *setting.below) if by_clone else (),
        held=setting.held,
        # Files of the host are looked at only when the container is wanted: as they are then.
        ahead=len(first) if setting.ahead and not joined and not opening else 0,
    )


def _prepare(linux: Linux, setting: Setting, joined: tuple[tuple[str, str], ...]) -> list[Step]:
    steps: list[Step] = []
    if setting.name_file:
        what = "the name " + setting.name_file.rpartition("/")[2]
        whose = setting.directory.rpartition("/")[2]
        steps.append(layer.Claim(setting.name_file, what, directory=False, says=whose))
    if not setting.detached:
        steps.append(layer.Claim(setting.directory, "the container id"))
    if setting.note_file:
        # Before anything that a sweeper would have to find.
        steps.append(layer.Note(setting.note_file, setting.note))
    if not setting.detached:
        steps += [namespaces.OpenNamespace(kind, path) for kind, path in joined]
    if setting.overlay and setting.overlay.holds:
        steps.append(layer.Hold(setting.overlay.holds))
    if setting.overlay and setting.overlay.layer:
        if setting.overlay.layer != setting.directory:
            # Two overlays that write to one layer spoil it, and the kernel lets them (overlayfs.rst, "undefined").
            steps.append(layer.Claim(setting.overlay.layer, f"the layer {setting.overlay.layer}"))
        owner = [to_host(_first(maps), maps) or 0 if maps and setting.privileged else 0
                 for maps in (linux.uid_mappings, linux.gid_mappings)]  # fmt: skip
        names = tuple(below.name for below in setting.overlay.below)
        steps.append(layer.MakeLayer(setting.overlay.layer, owner[0], owner[1], names))
    if setting.group:
        make = group_binds.MakeOrAdoptGroup if setting.detached else groups.MakeGroup
        steps.append(make(setting.group))
        steps += [groups.WriteLimit(setting.group, write) for write in setting.writes]
        if linux.resources and linux.resources.devices:
            steps.append(groups.LimitDevices(setting.group, linux.resources))
    return steps


def _undo(setting: Setting) -> list[Step]:
    steps: list[Step] = []
    if setting.detached:
        return steps
    if setting.group:
        steps.append(groups.RemoveGroup(setting.group))
    thrown_away = setting.overlay is not None and setting.overlay.layer == setting.directory
    below = setting.overlay.below if setting.overlay and thrown_away else ()
    steps.append(layer.RemoveTree(setting.directory, tuple(own.name for own in below)))
    if setting.name_file:
        steps.append(layer.Unclaim(setting.name_file))
    return steps


def _enter(
    process: Process,
    linux: Linux,
    setting: Setting,
    new: tuple[str, ...],
    joined: tuple[tuple[str, str], ...],
    by_clone: bool,
    limits: list[identity.LimitResource],
) -> list[Step]:
    """From the host's world into the new one. by_clone: what is joined is joined already; limits: set here already."""
    steps: list[Step] = []
    if setting.group:
        # With the launcher's rights, and before the cgroup namespace, whose root is the group joined here.
        steps.append(groups.JoinGroup(setting.group))
    if process.oom_score_adj is not None:
        steps.append(identity.OomScore(process.oom_score_adj))
    steps += limits
    if "time" in new and linux.time_offsets:
        offsets = tuple((clock, offset.secs, offset.nanosecs) for clock, offset in linux.time_offsets.items())
        steps.append(namespaces.TimeOffsets(offsets))
    steps += setting.entering
    # After the steps that write to /proc/self, before others can see this process.
    steps.append(identity.Shield())
    if not by_clone:
        steps += [namespaces.JoinNamespace(kind, path) for kind, path in joined]
    if "user" in new:
        steps.append(identity.BecomeMappedRoot(_first(linux.uid_mappings), _first(linux.gid_mappings)))
    elif any(kind == "user" for kind, _ in joined):
        ids = (_first(maps) if maps else 0 for maps in (linux.uid_mappings, linux.gid_mappings))
        steps.append(identity.BecomeMappedRoot(*ids))
    if "cgroup" in new:
        steps.append(namespaces.NewCgroupNamespace())
    if setting.keyring:
        steps.append(identity.NewKeyring(setting.keyring))
    steps.append(identity.NewSession())
    return steps


def _first(maps: tuple[IdMapping, ...]) -> int:
    return 0 if to_host(0, maps) is not None else maps[0].container_id


def _fill_root(
    spec: Spec, process: Process, linux: Linux, setting: Setting, in_userns: bool
) -> tuple[list[Step], list[Step]]:
    """Make the root and everything in it, while the host's files can still be reached as sources.

    Two lists: what needs nothing of the root's own files, and so is made before there is a root, and the rest.
    """
    propagation = _PROPAGATION.get(linux.rootfs_propagation.removeprefix("r"), mounts.SLAVE)
    # A shared root would send our mounts to the host: as in runc, what is asked for is set once we are inside.
    first: list[Step] = [root.Isolate(mounts.PRIVATE if propagation == mounts.PRIVATE else mounts.SLAVE)]
    count = aside.count(spec.mounts) if not setting.detached else 0
    tops = aside.tops(spec.mounts[:count])
    steps: list[Step] = []
    # A process of another user namespace may not be let into the container's directory on the host.
    far = in_userns and setting.privileged
    at = "/" if far else setting.directory
    if setting.overlay:
        overlay = setting.overlay
        volatile = overlay.layer == setting.directory  # which is removed at the end
        if far:
            lowers = dict.fromkeys((*overlay.lowers, *(path for below in overlay.below for path in below.lowers)))
            steps.append(root.OpenLayers(tuple(lowers), overlay.layer, linux.uid_mappings, linux.gid_mappings))
        # Others keep what is written, or see no source; and the kernel takes no more layers.
        if volatile and not in_userns and (tops or setting.files) and len(overlay.lowers) < _MOST_LAYERS:
            files = [path for path, _ in setting.files]
            steps.append(asides.LayPlaces(aside.places(tops, spec.mounts[count:], files)))
        steps.append(root.MountOverlay(overlay.lowers, overlay.layer, at, overlay.size, overlay.below, volatile))
    elif spec.root is not None:
        if far:
            steps.append(mounting.OpenTree(spec.root.path, True))
        steps.append(root.MountRoot(spec.root.path, at="/" if far else ""))
    else:
        raise InvalidInput("root: missing")
    if tops or setting.files:
        home = setting.directory.rpartition("/")[0].rpartition("/")[0]
        first.append(asides.MakeAside("/" if far else f"{home}/aside"))
    if tops:
        steps.append(asides.MoveIn(tops))
    for number, mount in enumerate(spec.mounts):
        (first if number < count else steps).extend(_mount(mount, setting, linux, in_userns))
    devices = [] if _has_own_dev(spec) else _devices(linux, in_userns)
    first += [step for step in devices if aside.below(step.path, tops)]
    steps += [step for step in devices if not aside.below(step.path, tops)]
    steps += [nodes.ProvideFile(path, content) for path, content in setting.files]
    if process.terminal:
        size = process.console_size
        height, width = (size.height, size.width) if size else (0, 0)
        steps.append(identity.OpenTerminal(process.user.uid, height, width))
    missing = setting.overlay.directories if setting.overlay else ()
    if setting.overlay and spec.root and spec.root.readonly:
        missing = (*missing, process.cwd)  # while it can still be made
    steps += [root.MakeDirectory(path) for path in missing]
    covers: list[cover.MakeReadOnly | cover.Hide] = [cover.MakeReadOnly(path) for path in linux.readonly_paths]
    covers += [cover.Hide(path) for path in linux.masked_paths]
    first += [step for step in covers if aside.below(step.path, tops)]
    steps += [step for step in covers if not aside.below(step.path, tops)]
    return first, steps


def _mount(mount: MountSpec, setting: Setting, linux: Linux, in_userns: bool) -> list[Step]:
    options = mount_options.parse(mount.options)
    kind = mount.type or "bind"
    if kind == "bind" and not options.bind:
        options = options.replace(bind=True, recursive=True)
    if kind == "cgroup" and not options.bind:
        if setting.group and not any(space.type == "cgroup" for space in linux.namespaces):
            return [group_binds.BindGroups(setting.group, mount.destination, options)]
        return [_cgroup_mount(mount.destination, options, setting.layout)]
    steps: list[Step] = []
    if options.bind:
        mount_options.check_bind(options.data, mount.destination)
        uid_maps, gid_maps = mount.uid_mappings, mount.gid_mappings
        if options.idmap and not uid_maps:
            uid_maps, gid_maps = linux.uid_mappings, linux.gid_mappings
            if not uid_maps:
                raise InvalidInput(f"mount {mount.destination}: idmap needs a user namespace or mappings of its own")
        # What is to send its mounts to the host must be opened before the child's view is cut off from the host's.
        sends = mounts.SHARED in (options.propagation, options.propagation_below)
        if uid_maps or sends or (in_userns and setting.privileged):
            how = options.recursive, uid_maps, gid_maps, options.idmap_below
            steps.append(mounting.OpenTree(mount.source, *how, mount.destination, sends))
    steps.append(mounting.Mount(kind, mount.source, mount.destination, options))
    return steps


def _cgroup_mount(destination: str, options: MountOptions, layout: Layout | None) -> Step:
    hierarchies = layout.hierarchies if layout else ()
    plain = options.replace(data=())
    if not hierarchies:
        raise InvalidInput(f"mount {destination}: this machine has no control groups mounted")
    if layout and layout.kind == "v2":
        return mounting.Mount("cgroup2", "cgroup", destination, plain)
    shown = []
    for hierarchy in hierarchies:
        if hierarchy.version == 2:
            shown.append(("unified", ""))
        else:
            data = ",".join(hierarchy.controllers)
            shown.append((data.removeprefix("name="), data))
    return mounting.CgroupMounts(destination, tuple(shown), plain)


def _has_own_dev(spec: Spec) -> bool:
    """Whether /dev is a bind mount: then its nodes are whoever's made it."""
    return any(
        "/" + mount.destination.strip("/") == "/dev"
        and (mount.type == "bind" or "bind" in mount.options or "rbind" in mount.options)
        for mount in spec.mounts
    )


def _devices(linux: Linux, in_userns: bool) -> list[nodes.MakeDevice | nodes.BindDevice | nodes.MakeLink]:
    steps: list[nodes.MakeDevice | nodes.BindDevice | nodes.MakeLink] = []
    for device in (*defaults.DEVICES, *linux.devices):
        if in_userns:
            steps.append(nodes.BindDevice(device.path, device.path))
        else:
            mode = 0o666 if device.file_mode is None else device.file_mode & 0o7777
            numbers = device.major or 0, device.minor or 0
            steps.append(nodes.MakeDevice(device.path, device.type, *numbers, mode, device.uid or 0, device.gid or 0))
    steps += [nodes.MakeLink(path, to) for path, to in defaults.LINKS]
    return steps


def _name_and_tune(spec: Spec, linux: Linux, new: tuple[str, ...]) -> list[Step]:
    """Names and parameters of the new namespaces; before the pivot, for /proc/sys is still the host's mount."""
    steps: list[Step] = []
    if spec.hostname or spec.domainname:
        steps.append(identity.SetHostname(spec.hostname, spec.domainname))
    if "network" in new:
        steps.append(identity.RaiseLoopback())
    steps += [identity.Sysctl(_sysctl_path(key), value) for key, value in linux.sysctl.items()]
    return steps


def _sysctl_path(key: str) -> str:
    """`net.ipv4.ip_forward` as a path; with a slash first, dots belong to names, as in sysctl(8)."""
    dot, slash = key.find("."), key.find("/")
    return key if slash >= 0 and (dot < 0 or slash < dot) else key.replace(".", "/")


def _finish_root(spec: Spec, linux: Linux, pivot: bool) -> list[Step]:
    steps: list[Step] = [root.FreezeRoot()] if spec.root and spec.root.readonly else []
    steps.append(root.Pivot() if pivot else no_pivot.MoveRoot())
    if linux.rootfs_propagation:
        steps.append(root.Propagate(_PROPAGATION[linux.rootfs_propagation.removeprefix("r")]))
    return steps


def _give_up_rights(
    process: Process, linux: Linux, setting: Setting
) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """The last steps of the child, and those that only the program's own process takes."""
    user = process.user
    # One mapped group only: setgroups was denied when the map was written, so there is nothing to set.
    may_set_groups = not linux.gid_mappings or setting.privileged or len(linux.gid_mappings) > 1
    if not may_set_groups and user.additional_gids:
        raise InvalidInput("process.user.additionalGids: this user namespace has one group only")
    extra = user.additional_gids if may_set_groups else None
    become = identity.BecomeUser(user.uid, user.gid, extra, user.umask, process.capabilities)
    load: tuple[Step, ...] = ()
    if setting.filter:
        load = (identity.LoadFilter(setting.filter.program, setting.filter.flags, setting.filter.name),)
    if not process.no_new_privileges:
        # Without no_new_privs loading needs CAP_SYS_ADMIN, which the next step may take away.
        return (*load, become), ()
    if setting.filter and (setting.detached or not setting.filter.for_init):
        return (become, identity.NoNewPrivileges()), load
    return (become, identity.NoNewPrivileges(), *load), ()
