"""JSON for processes that live for milliseconds: the C scanner of the standard library without the 8 ms of `json`.

`json` itself is asked only where its answer matters: for the words and the place of a syntax error.
"""

from __future__ import annotations

from _json import encode_basestring_ascii as _quote
from _json import make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SPACE = " \t\n\r"


def _constant(name: str) -> float:
    return {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}[name]


class _Settings:
    """What the scanner reads from a `json.JSONDecoder`."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_constant)
    memo: dict[str, str] = {}


_scan = make_scanner(_Settings)  # type: ignore[arg-type]


def loads(text: str) -> Any:
    """JSON text as data, as `json.loads` gives it. `json.JSONDecodeError` (a `ValueError`) as that raises it."""
    start = len(text) - len(text.lstrip(_SPACE))
    try:
        value, end = _scan(text, start)
    except (StopIteration, SystemError):  # SystemError: up to 3.12 it cannot tell before `json.decoder` is imported
        end = -1
    if end < 0 or text[end:].strip(_SPACE):
        import json

        return json.loads(text)
    return value


def dumps(value: Any, indent: int = 0, level: int = 0) -> str:
    """Data as JSON text; with `indent` one member a line, as people and runc have it. TypeError for other types."""
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        quoted: str = _quote(value)
        return quoted
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        colon = ": " if indent else ":"
        items = [f"{_quote(str(key))}{colon}{dumps(item, indent, level + 1)}" for key, item in value.items()]
        return _joined(items, "{}", indent, level)
    if isinstance(value, (list, tuple)):
        return _joined([dumps(item, indent, level + 1) for item in value], "[]", indent, level)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _joined(items: list[str], brackets: str, indent: int, level: int) -> str:
    if not items:
        return brackets
    if not indent:
        return brackets[0] + ",".join(items) + brackets[1]
    inner, outer = "\n" + " " * indent * (level + 1), "\n" + " " * indent * level
    return brackets[0] + inner + f",{inner}".join(items) + outer + brackets[1]
