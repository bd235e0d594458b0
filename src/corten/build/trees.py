"""Where a build takes files from: its context, and stages and images as stacks of layers."""

from __future__ import annotations

import os
import stat

from corten.build.ignore import Ignore, read_ignore
from corten.build.stubs import OPAQUE
from corten.build.views import View
from corten.errors import InvalidInput, NotFound
from corten.linux import paths
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Tree(Record):
    """A root file system in the making. lowers: directories, topmost first; diff_ids: of its layers, lowest first."""

    lowers: tuple[str, ...]
    diff_ids: tuple[str, ...]


class Context:
    """A directory whose files a build may copy, less what is ignored. fd: open for as long as the build.

    containerfile: whose own ignore file counts before the directory's; ignore: patterns instead of any such file.
    """

    def __init__(self, path: str, containerfile: str = "", ignore: tuple[str, ...] | None = None) -> None:
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"build context {path}: no such directory") from None
        except NotADirectoryError:
            raise InvalidInput(f"build context {path}: is not a directory") from None
        except OSError as error:
            raise InvalidInput(f"build context {path}: cannot be read: {error.strerror}") from None
        self.path = os.path.abspath(path)
        self.ignore = _ignore(self.path, containerfile) if ignore is None else read_ignore("\n".join(ignore), "ignore")

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)


def _ignore(path: str, containerfile: str) -> Ignore:
    """What is left out: by the Containerfile's own ignore file, else by the context's (podman's name first)."""
    for name in (f"{containerfile}.dockerignore", f"{path}/.containerignore", f"{path}/.dockerignore"):
        try:
            with open(name, encoding="utf-8", errors="surrogateescape") as file:
                return read_ignore(file.read(), name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise InvalidInput(f"{name}: cannot be read: {error.strerror}") from None
    return Ignore()


def below(tree: Tree, path: str) -> tuple[str, ...] | str:
    """A directory of a tree as lowers of its own, topmost first; a file as the path of the layer's file.

    FileNotFoundError: the tree has no such path.
    """
    with View(tree.lowers) as view:
        fd = paths.open_in_root(view.fd, path, os.O_PATH)
        try:
            is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
            # The kernel's name for it: no links are left in it. A detached mount is its own root.
            real = os.readlink(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
    if len(tree.lowers) == 1:
        return (real,) if is_directory else real
    names = real.strip("/").split("/") if real != "/" else []
    found: list[str] = []
    for lower in tree.lowers:
        place, hides = _in_layer(lower, names)
        if place and not is_directory:
            return place
        if place and stat.S_ISDIR(os.lstat(place).st_mode):
            found.append(place)
        if hides:
            break
    return tuple(found)


def _in_layer(lower: str, names: list[str]) -> tuple[str, bool]:
    """Where a layer has a path, or what it has in its way (empty: nothing); whether that hides what lies below."""
    where, hides = lower, False
    for name in names:
        where = f"{where}/{name}"
        try:
            about = os.lstat(where)
        except FileNotFoundError:
            return "", hides
        if not stat.S_ISDIR(about.st_mode):
            whiteout = stat.S_ISCHR(about.st_mode) and about.st_rdev == 0
            return ("" if whiteout else where), True
        hides = hides or _is_opaque(where)
    return where, hides


def _is_opaque(path: str) -> bool:
    for name in OPAQUE:
        try:
            if os.getxattr(path, name) == b"y":
                return True
        except OSError:
            continue
    return False


def text_of(lowers: tuple[str, ...], path: str) -> str:
    """A small file that anybody may read, from the topmost layer that has it; empty if none does."""
    for lower in lowers:
        top = os.open(lower, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = paths.open_in_root(top, path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            continue
        finally:
            os.close(top)
        with open(fd, "rb", buffering=0) as file:
            return (file.read(1 << 20) or b"").decode(errors="replace")
    return ""


def numbers_of(words: str) -> tuple[int, int] | None:
    """`UID[:GID]` as numbers; None if there are names in it, which only a root can tell."""
    uid, _, gid = words.partition(":")
    if not all(word.isascii() and word.isdigit() for word in (uid, gid or uid)):
        return None
    return int(uid), int(gid or uid)


def owner_of(lowers: tuple[str, ...], words: str) -> tuple[int, int]:
    """`USER[:GROUP]` as numbers, by the files of a root; a number alone is user and group. InvalidInput."""
    return numbers_of(words) or identity_of(lowers, words, "--chown")


def identity_of(lowers: tuple[str, ...], user: str, label: str) -> tuple[int, int]:
    """Who `USER[:GROUP]` is, as (uid, gid), by the files of a root. label: for errors, which are InvalidInput."""
    from corten.engine.users import resolve_user

    found = resolve_user(user, text_of(lowers, "/etc/passwd"), text_of(lowers, "/etc/group"), (), label)
    return found.uid, found.gid


def number_fields(fields: dict[str, Any]) -> tuple[int, int, int | None]:
    """(uid, gid, mode or None) of a mount's fields."""
    mode = fields.get("mode")
    return int(fields.get("uid", "0")), int(fields.get("gid", "0")), None if mode is None else int(mode, 8)
