"""The terminal is put back whatever happens to the process that draws on it.

Rule: two processes. The one that draws tidies up itself when it is asked to end; if it is killed outright, this one,
which does nothing but wait, sets the terminal back. If this one is killed, the other is told (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import os
import signal
import sys
import termios

from corten.errors import Error
from corten.linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)
# Leave the other screen, show the cursor, plain text, keypad and mouse off: terminfo's rmcup, cnorm, sgr0, rmkx.
_LEAVE = b"\x1b[?1049l\x1b[?25h\x1b[0m\x1b[?1l\x1b>\r"


def guarded(draw: Callable[[], None]) -> int:
    """Run `draw` in a process of its own; the exit code. The terminal on descriptor 0 is afterwards as it was."""
    before = termios.tcgetattr(0)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os._exit(_child(draw, parent))
    for number in _ENDING:
        signal.signal(number, lambda number, _: _pass_on(pid, number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the other one too
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status < 0:
        os.write(1, _LEAVE)
    termios.tcsetattr(0, termios.TCSADRAIN, before)
    return 128 - status if status < 0 else status


def _pass_on(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


class _Ended(BaseException):
    """A signal asked for the end."""


def _child(draw: Callable[[], None], parent: int) -> int:
    def end(number: int, _: FrameType | None) -> None:
        raise _Ended(number)

    for number in _ENDING:
        signal.signal(number, end)
    # If the guard is killed the shell takes the terminal back at once, and setting it back must still be possible.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    process.die_with_parent(signal.SIGTERM)
    if os.getppid() != parent:
        return 128 + signal.SIGTERM
    try:
        draw()
    except _Ended as error:
        return 128 + int(error.args[0])
    except KeyboardInterrupt:
        return 0  # how people leave such a view
    except Error as error:
        sys.stderr.write(f"corten: {error}\n")
        return error.exit_code
    except Exception as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        sys.stderr.write(f"corten: a mistake in corten itself: {words}: please report it\n")
        return Error.exit_code
    return 0
