"""`python kill_at.py NUMBER CORTEN-WORDS`: the command, killed just before its NUMBERth change of a file.

0: never; then the number of changes is written to standard error at the end.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

CHANGES = ("open", "write", "rename", "link", "mkdir", "unlink", "rmdir", "symlink", "mknod", "ftruncate", "fsync")
NUMBER = int(sys.argv[1])
count = itertools.count(1)


def watched(name: str) -> Callable[..., Any]:
    """The function of `os`, with the kill in front of it."""
    real = getattr(os, name)

    def call(*arguments: Any, **named: Any) -> Any:
        looks = name == "open" and not arguments[1] & os.O_CREAT
        said = name == "write" and arguments[0] < 3
        if not looks and not said and next(count) == NUMBER:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)

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
