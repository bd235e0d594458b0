"""Mount options as OCI and mount(8) write them, turned into what the mount calls take. Pure.

Source: OCI runtime-spec config.md "Linux mount options", config-linux.md; mount(8).
"""

from __future__ import annotations

from corten.errors import InvalidInput
from corten.linux import mounts
from corten.records import Record

# option: (attributes set, attributes cleared)
_ATTRIBUTES = {
    "ro": (mounts.RDONLY, 0),
    "rw": (0, mounts.RDONLY),
    "nosuid": (mounts.NOSUID, 0),
    "suid": (0, mounts.NOSUID),
    "nodev": (mounts.NODEV, 0),
    "dev": (0, mounts.NODEV),
    "noexec": (mounts.NOEXEC, 0),
    "exec": (0, mounts.NOEXEC),
    "nodiratime": (mounts.NODIRATIME, 0),
    "diratime": (0, mounts.NODIRATIME),
    "relatime": (0, mounts.ATIME_MASK),
    "norelatime": (mounts.STRICTATIME, 0),
    "noatime": (mounts.NOATIME, 0),
    "atime": (0, mounts.ATIME_MASK),
    "strictatime": (mounts.STRICTATIME, 0),
    "nostrictatime": (0, mounts.ATIME_MASK),
    "nosymfollow": (mounts.NOSYMFOLLOW, 0),
    "symfollow": (0, mounts.NOSYMFOLLOW),
}
_PROPAGATION = {
    "private": mounts.PRIVATE,
    "slave": mounts.SLAVE,
    "shared": mounts.SHARED,
    "unbindable": mounts.UNBINDABLE,
}
# Of a whole file system: a bind mount has those of its source, and mount(2) ignores them there.
_SUPERBLOCK = ("sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand")
# Not sent to the kernel by mount(8) either, or without a meaning to the calls that we use.
_IGNORED = (
    "defaults", "remount", "nofail", "auto", "noauto", "user", "nouser", "iversion", "noiversion", "acl", "noacl",
    "silent", "loud",
)  # fmt: skip


class MountOptions(Record):
    """The meaning of a list of mount options.

    add, clear: mount attributes; add_below, clear_below: those asked for all mounts below too (`rro` and its kin);
    propagation, propagation_below: 0 or one of mounts.PRIVATE ...; data: options of the file system itself.
    """

    bind: bool = False
    recursive: bool = False
    add: int = 0
    clear: int = 0
    add_below: int = 0
    clear_below: int = 0
    propagation: int = 0
    propagation_below: int = 0
    idmap: bool = False
    idmap_below: bool = False
    copy_up: bool = False
    data: tuple[str, ...] = ()


def parse(options: tuple[str, ...]) -> MountOptions:
    """What the options mean together; of options that contradict each other the last one holds."""
    values = dict(MountOptions._defaults)
    data: list[str] = []
    for option in options:
        below = option[:1] == "r" and option[1:] in _ATTRIBUTES and option not in _ATTRIBUTES
        if option in _ATTRIBUTES or below:
            add, clear = _ATTRIBUTES[option[1:] if below else option]
            if (add | clear) & mounts.ATIME_MASK:
                clear |= mounts.ATIME_MASK
            for suffix in ("", "_below") if below else ("",):
                values["add" + suffix] = values["add" + suffix] & ~clear | add
                values["clear" + suffix] = (values["clear" + suffix] | clear) & ~add
        elif option in _PROPAGATION:
            values["propagation"] = _PROPAGATION[option]
        elif option[:1] == "r" and option[1:] in _PROPAGATION:
            values["propagation_below"] = _PROPAGATION[option[1:]]
        elif option in ("bind", "rbind"):
            values["bind"] = True
            values["recursive"] = option == "rbind"
        elif option in ("idmap", "ridmap"):
            values["idmap"] = True
            values["idmap_below"] = option == "ridmap"
        elif option == "tmpcopyup":
            values["copy_up"] = True
        elif option not in _IGNORED:
            data.append(option)
    values["data"] = tuple(option for option in data if not (values["bind"] and option in _SUPERBLOCK))
    return MountOptions(**values)


def check_bind(data: tuple[str, ...], destination: str) -> None:
    """`InvalidInput` if a bind mount carries options that no bind mount has."""
    if data:
        raise InvalidInput(f"mount {destination}: a bind mount has no option {data[0]!r}")


def known() -> tuple[str, ...]:
    """All options that have a meaning here, besides those of the file systems themselves; sorted."""
    below = {f"r{name}" for name in (*_ATTRIBUTES, *_PROPAGATION)}
    others = {"bind", "rbind", "idmap", "ridmap", "tmpcopyup", *_SUPERBLOCK, *_IGNORED}
    return tuple(sorted({*_ATTRIBUTES, *_PROPAGATION, *below, *others}))
