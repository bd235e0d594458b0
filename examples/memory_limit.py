"""The second half of a container: a control group that stops a process at 100,000,000 bytes.

Run as root: python examples/memory_limit.py
"""

from __future__ import annotations

import os

from corten.linux.cgroup import events, group, layout, resources, usage

LIMIT = 100_000_000


def main() -> None:
    """Make a group, limit it, fill memory inside it, say who was stopped and why."""
    limits = resources.Resources(memory=resources.Memory(limit=LIMIT))
    box = group.place(layout.detect(), f"corten-example-{os.getpid()}", need=resources.needs(limits))
    box.create()
    try:
        for write in resources.writes(limits, box):
            box.apply(write)
        pid = os.fork()
        if pid == 0:
            box.join()
            held = []
            while True:
                held.append(bytearray(b"x") * 1_000_000)
        _, status = os.waitpid(pid, 0)
        used, oom = usage.read(box), events.oom(box)
        print(f"process {pid}: killed by signal {os.WTERMSIG(status)}, {oom.oom_kill} kill for memory")
        print(f"limit {used.memory_limit:,} bytes, peak {used.memory_peak:,} bytes, asked for {LIMIT:,}")
    finally:
        box.remove()


if __name__ == "__main__":
    main()
