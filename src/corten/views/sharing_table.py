"""Namespaces as text: a table by kind with the nesting drawn in, who shares what, and the meet."""

from __future__ import annotations

from corten.linux.namespaces import NESTING
from corten.views.processes import describe
from corten.views.tables import render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from corten.views.sharing import Namespace, Namespaces

_TITLES = ("KIND", "NAMESPACE", "PROCESSES", "FIRST", "USER", "OWNER", "CONTAINERS", "COMMAND")
_ALIGN = "<<>><<<<"
_UNKNOWN = "unknown"


def table(found: Namespaces, width: int | None = None) -> str:
    """One row for each namespace; children of PID and user namespaces stand below their parents."""
    owners = len({own.owner for own in found.namespaces} - {None}) > 1
    rows = [
        _row(own, prefix, owners) for kind in found.kinds for own, prefix in _nested(kind, found.of(kind))
    ]
    return render(_TITLES, rows, _ALIGN, width) + notes(found)


def _row(own: Namespace, prefix: str, owners: bool) -> tuple[str, ...]:
    first = own.first
    owner = "" if not owners else _UNKNOWN if "owner" in own.unknown else str(own.owner or "out of sight")
    return (
        own.kind,
        f"{prefix}{own.identity}",
        str(len(own.processes)),
        str(first.pid) if first else "-",
        (first.user or _UNKNOWN) if first else "-",
        owner,
        ", ".join(own.containers),
        first.command if first else "(no process)",
    )


def _nested(kind: str, namespaces: Sequence[Namespace]) -> list[tuple[Namespace, str]]:
    """Parents before their children, each with the branch that leads to it."""
    if kind not in NESTING:
        return [(own, "") for own in namespaces]
    known = {own.identity for own in namespaces}
    below: dict[int | None, list[Namespace]] = {}
    for own in namespaces:
        below.setdefault(own.parent if own.parent in known else None, []).append(own)
    rows: list[tuple[Namespace, str]] = []

    def add(parent: int | None, stem: str) -> None:
        children = below.get(parent, ())
        for number, child in enumerate(children):
            last = number == len(children) - 1
            top = parent is None
            rows.append((child, "" if top else stem + ("└─ " if last else "├─ ")))
            add(child.identity, "" if top else stem + ("   " if last else "│  "))

    add(None, "")
    return rows


def notes(found: Namespaces) -> str:
    """What is not in the table, a line each."""
    by_pids: dict[frozenset[int], list[str]] = {}
    for kind, pids in found.unknown:
        by_pids.setdefault(pids, []).append(kind)
    lines = []
    for pids, kinds in by_pids.items():
        some = ", ".join(map(str, sorted(pids)[:5])) + (", …" if len(pids) > 5 else "")
        who = f"process {some}" if len(pids) == 1 else f"{len(pids)} processes ({some})"
        what = "all kinds" if len(kinds) == len(found.kinds) and len(kinds) > 1 else ", ".join(kinds)
        lines.append(f"unknown: {what} of {who}: not permitted to look\n")
    for name, pids in found.containers:
        if not pids:
            lines.append(f"unknown: the processes of container {name}\n")
    return "".join(lines)


def same(words: tuple[str, str], shared: dict[str, bool | None]) -> str:
    """Which kinds two processes share."""
    groups = {"share": True, "do not share": False, "unknown": None}
    lines = []
    for title, answer in groups.items():
        kinds = [kind for kind, value in shared.items() if value is answer]
        if kinds or answer is not None:
            lines.append(f"{title + ':':<14}{', '.join(kinds) or 'nothing'}\n")
    return f"{words[0]} and {words[1]}\n" + "".join(lines)


def common(found: Namespaces, width: int | None = None) -> str:
    """The meet of the kinds: processes that share all of them, with what sets a class apart from the largest one."""
    meet = found.common()
    if not meet.classes:
        return notes(found)
    sizes = [len(own) for own in meet.classes]
    usual = meet.labels[sizes.index(max(sizes))]
    assert isinstance(usual, tuple)
    rows = []
    for own, label in zip(meet.classes, meet.labels, strict=True):
        assert isinstance(label, tuple)
        apart = [kind for kind, one, other in zip(found.kinds, label, usual, strict=True) if one != other]
        first = describe(min(own))
        containers = [name for name, pids in found.containers if pids & own]
        rows.append((
            str(len(own)), str(first.pid), first.user or _UNKNOWN,
            ", ".join(apart) if label != usual else "(the largest class)", ", ".join(containers), first.command,
        ))  # fmt: skip
    titles = ("PROCESSES", "FIRST", "USER", "DIFFERS IN", "CONTAINERS", "COMMAND")
    return f"processes that share {', '.join(found.kinds)}\n" + render(titles, rows, ">><<<<", width) + notes(found)
