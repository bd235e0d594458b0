"""The last step into an untrusted program: an exec that the container cannot turn against the host's interpreter.

The attack (CVE-2019-5736): the container makes its program `/proc/self/exe`, a link or a `#!` line to that, or swaps it
for one while it is being executed. The kernel then executes what executes: us, the host's python, as a process of the
container, whose root may write to /proc/PID/exe once it has ended.
The answer: between us and the program a sealed file in memory is executed, of some 300 bytes, that does nothing but the
exec. `/proc/self/exe` is then that file, which nobody can write and which is gone with its last user.

It is called by its own name; its environment are `words_to_execute`. If the exec fails it says so on stderr and ends
with 127 (no such file) or 126.
"""

from __future__ import annotations

from corten.linux import machine_code, process
from corten.linux.machine_code import Program, Text, words_to_execute

_COMPLAINT = b"corten: the program cannot be executed: its loader is missing, or it is for another machine\n"
_KEPT, _ENOENT = 0, 2


def prepare(count: int) -> int:
    """The sealed file; its close-on-exec descriptor. To be called before a filter is loaded. count: of arguments."""
    return machine_code.sealed("corten:exec", _code(count))


def _code(count: int) -> bytes:
    does = Program()
    does.end_arguments(count)
    does.execute(count)
    does.store(_KEPT)
    does.call("write", 2, Text(_COMPLAINT), len(_COMPLAINT))
    does.load(_KEPT)
    does.add(_ENOENT)
    does.jump_if("==", 0, "not found")
    does.call("exit_group", 126)
    does.label("not found")
    does.call("exit_group", 127)
    return does.executable()


def execute(fd: int, path: str, args: tuple[str, ...], environment: dict[str, str]) -> None:
    """Become the program, by way of the sealed file. `OSError` if that cannot be executed; needs execveat(2)."""
    variables = [f"{name}={value}" for name, value in environment.items()]
    process.execute(fd, [b"corten"], words_to_execute(path, args, variables))
