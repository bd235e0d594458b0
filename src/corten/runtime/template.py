"""A plan that many containers follow, each with an id of its own.

Rule: the id of the first one stands for the others'. It was drawn by chance, so wherever it occurs in the plan it is
meant, and another of the same length can stand in its place.
Why: what says nothing of the id, four fifths of the steps, is made once, and not pickled and unpickled for each
container (0.8 of the 11 ms that one took).
"""

from __future__ import annotations

import io
import pickle

from corten.records import Record
from corten.runtime.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.runtime.step import Step

_LISTS = ("host", "inside", "payload", "undo")


class _Pickler(pickle.Pickler):
    """Leaves out the records that say nothing of the id: the very same ones will be in each plan."""

    def __init__(self, file: io.BytesIO, identity: bytes, shared: list[Record]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._identity, self._shared = identity, shared

    def persistent_id(self, obj: object) -> int | None:
        if not isinstance(obj, Record) or self._identity in pickle.dumps(obj, pickle.HIGHEST_PROTOCOL):
            return None
        self._shared.append(obj)
        return len(self._shared) - 1


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, shared: list[Record]) -> None:
        super().__init__(file)
        self._shared = shared

    def persistent_load(self, number: int) -> Record:
        return self._shared[number]


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
        self._shared: list[Record] = []
        buffer = io.BytesIO()
        _Pickler(buffer, self._identity, self._shared).dump(own)
        self._own = buffer.getvalue()

    def _has_id(self, value: object) -> bool:
        return self._identity in pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    def plan(self, identity: str) -> Plan:
        """The plan of the container with this id."""
        new = identity.encode()
        assert len(new) == len(self._identity)
        fields = dict(self._fields)
        lists: dict[str, list[Step]] = {name: list(fields[name]) for name in _LISTS}
        own = _Unpickler(io.BytesIO(self._own.replace(self._identity, new)), self._shared).load()
        for (name, at), value in own.items():
            if at < 0:
                fields[name] = value
            else:
                lists[name][at] = value
        fields.update((name, tuple(steps)) for name, steps in lists.items())
        return Plan(**fields)
