"""Who was killed for memory, from the kernel's log.

Source: mm/oom_kill.c (the line `oom-kill:`), Documentation/ABI/testing/dev-kmsg.
"""

from __future__ import annotations

import os

_MARK = "oom-kill:constraint=CONSTRAINT_MEMCG"


def victims(group: str) -> list[tuple[str, int, str]]:
    """(name, pid on the host, path of the full group) of each kill whose task was in or below a group of that name.

    group: one component of a control group's path. Empty if the log may not be read: nothing is guessed.
    """
    try:
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    found: list[tuple[str, int, str]] = []
    try:
        while True:
            try:
                record = os.read(fd, 8192).decode(errors="replace")
            except BlockingIOError:
                return found
            except OSError:  # EPIPE: the record was overwritten meanwhile; the next read goes on
                continue
            if _MARK in record:
                entry = parse(record)
                if entry and group in entry[3].split("/"):
                    found.append(entry[:3])
    finally:
        os.close(fd)


def parse(record: str) -> tuple[str, int, str, str] | None:
    """(task, pid, full group, group of the task) of one `oom-kill:` record; None if it is cut short."""
    line = record.split("\n", 1)[0]
    fields = dict(part.partition("=")[::2] for part in line.partition("oom-kill:")[2].split(","))
    try:
        return fields["task"], int(fields["pid"]), fields["oom_memcg"], fields["task_memcg"]
    except (KeyError, ValueError):
        return None
