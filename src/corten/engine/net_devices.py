"""`linux.netDevices`: network devices of the host that become the container's.

Done by `ip` (iproute2), which keeps the addresses' and names' rules; the device goes back by itself when the network
namespace ends, as the kernel does it with physical ones.
"""

from __future__ import annotations

import os

from corten.errors import Error, Unsupported
from corten.linux.idmap import find_program
from corten.runtime.spec import NetDevice


def move(devices: dict[str, NetDevice], pid: int) -> None:
    """Move devices into the network namespace of a process. `Unsupported`: no `ip`; `Error` with its words."""
    program = find_program("ip")
    if program is None:
        raise Unsupported("linux.netDevices: `ip` is not installed: install the package iproute2")
    for name, device in devices.items():
        words = [program, "link", "set", "dev", name, "netns", str(pid), "name", device.name or name]
        told = os.memfd_create("told", os.MFD_CLOEXEC)
        child = os.posix_spawn(program, words, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, told, 2)])
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said = " ".join(os.pread(told, 2000, 0).decode(errors="replace").split())
        os.close(told)
        if status:
            raise Error(f'linux.netDevices["{name}"]: {said or f"ip ended with {status}"}')
