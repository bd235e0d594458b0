"""The process in a container that calls functions: messages in, results out.

    in:   "F" (key, pickled function)   learn it       out:  "H" ready to work, "!" text: could not enter
          "C" (key, args, kwargs)       call it              "R" result, "X" failure, "Y" an item, "E" their end
              (pickled function, ...)   the same, without learning it
          "G" a file                    to write to          "W" size of a large result: see `grants`
          end of file                   end
"""

from __future__ import annotations

import importlib
import os
import pickle
import socket
import sys
import types

from . import grants, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

IN_CONTAINER = False
"""Whether this process makes processes of containers, or is one."""
_known: dict[str, Any] = {}
"""Functions by key: pickled until they are first needed."""


class _Pickled:
    def __init__(self, data: bytes) -> None:
        self.data = data


def know(key: str, data: bytes) -> None:
    """Learn a function. In the zygote it is unpickled at once, so that no fork has to."""
    try:
        _known[key] = unpickled(data)
    except BaseException:  # the call itself will fail of it, and can say so to whoever called
        _known[key] = _Pickled(data)


def unpickled(data: bytes) -> Any:
    """The function in what `compute.pickling` packed."""
    function, *rest = pickle.loads(data)
    if function == "source":
        return _from_source(*rest)
    file = rest[0]
    inner = getattr(function, "__func__", function)  # of a bound method
    code = getattr(inner, "__code__", None)
    if code is not None and code.co_filename == "<dynamic-code>":
        inner.__code__ = _placed(code, file)
    return function


def only_here(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A `corten.function` in a container: it can be called, and says what it cannot."""

    def local(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError(
            f"{name}: a call in a container cannot make calls in further containers: call {name}(...) itself, which "
            f"runs in this one, or return what is to be done next, and make that call outside"
        )

    refuse.aio = refuse  # type: ignore[attr-defined]
    for word in ("remote", "map", "starmap", "spawn", "with_options"):
        setattr(local, word, refuse)
    local.local = local  # type: ignore[attr-defined]
    return local


def _from_source(name: str, items: list[Any]) -> Any:
    """A function put together of source and of what it refers to: see `compute.sources`."""
    namespace: dict[str, Any] = {"__name__": "corten_call"}
    for kind, own, content in items:
        if kind == "import":
            namespace[own] = importlib.import_module(content)
        elif kind == "value":
            namespace[own] = pickle.loads(content)
        elif kind == "alias":
            namespace[own] = namespace[content]
        elif kind == "only here":
            namespace[own] = only_here(namespace[own], content)
        else:
            text, file = content
            exec(compile(text, file, "exec"), namespace)  # noqa: S102 - the caller's own function
    return namespace[name]


def _placed(code: Any, file: str) -> Any:
    """The code, and that of functions in it, with the file that it was written in."""
    constants = tuple(_placed(one, file) if isinstance(one, type(code)) else one for one in code.co_consts)
    return code.replace(co_filename=file, co_consts=constants)


def set_environment(environment: dict[str, str]) -> None:
    """Have these variables. In the zygote, for the forks to come: there it is done once, and copies no page."""
    if os.environ != environment:
        os.environ.clear()
        os.environ.update(environment)


def be_fresh() -> None:
    """Be nobody's copy: random numbers of our own. (`random` and OpenSSL see to it themselves when they are forked.)"""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed(int.from_bytes(os.urandom(4), "little"))
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(int.from_bytes(os.urandom(7), "little"))
    _set_threads(os.environ.get("OMP_NUM_THREADS", "1"))


def _set_threads(count: str) -> None:
    """Libraries took their number of threads when they were loaded, in the zygote: one. Here it may be more."""
    if count.isdigit() and int(count) > 1:
        try:
            import threadpoolctl
        except ImportError:
            return
        threadpoolctl.threadpool_limits(int(count))


def serve(sock: socket.socket) -> int:
    """Work until the caller closes its end; the exit status."""
    store = grants.CallersFiles(sock)
    while True:
        store.begin()
        message = wire.receive(sock, store=store)
        if message is None:
            return 0
        if message.kind == b"F":
            key, data = pickle.loads(message.payload)
            _known[key] = _Pickled(data)
        elif message.kind == b"C":
            store.call = message.call
            _answer(sock, message, store)


def _answer(sock: socket.socket, message: wire.Message, store: grants.CallersFiles) -> None:
    call = message.call
    try:
        key, args, kwargs = _loaded(message)
        message.forget()  # arguments live as long as the function holds them
        function = _function(key)
        result = function(*args, **kwargs)
        del args, kwargs
        if type(result) is types.CoroutineType:
            import asyncio

            result = asyncio.run(result)
        if hasattr(result, "__next__") and hasattr(result, "close"):
            for item in result:
                _send(sock, b"Y", call, item, store)
            _flush()
            wire.send(sock, b"E", call, b"")
            return
        _flush()
        _send(sock, b"R", call, result, store)
    except BaseException as error:
        if isinstance(error, BrokenPipeError) and error.filename is None and not _open(sock):
            os._exit(0)
        _flush()
        wire.send(sock, b"X", call, _failure(error))


def _open(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
        return True
    except OSError:
        return False


def _loaded(message: wire.Message) -> Any:
    return pickle.loads(message.payload, buffers=message.buffers)


def _function(key: str | bytes) -> Callable[..., Any]:
    if isinstance(key, bytes):
        return unpickled(key)  # type: ignore[no-any-return] # for this call only
    function = _known[key]
    if isinstance(function, _Pickled):
        function = _known[key] = unpickled(function.data)
    return function  # type: ignore[no-any-return]


class _Unpicklable(Exception):
    pass


def _send(sock: socket.socket, kind: bytes, call: int, value: Any, store: grants.CallersFiles) -> None:
    dumps: Callable[..., bytes] = pickle.dumps
    try:
        payload, buffers = wire.dump(value, dumps)
    except Exception:
        try:
            payload, buffers = _dumped(value)
        except Exception as error:
            raise _Unpicklable(f"the result cannot be pickled: {culprit(value, 'result')}: {error}") from error
    wire.send(sock, kind, call, payload, buffers, store)


def _dumped(value: Any) -> tuple[bytes, list[memoryview]]:
    """A value pickled that is more than pickle can do by itself. Instances of classes that the caller has sent by value
    go back as instances of the caller's own ones; else what they are made of goes with them."""
    import io

    import cloudpickle.cloudpickle

    theirs = getattr(cloudpickle.cloudpickle, "_DYNAMIC_CLASS_TRACKER_BY_CLASS", {})

    class Pickler(pickle.Pickler):
        def persistent_id(self, one: Any) -> Any:
            found = theirs.get(one) if isinstance(one, type) else None
            return None if found is None else (found, one.__module__, one.__qualname__)

        def reducer_override(self, one: Any) -> Any:
            if type(one) is memoryview and one.contiguous and one.format == "B" and one.ndim == 1:
                return memoryview, (pickle.PickleBuffer(one),)  # big bytes as they arrived: not copied
            return NotImplemented

    def dumps(value: Any, **how: Any) -> bytes:
        file = io.BytesIO()
        Pickler(file, **how).dump(value)
        return file.getvalue()

    try:
        return wire.dump(value, dumps)
    except Exception:
        return wire.dump(value, cloudpickle.dumps)


def culprit(value: Any, name: str, depth: int = 0) -> str:
    """The name of the innermost part of a value that cannot be pickled, such as `result.model.lock (lock)`."""
    if depth < 6:
        parts: Any = ()
        if isinstance(value, dict):
            parts = [(f"{name}[{key!r}]", item) for key, item in list(value.items())[:1000]]
        elif isinstance(value, (list, tuple)):
            parts = [(f"{name}[{at}]", item) for at, item in enumerate(value[:1000])]
        elif hasattr(value, "__dict__") and not isinstance(value, type):
            parts = [(f"{name}.{key}", item) for key, item in list(vars(value).items())[:1000]]
        for part, item in parts:
            try:
                pickle.dumps(item, protocol=5)
            except Exception:
                return culprit(item, part, depth + 1)
    return f"{name} ({type(value).__name__})"


def _failure(error: BaseException) -> bytes:
    """An exception as plain data: it may come from code that nobody trusts. The caller makes one of it again.

    Pickled, but of nothing else than text, numbers and containers: (kind, module, name, args, state, text, traceback).
    """
    import traceback

    kind = "unpicklable" if isinstance(error, _Unpicklable) else "raised"
    trail = error.__traceback__
    here = __file__
    while trail is not None and trail.tb_frame.f_code.co_filename == here:
        trail = trail.tb_next  # our own frames say nothing to anybody
    try:
        text = str(error)
    except Exception:
        text = "(an exception that cannot say what it is)"
    try:
        told = "".join(traceback.format_exception(type(error), error, trail))
    except Exception:
        told = text
    named = type(error).__module__, type(error).__qualname__
    parts = (kind, *named, _plain(error.args), _plain(_state(error)), text[:10000], told[-50000:])
    return pickle.dumps(parts, protocol=4)


def _state(error: BaseException) -> dict[str, Any]:
    state = dict(getattr(error, "__dict__", None) or {})
    if isinstance(error, OSError):
        state["__oserror__"] = (error.errno, error.strerror, error.filename)
    return state


_PLAIN = (str, bytes, int, float, complex, bool, type(None))


def _plain(value: Any, depth: int = 0) -> Any:
    """The value, with whatever is not plain data replaced by its repr."""
    if type(value) in _PLAIN:
        return value[:100000] if isinstance(value, (str, bytes)) else value
    if depth < 4:
        if type(value) in (tuple, list):
            return type(value)(_plain(item, depth + 1) for item in value[:1000])
        if type(value) is dict:
            return {str(key): _plain(item, depth + 1) for key, item in list(value.items())[:1000]}
    try:
        return repr(value)[:1000]
    except Exception:
        return f"<{type(value).__name__}>"


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            pass


