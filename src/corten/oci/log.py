"""Errors and warnings, in the forms that callers read: podman one JSON object, containerd the last line of level error.

Loaded only when there is something to say.
"""

from __future__ import annotations

import os

from corten.engine.oci_state import timestamp
from corten.errors import CommandNotFound, CommandNotRunnable, Error, printable
from corten.json_text import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.oci.main import Settings


def report(settings: Settings, level: str, message: str) -> None:
    """Write one line to the log, or to stderr where there is none."""
    message = printable(message)
    line = f"corten-oci: {message}\n" if level == "error" else f"corten-oci: {level}: {message}\n"
    if settings.log:
        entry = {"level": level, "msg": message, "time": timestamp()}
        if settings.log_format == "json":
            logged = dumps(entry) + "\n"
        else:
            logged = f"time={dumps(entry['time'])} level={level} msg={dumps(message)}\n"
        try:
            fd = os.open(settings.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            os.write(fd, logged.encode())
            os.close(fd)
        except OSError as error:
            line += f"corten-oci: --log {settings.log}: {error.strerror}\n"
        else:
            if level != "error":
                return
    try:
        os.write(2, line.encode())
    except OSError:
        pass  # nobody is there to read it; the exit code still says so


def fail(settings: Settings, error: Exception) -> int:
    """Report an error; the exit code."""
    report(settings, "error", words_of(error))
    return 255 if settings.command == "exec" else 1


def words_of(error: Exception) -> str:
    """The one line of an error, with the words that podman looks for where a program cannot be executed."""
    kind = getattr(error, "kind", type(error).__name__)
    text = " ".join(str(error).split())
    if kind == CommandNotFound.__name__:
        return f"{text}: executable file not found in $PATH or no such file or directory"
    if kind == CommandNotRunnable.__name__ and "ermission denied" not in text:
        return f"{text}: cannot open executable"
    if isinstance(error, Error) or type(error).__name__ == "GlobalError":
        return text
    if isinstance(error, OSError):
        return f"{error.filename or 'system call'}: {error.strerror}"
    at = error.__traceback__
    while at and at.tb_next:
        at = at.tb_next
    where = f" ({os.path.basename(at.tb_frame.f_code.co_filename)}:{at.tb_lineno})" if at else ""
    return f"a mistake in corten-oci itself: {type(error).__name__}: {text}{where}: please report it"
