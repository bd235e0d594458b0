"""What a fork does to become a process of a container: a list of calls that others have written down.

Each is a tuple: a word, then what belongs to it. They are carried out in order, in a process with one thread.

    ("group", index)               move into a control group by its open `tasks` or `cgroup.procs`
    ("setns", index, flag)         join a namespace
    ("call", number, arguments...) a system call; bytes are passed by address
    ("rlimit", number, soft, hard) a resource limit
    ("oom", value)                 oom_score_adj
    ("umask", value), ("chdir", path)
    ("seccomp", flags, program)    load a compiled filter

`index` counts the descriptors that came with the request.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Operation = tuple[Any, ...]

# Loaded before anything is entered: inside, there may be no libc to be found.
_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_SETNS, _SECCOMP = {"x86_64": (308, 317), "aarch64": (268, 277)}.get(os.uname().machine, (0, 0))
_SET_MODE_FILTER = 1


class Refused(Exception):
    """An operation failed: what it was, and errno."""

    def __init__(self, what: str, errno: int) -> None:
        self.what, self.errno = what, errno
        super().__init__(f"{what}: {os.strerror(errno)}")


def call(number: int, *args: Any) -> int:
    """Make a system call; `OSError` if it fails."""
    result: int = _syscall(number, *args)
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    return result


def join(fd: int, flag: int) -> None:
    """Join the namespace behind a descriptor."""
    call(_SETNS, fd, flag)


def perform(operations: Sequence[Operation], descriptors: Sequence[int]) -> None:
    """Carry out the list. Raises `Refused`."""
    for operation in operations:
        word, *rest = operation
        try:
            _perform(word, rest, descriptors)
        except OSError as error:
            raise Refused(_described(word, rest), error.errno or 0) from None


def _perform(word: str, rest: Sequence[Any], descriptors: Sequence[int]) -> None:
    if word == "call":
        call(*rest)
    elif word == "group":
        os.write(descriptors[rest[0]], b"0")
    elif word == "setns":
        join(descriptors[rest[0]], rest[1])
    elif word == "rlimit":
        import resource

        resource.setrlimit(rest[0], (rest[1], rest[2]))
    elif word == "oom":
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(rest[0]))
    elif word == "umask":
        os.umask(rest[0])
    elif word == "chdir":
        os.chdir(rest[0])
    elif word == "seccomp":
        flags, program = rest
        code = ctypes.create_string_buffer(program, len(program))
        frame = (len(program) // 8).to_bytes(8, "little") + ctypes.addressof(code).to_bytes(8, "little")  # sock_fprog
        call(_SECCOMP, _SET_MODE_FILTER, flags, frame)
    else:
        raise OSError(38, f"unknown operation {word}")


def _described(word: str, rest: Sequence[Any]) -> str:
    shown = " ".join(f"{len(one)} bytes" if isinstance(one, bytes) else str(one) for one in rest)
    return f"enter the container: {word} {shown}"
