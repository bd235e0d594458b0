"""The `host` image: the machine's own programs, and none of its secrets.

    /            empty directories and a copy of what others can read of /etc, writes go to the container
    /usr /opt    the host's, below an overlay each, so that writes vanish
    binds        the Python environment and the working directory, read-only, where they lie in a hidden place

Rule 1: what shows is a list of names (`host_mask.VISIBLE`); whatever else the host has does not.
Rule 2: a whole home directory, `/`, or one of the system's own directories is never bound, not even as the working
        directory: then the program starts in `/`.
"""

from __future__ import annotations

import os
import sys

from corten.images import host_mask
from corten.images.root_source import Bind, Layer, RootSource
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from corten.images.host_mask import Mask

_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHARED = ("/var/lib/dpkg", "/var/lib/rpm", "/var/lib/ca-certificates", "/var/lib/texmf", "/var/cache/fontconfig")
"""Parts of /var that belong to what is in /usr."""
_OWN = frozenset(f"/{name}" for name in host_mask.STAND_INS) | {"/", "/lost+found", "/etc"}
_KERNEL = ("/proc", "/sys", "/dev", "/run", "/var/run")


class Here(Record):
    """What of the calling process matters: where Python is, where it works, what is mounted.

    prefixes: directories and files of its Python, best first; environment: the active virtual environment or "".
    """

    prefixes: tuple[str, ...]
    environment: str
    cwd: str
    user_home: str
    mounts: tuple[str, ...]


def source(home: str) -> RootSource:
    """The image for this process. Error: the parts that are kept in `home` cannot be written."""
    mask = host_mask.current(home)
    here = look()
    layers, covers = tops(mask, here.mounts)
    shared = tuple(Bind(path, path) for path in _SHARED if _readable(path))
    shows = [path for path in (*here.prefixes, here.cwd) if path and bindable(path, here.user_home)]
    binds = tuple(Bind(path, path) for path in outermost(path for path in shows if not is_shown(path, mask)))
    env = {"PATH": _SEARCH, "LANG": "C.UTF-8"}
    if here.environment:
        env["VIRTUAL_ENV"] = here.environment
    if here.prefixes and is_visible(f"{here.prefixes[0]}/bin", mask, binds):
        env["PATH"] = f"{here.prefixes[0]}/bin:{_SEARCH}"
    workdir = here.cwd if here.cwd and is_visible(here.cwd, mask, binds) else "/"
    return RootSource((mask.root,), (*covers, *shared, *binds), env, workdir, layers)


def look() -> Here:
    """What this process is, as far as the image follows it."""
    environ = os.environ
    active = (environ.get("VIRTUAL_ENV", ""), environ.get("CONDA_PREFIX", ""))
    own = sys.prefix if sys.prefix != sys.base_prefix else ""
    environment = next((path for path in (*active, own) if _is_environment(path)), "")
    named = [environment or sys.prefix, sys.prefix, sys.base_prefix, sys.exec_prefix]
    if environment:
        named += interpreter(f"{environment}/bin/python")
    named += [path for path in sys.path if path]
    try:
        cwd = os.getcwd()
    except FileNotFoundError:  # removed under us
        cwd = ""
    prefixes = []
    for path in named:
        if os.path.isabs(path) and os.path.exists(path):
            # By the name it is called, and where that leads.
            prefixes += [os.path.normpath(path), os.path.realpath(path)]
    return Here(
        tuple(dict.fromkeys(prefixes)),
        environment,
        cwd,
        os.path.realpath(environ.get("HOME") or "/root"),
        mount_points(),
    )


def _is_environment(path: str) -> bool:
    return os.path.isabs(path) and os.path.isdir(f"{path}/bin")


def interpreter(path: str) -> list[str]:
    """Where the links from a Python lead: for each of them the installation it lies in, or the file itself."""
    found = []
    for _ in range(16):
        try:
            path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
        except OSError:
            break
        directory, name = os.path.split(path)
        installation, last = os.path.split(directory)
        found.append(installation if last == "bin" and os.path.isdir(f"{installation}/lib") else f"{directory}/{name}")
    return found


def mount_points() -> tuple[str, ...]:
    """Where something is mounted in this mount namespace. Source: proc_pid_mountinfo(5)."""
    with open("/proc/self/mountinfo", "rb") as file:
        fields = [line.split(b" ", 5)[4] for line in file]
    return tuple(
        os.fsdecode(field.decode("unicode_escape").encode("latin-1") if b"\\" in field else field) for field in fields
    )


def tops(mask: Mask, mounts: Iterable[str]) -> tuple[tuple[Layer, ...], tuple[Bind, ...]]:
    """How each visible top shows: as a layer whose writes vanish, or, with mounts below it, as read-only binds.

    An overlay shows one file system only, and refuses a tree with mounts that are locked (in a user namespace).
    """
    layers: list[Layer] = []
    binds: list[Bind] = []
    mounts = tuple(mounts)
    for name in mask.tops:
        top = f"/{name}"
        hidden = [path for path in mask.hidden if path == top or path.startswith(f"{top}/")]
        if top in hidden:
            continue
        if not any(point.startswith(f"{top}/") for point in mounts):
            layers.append(Layer(top, (f"{mask.path}/hidden{top}", top) if hidden else (top,)))
            continue
        binds.append(Bind(top, top))
        for path in hidden:
            kind = "directory" if path in mask.hidden_directories else "file"
            binds.append(Bind(f"{mask.path}/blank/{kind}", path))
    return tuple(layers), tuple(binds)


def bindable(path: str, user_home: str) -> bool:
    """Whether a directory or file may be bound at all (rule 2)."""
    if path in _OWN or any(path == place or path.startswith(f"{place}/") for place in _KERNEL):
        return False
    if os.path.dirname(path) in ("/home", "/var", "/etc"):
        return False
    return path != user_home and not user_home.startswith(f"{path}/")


def is_shown(path: str, mask: Mask) -> bool:
    """Whether the image itself has a path of the host, without any bind."""
    top = path.split("/", 2)[1]
    if top != "etc" and top not in host_mask.VISIBLE:
        return False
    return not any(path == hidden or path.startswith(f"{hidden}/") for hidden in mask.hidden)


def is_visible(path: str, mask: Mask, binds: Iterable[Bind]) -> bool:
    """Whether a path of the host is there in the container."""
    return is_shown(path, mask) or any(path == bind.target or path.startswith(f"{bind.target}/") for bind in binds)


def outermost(paths: Iterable[str]) -> tuple[str, ...]:
    """The paths that lie in none of the others, sorted."""
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not any(path.startswith(f"{above}/") for above in kept):
            kept.append(path)
    return tuple(kept)


def _readable(path: str) -> bool:
    try:
        return os.stat(path).st_mode & 0o005 == 0o005
    except OSError:
        return False
