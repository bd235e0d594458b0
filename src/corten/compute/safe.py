"""Results on their way out of a container, which may be hostile.

Unpickling runs whatever the sender wrote. So what comes from inside is unpickled with a list of the only names that it
may call, all of which make plain values: of Python, of numpy, and the classes that the caller has listed (`returns`).
An exception comes as text and plain values, and is made again from a class that the caller has loaded already, without
calling it. A function whose code the caller trusts (`trusted=True`) may return anything.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import pickle
import sys

from corten.compute.inside.wire import Message
from corten.errors import Error, InvalidInput, RemoteError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PLAIN = {
    # Not int, str, bytes and list: pickle has its own codes for those, and `bytes(10**12)` would be an attack.
    "builtins": "complex range slice set frozenset bytearray memoryview",
    "collections": "OrderedDict deque Counter",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "uuid": "UUID SafeUUID",
    "pathlib": "PurePosixPath PosixPath",
    "pathlib._local": "PurePosixPath PosixPath",
    "ipaddress": "IPv4Address IPv6Address IPv4Network IPv6Network",
    "numpy": "ndarray dtype",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy.core.numeric": "_frombuffer",
    "numpy._core.numeric": "_frombuffer",
}
_ALLOWED = {(module, name) for module, names in _PLAIN.items() for name in names.split()}


class Refused(InvalidInput):
    """A result that holds something which only a trusted function may return."""


class _Trusting(pickle.Unpickler):
    """Of what may be anything."""

    def persistent_load(self, pid: Any) -> Any:
        """A class of ours that was sent by value, as a container names it."""
        import cloudpickle.cloudpickle

        found = cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(pid[0])
        if found is None:
            raise Error(f"the result is a {pid[1]}.{pid[2]}, which is no class of this process any more")
        return found


class _Unpickler(_Trusting):
    def __init__(self, data: Any, buffers: list[Any], returns: frozenset[tuple[str, str]]) -> None:
        super().__init__(io.BytesIO(data), buffers=buffers)
        self._returns = returns

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED or (module, name) in self._returns:
            found = super().find_class(module, name)
            return _sized(found) if found is bytearray else found
        if module == "numpy.dtypes" and name.isidentifier():
            return super().find_class(module, name)
        raise _refused(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        found = super().persistent_load(pid)
        if (found.__module__, found.__qualname__) not in self._returns:
            raise _refused(f"{found.__module__}.{found.__qualname__}")
        return found


def _refused(name: str) -> Refused:
    return Refused(
        f"the result holds {name}, which untrusted code may not send: return plain data, or allow the class with "
        f"returns=[...], or everything with trusted=True"
    )


def _sized(kind: type[bytearray]) -> Any:
    def make(*args: Any) -> bytearray:
        if any(isinstance(value, int) for value in args):
            raise Refused("the result holds a bytearray made of a number")
        return kind(*args)

    return make


def load(message: Message, trusted: bool, returns: frozenset[tuple[str, str]] = frozenset()) -> Any:
    """The value in a message. `Refused`: it holds what may not come from there; `Error`: it is damaged."""
    try:
        if trusted:
            return _Trusting(io.BytesIO(message.payload), buffers=message.buffers).load()
        return _Unpickler(message.payload, message.buffers, returns).load()
    except Refused:
        raise
    except Exception as error:  # pickle raises whatever the values it makes raise
        raise Error(f"the result cannot be unpickled: {type(error).__name__}: {error}") from error


# --- exceptions


class RemoteTraceback(Exception):
    """The traceback of an exception in a container, as text: the cause of the exception that is raised here."""

    def __str__(self) -> str:
        return f"\n\n--- in the container ---\n{self.args[0]}"


def load_exception(message: Message) -> tuple[str, BaseException]:
    """(kind, exception) of a message that says how a call failed: kind is `raised` or `unpicklable`."""
    parts = load(message, trusted=False)
    if not (isinstance(parts, tuple) and len(parts) == 7 and all(isinstance(parts[at], str) for at in (0, 1, 2, 5, 6))):
        raise Error("the container sent a failure that is none")
    kind, module, name, args, state, text, trail = parts
    if kind == "unpicklable":
        error: BaseException = InvalidInput(text)
    else:
        parts = (module, name, args, state)
        error = again(*parts) or RemoteError(f"{module}.{name}", text, parts)
    error.__cause__ = RemoteTraceback(trail)
    return kind, error


def again(module: str, name: str, args: Any, state: Any) -> BaseException | None:
    """The exception made of its class, if that is loaded here and is made by nobody's code but Python's."""
    found: Any = builtins if module == "builtins" else sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None) if part.isidentifier() else None
    if not (isinstance(found, type) and issubclass(found, Exception)) or not isinstance(args, tuple):
        return None
    if not any(found.__new__ is base.__new__ for base in _BUILTIN):
        return None
    try:
        error: BaseException = found.__new__(found, *args)
        base = next(kind for kind in found.__mro__ if kind in _BUILTIN)
        with contextlib.suppress(TypeError):  # a class of the caller's own may give other arguments to its base
            base.__init__(error, *args)  # Python's own, which some of them need to say what they are
        error.args = args
        known = state if isinstance(state, dict) else {}
        numbers = known.pop("__oserror__", None)
        error.__dict__.update({key: value for key, value in known.items() if isinstance(key, str)})
        if isinstance(error, OSError) and isinstance(numbers, tuple) and numbers[:1] != (None,):
            error.errno, error.strerror, file = numbers
            if file is not None:  # else it would be shown as one called None
                error.filename = file
    except Exception:
        return None
    return error


_BUILTIN = [value for value in vars(builtins).values() if isinstance(value, type) and issubclass(value, BaseException)]
