"""Small frozen values, without the price of `dataclasses`.

Rule 1: a record never changes; `replace` makes another one.
Rule 2: a record is data: it can be compared, printed, and pickled for another process of the same program.

Why not `dataclasses`: importing it costs 9 to 16 ms and each class some 0.4 ms more (measured, Python 3.11), which is
as much as a whole container. Type checkers see the same thing: `dataclass_transform` (PEP 681).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self, dataclass_transform
else:

    def dataclass_transform(**_):
        return lambda cls: cls


@dataclass_transform(frozen_default=True)
class Record:
    """Base of frozen values: annotate the fields in the class body, give defaults where there are some.

    Fields are given by position or by name; a missing or unknown one is a `TypeError`. Defaults must be immutable.
    """

    _fields: tuple[str, ...] = ()
    _known: frozenset[str] = frozenset()
    _defaults: dict[str, Any] = {}

    def __init_subclass__(cls) -> None:
        own = [name for name in cls.__annotations__ if name[0] != "_"]
        cls._fields = tuple(dict.fromkeys((*cls._fields, *own)))
        cls._known = frozenset(cls._fields)
        cls._defaults = {name: getattr(cls, name) for name in cls._fields if hasattr(cls, name)}

    def __init__(self, *args: Any, **named: Any) -> None:
        fields, values = self._fields, self.__dict__
        values.update(self._defaults)
        if args:
            values.update(zip(fields, args, strict=False))
        values.update(named)
        odd = len(args) > len(fields) or (named and (args or not named.keys() <= self._known))
        if odd or len(values) != len(fields):
            self._check(len(args), named)

    def _check(self, count: int, named: dict[str, Any]) -> None:
        """Say which field is missing, unknown or given twice; most records are never looked at so closely."""
        fields, name = self._fields, type(self).__name__
        if count > len(fields):
            raise TypeError(f"{name} takes {len(fields)} fields, not {count}")
        for field in named:
            if field not in fields or field in fields[:count]:
                raise TypeError(f"{name}: unknown or repeated field {field!r}")
        for field in fields:
            if field not in self.__dict__:
                raise TypeError(f"{name}: missing field {field!r}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: make another with replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self).__name__, *(self.__dict__[name] for name in self._fields)))

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={self.__dict__[name]!r}" for name in self._fields)
        return f"{type(self).__name__}({inside})"

    def replace(self, **changes: Any) -> Self:
        """The same record with some fields changed."""
        return type(self)(**{**self.__dict__, **changes})
