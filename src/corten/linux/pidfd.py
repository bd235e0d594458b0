"""Processes held by descriptor: no pid can be reused under it. Source: pidfd_open(2), pidfd_send_signal(2)."""

from __future__ import annotations

from corten.linux import syscalls


def open_pid(pid: int) -> int:
    """A close-on-exec descriptor of a process; readable for poll once it has ended."""
    return syscalls.call("pidfd_open", pid, 0)


def send_signal(pidfd: int, number: int) -> bool:
    """Send a signal; False if the process has already ended."""
    try:
        syscalls.call("pidfd_send_signal", pidfd, number, None, 0)
    except ProcessLookupError:
        return False
    return True


def pid_of(pidfd: int) -> int:
    """The number of the process in our own PID namespace: 0 if it is not in there, -1 if it was reaped (proc(5))."""
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pid:"))
