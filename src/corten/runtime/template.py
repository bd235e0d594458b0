"""A plan that many containers follow, each with an id of its own.

Rule: the id of the first one stands for the others'. It was drawn by chance, so wherever it occurs in the plan it is
meant, and another of the same length can stand in its place.
Why: what says nothing of the id, four fifths of the steps, is made once, and not pickled and unpickled for each
container (0.8 of the 11 ms that one took).
"""

from __future__ import annotations

import pickle

from corten.runtime.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.runtime.step import Step

_LISTS = ("host", "inside", "payload", "undo")


class Template:
    """A plan with a gap for the id. identity: that of the container whose plan it was."""

    def __init__(self, plan: Plan, identity: str) -> None:
        self._fields = dict(plan.__dict__)
        self._identity = identity.encode()
        # All that has the id goes into one pickle, in which the group that many steps share stays one.
        own: dict[tuple[str, int], object] = {}
        for name in _LISTS:
            for at, step in enumerate(self._fields[name]):
                if self._has_id(step):
                    own[name, at] = step
        for name, value in self._fields.items():
            if name not in _LISTS and self._has_id(value):
                own[name, -1] = value
        self._own = pickle.dumps(own, pickle.HIGHEST_PROTOCOL)

    def _has_id(self, value: object) -> bool:
        return self._identity in pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    def plan(self, identity: str) -> Plan:
        """The plan of the container with this id."""
        new = identity.encode()
        assert len(new) == len(self._identity)
        fields = dict(self._fields)
        lists: dict[str, list[Step]] = {name: list(fields[name]) for name in _LISTS}
        own: dict[tuple[str, int], object] = pickle.loads(self._own.replace(self._identity, new))
        for (name, at), value in own.items():
            if at < 0:
                fields[name] = value
            else:
                lists[name][at] = value  # type: ignore[call-overload]
        fields.update((name, tuple(steps)) for name, steps in lists.items())
        return Plan(**fields)
