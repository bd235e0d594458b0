"""The root of a plan and what is in it, read back through the process's own root and mount table.

Rule: a place is resolved below the process's root by the kernel, and the mount in which it lies is asked by its id: so
a link in the container's files, or a mount on top of another, cannot mislead.
"""

from __future__ import annotations

import os
import stat

from corten.linux import inspect, mounts, paths
from corten.linux.cgroup import convert
from corten.linux.idmap import to_host
from corten.linux.inspect import MountPoint
from corten.runtime.step import Step
from corten.runtime.steps import cover, nodes, root
from corten.runtime.steps import mounts as mounting
from corten.views.findings import Finding, Subject, found, unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.views.findings import Table

_WORDS = {
    mounts.RDONLY: "ro",
    mounts.NOSUID: "nosuid",
    mounts.NODEV: "nodev",
    mounts.NOEXEC: "noexec",
    mounts.NODIRATIME: "nodiratime",
    mounts.NOATIME: "noatime",
    mounts.NOSYMFOLLOW: "nosymfollow",
}
# Not shown by the kernel: an option without a trace, and the default mode of a tmpfs.
_UNSHOWN = ("newinstance", "mode=1777", "mode=01777")
_SHOWN_BY_TMPFS = ("size", "mode", "nr_inodes")


def place(step: Step) -> str:
    """Where a step puts something: a later one covers it."""
    if isinstance(step, (mounting.Mount, mounting.CgroupMounts)):
        return "/" + step.target.strip("/")
    return "/" + step.path.strip("/") if isinstance(step, (cover.Hide, cover.MakeReadOnly)) else ""


def _at(subject: Subject, path: str) -> MountPoint | None:
    """The mount in which a path lies; None where there is no such path."""
    identity = inspect.mount_id(subject.root, path)
    return subject.mounts.get(identity) if identity is not None else None


def _mounted(subject: Subject, path: str) -> bool:
    """Whether something is mounted at a place itself: then it lies in another mount than what it is in."""
    status = _stat(subject, path)
    above = f"{path}/.." if status is not None and stat.S_ISDIR(status.st_mode) else os.path.dirname(path) or "/"
    return path.strip("/") == "" or inspect.mount_id(subject.root, path) != inspect.mount_id(subject.root, above)


def _stat(subject: Subject, path: str, follow: bool = True) -> os.stat_result | None:
    try:
        fd = paths.open_in_root(subject.root, path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def _same_file(subject: Subject, path: str, source: str) -> bool | None:
    """Whether a path inside is the file or directory of the host; None where the host's is gone."""
    there = _stat(subject, path)
    try:
        ours = os.stat(subject.own(source))
    except OSError:
        return None
    return there is not None and (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _mount(step: mounting.Mount, subject: Subject) -> list[Finding]:
    about, options = f"mount {step.target}", step.options
    there = _at(subject, step.target)
    if there is None:
        return [Finding(about, step.kind, "no such path", False)]
    if not _mounted(subject, step.target):
        return [Finding(about, step.kind, "nothing mounted there", False)]
    if options.bind:
        same = _same_file(subject, step.target, step.source)
        words = None if same is None else step.source if same else f"something else ({there.kind})"
        rows = [found(about, step.source, words)] if same is not None else [
            unknown(about, step.source, "the source is gone from the host")
        ]
    else:
        rows = [found(about, step.kind, there.kind)]
    wanted = frozenset(word for bit, word in _WORDS.items() if (options.add | options.add_below) & bit)
    lacking = wanted - set(there.options)
    if options.clear & mounts.RDONLY and "ro" in there.options:
        rows.append(Finding(f"{about} options", "rw", "ro", False))
    rows.append(Finding(f"{about} options", ",".join(sorted(wanted)) or "none", ",".join(there.options), not lacking))
    if not options.bind:
        rows += [row for option in options.data if (row := _data(about, subject, option, there))]
    return rows


def _data(about: str, subject: Subject, option: str, there: MountPoint) -> Finding | None:
    """An option of the file system itself, as the kernel shows it: ids as ours, whatever they are inside."""
    key, _, value = option.partition("=")
    maps = {"uid": subject.plan.uid_maps, "gid": subject.plan.gid_maps}.get(key, ())
    if maps and "user" in subject.plan.namespaces and value.isdigit():
        value = str(to_host(int(value), maps))
    shown = {name.partition("=")[0]: name.partition("=")[2] for name in there.super_options}
    if option in _UNSHOWN:
        return None
    if key not in shown:
        if there.kind == "tmpfs" and key in _SHOWN_BY_TMPFS:
            return Finding(f"{about} {key}", value, "the default", False)
        return unknown(f"{about} {key}", value or "set", "the kernel does not show it")
    return found(f"{about} {key}", _normal(key, value), _normal(key, shown[key]))


def _normal(key: str, value: str) -> str:
    if key == "size":
        size = convert.size(value)
        return value if size is None else str(-(-size // convert.PAGE) * convert.PAGE)
    if key in ("mode", "ptmxmode") and value.isdigit():
        return f"{int(value, 8):04o}"
    return value


def _overlay(step: root.MountOverlay, subject: Subject) -> list[Finding]:
    there = _at(subject, "/")
    rows = [found("root", "overlay", there and there.kind)]
    shown = dict(option.partition("=")[::2] for option in there.super_options) if there else {}
    lowers, upper = shown.get("lowerdir", ""), shown.get("upperdir", "")
    above, _, last = lowers.rpartition(":")
    if last.startswith("/proc/self/fd/") and last.endswith("/places"):  # of the step LayPlaces: empty, and below all
        lowers = above
    # Opened by the launcher for another user namespace, or because the kernel takes no such path.
    if lowers.startswith("/proc/self/fd/"):
        rows.append(unknown("root layers", step.lowers, "the kernel shows descriptors"))
    else:
        rows.append(found("root layers", root.lower_option(step.lowers), lowers))
        own = f"{subject.own(step.layer)}/upper"
        if step.layer and upper.startswith("/proc/self/fd/"):
            rows.append(unknown("root is written to", own, "the kernel shows a descriptor"))
        elif step.layer:
            rows.append(found("root is written to", own, upper))
    for below in step.below:
        mount = _at(subject, below.target)
        rows.append(found(f"root {below.target}", "overlay", mount.kind if mount else "no such path"))
    return rows


def _root(step: root.MountRoot, subject: Subject) -> list[Finding]:
    same = _same_file(subject, "/", step.path)
    if same is None:
        return [unknown("root", step.path, "it is gone from the host")]
    return [found("root", step.path, step.path if same else "another directory")]


def _frozen(_: root.FreezeRoot, subject: Subject) -> list[Finding]:
    there = _at(subject, "/")
    return [found("root is read-only", True, there and "ro" in there.options)]


def _pivot(_: root.Pivot, subject: Subject) -> list[Finding]:
    """Whatever is mounted hangs on the root: nothing of the host's is left above or beside it."""
    tops = [mount.target for mount in subject.mounts.values() if mount.parent not in subject.mounts]
    return [found("mounts that do not hang on another", ("/",), tuple(tops))]


def _cgroups(step: mounting.CgroupMounts, subject: Subject) -> list[Finding]:
    rows = []
    for name, data in step.hierarchies:
        there = _at(subject, f"{step.target}/{name}")
        kind = "cgroup" if data else "cgroup2"
        rows.append(found(f"mount {step.target}/{name}", kind, there.kind if there else "no such path"))
        if there and step.options.add & mounts.RDONLY:
            rows.append(found(f"mount {step.target}/{name} read-only", True, "ro" in there.options))
    return rows


def _hidden(step: cover.Hide, subject: Subject) -> list[Finding]:
    about, status = f"hidden {step.path}", _stat(subject, step.path)
    if status is None:
        return [found(about, True, True)]
    if stat.S_ISDIR(status.st_mode):
        there = _at(subject, step.path)
        return [found(about, "tmpfs, ro", there and ", ".join((there.kind, "ro" if "ro" in there.options else "rw")))]
    null = stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)
    return [found(about, "the null device", "the null device" if null else "a file")]


def _read_only(step: cover.MakeReadOnly, subject: Subject) -> list[Finding]:
    there = _at(subject, step.path)
    words = "absent" if there is None else "ro" if "ro" in there.options else "rw"
    return [Finding(f"read-only {step.path}", "ro, if it is there", words, words != "rw")]


def _device(step: nodes.MakeDevice, subject: Subject) -> list[Finding]:
    status, about = _stat(subject, step.path), f"device {step.path}"
    wanted = f"{'p' if step.kind == 'p' else step.kind.replace('u', 'c')} {step.major}:{step.minor} {step.mode:04o}"
    if status is None:
        return [Finding(about, wanted, "no such path", False)]
    kind = {stat.S_IFCHR: "c", stat.S_IFBLK: "b", stat.S_IFIFO: "p"}.get(stat.S_IFMT(status.st_mode), "file")
    numbers = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    owner = tuple(_mapped(subject, step))
    return [
        found(about, wanted, f"{kind} {numbers} {stat.S_IMODE(status.st_mode):04o}"),
        found(f"{about} owner", owner, (status.st_uid, status.st_gid)),
    ]


def _mapped(subject: Subject, step: nodes.MakeDevice) -> list[int | None]:
    plan = subject.plan
    if "user" not in plan.namespaces:
        return [step.uid, step.gid]
    return [to_host(step.uid, plan.uid_maps), to_host(step.gid, plan.gid_maps)]


def _bound_device(step: nodes.BindDevice, subject: Subject) -> list[Finding]:
    status = _stat(subject, step.path)
    same = status is not None and status.st_rdev == os.stat(step.source).st_rdev
    return [found(f"device {step.path}", step.source, step.source if same else "something else")]


def _link(step: nodes.MakeLink, subject: Subject) -> list[Finding]:
    """A root file system may bring its own, so that there is one is what is promised."""
    status = _stat(subject, step.path, follow=False)
    return [found(f"link {step.path}", True, status is not None)]


def _file(step: nodes.ProvideFile, subject: Subject) -> list[Finding]:
    try:
        fd = paths.open_in_root(subject.root, step.path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return [Finding(f"file {step.path}", "provided", "no such path", False)]
    with open(fd, errors="replace") as file:
        same = file.read() == subject.own(step.content)
    return [found(f"file {step.path}", "as provided", "as provided" if same else "other words")]


TABLE: Table = {
    mounting.Mount: _mount,
    mounting.CgroupMounts: _cgroups,
    root.MountOverlay: _overlay,
    root.MountRoot: _root,
    root.FreezeRoot: _frozen,
    root.Pivot: _pivot,
    cover.Hide: _hidden,
    cover.MakeReadOnly: _read_only,
    nodes.MakeDevice: _device,
    nodes.BindDevice: _bound_device,
    nodes.MakeLink: _link,
    nodes.ProvideFile: _file,
}
