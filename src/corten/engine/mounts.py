"""What `-v`, `--mount` and `--tmpfs` ask for.

Rule 1: a read-only bind is read-only with everything mounted below it; `bind-recursive=writable` gives that up.
Rule 2: a source is looked at when it is named, so a missing one is an error before anything starts.
Rule 3: there are no named volumes yet; a source that could be one is an error that says how to name a directory.
"""

from __future__ import annotations

import os

from corten.engine.quantities import octal, size, switch
from corten.errors import InvalidInput
from corten.linux.idmap import IdMapping
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class MountOption(Record):
    """A bind or a tmpfs that the user asked for."""

    type: str
    """`bind` or `tmpfs`."""
    target: str
    """Where in the container; absolute."""
    source: str = ""
    """What of the host; absolute. Empty for a tmpfs."""
    read_only: bool = False
    recursive: bool = True
    """Bind what is mounted below the source, too."""
    recursive_read_only: bool = True
    """With `read_only`: what is mounted below is read-only, too."""
    propagation: str = "rprivate"
    idmap: bool = False
    """Show the owners of the files as the container's user namespace maps them, or as the maps below say."""
    uid_map: tuple[IdMapping, ...] = ()
    gid_map: tuple[IdMapping, ...] = ()
    options: tuple[str, ...] = ()
    """Flags such as `noexec`, and for a tmpfs data such as `nr_inodes=1000`."""
    size: int | None = None
    """Bytes; only for a tmpfs."""
    mode: int | None = None
    """Only for a tmpfs."""
    label: str = "mount"
    """The option it came from, for errors."""

    def __eq__(self, other: object) -> bool:
        """Equal whatever option it came from."""
        if not isinstance(other, MountOption):
            return NotImplemented
        return {**self.__dict__, "label": ""} == {**other.__dict__, "label": ""}

    __hash__ = Record.__hash__


PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable")
_FLAGS = ("exec", "noexec", "suid", "nosuid", "dev", "nodev", "noatime", "relatime", "strictatime", "nodiratime")
_DESKTOP = ("cached", "delegated", "consistent")
"""Hints for file sharing into virtual machines; meaningless on Linux, and scripts have them everywhere."""


def volume(label: str, text: str) -> MountOption:
    """`SRC:DST[:OPTION,...]` of `-v`. Raises `InvalidInput`."""
    parts = text.split(":")
    if len(parts) == 1:
        raise InvalidInput(f"{label}: {text!r} names no source: there are no volumes yet, write ./DIR:{text}")
    if len(parts) > 3:
        raise InvalidInput(f"{label}: {text!r} has too many colons: write SRC:DST[:OPTIONS], or use --mount")
    source, target = parts[0], parts[1]
    mount = MountOption("bind", _target(label, target, text), _source(label, source), label=label)
    return _bind_words(label, mount, parts[2].split(",") if len(parts) == 3 else ())


def mount(label: str, text: str) -> MountOption:
    """`type=bind,src=…,dst=…,readonly` of `--mount`; a field in double quotes may hold commas."""
    fields: dict[str, str | None] = {}
    for word in _split(label, text):
        key, equals, value = word.partition("=")
        key = _ALIASES.get(key, key)
        if key in fields:
            raise InvalidInput(f"{label}: {key} is given twice in {text!r}")
        fields[key] = value if equals else None
    kind = fields.pop("type", None)
    if kind not in ("bind", "tmpfs"):
        raise InvalidInput(f"{label}: type={kind or ''} is not available: use type=bind or type=tmpfs (no volumes yet)")
    target = fields.pop("target", None)
    if not target:
        raise InvalidInput(f"{label}: {text!r} says not where: give dst=/PATH")
    place = _target(label, target, text)
    return _mount_bind(label, text, place, fields) if kind == "bind" else _mount_tmpfs(label, place, fields)


_ALIASES = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "ro": "readonly",
    "tmpfs-size": "size",
    "tmpfs-mode": "mode",
    "bind-propagation": "propagation",
}


def _mount_bind(label: str, text: str, target: str, fields: dict[str, str | None]) -> MountOption:
    source = fields.pop("source", None)
    if not source:
        raise InvalidInput(f"{label}: {text!r} says not what: give src=PATH")
    result = MountOption("bind", target, _source(label, source), label=label)
    words: list[str] = []
    for key, value in fields.items():
        if key == "propagation":
            words.append(value or "")
        elif key == "bind-nonrecursive":
            result = result.replace(recursive=not switch(f"{label}: {key}", value or "true"))
        elif key == "bind-recursive":
            result = _recursion(label, result, value)
        elif key == "readonly":
            words.append("ro" if switch(f"{label}: {key}", value or "true") else "rw")
        elif key == "idmap" and value:
            words.append(f"idmap={value}")
        elif value is None:
            words.append(key)
        else:
            raise InvalidInput(f"{label}: unknown option {key}={value} for type=bind")
    return _bind_words(label, result, words)


def _recursion(label: str, mount: MountOption, value: str | None) -> MountOption:
    """docker's `bind-recursive`."""
    if value in ("enabled", "readonly"):
        return mount
    if value == "writable":
        return mount.replace(recursive_read_only=False)
    if value == "disabled":
        return mount.replace(recursive=False)
    raise InvalidInput(f"{label}: bind-recursive={value or ''}: use enabled, disabled, writable or readonly")


def _mount_tmpfs(label: str, target: str, fields: dict[str, str | None]) -> MountOption:
    if "source" in fields:
        raise InvalidInput(f"{label}: a tmpfs has no source")
    words = []
    for key, value in fields.items():
        if key == "readonly":
            words.append("ro" if switch(f"{label}: {key}", value or "true") else "rw")
        else:
            words.append(key if value is None else f"{key}={value}")
    return _tmpfs_words(label, target, words)


def tmpfs(label: str, text: str) -> MountOption:
    """`/DIR[:size=64m,mode=1777,noexec]` of `--tmpfs`; noexec, nosuid and nodev unless told otherwise."""
    target, colon, rest = text.partition(":")
    return _tmpfs_words(label, _target(label, target, text), rest.split(",") if colon else ())


def _tmpfs_words(label: str, target: str, words: Iterable[str]) -> MountOption:
    result = MountOption("tmpfs", target, label=label)
    flags = {"exec": "noexec", "suid": "nosuid", "dev": "nodev"}
    options: list[str] = []
    for word in words:
        key, _, value = word.partition("=")
        if key == "size":
            result = result.replace(size=size(f"{label} {target}: size", value))
        elif key == "mode":
            result = result.replace(mode=octal(f"{label} {target}: mode", value))
        elif word in ("ro", "rw"):
            result = result.replace(read_only=word == "ro")
        elif word in flags or word.removeprefix("no") in flags:
            flags[word.removeprefix("no")] = word
        elif word in _FLAGS or (key in ("uid", "gid", "nr_inodes", "huge") and value):
            options.append(word)
        else:
            raise InvalidInput(f"{label} {target}: unknown option {word!r} for a tmpfs")
    return result.replace(options=(*(flag for flag in flags.values() if flag.startswith("no")), *options))


def _bind_words(label: str, mount: MountOption, words: Iterable[str]) -> MountOption:
    changes: dict[str, object] = {}
    options: list[str] = []
    for word in words:
        if word in ("ro", "rw", "rro"):
            changes["read_only"] = word != "rw"
        elif word in ("bind", "rbind"):
            changes["recursive"] = word == "rbind"
        elif word in PROPAGATIONS:
            changes["propagation"] = word
        elif word == "idmap" or word.startswith("idmap="):
            changes["idmap"] = True
            changes["uid_map"], changes["gid_map"] = id_maps(label, word.partition("=")[2])
        elif word in _FLAGS:
            options.append(word)
        elif word and word not in _DESKTOP:
            _relabel(label, mount, word)
    return mount.replace(**changes, options=tuple(options))


def _relabel(label: str, mount: MountOption, word: str) -> None:
    """`z` and `Z` ask for SELinux labels, which exist only where SELinux does; all others are errors."""
    if word in ("z", "Z") and not os.path.exists("/sys/fs/selinux/enforce"):
        return
    if word in ("z", "Z"):
        raise InvalidInput(f"{label}: {word!r} (SELinux labels) is not supported yet: label {mount.source} yourself")
    if word == "U":
        raise InvalidInput(f"{label}: 'U' would change the owners of {mount.source}: use 'idmap' instead")
    raise InvalidInput(f"{label}: unknown option {word!r} for the bind of {mount.source}")


def id_maps(label: str, text: str) -> tuple[tuple[IdMapping, ...], tuple[IdMapping, ...]]:
    """podman's `uids=0-1000-1#1-2000-10;gids=…`: on disk, shown as, count. Empty text: no maps of its own."""
    maps: dict[str, tuple[IdMapping, ...]] = {"uids": (), "gids": ()}
    for part in text.split(";") if text else ():
        key, _, ranges = part.partition("=")
        numbers = [item.split("-") for item in ranges.split("#")]
        good = all(len(row) == 3 and all(n.isascii() and n.isdigit() for n in row) for row in numbers)
        if key not in maps or not good:
            raise InvalidInput(f"{label}: idmap={text!r}: write idmap=uids=0-1000-1;gids=0-1000-1")
        maps[key] = tuple(IdMapping(int(row[0]), int(row[1]), int(row[2])) for row in numbers)
    return maps["uids"], maps["gids"]


def _source(label: str, path: str) -> str:
    if not path:
        raise InvalidInput(f"{label}: it says not what to show: write SRC:DST")
    if not path.startswith("/") and path.partition("/")[0] not in (".", ".."):
        raise InvalidInput(
            f"{label}: {path!r} would be a named volume, and there are none yet: for a directory write ./{path}"
        )
    try:
        os.stat(path)
    except (OSError, ValueError) as error:
        why = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else str(error)
        raise InvalidInput(f"{label}: {path}: {why}") from None
    return os.path.abspath(path)


def _target(label: str, path: str, text: str) -> str:
    if not path.startswith("/"):
        raise InvalidInput(f"{label}: {path!r} in {text!r} is no absolute path in the container")
    clean = os.path.normpath("/" + path.lstrip("/"))
    if clean == "/":
        raise InvalidInput(f"{label}: nothing can be mounted on / itself: use --rootfs DIR")
    return clean


def _split(label: str, text: str) -> list[str]:
    """Fields between commas, as in CSV: a field in double quotes may hold commas, and quotes written twice."""
    fields, at = [], 0
    while True:
        if text[at : at + 1] == '"':
            field, at = "", at + 1
            while True:
                end = text.find('"', at)
                if end < 0:
                    raise InvalidInput(f"{label}: a double quote is not closed in {text!r}")
                field += text[at:end]
                at = end + 1
                if text[at : at + 1] != '"':
                    break
                field, at = field + '"', at + 1
            if text[at : at + 1] not in ("", ","):
                raise InvalidInput(f"{label}: text after a closing double quote in {text!r}")
        else:
            end = text.find(",", at)
            end = len(text) if end < 0 else end
            field, at = text[at:end], end
        fields.append(field)
        if at >= len(text):
            return fields
        at += 1
