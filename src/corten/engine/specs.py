"""Options made into an OCI spec. Pure, but for `user_of`, which looks names up in the root file system.

Rule 1: everything that the options do not say is Podman's default (`runtime.defaults`).
Rule 2: a limit that the program inside should know of is shown to it: thread counts follow the CPU limit, /dev/shm
        the memory limit.
"""

from __future__ import annotations

from corten.engine.facts import HostFacts
from corten.engine.mounts import MountOption
from corten.engine.options import RunOptions
from corten.engine.resources import cpu_count, resources
from corten.engine.users import Identity, resolve_user
from corten.errors import InvalidInput, Unsupported
from corten.images.sources import Bind, RootSource
from corten.linux import capabilities
from corten.linux.capabilities import Sets
from corten.linux.idmap import IdMapping, to_host
from corten.linux.process import limit_words
from corten.runtime import defaults
from corten.runtime.spec import Device, Linux, Mount, Namespace, Process, Rlimit, Root, Spec, TimeOffset, User

__all__ = ["HostFacts", "files", "to_spec", "user_of"]

THREAD_COUNTS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
    "PYTHON_CPU_COUNT",
)
"""Variables that libraries take their number of threads from; else they start one for each CPU of the machine."""

SHM_SIZE = 64 << 20
"""Bytes of /dev/shm without a memory limit, as docker."""

_UNKNOWN = (IdMapping(0, 0, 1),)
"""What may be relied on in a user namespace of others: that it has a root."""

_TIGHT = ("nosuid", "noexec", "nodev")


def to_spec(options: RunOptions, root: RootSource, facts: HostFacts, user: Identity, identity: str) -> Spec:
    """The spec of a container. user: see `user_of`; identity: its id.

    Raises `InvalidInput` for what the root or the host contradicts.
    """
    hostname = (options.hostname or identity[:12]) if options.uts == "private" else ""
    return Spec(
        process=_process(options, root, facts, user, hostname),
        root=Root(options.rootfs or "rootfs", options.read_only),
        hostname=hostname,
        domainname=options.domainname or "",
        mounts=_mounts(options, root, facts),
        linux=_linux(options, facts),
    )


# --- the process


def user_of(options: RunOptions, root: RootSource, facts: HostFacts) -> Identity:
    """Who the program will be, by the files of the root. `InvalidInput`: there is no such user or group."""
    user = options.user
    if user is None and options.userns == "keep-id":
        user = f"{facts.uid}:{facts.gid}"
    if user is None:
        user = root.user
    label = f"image {options.image!r}, User" if options.user is None and root.user else "--user"
    found = resolve_user(user or "", *_lists(options, root), options.group_add, label)
    return _mapped(found, options, facts, label) if facts.uid_maps else found


def _mapped(user: Identity, options: RunOptions, facts: HostFacts, label: str) -> Identity:
    """The identity as far as the user namespace has its ids.

    Memberships from the image's /etc/group that it has not are left out, as podman does: the group cannot own anything
    there. What was asked for must be there.
    """
    remedy = f": {facts.few_ids}" if facts.few_ids else ""
    for kind, number, maps in (("user", user.uid, facts.uid_maps), ("group", user.gid, facts.gid_maps)):
        if to_host(number, maps) is None:
            raise InvalidInput(f"{label}: the container's user namespace has no {kind} {number}{remedy}")
    own = tuple(group for group in user.groups if to_host(group, facts.gid_maps) is not None)
    if options.group_add and len(own) < len(user.groups):
        missing = next(group for group in user.groups if group not in own)
        raise InvalidInput(f"--group-add: the container's user namespace has no group {missing}{remedy}")
    if facts.few_ids:
        own = ()  # there is only the primary one, and setgroups(2) is denied (user_namespaces(7))
    return user.replace(groups=own)


def _lists(options: RunOptions, root: RootSource) -> tuple[str, str]:
    """The root file system's /etc/passwd and /etc/group; empty where there is none."""
    from corten.images.lookup import Layered

    kept = (f"{options.writable}/upper",) if (options.writable or "").startswith("/") else ()
    with Layered((*kept, *root.lowers)) as layers:
        users, groups = (layers.read(path, 1 << 20) or b"" for path in ("/etc/passwd", "/etc/group"))
    return users.decode(errors="replace"), groups.decode(errors="replace")


def _process(
    options: RunOptions, root: RootSource, facts: HostFacts, user: Identity, hostname: str
) -> Process:
    args = _command(options, root)
    return Process(
        args=args,
        env=_environment(options, root, facts, user, hostname),
        cwd=options.workdir or root.workdir or "/",
        user=User(user.uid, user.gid, defaults.UMASK if options.umask is None else options.umask, user.groups),
        terminal=options.tty,
        capabilities=_capabilities(options, facts, user.uid),
        rlimits=_rlimits(options, facts),
        no_new_privileges=options.no_new_privileges,
        oom_score_adj=options.oom_score_adj,
    )


def _command(options: RunOptions, root: RootSource) -> tuple[str, ...]:
    """What is run: docker's rules. Who gives an entrypoint does not get the image's arguments."""
    if options.entrypoint is not None:
        args = (*options.entrypoint, *options.argv)
    else:
        args = (*root.entrypoint, *(options.argv or root.cmd))
    if not args:
        raise InvalidInput("there is no command: write it after the image, such as: corten run host python3 -V")
    return args


def _environment(
    options: RunOptions, root: RootSource, facts: HostFacts, user: Identity, hostname: str
) -> tuple[str, ...]:
    """Defaults, then the image's, then the user's: the last one holds."""
    found = {"PATH": defaults.PATH, "HOSTNAME": hostname or facts.nodename, "HOME": user.home}
    if options.tty:
        found["TERM"] = facts.term
    count = cpu_count(options)
    if count is not None:
        found.update(dict.fromkeys(THREAD_COUNTS, str(count)))
    found.update(root.env)
    found.update(options.env)
    return tuple(f"{key}={value}" for key, value in found.items())


def _capabilities(options: RunOptions, facts: HostFacts, uid: int) -> Sets:
    """The default set, less what is dropped, plus what is added; `ALL` is all that the caller could give.

    For another user than 0 only what was added is effective (and ambient, so that it survives the exec), as podman
    does; the rest stays in the bounding set. Nothing is inheritable otherwise (CVE-2022-24769).
    """
    held = capabilities.combine(capabilities.DEFAULT.bounding, options.cap_add, options.cap_drop)
    added = {capabilities.parse(word, "--cap-add") for word in options.cap_add}
    if "ALL" in added and facts.capabilities is not None:
        held = tuple(name for name in held if name in facts.capabilities or name in added)
    if uid == 0:
        return Sets(bounding=held, effective=held, permitted=held)
    extra = tuple(name for name in held if name in added or "ALL" in added)
    return Sets(bounding=held, effective=extra, permitted=extra, inheritable=extra, ambient=extra)


def _rlimits(options: RunOptions, facts: HostFacts) -> tuple[Rlimit, ...]:
    highest = dict(facts.hard_limits)
    limits: dict[str, Rlimit] = {}
    for limit in options.ulimits:
        most = highest.get(limit.name)
        if most is not None and limit.hard > most:
            raise InvalidInput(
                f"--ulimit {limit.name}={limit_words(limit.soft)}:{limit_words(limit.hard)}: this process's own hard "
                f"limit is {most}, and only CAP_SYS_RESOURCE may raise it"
            )
        kind = f"RLIMIT_{limit.name.upper()}"
        limits[kind] = Rlimit(kind, limit.hard, limit.soft)
    return tuple(limits.values())


# --- what it sees


def _mounts(options: RunOptions, root: RootSource, facts: HostFacts) -> tuple[Mount, ...]:
    """The default ones, those of the image, those of the user from the outside in; a place is mounted on once."""
    own = sorted(options.mounts, key=lambda mount: mount.target.count("/"))
    taken = {mount.target for mount in own}
    in_userns = bool(facts.uid_maps) or (options.userns or "").startswith("ns:")
    found = [
        _adapted(mount, options, in_userns, facts)
        for mount in defaults.mounts(facts.gid_maps or (_UNKNOWN if in_userns else ()))
        if mount.destination not in taken
    ]
    found += [_bind(bind) for bind in root.binds if bind.target not in taken]
    found += [_mount(mount, facts) for mount in own]
    if in_userns:  # nodes cannot be made there
        found += [Mount(one.target, "bind", one.source, ("bind", "nosuid", "noexec")) for one in options.devices]
    return tuple(mount for mount in found if mount.destination)


def _adapted(mount: Mount, options: RunOptions, in_userns: bool, facts: HostFacts) -> Mount:
    """A default mount for these namespaces.

    A file system that shows a namespace can only be mounted by who owns that namespace: for a user namespace that
    shares the host's, the host's own mount is shown instead.
    """
    where = mount.destination
    if where == "/dev/shm" and options.ipc != "host":
        return mount.replace(options=(*_TIGHT, "mode=1777", f"size={_shm_size(options)}"))
    shared = {
        "/dev/shm": options.ipc == "host",
        "/dev/mqueue": options.ipc == "host",
        "/proc": in_userns and options.pid != "private",
        "/sys": in_userns and options.network != "none",
        "/sys/fs/cgroup": in_userns and options.cgroupns != "private",
    }
    if not shared.get(where):
        return mount
    if where == "/dev/mqueue" and not facts.mqueue:
        return mount.replace(destination="")
    return Mount(where, "bind", where, ("rbind", *_TIGHT, *(("rro",) if where.startswith("/sys") else ())))


def _shm_size(options: RunOptions) -> int:
    if options.shm_size is not None:
        return options.shm_size
    return options.memory // 2 if options.memory is not None else SHM_SIZE


def _bind(bind: Bind) -> Mount:
    """A bind that the image brings."""
    words = ["rbind" if bind.recursive else "bind", "rprivate", "nosuid", "nodev"]
    if bind.read_only:
        words.append("rro" if bind.recursive else "ro")
    return Mount(bind.target, "bind", bind.source, tuple(words))


def _mount(mount: MountOption, facts: HostFacts) -> Mount:
    if mount.type == "tmpfs":
        data = [*mount.options]
        if mount.size is not None:
            data.append(f"size={mount.size}")
        data.append(f"mode={1777 if mount.mode is None else format(mount.mode, 'o')}")
        return Mount(mount.target, "tmpfs", "tmpfs", (*data, "ro" if mount.read_only else "rw"))
    words = ["rbind" if mount.recursive else "bind", mount.propagation, *mount.options]
    if mount.read_only:
        words.append("rro" if mount.recursive and mount.recursive_read_only else "ro")
    if mount.idmap:
        if facts.uid != 0:
            raise Unsupported(f"{mount.label}: idmap: only root may map the ids of {mount.source}: leave idmap out")
        if not mount.uid_map and not facts.uid_maps:
            raise InvalidInput(
                f"{mount.label}: idmap of {mount.source} needs a user namespace (--userns, --uidmap) or maps of its "
                "own: idmap=uids=0-1000-1;gids=0-1000-1"
            )
        words.append("ridmap" if mount.recursive else "idmap")
    return Mount(mount.target, "bind", mount.source, tuple(words), mount.uid_map, mount.gid_map)


def _linux(options: RunOptions, facts: HostFacts) -> Linux:
    in_userns = bool(facts.uid_maps) or (options.userns or "").startswith("ns:")
    hidden, frozen = _covered(options)
    return Linux(
        namespaces=_namespaces(options, facts),
        uid_mappings=facts.uid_maps,
        gid_mappings=facts.gid_maps,
        time_offsets={clock: TimeOffset(seconds, nanos) for clock, seconds, nanos in options.time_offset},
        devices=()
        if in_userns
        else tuple(
            Device(one.target, one.kind, one.major, one.minor, one.mode, one.uid, one.gid) for one in options.devices
        ),
        resources=resources(options, facts),
        sysctl=_sysctls(options),
        masked_paths=hidden,
        readonly_paths=frozen,
        rootfs_propagation=_root_propagation(options),
    )


def _root_propagation(options: RunOptions) -> str:
    """A bind that is to receive the host's mounts (rslave), or to send its own (rshared), needs a root that lets it."""
    asked = {mount.propagation.removeprefix("r") for mount in options.mounts if mount.type == "bind"}
    return "shared" if "shared" in asked else "slave" if "slave" in asked else "private"


def _namespaces(options: RunOptions, facts: HostFacts) -> tuple[Namespace, ...]:
    modes = {
        "cgroup": options.cgroupns,
        "ipc": options.ipc,
        "mount": "private",
        "network": options.network,
        "pid": options.pid,
        "time": options.timens,
        "uts": options.uts,
        "user": "private" if facts.uid_maps else options.userns or "host",
    }
    return tuple(
        Namespace(kind, mode[3:] if mode.startswith("ns:") else "") for kind, mode in modes.items() if mode != "host"
    )


def _covered(options: RunOptions) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(masked paths, read-only paths)."""
    if "ALL" in options.unmask:
        return options.mask, ()
    hidden = (*defaults.MASKED_PATHS, *defaults.thermal_paths())
    return (
        (*(path for path in hidden if path not in options.unmask), *(p for p in options.mask if p not in hidden)),
        tuple(path for path in defaults.READONLY_PATHS if path not in options.unmask),
    )


_OWNERS = {"net.": "network", "fs.mqueue.": "ipc", "kernel.msg": "ipc", "kernel.sem": "ipc", "kernel.shm": "ipc"}
"""The beginning of a parameter's name, and the kind of namespace that has its own."""


def _sysctls(options: RunOptions) -> dict[str, str]:
    """Only those that a namespace of the container's own has: any other would change the host."""
    modes = {"network": options.network, "ipc": options.ipc}
    for key, _ in options.sysctls:
        if key in ("kernel.hostname", "kernel.domainname"):
            raise InvalidInput(f"--sysctl {key}: use --{key[7:]}")
        kind = next((kind for start, kind in _OWNERS.items() if key.startswith(start)), None)
        if kind is None:
            raise InvalidInput(f"--sysctl {key}: it belongs to the whole machine, not to a container")
        if modes[kind] == "host":
            raise InvalidInput(f"--sysctl {key}: with --{kind} host it would change the host")
    return dict(options.sysctls)


# --- small files


def files(options: RunOptions, spec: Spec) -> tuple[tuple[str, str], ...]:
    """(path, content) of /etc/hostname and /etc/hosts; none where they would be written into a directory of the user's.

    A file that one of the mounts brings is left alone.
    """
    direct = options.rootfs is not None and options.writable in (None, "direct")
    if direct or not spec.hostname:
        return ()
    found = [("/etc/hostname", f"{spec.hostname}\n")]
    if options.network == "none":
        hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
        found.append(("/etc/hosts", f"{hosts}127.0.1.1\t{spec.hostname}\n"))
    brought = [mount.destination for mount in spec.mounts]
    return tuple((path, text) for path, text in found if not {path, "/etc"} & set(brought))
