"""Everything that Corten raises.

    Error                  the engine could not do it (exit code 125)
     +- InvalidInput       what was asked makes no sense; nothing was started
     |   +- NotFound       no such image, directory, container
     |   +- NameInUse      the name belongs to a live container
     +- KernelError        a system call failed: step, object, errno
     +- Unsupported        this machine or this user cannot do it; says what would help
     +- CommandNotFound    the command is not in the container (exit code 127)
     +- CommandNotRunnable the command cannot be executed (exit code 126)
     +- ContainerFailed    `check=True` and the container ended badly; `.result` says how
     |   +- OutOfMemory
     |   +- TimedOut       also called Timeout
     |   +- Killed         a signal ended it that no limit of ours sent
     +- RemoteError        a function in a container failed with an exception that cannot be had here as itself
     +- Cancelled          the call was cancelled, or its pool was closed before it began

Rule: the text of an error is one line: what failed, on what, why, and what to do.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Error(Exception):
    """Base of all errors of Corten. `exit_code` is what the command line ends with."""

    exit_code = 125

    def __reduce__(self) -> Any:
        # Pickle would call the class with the text alone; some want more.
        return (_remade, (type(self), self.args, self.__dict__))


def _remade(kind: type[Error], args: tuple[Any, ...], state: dict[str, Any]) -> Error:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class InvalidInput(Error):
    """The request is malformed or contradicts itself."""


class NotFound(InvalidInput):
    """A thing that was named does not exist."""


class NameInUse(InvalidInput):
    """The name belongs to a live container."""


class Unsupported(Error):
    """The kernel, the machine or the user's rights do not allow it."""


def told_of(what: str, error: Error) -> Error:
    """The same error, told of something: of its own class, where that is made of words alone."""
    kind = type(error) if type(error).__init__ is Exception.__init__ else Error
    return kind(f"{what}: {error}")


def printable(text: str) -> str:
    """Text as one line that a terminal only shows: what it cannot show or would obey is written as `\\x1b`, `\\n`.

    Names of files and processes may hold any byte, and some belong to whom a container shall hold.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte that is no UTF-8, as `os.fsdecode` keeps it
        return f"\\x{ord(char) - 0xDC00:02x}"
    return repr(char)[1:-1]  # not a codec, which would be imported, perhaps inside a container


def errno_words(number: int) -> str:
    """`EPERM` and its kin in words: `Operation not permitted (EPERM)`."""
    import errno

    name = errno.errorcode.get(number)
    return f"{os.strerror(number)} ({name})" if name else os.strerror(number)


class KernelError(Error):
    """A step failed in the kernel.

    step: what was being done, with its object (`mount proc on /proc`); errno: the error number (0: none);
    hint: what the kernel said besides, or what to do about it.
    """

    def __init__(self, step: str, errno: int, hint: str = "") -> None:
        self.step, self.errno, self.hint = step, errno, hint
        words = f"{step}: {errno_words(errno)}" if errno else step
        super().__init__(f"{words}: {hint}" if hint else words)


class CommandNotFound(Error):
    """The command does not exist in the container."""

    exit_code = 127


class CommandNotRunnable(Error):
    """The command exists, but the kernel will not execute it."""

    exit_code = 126


class ContainerFailed(Error):
    """The container ended with something else than exit code 0. `result`: the `corten.Result`."""

    def __init__(self, message: str, result: Any) -> None:
        self.result = result
        super().__init__(message)


class OutOfMemory(ContainerFailed):
    """The memory limit ended it."""


class TimedOut(ContainerFailed):
    """The timeout ended it."""


Timeout = TimedOut


class Killed(ContainerFailed):
    """A signal ended it that no limit of ours sent."""


class RemoteError(Error):
    """A function in a container failed, and its exception cannot be had here as itself. `kind`: module and name;
    `parts`: what it could be made of where its class is known (module, name, arguments, state), as plain data."""

    def __init__(self, kind: str, text: str, parts: tuple[str, str, Any, Any] | None = None) -> None:
        self.kind, self.parts = kind, parts
        super().__init__(f"{kind}: {text}" if text else kind)


class Cancelled(Error):
    """The call was cancelled, or its pool was closed before it began."""
