"""A function called in a process of its own: a new program, not a clone, for ours may have many threads.

For what needs another user namespace (an ordinary user's subordinate ids), or simply another CPU.

Rule 1: the helper is told what to do by its standard input and answers on its standard output, in pickles; both are
        read by our own program only. Descriptors that it needs become its 3, 4, ….
Rule 2: it dies with us, and we wait for it.
"""

from __future__ import annotations

import os
import pickle
import sys

from corten import errors
from corten.errors import Error
from corten.linux import clone, idmap, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

Maps = tuple[tuple[idmap.IdMapping, ...], tuple[idmap.IdMapping, ...]]


def own_maps() -> Maps | None:
    """The maps with which an ordinary user may handle files of all its ids; None for root, and without ranges."""
    if os.geteuid() == 0:
        return None
    maps = idmap.rootless_maps(os.geteuid(), os.getegid())
    return maps if sum(one.size for one in maps[0]) > 1 else None


def call(
    where: str,
    arguments: Sequence[Any] = (),
    fds: Sequence[int] = (),
    maps: Maps | None = None,
    mounts: bool = False,
) -> Any:
    """What `module:function(*arguments, *descriptors)` gives when it is called in a new process.

    maps: of a new user namespace, in which the helper is root; mounts: it also gets a mount namespace. What the
    function raises is raised here: errors of Corten as they are, an OSError with its number, others as an Error.
    """
    go_there, go_here = os.pipe2(os.O_CLOEXEC)
    said_here, said_there = os.pipe2(os.O_CLOEXEC)
    request = pickle.dumps((where, tuple(arguments), len(fds), maps is not None, mounts, os.getpid()))
    code = f"import sys;sys.path[:]={sys.path!r};from corten.runtime.helper import serve;serve()"
    # Above all that are to be replaced, for one may be another's target.
    moved = [_above(fd) for fd in (go_there, said_there, *fds)]
    numbers = (0, 1, *range(3, 3 + len(fds)))
    actions = [(os.POSIX_SPAWN_DUP2, fd, number) for fd, number in zip(moved, numbers, strict=True)]
    try:
        words = [sys.executable, "-I", "-S", "-c", code]
        pid = os.posix_spawn(sys.executable, words, {"LC_ALL": "C.UTF-8"}, file_actions=actions)
    except BaseException:
        os.close(go_here)
        os.close(said_here)
        raise
    finally:
        for fd in (go_there, said_there, *moved):
            os.close(fd)
    answer = b""
    try:
        with open(said_here, "rb") as said, open(go_here, "wb", 0) as go:
            try:
                go.write(len(request).to_bytes(8, "little") + request)
                if maps and said.read(5) == b"ready":
                    idmap.write_maps(pid, *maps, setgroups_deny=False)
                    go.write(b"g")
                answer = said.read()
            except BrokenPipeError:
                pass
    except BaseException:
        os.kill(pid, 9)
        raise
    finally:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not answer:
        raise Error(f"{where}: its helper process ended with {status}")
    return _result(where, answer)


def _above(fd: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64)


def _result(where: str, answer: bytes) -> Any:
    kind, value = pickle.loads(answer)
    if kind == "result":
        return value
    if kind == "OSError":
        raise OSError(value, os.strerror(value))
    known = getattr(errors, kind, None)
    if isinstance(known, type) and issubclass(known, Error) and known.__init__ is Exception.__init__:
        raise known(value)
    raise Error(value if known else f"{where}: {kind}: {value}")


def serve() -> None:
    """The helper's side."""
    size = int.from_bytes(os.read(0, 8), "little")
    request = b""
    while len(request) < size:
        request += os.read(0, size - len(request))
    where, arguments, count, in_userns, mounts, parent = pickle.loads(request)
    try:
        _die_with(parent)
        if in_userns:
            clone.unshare("user")
            os.write(1, b"ready")
            if not os.read(0, 1):  # our parent has ended, or could not write the maps
                os._exit(1)
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            _die_with(parent)  # the kernel forgets it at a change of ids
        if mounts:
            from corten.linux.mounts import PRIVATE, set_propagation

            clone.unshare("mount")
            set_propagation("/", PRIVATE)  # what is mounted here stays here
        module, _, name = where.partition(":")
        function = getattr(__import__(module, fromlist=[name]), name)
        answer: tuple[str, Any] = ("result", function(*arguments, *range(3, 3 + count)))
    except Error as error:
        answer = (type(error).__name__, str(error))
    except OSError as error:
        answer = ("OSError", error.errno) if error.errno else ("Error", str(error))
    except BaseException as error:  # all there is to say goes to who waits for it
        answer = (type(error).__name__, " ".join(str(error).split()))
    with open(1, "wb") as out:
        out.write(pickle.dumps(answer))
    os._exit(0)


def _die_with(parent: int) -> None:
    process.die_with_parent(9)
    if os.getppid() != parent:  # it has ended before
        os._exit(1)
