"""What keys do to a container. Each gives one line that says what was done; errors are `corten.Error`.

Rule: between the picture and the key the container may have gone, and its pid may be another's: who is held by a
descriptor is looked up again before anything is sent.
"""

from __future__ import annotations

import os

from corten.engine.listing import Live
from corten.engine.resizing import resize
from corten.errors import Error, InvalidInput
from corten.linux import pidfd, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LIMITS = ("memory", "cpus", "pids", "memory_swap", "memory_reservation")


def send(one: Live, text: str) -> str:
    """Send a signal to its first process, which passes it on; KILL ends every process of its group."""
    number = signals.parse(text.strip() or "TERM")
    if number == signals.KILL and one.group is not None:
        one.group.kill()
        return f"{one.label}: killed"
    if one.pid is None:
        raise Error(f"{one.label}: its first process is not known")
    try:
        held = pidfd.open_pid(one.pid)
    except ProcessLookupError:
        raise Error(f"{one.label}: it has ended") from None
    try:
        if one.pid not in one.pids():
            raise Error(f"{one.label}: it has ended")
        pidfd.send_signal(held, number)
    except PermissionError:
        raise Error(f"{one.label}: no permission to signal it") from None
    finally:
        os.close(held)
    return f"{one.label}: sent {signals.name(number)}"


def freeze(one: Live, frozen: bool) -> str:
    """Stop all its processes, or let them run again. frozen: whether they stand now."""
    if one.group is None:
        raise Error(f"{one.label}: it has no control group to freeze it by")
    try:
        if frozen:
            one.group.thaw()
        else:
            one.group.freeze()
    except OSError as error:
        raise Error(f"{one.label}: {error.strerror}") from None
    return f"{one.label}: {'runs again' if frozen else 'frozen'}"


def limit(one: Live, text: str) -> str:
    """New limits, from words like `memory=256m cpus=1.5`."""
    wanted: dict[str, Any] = {}
    for word in text.split():
        key, equals, value = word.partition("=")
        if key not in _LIMITS or not equals:
            raise InvalidInput(f"{word!r}: write {', '.join(f'{name}=' for name in _LIMITS[:3])} and what it shall be")
        wanted[key] = value
    if not wanted:
        return ""
    if one.group is None:
        raise Error(f"{one.label}: it has no control group")
    resize(one.group, **wanted)
    return f"{one.label}: {' '.join(f'{key}={value}' for key, value in wanted.items())}"
