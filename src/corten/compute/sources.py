"""A function as source text, for a Python of another version: byte code would mean nothing there.

What travels is the function without its decorators, and what it refers to: modules by name, functions and classes of
the caller's own program as source too, other values pickled. `inside/work` puts them together in one namespace.
"""

from __future__ import annotations

import ast
import inspect
import pickle
import textwrap
import types

from corten.compute.pickling import installed, referenced

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Item = tuple[str, str, Any]


class NoSource(Exception):
    """A function that cannot be sent as source, and why."""


def pack_source(function: Any) -> bytes:
    """The function as source, pickled: ("source", its name, items). An item is ("import", name, module),
    ("code", name, (text, file)), ("alias", name, other name), ("value", name, pickled), or ("only here", name, its
    name for people) for one that was a `corten.function`. Raises `NoSource`."""
    items: dict[str, Item] = {}
    name = _collect(function, items)
    return pickle.dumps(("source", name, list(items.values())), 4)


def _collect(function: Any, items: dict[str, Item]) -> str:
    name = str(getattr(function, "__name__", ""))
    if getattr(function, "__closure__", None):
        raise NoSource(f"{name} refers to variables of the function around it: define it at the top level of a module")
    if not name.isidentifier():
        raise NoSource("a lambda has no source of its own: define a function at the top level of a module")
    if name in items:
        return name
    items[name] = ("code", name, _text(function, name))
    for own, value in _names(function):
        if own not in items:
            _add(own, value, items)
    items[name] = items.pop(name)  # behind what it needs when it is executed
    return name


def _add(name: str, value: Any, items: dict[str, Item]) -> None:
    wrapped = getattr(value, "__wrapped__", None)
    if wrapped is not None and hasattr(value, "with_options"):
        _add(name, wrapped, items)
        items[f"{name} only here"] = ("only here", name, str(value.name))
        return
    value = wrapped if wrapped is not None and not isinstance(value, type) else value
    if isinstance(value, types.ModuleType):
        items[name] = ("import", name, value.__name__)
        return
    module = inspect.getmodule(value) if isinstance(value, (type, types.FunctionType)) else None
    if isinstance(value, (type, types.FunctionType)) and (module is None or not installed(module)):
        if _collect(value, items) != name:
            items[name] = ("alias", name, value.__name__)
        return
    try:
        items[name] = ("value", name, pickle.dumps(value, 4))
    except Exception as error:
        raise NoSource(f"{name} cannot be pickled: {error}") from error


def _names(function: Any) -> list[tuple[str, Any]]:
    if not isinstance(function, type):
        return referenced(function)
    found = [(base.__name__, base) for base in function.__bases__ if base is not object]
    for _, method in referenced(function):
        found += referenced(method)
    return found


def _text(function: Any, name: str) -> tuple[str, str]:
    """(source without decorators, at the lines where it stands in its file; that file)."""
    try:
        lines, first = inspect.getsourcelines(function)
        file = inspect.getsourcefile(function) or ""
    except (OSError, TypeError):
        raise NoSource(f"the source of {name} cannot be found") from None
    tree = ast.parse(textwrap.dedent("".join(lines)))
    found = tree.body[0]
    if not isinstance(found, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        raise NoSource(f"the source of {name} is not a definition: define it at the top level of a module")
    start = found.lineno - 1
    body = textwrap.dedent("".join(lines)).splitlines(keepends=True)[start:]
    return "\n" * (first - 1 + start) + "".join(body), file
