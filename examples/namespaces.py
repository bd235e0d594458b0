"""The first half of a container: a process with its own host name, its own processes, its own /proc.

Run as root: python examples/namespaces.py
"""

from __future__ import annotations

import os
import socket

from corten.linux import clone, mounts, syscalls


def child() -> None:
    """What only this process and its children see; nothing of it reaches the host."""
    mounts.set_propagation("/", mounts.PRIVATE)
    syscalls.call("sethostname", b"container", 9)
    proc = mounts.new("proc")
    here = os.open("/proc", os.O_PATH)
    mounts.attach(proc, here)
    seen = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    print(f"inside:  host name {socket.gethostname()}, I am process {os.getpid()}, I see processes {seen}", flush=True)


def main() -> None:
    """Clone, let the child look around, look around ourselves."""
    made = clone.clone3(clone.flags_of(("mount", "uts", "pid")))
    if made.pid == 0:
        child()
        os._exit(0)
    _, status = os.waitpid(made.pid, 0)
    processes = sum(name.isdigit() for name in os.listdir("/proc"))
    print(f"outside: host name {socket.gethostname()}, it was process {made.pid}, I see {processes} processes")
    raise SystemExit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
