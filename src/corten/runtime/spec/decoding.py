"""Parsed JSON to records and back, driven by the records' own annotations.

Rule 1: an error is one line that begins with the place in JSON spelling: `mounts[3].destination: missing`.
Rule 2: what the records do not name is passed over, as the specification asks; `unknown_fields` lists it.
Rule 3: `null` is the same as absent, as for the Go programs that write these files.
A class is analysed once, when it is first met.
"""

from __future__ import annotations

import sys

from corten.errors import InvalidInput
from corten.records import Record
from corten.runtime.spec.container import Spec
from corten.runtime.spec.keys import json_key
from corten.runtime.spec.values import ANY, BOUNDS, CHOICES, REQUIRED, full_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    R = TypeVar("R", bound=Record)
    Reader = Callable[[Any], Any]

_JSON_NAMES = {
    str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object", type(None): "null",
}  # fmt: skip


class _Misfit(Exception):
    """A value that does not fit; the place is collected, innermost part first, on the way out."""

    def __init__(self, what: str, part: str = "") -> None:
        self.what, self.parts = what, [part] if part else []

    def at(self, part: str) -> _Misfit:
        self.parts.append(part)
        return self

    def line(self) -> str:
        place = "".join(reversed(self.parts)).lstrip(".")
        return f"{place}: {self.what}" if place else self.what


def _quoted(text: str) -> str:
    return '"' + text.encode("unicode_escape").decode().replace('"', '\\"') + '"'


def _member(key: str) -> str:
    return f".{key}" if key.replace("_", "").isalnum() else f"[{_quoted(key)}]"


def _expected(word: str, value: object) -> _Misfit:
    return _Misfit(f"expected {word}, got {_JSON_NAMES.get(type(value), type(value).__name__)}")


# --- readers: one for each shape of annotation


def _string(value: Any) -> str:
    if type(value) is not str:
        raise _expected("string", value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Misfit("contains half of a surrogate pair, which is no character") from None
    if "\0" in value:
        raise _Misfit("contains a NUL character, which no program can receive")
    return value


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise _expected("boolean", value)
    return value


def _number(value: Any) -> float:
    if type(value) is not int and type(value) is not float:
        raise _expected("number", value)
    return float(value)


def _integer(bounds: tuple[int, int]) -> Reader:
    low, high = bounds

    def read(value: Any) -> int:
        if type(value) is not int:
            raise _expected("integer", value)
        if not low <= value <= high:
            raise _Misfit(f"{value} is outside {low} to {high}")
        return value

    return read


def _choice(allowed: tuple[str, ...]) -> Reader:
    def read(value: Any) -> str:
        if _string(value) not in allowed:
            raise _Misfit(f"unknown value {_quoted(value)}; allowed: {', '.join(filter(None, allowed))}")
        return str(value)

    return read


def _array(item: Reader) -> Reader:
    def read(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise _expected("array", value)
        found: list[Any] = []
        try:
            found.extend(map(item, value))
        except _Misfit as misfit:
            raise misfit.at(f"[{len(found)}]") from None
        return tuple(found)

    return read


def _mapping(item: Reader, keys: tuple[str, ...]) -> Reader:
    def read(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise _expected("object", value)
        found = {}
        for key, content in value.items():
            try:
                _string(key)
                if keys and key not in keys:
                    raise _Misfit(f"unknown key {_quoted(key)}; allowed: {', '.join(keys)}")
                found[key] = item(content)
            except _Misfit as misfit:
                raise misfit.at(_member(key)) from None
        return found

    return read


def _record(kind: type[Record]) -> Reader:
    def read(value: Any) -> Record:
        if type(value) is not dict:
            raise _expected("object", value)
        found = {}
        for key, (field, reader, required) in _fields_of(kind).items():
            content = value.get(key)
            if content is None:
                if required:
                    raise _Misfit("missing", _member(key))
                continue
            try:
                found[field] = reader(content)
            except _Misfit as misfit:
                raise misfit.at(_member(key)) from None
        return kind(**found)

    return read


# --- analysis of the record classes

_analysed: dict[type[Record], dict[str, tuple[str, Reader, bool]]] = {}


def types_of(kind: type[Record]) -> dict[str, Any]:
    """The types of a record's fields, evaluated where the class was written."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if issubclass(base, Record) and base is not Record:
            names = vars(sys.modules[base.__module__])
            for field, text in base.__annotations__.items():
                if field[0] != "_":
                    found[field] = eval(text, names) if isinstance(text, str) else text  # noqa: S307 - our own source
    return found


def _fields_of(kind: type[Record]) -> dict[str, tuple[str, Reader, bool]]:
    """JSON key: (field, reader, whether it must be there)."""
    fields = _analysed.get(kind)
    if fields is None:
        fields = {}
        for field, hint in types_of(kind).items():
            name = full_name(kind, field)
            required = field not in kind._defaults or name in REQUIRED
            fields[json_key(field)] = (field, _reader(hint, name), required)
        _analysed[kind] = fields
    return fields


def _reader(hint: Any, name: str) -> Reader:
    origin = getattr(hint, "__origin__", None)
    arguments: tuple[Any, ...] = getattr(hint, "__args__", ())
    if origin is tuple and len(arguments) == 2 and arguments[1] is ...:
        return _array(_reader(arguments[0], name))
    if origin is dict and arguments[0] is str:
        return _mapping(_reader(arguments[1], ""), CHOICES.get(name, ()))
    if type(None) in arguments and len(arguments) == 2:  # X | None; null never reaches a reader
        return _reader(next(one for one in arguments if one is not type(None)), name)
    if hint is str:
        return _choice(CHOICES[name]) if name in CHOICES else _string
    if hint is int:
        return _integer(BOUNDS.get(name, ANY))
    simple: dict[Any, Reader] = {bool: _boolean, float: _number}
    if hint in simple:
        return simple[hint]
    if isinstance(hint, type) and issubclass(hint, Record):
        return _record(hint)
    raise TypeError(f"{name}: no JSON shape for {hint}")


# --- the three uses


def decode_as(kind: type[R], data: object, place: str = "") -> R:
    """Parsed JSON as a record of any kind of the specification (`Process` for exec, `Resources` for update).

    place: what the error begins with when the data is a part of something. Errors: `InvalidInput`.
    """
    try:
        record: R = _record(kind)(data)
        return record
    except _Misfit as misfit:
        raise InvalidInput(misfit.at(place).line() if place else misfit.line()) from None


def decode(data: object) -> Spec:
    """The contents of a `config.json` that has been parsed. Errors: `InvalidInput` naming the field as JSON has it."""
    return decode_as(Spec, data)


def encode(record: Record) -> dict[str, Any]:
    """A record as JSON data. Fields that have their default are left out unless the specification requires them."""
    found = {}
    kind = type(record)
    for field in record._fields:
        value = getattr(record, field)
        required = field not in kind._defaults or full_name(kind, field) in REQUIRED
        if required or (value is not None and value != kind._defaults[field]):
            found[json_key(field)] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return encode(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def unknown_fields(data: object, kind: type[Record] = Spec) -> tuple[str, ...]:
    """The places in JSON data that no record names, such as `process.commandLine`; for a warning, never an error."""
    return tuple(place.lstrip(".") for place in _unknown(data, kind))


def _unknown(data: Any, hint: Any) -> list[str]:
    arguments = [one for one in getattr(hint, "__args__", ()) if one is not type(None)]
    if isinstance(data, list) and arguments:
        return [f"[{n}]{below}" for n, item in enumerate(data) for below in _unknown(item, arguments[0])]
    if not isinstance(data, dict):
        return []
    if isinstance(hint, type) and issubclass(hint, Record):
        hints = {json_key(field): one for field, one in types_of(hint).items()}
        found = []
        for key, item in data.items():
            below = _unknown(item, hints[key]) if key in hints else [""]
            found += [_member(key) + rest for rest in below]
        return found
    if getattr(hint, "__origin__", None) is dict:
        return [_member(key) + below for key, item in data.items() for below in _unknown(item, arguments[1])]
    return _unknown(data, arguments[0]) if arguments else []
