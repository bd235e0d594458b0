"""`python kill_at.py NUMBER CORTEN-WORDS`: the command, killed just before its NUMBERth change of a file.

0: never; then the number of changes is written to standard error at the end. What is written to a file counts once at
its beginning and once for each STEP bytes: in how many pieces it comes over a network is chance.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

CHANGES = ("open", "write", "rename", "link", "mkdir", "unlink", "rmdir", "symlink", "mknod", "ftruncate", "fsync")
STEP = 1 << 17
NUMBER = int(sys.argv[1])
count = itertools.count(1)
written: dict[int, int] = {}
"""Bytes, by descriptor."""


def changes(name: str, arguments: tuple[Any, ...]) -> int:
    """How many changes a call is."""
    if name == "open":
        return int(bool(arguments[1] & os.O_CREAT))
    if name != "write":
        return 1
    fd, data = arguments
    if fd < 3:
        return 0
    before = written.get(fd, 0)
    written[fd] = before + len(data)
    return written[fd] // STEP - before // STEP + (before == 0)


def watched(name: str) -> Callable[..., Any]:
    """The function of `os`, with the kill in front of it."""
    real = getattr(os, name)

    def call(*arguments: Any, **named: Any) -> Any:
        for _ in range(changes(name, arguments)):
            if next(count) == NUMBER:
                os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **named)
        if name == "open":
            written[result] = 0
        return result

    return call


def ended(code: int) -> None:
    """In place of os._exit, with which the command ends."""
    if not NUMBER:
        sys.stderr.write(f"{next(count)}\n")
        sys.stderr.flush()
    leave(code)


leave = os._exit
if __name__ == "__main__":
    from corten.cli import main

    for one in CHANGES:
        setattr(os, one, watched(one))
    os._exit = ended  # type: ignore[assignment]
    sys.argv[:] = ["corten", *sys.argv[2:]]
    main.command()
