"""Directories that a layer has, but does not list: they look as in the layers below.

An overlay shows a directory as its topmost layer has it. So one that is only there because a file lies in it would hide
the mode and owner that it got from a lower layer. What lies below is known when all layers of an image are there: then
the first image that has the layer decides, once.
"""

from __future__ import annotations

import os

from corten.json_text import loads
from corten.linux import paths
from corten.runtime import helper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

IMPLIED = "implied"
"""The file beside an unpacked layer that lists such directories."""
_KEPT = ("user.", "security.capability")


def settle(trees: Sequence[str]) -> None:
    """See to the unlisted directories of an image's unpacked layers (the directories `tree`), the lowest first."""
    for number, tree in enumerate(trees):
        note = os.path.join(os.path.dirname(tree), IMPLIED)
        try:
            with open(note, encoding="utf-8") as file:
                implied = loads(file.read())
        except FileNotFoundError:
            continue
        below = tuple(reversed(trees[:number]))
        if below:
            maps = helper.own_maps()
            if maps:
                helper.call("corten.images.layers.settling:look_alike", (implied, tree, below), (), maps)
            else:
                look_alike(implied, tree, below)
        try:
            os.unlink(note)
        except FileNotFoundError:
            pass  # another process has seen to it


def look_alike(directories: Sequence[str], tree: str, below: Sequence[str]) -> None:
    """Give directories of a tree the owner, mode, attributes and time that the first tree below has for them."""
    # The deepest first, for a change of what is in a directory changes its time.
    for place in sorted(directories, key=lambda place: -place.count("/")):
        model = next((fd for lower in below if (fd := _open(lower, place)) >= 0), -1)
        own = _open(tree, place) if model >= 0 else -1
        try:
            if own >= 0:
                _copy(model, own)
        finally:
            for fd in (model, own):
                if fd >= 0:
                    os.close(fd)


def _open(tree: str, place: str) -> int:
    root = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return paths.open_in_root(root, f"/{place}", os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return -1
    finally:
        os.close(root)


def _copy(model: int, own: int) -> None:
    about = os.fstat(model)
    if os.geteuid() == 0:
        os.fchown(own, about.st_uid, about.st_gid)
    os.fchmod(own, about.st_mode & 0o7777)
    for name in os.listxattr(model):
        if name.startswith(_KEPT) and not name.startswith("user.overlay."):
            os.setxattr(own, name, os.getxattr(model, name))
    os.utime(own, ns=(about.st_atime_ns, about.st_mtime_ns))
