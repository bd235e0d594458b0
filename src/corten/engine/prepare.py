"""Options made into a plan: root, spec, control group, filter are decided here, and nothing is started."""

from __future__ import annotations

import os

from corten.engine import home, specs
from corten.engine.facts import HostFacts, host_facts
from corten.engine.options import RunOptions
from corten.engine.users import Identity
from corten.errors import InvalidInput, Unsupported
from corten.images import sources
from corten.images.sources import RootSource
from corten.linux import paths, seccomp, signals
from corten.linux.cgroup import group as groups
from corten.linux.cgroup import layout as layouts
from corten.linux.cgroup import resources as limits
from corten.linux.cgroup.files import Write
from corten.linux.cgroup.group import Group
from corten.linux.cgroup.layout import Layout
from corten.linux.cgroup.resources import Resources
from corten.records import Record
from corten.runtime import seccomp_default
from corten.runtime.compile import Filter, Overlay, Setting, compile_plan
from corten.runtime.plan import Plan
from corten.runtime.spec import Spec
from corten.runtime.steps.root import Below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from corten.images.registry.watching import Watcher

_KEPT = 8


class Prepared(Record):
    """A container that could be started now. not_applied: limits left out because of `best_effort`, a line each.
    foreign: what to say of the image, which is for another machine, if its program cannot be executed.

    Started again it is another container, with an id of its own in place of `id`.
    """

    id: str
    plan: Plan
    options: RunOptions
    not_applied: tuple[str, ...] = ()
    foreign: str = ""


class _Facts(Record):
    """Everything that a plan depends on besides the options, as far as it can change within one process."""

    home: str
    source: RootSource
    user: Identity
    host: HostFacts
    layout: Layout


_recent: list[tuple[RunOptions, _Facts, Prepared]] = []


def prepare_again(options: RunOptions) -> Prepared:
    """As `prepare`; the same object where the same was prepared not long ago and nothing has changed that it rests on.

    For callers that ask for the same container over and over: it saves them a millisecond each time.
    """
    if options.best_effort or options.seccomp not in ("default", "unconfined"):
        return prepare(options)  # what can be had, and the profile, are looked at each time
    options, facts = _facts(options, _root_source(options, home.directory(), None))
    for known, rests_on, prepared in _recent:
        if known == options and rests_on == facts:
            return prepared
    prepared = _prepare(options, facts)
    _recent.append((options, facts, prepared))
    del _recent[:-_KEPT]
    return prepared


def prepare(
    options: RunOptions,
    held: bool = False,
    within: int = 0,
    watch: Callable[[], Watcher] | None = None,
    source: RootSource | None = None,
) -> Prepared:
    """Decide everything about a container. InvalidInput, NotFound, Unsupported: it cannot be made here.

    held: it runs nothing and waits to be entered (`Plan.held`); within: a process of the host whose user namespace,
    with the maps that the options ask for, it shares, and below whose PID namespace its own is made; 0 for none;
    watch: gives who is told how the fetching of an image goes.

    Archives are unpacked, images fetched and filters compiled if that has not been done before; nothing else is
    changed. source: the root, for callers that know it already.
    """
    source = source or _root_source(options, home.directory(), watch)
    return _prepare(*_facts(options, source), held, within)


def _facts(options: RunOptions, source: RootSource) -> tuple[RunOptions, _Facts]:
    """What the plan rests on, and the options with what the image says where they say nothing."""
    if source.stop_signal and not options.stop_signal:
        try:
            options = options.replace(stop_signal=signals.parse(source.stop_signal))
        except InvalidInput as error:
            raise InvalidInput(f"image {options.image!r}, StopSignal: {error}: give --stop-signal") from None
    found = host_facts(options)
    user = specs.user_of(options, source, found)
    return options, _Facts(home.directory(), source, user, found, layouts.detect())


def _prepare(options: RunOptions, facts: _Facts, held: bool = False, within: int = 0) -> Prepared:
    place, source, layout = facts.home, facts.source, facts.layout
    identity = os.urandom(6).hex()
    spec = specs.to_spec(options, source, facts.host, facts.user, identity)
    if within:
        spec = _within(spec, f"/proc/{within}/ns/user")
    group, writes, not_applied = _limits(options, spec, layout, home.group_name(identity))
    directory = f"{place}/containers/{identity}"
    note_file, note = home.places(place, group)
    setting = Setting(
        directory=directory,
        note_file=note_file,
        note=note,
        name_file=f"{place}/names/{options.name}" if options.name else "",
        overlay=_overlay(options, source, directory),
        group=group,
        writes=writes,
        layout=layout,
        filter=_filter(spec, options, f"{place}/filters"),
        privileged=os.geteuid() == 0,
        init=options.init,
        timeout=options.timeout,
        ahead=not held and not within and _may_be_made_ahead(options),
        files=specs.files(options, spec),
        held=held,
        below=(("pid", f"/proc/{within}/ns/pid"),) if within else (),
    )
    return Prepared(identity, compile_plan(spec, setting), options, not_applied, source.foreign)


def _within(spec: Spec, user_namespace: str) -> Spec:
    """The spec with the user namespace joined instead of made; the maps stay, for what they say of the files."""
    assert spec.linux is not None
    spaces = tuple(
        space.replace(path=user_namespace) if space.type == "user" else space for space in spec.linux.namespaces
    )
    return spec.replace(linux=spec.linux.replace(namespaces=spaces))


def _may_be_made_ahead(options: RunOptions) -> bool:
    """Whether nothing that the user has named (a container's name, a group, a layer to keep) is taken by making it."""
    return not options.name and not options.cgroup_parent and options.writable in (None, "throwaway", "tmpfs")


def _root_source(options: RunOptions, place: str, watch: Callable[[], Watcher] | None) -> RootSource:
    if options.rootfs is not None:
        return RootSource(lowers=(sources.directory(options.rootfs),))
    return sources.resolve(
        options.image, home=place, pull=options.pull, platform=options.platform, watch=watch
    )


def _check_tops(rootfs: str) -> None:
    """What is mounted in a directory needs a place there."""
    missing = [top for top in ("proc", "dev", "sys") if not os.path.lexists(f"{rootfs}/{top}")]
    if missing and not os.access(rootfs, os.W_OK, effective_ids=True):
        raise InvalidInput(
            f"rootfs {rootfs}: has no {', '.join(missing)}, and you may not make it there: --writable throwaway, or "
            "another owner of the directory"
        )


def _overlay(options: RunOptions, source: RootSource, directory: str) -> Overlay | None:
    """The overlay to make, None to write straight into a --rootfs directory."""
    writable = options.writable or ("direct" if options.rootfs is not None else "throwaway")
    if writable == "direct":
        if options.rootfs is None:
            raise InvalidInput("--writable direct: an image is never written to; it needs --rootfs")
        _check_tops(options.rootfs)
        return None
    layer = {"throwaway": directory, "tmpfs": ""}.get(writable, writable)
    below = [Below(own.target, own.lowers, paths.flat(own.target), own.read_only) for own in source.layers]
    taken = {mount.target for mount in options.mounts}
    volumes = tuple(target for target in source.volumes if target not in taken)
    if options.read_only:  # else there is no difference: all that is written goes with the container
        below += [Below(target, (), f"volume-{number}") for number, target in enumerate(volumes)]
        volumes = ()
    return Overlay(source.lowers, layer, below=tuple(below), holds=source.holds, directories=volumes)


def _limits(
    options: RunOptions, spec: Spec, layout: layouts.Layout, name: str
) -> tuple[Group | None, tuple[Write, ...], tuple[str, ...]]:
    """The group, what is written to it, and which limits had to be left out."""
    resources = (spec.linux.resources if spec.linux else None) or Resources()
    privileged = os.geteuid() == 0
    # Without root no device node can be made inside, so a list of allowed ones would add nothing.
    resources = resources if privileged else resources.replace(devices=())
    asked = limits.needs(resources)
    not_applied: tuple[str, ...] = ()
    try:
        group = groups.place(layout, name, options.cgroup_parent, asked)
    except Unsupported as refusal:
        if not options.best_effort:
            raise Unsupported(f"{refusal}; --best-effort goes on without it") from None
        refused = {c: why for c in sorted(asked) if (why := _refusal(layout, name, options.cgroup_parent, c))}
        not_applied = tuple(f"not applied: {c} limits: {why}" for c, why in refused.items())
        resources = _without(resources, frozenset(refused))
        group = groups.place(layout, name, options.cgroup_parent, asked - refused.keys())
    if not group.dirs:
        why = _refusal(layout, name, options.cgroup_parent, "freezer")
        if options.cgroup_parent:
            nowhere = f"--cgroup-parent {options.cgroup_parent}: {why}"
            if not options.best_effort:
                raise Unsupported(f"{nowhere}; --best-effort goes on without it")
            not_applied = (*not_applied, f"not applied: {nowhere}")
        if options.pid != "private":
            unsafe = f"--pid {options.pid} without a control group: some of its processes could outlive the container"
            if not options.best_effort:
                raise Unsupported(f"{unsafe}: {why}; --best-effort risks it")
            not_applied = (*not_applied, unsafe)
        return None, (), not_applied
    return group, limits.writes(resources, group), not_applied


def _refusal(layout: layouts.Layout, name: str, parent: str | None, controller: str) -> str:
    """Why this controller cannot be had; empty if it can."""
    try:
        groups.place(layout, name, parent, frozenset((controller,)))
    except Unsupported as refusal:
        return str(refusal)
    return ""


def _filter(spec: Spec, options: RunOptions, cache: str) -> Filter | None:
    if options.seccomp == "unconfined":
        return None
    held = spec.process.capabilities.bounding if spec.process and spec.process.capabilities else ()
    if options.seccomp == "default":
        key = seccomp_default.cache_key(held)
        program = seccomp.cached(lambda: seccomp_default.default_profile(held), cache, key=key)
        return Filter(program, (), "default", for_init=True)
    profile = seccomp.read_profile(options.seccomp, held)
    try:
        program = seccomp.cached(profile, cache)
    except InvalidInput as error:
        raise InvalidInput(f"{options.seccomp}: {error}") from None
    return Filter(program, profile.flags, options.seccomp, for_init=False)


# The part of linux.resources that a controller serves.
_PARTS = {
    "memory": "memory",
    "cpu": "cpu",
    "cpuset": "cpu",
    "pids": "pids",
    "io": "block_io",
    "blkio": "block_io",
    "hugetlb": "hugepage_limits",
    "net_cls": "network",
    "net_prio": "network",
    "rdma": "rdma",
    "devices": "devices",
}


def _without(resources: Resources, controllers: frozenset[str]) -> Resources:
    """The resources that are left when some controllers cannot be had."""
    empty = Resources()
    parts = {_PARTS[controller] for controller in controllers if controller in _PARTS}
    return resources.replace(**{part: getattr(empty, part) for part in parts})
