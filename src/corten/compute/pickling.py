"""Functions and arguments on their way into a container.

Rule 1: a function of an installed package goes by name; one of the caller's own program (`__main__`, a notebook, a
        module that is not installed) goes by value, for its file need not be visible inside. cloudpickle does both.
Rule 2: what cannot be pickled is named, before anything is started.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import hashlib
import os
import re
import sys
import sysconfig
import threading
import types

from corten.compute.inside import wire, work
from corten.errors import InvalidInput
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from typing import Any

_by_value = threading.Lock()
_MOST_MODULES = 200
_MOST_NAMES = 500
_STRINGS = re.compile(rb"\x8c.([A-Za-z_][A-Za-z0-9_.]*)", re.DOTALL)
"""Short text in a pickle, of which names of modules are some."""
_NOT_OWN = ("corten", "__main__")
_LOOKED_AT = 1 << 16
"""Bytes of a pickle in which they are looked for."""
_OF_MAIN = b"\x8c\x08__main__"
"""How pickle writes the module of a class of `__main__`."""


class PackedFunction(Record):
    """A function pickled. key: by its content; by_value: it holds byte code of this very version of Python;
    modules: installed ones that it uses, by their full names; file: of its source, for tracebacks; source: the function
    as source, for another Python, empty where there is none, and `source_trouble` says why."""

    key: str
    name: str
    data: bytes
    by_value: bool
    modules: tuple[str, ...]
    file: str = ""
    source: bytes = b""
    source_trouble: str = ""


def pack_function(function: Callable[..., Any], with_source: bool = False) -> PackedFunction:
    """Pickle a function; with_source: also as source. `InvalidInput` naming the part that cannot be."""
    import cloudpickle

    name = getattr(function, "__qualname__", type(function).__qualname__)
    module = sys.modules.get(getattr(_inner(function), "__module__", "") or "")
    own = module is not None and module.__name__ != "__main__" and not installed(module)
    by_value = {module} if own and module is not None else set()
    try:
        with _by_value_of(by_value):
            data: bytes = cloudpickle.dumps((function, _file(function)), protocol=4)
    except Exception as error:
        raise InvalidInput(f"{name} cannot be pickled: {_culprit_of(function, name)}: {error}") from error
    while more := set(_strangers(data, with_source)) - by_value:
        by_value |= more
        try:
            with _by_value_of(by_value):
                data = cloudpickle.dumps((function, _file(function)), protocol=4)
        except Exception:
            break  # what cannot go by value goes by name
    key = hashlib.sha256(data).hexdigest()[:32]
    inside = module is None or module.__name__ == "__main__" or "<locals>" in name or "<lambda>" in name
    used = tuple(sorted(used_modules(function)))
    packed = PackedFunction(key, name, data, inside or bool(by_value), used, _file(function))
    if not with_source:
        return packed
    from corten.compute.sources import NoSource, pack_source

    try:
        return packed.replace(source=pack_source(function))
    except NoSource as trouble:
        return packed.replace(source_trouble=str(trouble))


def _inner(function: Any) -> Any:
    """What a partial or a bound method calls in the end."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__func__", function)


def _file(function: Callable[..., Any]) -> str:
    """The file of its source: cloudpickle leaves that out, and tracebacks want it."""
    return str(getattr(getattr(function, "__code__", None), "co_filename", ""))


def pack_arguments(
    name: str, key: str | bytes, args: tuple[Any, ...], kwargs: dict[str, Any], foreign: bool = False
) -> tuple[bytes, list[memoryview], bool]:
    """Arguments pickled, big buffers apart, and whether they hold byte code of this Python. foreign: for an image,
    which has no modules of ours. `InvalidInput` naming the argument, and the part of it, that cannot be pickled."""
    import pickle

    import cloudpickle

    by_value = False
    try:
        payload, buffers = wire.dump((key, args, kwargs), pickle.dumps)
        if _OF_MAIN in payload:
            raise pickle.PicklingError("the __main__ of the container is another one")  # its classes must go by value
    except Exception:  # and lambdas are beyond pickle
        try:
            payload, buffers = wire.dump((key, args, kwargs), cloudpickle.dumps)
            by_value = True
        except Exception as error:
            named = {**{f"argument {at + 1}": value for at, value in enumerate(args)}, **kwargs}
            found = (work.culprit(value, what) for what, value in named.items() if not _picklable(value))
            where = next(found, "arguments")
            raise InvalidInput(f"{name}: cannot pickle {where}: {error}") from error
    strangers = _strangers(payload, foreign)
    if strangers:
        # Their methods may hold on to what cannot be pickled: then they go by name.
        with _by_value_of(strangers), contextlib.suppress(Exception):
            return *wire.dump((key, args, kwargs), cloudpickle.dumps), True
    return payload, buffers, by_value


def _strangers(payload: bytes, foreign: bool) -> list[types.ModuleType]:
    """Modules of the caller's own that the pickle may refer to and that cannot be imported where it goes."""
    names = {match.decode() for match in _STRINGS.findall(payload, 0, _LOOKED_AT)}
    modules = [sys.modules[name] for name in names if name in sys.modules and name.partition(".")[0] not in _NOT_OWN]
    return [one for one in modules if _is_own(one) and (foreign or not _can_be_found(one.__name__))]


@functools.lru_cache(1024)
def _is_own(module: types.ModuleType) -> bool:
    return not installed(module)


@functools.lru_cache(1024)
def _can_be_found(name: str) -> bool:
    """Whether somebody else with our path would find the same module by this name."""
    import importlib.machinery

    top = name.partition(".")[0]
    found = importlib.machinery.PathFinder.find_spec(top)
    ours = sys.modules.get(top)
    if found is None or ours is None:
        return False
    if found.submodule_search_locations is None:
        return found.origin == getattr(ours, "__file__", None)
    return list(found.submodule_search_locations) == list(getattr(ours, "__path__", ()))


@contextlib.contextmanager
def _by_value_of(modules: Collection[types.ModuleType]) -> Iterator[None]:
    """Within it, cloudpickle takes classes and functions of these modules by value."""
    import cloudpickle

    with _by_value:
        for module in modules:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in modules:
                cloudpickle.unregister_pickle_by_value(module)


def _picklable(value: Any) -> bool:
    import cloudpickle

    try:
        cloudpickle.dumps(value)
    except Exception:
        return False
    return True


def _culprit_of(function: Callable[..., Any], name: str) -> str:
    for what, value in referenced(function):
        if not isinstance(value, types.ModuleType) and not _picklable(value):
            return work.culprit(value, what)
    return name


# --- which modules a function will want


def installed(module: types.ModuleType) -> bool:
    """Whether a module comes with Python or from an installed distribution, and not from the caller's own program."""
    if module.__name__.partition(".")[0] in sys.stdlib_module_names:
        return True
    file = getattr(module, "__file__", None)
    if file is None:
        paths = list(getattr(module, "__path__", ()))
        file = paths[0] if paths else None
    if file is None:
        return module.__name__ in sys.builtin_module_names
    return any(os.path.abspath(file).startswith(place + os.sep) for place in _places())


def _places() -> set[str]:
    return {os.path.abspath(sysconfig.get_path(kind)) for kind in ("purelib", "platlib", "stdlib", "platstdlib")} | {
        os.path.abspath(path) for path in sys.path if path.endswith(("site-packages", "dist-packages"))
    }


def used_modules(function: Callable[..., Any]) -> set[str]:
    """Names of installed modules that a function's code refers to, or imports when it runs; functions of the caller's
    own program that it calls are followed."""
    found: set[str] = set()
    seen: set[int] = set()
    ahead: list[Any] = [function]
    while ahead and len(found) < _MOST_MODULES:
        one = ahead.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        for _, value in referenced(one):
            home = getattr(value, "__module__", None) or ""
            module = value if isinstance(value, types.ModuleType) else sys.modules.get(home)
            if module is None or module.__name__ in ("__main__", "builtins"):
                ahead += [value] if callable(value) else []
            elif installed(module):
                found.add(module.__name__)
            elif callable(value):
                ahead.append(value)
        code = getattr(one, "__code__", None)
        if code is not None:
            found |= {name for name in _imports(code) if _is_installed(name)}
    return installed_names(found)


def names_of(function: Callable[..., Any]) -> list[tuple[dict[str, Any], str, Any]]:
    """(namespace, name, value) of every global that a function and those of the caller's own that it calls refer to:
    where one of them is something else now, the function has to be packed anew."""
    found: list[tuple[dict[str, Any], str, Any]] = []
    seen: set[int] = set()
    ahead: list[Any] = [function]
    while ahead and len(found) < _MOST_NAMES:
        one = _inner(ahead.pop())
        if id(one) in seen:
            continue
        seen.add(id(one))
        namespace = getattr(one, "__globals__", None)
        for name, value in referenced(one):
            if namespace is not None and namespace.get(name) is value:
                found.append((namespace, name, value))
            module = sys.modules.get(getattr(value, "__module__", None) or "")
            if callable(value) and (module is None or not _is_own_or_main(module)):
                continue
            if callable(value):
                ahead.append(getattr(value, "__wrapped__", value))
    return found


def _is_own_or_main(module: types.ModuleType) -> bool:
    return module.__name__ == "__main__" or _is_own(module)


def installed_names(found: set[str]) -> set[str]:
    """Of names of modules, those that are installed and worth loading ahead."""
    return {
        name
        for name in found
        if name.partition(".")[0] not in ("corten", "__main__", "builtins") and _is_installed(name)
    }


def referenced(function: Any) -> list[tuple[str, Any]]:
    """(name, value) of the globals and closed-over variables that a function's code names; of a class, its methods."""
    function = _inner(function)
    if isinstance(function, type):
        return [(key, value) for key, value in vars(function).items() if callable(value)]
    code = getattr(function, "__code__", None)
    if code is None:
        return []
    names = {name for one in _codes(code) for name in one.co_names}
    found = [(name, function.__globals__[name]) for name in sorted(names) if name in function.__globals__]
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            found.append((name, cell.cell_contents))
        except ValueError:
            continue  # not bound yet
    return found


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _imports(code: types.CodeType) -> set[str]:
    return {
        str(step.argval)
        for one in _codes(code)
        for step in dis.get_instructions(one)
        if step.opname == "IMPORT_NAME" and step.argval
    }


def _is_installed(name: str) -> bool:
    if name in sys.modules:
        return installed(sys.modules[name])
    import importlib.util

    try:
        spec = importlib.util.find_spec(name.partition(".")[0])
    except (ImportError, ValueError):
        return False
    if spec is None:
        return False
    origin = spec.origin or next(iter(spec.submodule_search_locations or ()), "")
    top = name.partition(".")[0]
    return top in sys.stdlib_module_names or any(origin.startswith(place + os.sep) for place in _places())
