"""Small frozen values, without the price of `dataclasses`.

Rule 1: a record never changes; `replace` makes another one.
Rule 2: a record is data: it can be compared, printed, and sent to another process (`to_wire`, `from_wire`).

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
    _defaults: dict[str, Any] = {}
    _kinds: dict[str, type[Record]] = {}

    def __init_subclass__(cls) -> None:
        own = [name for name in cls.__annotations__ if name[0] != "_"]
        cls._fields = tuple(dict.fromkeys((*cls._fields, *own)))
        cls._defaults = {name: getattr(cls, name) for name in cls._fields if hasattr(cls, name)}
        cls._kinds[f"{cls.__module__}.{cls.__qualname__}"] = cls

    def __init__(self, *args: Any, **named: Any) -> None:
        fields, values = self._fields, self.__dict__
        if len(args) > len(fields):
            raise TypeError(f"{type(self).__name__} takes {len(fields)} fields, not {len(args)}")
        values.update(self._defaults)
        values.update(zip(fields, args, strict=False))
        for name in named:
            if name not in fields or name in fields[: len(args)]:
                raise TypeError(f"{type(self).__name__}: unknown or repeated field {name!r}")
        values.update(named)
        if len(values) != len(fields):
            missing = [name for name in fields if name not in values]
            raise TypeError(f"{type(self).__name__}: missing field {missing[0]!r}")

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


def to_wire(value: Any) -> Any:
    """A value as plain tuples, numbers, strings and bytes, which `marshal` can carry to a process of the same program.

    A record becomes `("R", module and class name, field, ...)`; other tuples and lists become `("T", item, ...)`.
    """
    if isinstance(value, Record):
        kind = type(value)
        return ("R", f"{kind.__module__}.{kind.__qualname__}", *(to_wire(value.__dict__[name]) for name in value._fields))
    if isinstance(value, (tuple, list)):
        return ("T", *map(to_wire, value))
    if isinstance(value, dict):
        return {key: to_wire(item) for key, item in value.items()}
    return value


def from_wire(value: Any) -> Any:
    """The inverse of `to_wire`; `KeyError` for a record class that has not been imported."""
    if type(value) is tuple:
        if value[0] == "R":
            return Record._kinds[value[1]](*map(from_wire, value[2:]))
        return tuple(map(from_wire, value[1:]))
    if type(value) is dict:
        return {key: from_wire(item) for key, item in value.items()}
    return value
