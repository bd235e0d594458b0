"""An explanation as one screen of plain words. Pure, but for the name of a user."""

from __future__ import annotations

import os

from corten.linux.inspect import SECCOMP
from corten.records import Record
from corten.views.processes import printable
from corten.views.tables import bytes_text, cut
from corten.views.weak_points import weak_points

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from corten.linux.idmap import IdMapping
    from corten.views.explaining import Explanation, Limit

_INDENT = 16
_MOST_POINTS = 6
_NEW_RIGHTS = {
    True: "none by set-user-id programs (no_new_privs)",
    False: "set-user-id programs give them",
    None: "unknown",
}
_DEVICES = {"all": "any", "listed": "only those on its list", None: "unknown"}
_MARK = {3: "!!", 2: "! ", 1: "! "}


class _Row(Record):
    """A line of the screen: title, words, and what its marks go by."""

    title: str
    words: str
    about: tuple[str, ...] = ()


def text(seen: Explanation, width: int = 100) -> str:
    """The screen; lines that an attacker would look at first begin with `!!` or `!`, and are told at the end."""
    points = weak_points(seen)
    marks: dict[str, int] = {}
    for point in points:
        marks[point.about] = max(marks.get(point.about, 0), point.rank)
    lines = []
    for row in _rows(seen):
        rank = max((marks.get(about, 0) for about in row.about), default=0)
        lines += _wrapped(_MARK.get(rank, "  ") + " " + row.title.ljust(_INDENT), row.words, width)
    lines.append("")
    if points:
        lines.append("An attacker inside would look first at:")
        for number, point in enumerate(points[:_MOST_POINTS], 1):
            lines += _wrapped(f"  {number}. ", point.words, width)
        if len(points) > _MOST_POINTS:
            lines.append(f"     and {len(points) - _MOST_POINTS} more: --json lists them all")
    else:
        lines.append("Nothing here stands out: an attacker inside would look for a mistake in the kernel itself.")
    return "".join(f"{line}\n" for line in lines)


def _rows(seen: Explanation) -> list[_Row]:
    status = seen.status
    command = printable(" ".join(seen.command))
    rows = [
        _Row("container", f"{seen.container.label} ({seen.container.kind} {seen.container.id}), "
             f"{seen.container.status}, {_count(seen.processes, 'process')}") if seen.container else
        _Row("container", "none of Corten's"),
        _Row("process", f"{seen.looked_at}, {cut(command, 60)}" + _inner(seen)),
    ]  # fmt: skip
    if seen.own or seen.shared:
        rows.append(_Row("of its own", ", ".join(seen.own) or "nothing: it is not isolated", seen.own))
        rows.append(_Row("shared", (", ".join(seen.shared) or "nothing") + " with the host", seen.shared))
    if seen.unknown:
        rows.append(_Row("unknown", f"{', '.join(seen.unknown)}: no permission to look"))
    rows.append(_Row("user", _user(seen), ("user",)))
    if seen.uid_map is not None and seen.gid_map is not None:
        rows.append(_Row("id maps", f"uids {_maps(seen.uid_map)}; gids {_maps(seen.gid_map)}"))
    rows += [_Row(limit.kind, _limit(limit), (limit.kind,)) for limit in seen.limits]
    held = [name.removeprefix("CAP_").lower() for name in status.capabilities.effective]
    rows += [
        _Row("capabilities", _capabilities(held, len(status.capabilities.bounding)), ("capabilities",)),
        _Row("filter", _filter(seen), ("seccomp",)),
        _Row("new rights", _NEW_RIGHTS[status.no_new_privs], ("no_new_privs",)),
        _Row("devices", _DEVICES[seen.devices], ("devices",)),
        *_files(seen),
    ]  # fmt: skip
    return rows


def _inner(seen: Explanation) -> str:
    numbers = seen.status.ns_pids
    return f"; {numbers[-1]} inside" if len(numbers) > 1 else ""


def _user(seen: Explanation) -> str:
    uid, inside = seen.status.uids[1], seen.inside_uid
    if seen.uid_map is None:
        return f"{_name(uid) or 'a user without a name'} (uid {uid}), the same inside and outside"
    name = "unmapped" if inside is None else "root" if inside == 0 else f"uid {inside}"
    known = _name(uid)
    return f"{name} inside is {f'{known} (uid {uid})' if known else f'uid {uid}'} of the host"


def _name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _maps(maps: tuple[IdMapping, ...]) -> str:
    return ", ".join(
        f"{m.container_id} -> {m.host_id}" if m.size == 1
        else f"{m.container_id}..{m.container_id + m.size - 1} -> {m.host_id}.." for m in maps
    ) or "none"  # fmt: skip


def _limit(limit: Limit) -> str:
    if not limit.counted:
        return "not limited: its group has no such controller"
    if limit.value is None:
        return "no limit"
    amount = (
        f"{limit.value:g} CPUs" if limit.kind == "cpu"
        else f"{limit.value:.0f}" if limit.kind == "pids" else bytes_text(limit.value)
    )  # fmt: skip
    return f"{amount}, set by {'its own group' if limit.own else limit.source}"


def _capabilities(held: list[str], bounding: int) -> str:
    if not held:
        return f"none (a set-user-id program could have {bounding})" if bounding else "none"
    shown = ", ".join(held[:14])
    return f"{len(held)}: {shown}" + (f" and {len(held) - 14} more" if len(held) > 14 else "")


def _filter(seen: Explanation) -> str:
    if seen.status.seccomp is None:
        return "unknown"
    words = SECCOMP.get(seen.status.seccomp, str(seen.status.seccomp))
    if words == "filter":
        return f"system calls are filtered ({_count(seen.status.filters, 'filter')})"
    return "no system call filter" if words == "none" else words


def _files(seen: Explanation) -> Iterable[_Row]:
    if not seen.mounts_known or "mount" in seen.unknown:
        return [_Row("files", "unknown: no permission to look at its mounts")]
    if "mount" not in seen.own:
        return [_Row("files", "the host's, all of them", ("files",))]
    rows = []
    if seen.root is not None:
        rows.append(_Row("root", f"{seen.root.kind}, {'read-only' if 'ro' in seen.root.options else 'writable'}"))
    shown = [
        f"{window.target}{'' if window.target == window.source else f' (of {window.source})'} "
        f"{'writable' if window.writable else 'read-only'}"
        for window in sorted(seen.windows, key=lambda one: not one.writable)
    ]
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    rows.append(_Row("host's files", ("; ".join(shown[:5]) or "none") + more, ("files",)))
    rows.append(
        _Row("kernel's files", f"{_count(len(seen.hidden), 'path')} hidden, {len(seen.frozen)} of /proc read-only")
    )
    return rows


def _count(number: int | None, what: str) -> str:
    if number is None:
        return f"an unknown number of {what}s"
    return f"{number} {what}" if number == 1 else f"{number} {what}{'es' if what.endswith('s') else 's'}"


def _wrapped(head: str, words: str, width: int) -> list[str]:
    import textwrap

    # Paths and names come from the container: they must not move the cursor.
    lines = textwrap.wrap(printable(words), max(width - len(head), 20)) or [""]
    return [head + lines[0], *(" " * len(head) + line for line in lines[1:])]


def terminal_width() -> int:
    """Columns to fill: those of the terminal, between 60 and 100; 100 where there is none."""
    try:
        return max(60, min(100, os.get_terminal_size(1).columns))
    except OSError:
        return 100
