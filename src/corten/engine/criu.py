"""criu, the program that saves a tree of processes to files and brings it back: what is said to it, and what it says.

Its exit status tells only that it failed; why is in its log. Source of the options: criu(8); what a container needs of
them: the specification's checkpoint annotations and what callers of runc pass.
"""

from __future__ import annotations

import os

from corten.errors import Error, InvalidInput, Unsupported
from corten.linux.cgroup.layout import unescape
from corten.linux.idmap import find_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from corten.linux.cgroup.group import Group

STREAMS = "descriptors.json"
"""What descriptors 0, 1 and 2 were, in the directory of an image: a JSON array, as runc writes it."""
NETWORK = "extRootNetNS"
_SWITCHES = {
    "tcp_established": "--tcp-established",
    "tcp_skip_in_flight": "--skip-in-flight",
    "tcp_close": "--tcp-close",
    "link_remap": "--link-remap",
    "ext_unix_sk": "--ext-unix-sk",
    "shell_job": "--shell-job",
    "file_locks": "--file-locks",
    "lazy_pages": "--lazy-pages",
    "auto_dedup": "--auto-dedup",
    "leave_running": "--leave-running",
}
_VALUES = {"lsm_profile": "--lsm-profile", "lsm_mount_context": "--lsm-mount-context", "network_lock": "--network-lock"}
_QUOTED = 3  # lines of the log that an error repeats


def program(command: str) -> str:
    """The path of criu. `Unsupported`: it is not installed."""
    found = find_program("criu")
    if found is None:
        raise Unsupported(f"{command}: `criu` is not installed: install the package criu")
    return found


def options(values: dict[str, Any], annotations: dict[str, str]) -> list[str]:
    """The options of `checkpoint` and `restore` that criu has too, in its spelling."""
    words = [word for key, word in _SWITCHES.items() if values.get(key)]
    for key, word in _VALUES.items():
        if values.get(key):
            words += [word, values[key]]
    for kind in values.get("empty_ns", ()):
        words += ["--empty-ns", "net" if kind == "network" else kind]
    words += ["--manage-cgroups=" + values.get("manage_cgroups_mode", "soft")]
    # Mounts that get theirs from the host by propagation, as those of a container may.
    words.append("--enable-external-masters")
    if values.get("page_server"):
        address, _, port = values["page_server"].rpartition(":")
        if not address or not port.isdecimal():
            raise InvalidInput(f"--page-server {values['page_server']}: expected ADDRESS:PORT")
        words += ["--page-server", "--address", address, "--port", port]
    if annotations.get("org.criu.config"):
        words += ["--config", annotations["org.criu.config"]]
    return words


def external_mounts(config: dict[str, Any], bundle: str, group: Group | None) -> list[tuple[str, str]]:
    """(place in the container, source on the host) of each mount whose files are the host's."""
    found: list[tuple[str, str]] = []
    kinds = {space.get("type") for space in (config.get("linux") or {}).get("namespaces") or ()}
    for mount in config.get("mounts") or ():
        place = "/" + mount["destination"].strip("/")
        if mount.get("type") == "bind" or {"bind", "rbind"}.intersection(mount.get("options") or ()):
            source = os.path.realpath(os.path.join(bundle, mount["source"]))
            found.append((place, source))
            if "bind" not in (mount.get("options") or ()):  # else without what is mounted below
                found += [(place + below, source + below) for below in _mounts_below(source)]
        elif mount.get("type") == "cgroup" and "cgroup" not in kinds and group and len(group.dirs) == 1:
            found.append((place, group.dirs[0].path))
    return found


def _mounts_below(top: str) -> list[str]:
    """What is mounted below a directory of the host, as paths from there (`/sub`)."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        places = {unescape(line.split(" ")[4]) for line in file}
    return sorted(place.removeprefix(top.rstrip("/")) for place in places if place.startswith(top.rstrip("/") + "/"))


def joined_network(config: dict[str, Any]) -> str:
    """The path of the network namespace that the container shares with others; "" if it has its own or the host's."""
    for space in (config.get("linux") or {}).get("namespaces") or ():
        if space.get("type") == "network":
            return str(space.get("path") or "")
    return ""


def explain(command: str, log: str, status: int) -> NoReturn:
    """Raise an `Error` with criu's own words from its log."""
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if "Error (" in line]
    except OSError:
        lines = []
    said = [line.partition("Error ")[2] for line in lines[:_QUOTED]]
    why = "; ".join(said) if said else f"exit status {status}"
    raise Error(f"{command}: criu failed: {why} (all of it: {log})")


def fresh(log: str) -> str:
    """The path of a log in which nothing stands from before."""
    try:
        os.unlink(log)
    except FileNotFoundError:
        pass
    return log


def directory(values: dict[str, Any], key: str, default: str) -> str:
    """An absolute directory that an option names, made if missing."""
    path = os.path.abspath(values.get(key) or default)
    try:
        os.makedirs(path, 0o755, exist_ok=True)
    except OSError as error:
        raise Error(f"--{key.replace('_', '-')} {path}: {(error.strerror or '').lower()}") from None
    return path
