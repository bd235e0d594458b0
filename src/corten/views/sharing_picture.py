"""Namespaces as a picture: one box for the processes that share everything, one chip in it for each kind.

The boxes are the classes of the meet of all kinds. A grey chip: shared with the machine, which is the largest of the
boxes in the outermost PID and user namespace; a blue one: a namespace of the box's own; another colour: shared by the
boxes with the same number. Boxes lie in the user namespace that they are in, if it holds more than one.
"""

from __future__ import annotations

from corten.linux.namespaces import NESTING
from corten.records import Record
from corten.views.drawing import GROUPS
from corten.views.picture import Box, Chip, Picture
from corten.views.processes import describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from corten.views.sharing import Namespaces

FOLD = 250
"""With more boxes than this, those that are alike become one."""


class _Lane(Record):
    """One class of the meet: processes, the namespace of each kind, containers."""

    processes: frozenset[int]
    label: tuple[int, ...]
    containers: tuple[str, ...]


def of(found: Namespaces) -> Picture:
    """The picture of what was read."""
    lanes = _lanes(found)
    usual = _machine(found, lanes)
    roles = _roles(lanes, usual)
    around = {own.identity: own for own in found.of("user")}
    parents = {own.identity: own.parent for own in found.of("pid")}
    homes = {lane.label[found.kinds.index("pid")]: lane for lane in lanes} if "pid" in found.kinds else {}
    at = found.kinds.index("pid") if homes else 0
    members: dict[int | None, list[Box]] = {}
    for lane, alike in _folded(lanes, usual, roles):
        where = lane.label[found.kinds.index("user")] if "user" in found.kinds else None
        outer = homes.get(parents.get(lane.label[at]) or 0) if homes else None
        nested = f"its PIDs lie in those of {_title(outer)}" if outer and outer.label[at] != usual[at] else ""
        members.setdefault(where, []).append(_box(lane, alike, found.kinds, roles, usual, nested))
    boxes = tuple(members.pop(None, ()))
    children: dict[int | None, list[int]] = {}
    for identity, own in around.items():
        children.setdefault(own.parent if own.parent in around else None, []).append(identity)

    def nest(identity: int) -> Box:
        inside = (*members.get(identity, ()), *(nest(child) for child in children.get(identity, ())))
        own = around[identity]
        who = f"made by uid {own.creator}" if own.parent is not None else ""
        return Box(f"user namespace {identity}", (who,) if who else (), inside=inside)

    for identity, own in list(around.items()):
        if own.parent in around and identity not in children and len(members.get(identity, ())) == 1:
            # around one box alone: its chip says it
            members.setdefault(own.parent, []).extend(members.pop(identity))
            children[own.parent].remove(identity)
    tops = children.get(None, [])
    if len(around) == 1:
        boxes += tuple(members.get(tops[0], ()))
    else:
        boxes += tuple(nest(identity) for identity in tops)
    return Picture(_heading(found, lanes), boxes, _notes(found))


def _lanes(found: Namespaces) -> list[_Lane]:
    meet = found.common()
    lanes = []
    for own, label in zip(meet.classes, meet.labels, strict=True):
        assert isinstance(label, tuple)
        lanes.append(_Lane(own, label, tuple(name for name, pids in found.containers if pids & own)))
    return lanes


def _machine(found: Namespaces, lanes: Sequence[_Lane]) -> tuple[int, ...]:
    """The label of what all else is compared with."""
    outermost = {own.identity for own in found.namespaces if own.parent is None or own.kind not in NESTING}
    nested = [at for at, kind in enumerate(found.kinds) if kind in NESTING]
    return max(
        lanes,
        key=lambda lane: (all(lane.label[at] in outermost for at in nested), not lane.containers, len(lane.processes)),
    ).label if lanes else ()


def _roles(lanes: Sequence[_Lane], usual: tuple[int, ...]) -> dict[tuple[int, int], str]:
    """The colour of each (place of the kind, namespace)."""
    count: dict[tuple[int, int], int] = {}
    for lane in lanes:
        for key in enumerate(lane.label):
            count[key] = count.get(key, 0) + 1
    roles, groups = {}, 0
    for key, number in count.items():
        if key[1] == usual[key[0]]:
            roles[key] = "shared"
        elif number == 1:
            roles[key] = "own"
        else:
            groups += 1
            roles[key] = f"group{groups}"
    return roles


def _folded(
    lanes: Sequence[_Lane], usual: tuple[int, ...], roles: dict[tuple[int, int], str]
) -> list[tuple[_Lane, tuple[_Lane, ...]]]:
    """Each lane with those that are drawn in its box: all of the same make, where there are too many boxes."""
    if len(lanes) <= FOLD:
        return [(lane, ()) for lane in lanes]
    makes: dict[tuple[str, ...], list[_Lane]] = {}
    for lane in lanes:
        make = tuple(
            roles[key] if roles[key] in ("own", "shared") else f"{key[0]}:{key[1]}" for key in enumerate(lane.label)
        )
        makes.setdefault(make if lane.label != usual else (), []).append(lane)
    return [(alike[0], tuple(alike[1:])) for alike in makes.values()]


def _title(lane: _Lane) -> str:
    if lane.containers:
        return ", ".join(lane.containers)
    return describe(min(lane.processes)).command.partition(" ")[0].rpartition("/")[2] or "?"


def _box(
    lane: _Lane, alike: Sequence[_Lane], kinds: Sequence[str], roles: dict[tuple[int, int], str],
    usual: tuple[int, ...], nested: str,
) -> Box:  # fmt: skip
    first = describe(min(lane.processes))
    number = len(lane.processes) + sum(len(other.processes) for other in alike)
    title = "the machine" if lane.label == usual and not lane.containers else _title(lane)
    if alike:
        title = f"{len(alike) + 1} alike: {title}, {', '.join(_title(other) for other in alike[:3])}, …"
    lines = [f"{number} process{'es' if number != 1 else ''}, first {first.pid}, {first.user or 'unknown'}"]
    if nested:
        lines.append(nested)
    chips = tuple(_chip(kind, roles[key]) for kind, key in zip(kinds, enumerate(lane.label), strict=True))
    return Box(title, tuple(lines), None, chips, "container" if lane.containers else "plain")


def _chip(kind: str, role: str) -> Chip:
    """There are fewer colours than sets of boxes that share something: the number tells those apart."""
    if not role.startswith("group"):
        return Chip(kind, role)
    number = int(role.removeprefix("group"))
    return Chip(f"{kind} {number}", f"group{(number - 1) % GROUPS + 1}")


def _heading(found: Namespaces, lanes: Sequence[_Lane]) -> str:
    number = len(found.processes)
    what = "sets that share all of" if len(found.kinds) > 1 else "sets by"
    return f"{number} processes in {len(lanes)} {what} {', '.join(found.kinds)}"


def _notes(found: Namespaces) -> tuple[str, ...]:
    from corten.views.sharing_table import notes

    legend = "grey: shared with the machine. Blue: its own. Another colour: shared by the boxes with the same number"
    return (legend, *notes(found).splitlines())
