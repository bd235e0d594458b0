"""Users and groups of a root file system, from the text of its /etc/passwd and /etc/group. Pure.

The rules are docker's: a number is always an id and need not be listed; a name must be; without a group the primary
and supplementary groups of the listed user count, with one it alone does.
"""

from __future__ import annotations

from corten.errors import InvalidInput
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LARGEST = 2**32 - 2
"""2^32-1 means "no change" to setresuid(2)."""


class Identity(Record):
    """Who a process is: numbers as the container sees them."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    """Supplementary groups."""
    home: str = "/"
    name: str = ""
    """Empty when no user of the root file system has this number."""


def resolve_user(user: str, passwd: str, group: str, group_add: Sequence[str] = (), label: str = "--user") -> Identity:
    """The identity for `NAME|UID[:GROUP|GID]`, empty for user 0. Raises `InvalidInput` for names that are not there."""
    who, colon, which = user.partition(":")
    found = _find_user(who or "0", passwd)
    if found is None:
        number = _number(who or "0")
        if number is None:
            raise InvalidInput(f"{label}: there is no user {who!r} in the container's /etc/passwd: give its number")
        found = Identity(number, 0, home="/root" if number == 0 else "/")
    gid = _group(which, group, label) if colon and which else found.gid
    groups = [] if colon and which else _memberships(found.name, group)
    added = [_group(name, group, "--group-add") for name in group_add]
    for option, numbers in ((label, (found.uid, gid, *groups)), ("--group-add", added)):
        for number in numbers:
            if not 0 <= number <= _LARGEST:
                raise InvalidInput(f"{option}: the id {number} is beyond the largest, {_LARGEST}")
    groups += added
    return found.replace(gid=gid, groups=tuple(dict.fromkeys(groups)))


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _rows(text: str, width: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        words = line.strip().split(":")
        if len(words) >= width and not line.startswith("#"):
            yield words


def _find_user(who: str, passwd: str) -> Identity | None:
    number = _number(who)
    for words in _rows(passwd, 4):
        uid, gid = _number(words[2]), _number(words[3])
        if uid is None or gid is None or (words[0] != who if number is None else uid != number):
            continue
        home = words[5] if len(words) > 5 and words[5].startswith("/") else "/"
        return Identity(uid, gid, home=home, name=words[0])
    return None


def _group(which: str, group: str, label: str) -> int:
    number = _number(which)
    if number is not None:
        return number
    for words in _rows(group, 3):
        gid = _number(words[2])
        if words[0] == which and gid is not None:
            return gid
    raise InvalidInput(f"{label}: there is no group {which!r} in the container's /etc/group: give its number")


def _memberships(name: str, group: str) -> list[int]:
    found = []
    for words in _rows(group, 4):
        gid = _number(words[2])
        if name and gid is not None and name in words[3].split(","):
            found.append(gid)
    return found
