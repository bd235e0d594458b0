"""What of the host may be seen: decided from modes alone, for any directory taken as root.

Rule 1: what others (the mode's last three bits) cannot read is a secret, whoever asks: files without o+r, directories
        without o+x, and everything that is not a file, a directory or a link (sockets, fifos, devices).
Rule 2: a `Sign` changes whenever the answer could: it has the inode's ctime, which follows contents, names and modes.
"""

from __future__ import annotations

import os
import stat

from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Sign = tuple[str, int, int, int]


class Scan(Record):
    """What was found below some directories; paths are absolute below the root that was scanned.

    hidden: what must not show, parents only; hidden_directories: those of them that are directories;
    directories, others: the signs of all that was looked at.
    """

    hidden: tuple[str, ...]
    hidden_directories: tuple[str, ...]
    directories: tuple[Sign, ...]
    others: tuple[Sign, ...]


def shown(mode: int) -> bool:
    """Whether something with this st_mode may be seen (rule 1)."""
    if stat.S_ISLNK(mode):
        return True
    if stat.S_ISDIR(mode):
        return bool(mode & 0o001)
    return stat.S_ISREG(mode) and bool(mode & 0o004)


def sign(path: str, about: os.stat_result) -> Sign:
    """What to remember of a path, to see later whether it changed."""
    return path, about.st_dev, about.st_ino, about.st_ctime_ns


def scan(root: str, places: Iterable[tuple[str, int]]) -> Scan:
    """Look at directories below `root`: (absolute path, how many levels down). Missing ones are left out.

    A directory that this user cannot list is hidden, too.
    """
    hidden: list[str] = []
    hidden_directories: list[str] = []
    directories: list[Sign] = []
    others: list[Sign] = []
    base = root.rstrip("/")
    waiting = list(places)
    while waiting:
        path, depth = waiting.pop()
        try:
            # The sign before the list: what changes in between is seen the next time.
            about = os.lstat(base + path)
            if not stat.S_ISDIR(about.st_mode):
                continue
            directories.append(sign(path, about))
            with os.scandir(base + path) as listing:
                entries = list(listing)
        except FileNotFoundError:
            continue
        except PermissionError:
            hidden.append(path)
            hidden_directories.append(path)
            continue
        for entry in entries:
            name = f"{path}/{entry.name}"
            try:
                about = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            directory = stat.S_ISDIR(about.st_mode)
            if not shown(about.st_mode):
                hidden.append(name)
                if directory:
                    hidden_directories.append(name)
            if directory and depth > 1 and shown(about.st_mode):
                waiting.append((name, depth - 1))
            else:
                others.append(sign(name, about))
    return Scan(
        tuple(sorted(hidden)), tuple(sorted(hidden_directories)), tuple(sorted(directories)), tuple(sorted(others))
    )


def unchanged(root: str, signs: Iterable[Sign]) -> bool:
    """Whether everything looked at is as it was."""
    base = root.rstrip("/")
    lstat = os.lstat
    try:
        for path, device, inode, changed in signs:
            about = lstat(base + path)
            if about.st_ctime_ns != changed or about.st_ino != inode or about.st_dev != device:
                return False
    except OSError:
        return False
    return True
