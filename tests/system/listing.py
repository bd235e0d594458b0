"""Everything that can be seen of a tree, for comparing two of them."""

from __future__ import annotations

import hashlib
import os
import stat

from corten.runtime import helper
from corten.runtime.steps.root import overlay_of_many

Entry = tuple[object, ...]


def of(directory: str) -> dict[str, Entry]:
    """Path: type, mode, owner, time, size, digest, attributes, link, device, and the first name of the same file."""
    found: dict[str, Entry] = {}
    links: dict[int, list[str]] = {}
    for top, _, files in os.walk(directory):
        for name in files:
            path = f"{top}/{name}"
            if os.path.lexists(path):  # an overlay may list what is not there: a name that deletes nothing
                links.setdefault(os.lstat(path).st_ino, []).append(os.path.relpath(path, directory))
    for top, directories, files in os.walk(directory):
        for name in (".", *directories, *files):
            path = f"{top}/{name}"
            if (name == "." and top != directory) or not os.path.lexists(path):
                continue
            place = os.path.relpath(path, directory)
            about = os.stat(path) if name == "." else os.lstat(path)
            kind = stat.S_IFMT(about.st_mode)
            digest = ""
            if kind == stat.S_IFREG:
                with open(path, "rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            names = os.listxattr(path, follow_symlinks=False) if kind in (stat.S_IFREG, stat.S_IFDIR) else []
            attributes = {one: os.getxattr(path, one) for one in names if ".overlay." not in one}
            attributes = {one: value for one, value in attributes.items() if not one.startswith("user.umoci")}
            size = 0 if kind == stat.S_IFDIR else about.st_size
            link = os.readlink(path) if kind == stat.S_IFLNK else ""
            same = min(links[about.st_ino]) if len(links.get(about.st_ino, ())) > 1 else ""
            device = about.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
            mode = 0o777 if kind == stat.S_IFLNK else stat.S_IMODE(about.st_mode)
            owner = about.st_uid, about.st_gid
            notes = sorted(attributes.items())
            found[place] = (kind, oct(mode), owner, int(about.st_mtime), size, digest, notes, link, device, same)
    return found


def of_layers(lowers: tuple[str, ...]) -> dict[str, Entry]:
    """The same of layers laid over each other, the topmost first."""
    found: dict[str, Entry] = helper.call("listing:mounted", (lowers,), mounts=True)
    return found


def mounted(lowers: tuple[str, ...]) -> dict[str, Entry]:
    """In a process with a mount namespace of its own."""
    if len(lowers) == 1:
        return of(lowers[0])
    mount = overlay_of_many(lowers, ())
    return of(f"/proc/self/fd/{mount}/.")


def difference(one: dict[str, Entry], other: dict[str, Entry]) -> list[str]:
    """What differs, a line each."""
    return [
        f"{path}: {one.get(path)} / {other.get(path)}"
        for path in sorted(one.keys() | other.keys())
        if one.get(path) != other.get(path)
    ]
