"""A system call filter that asks a listener: loaded, and its descriptor handed to the launcher, who passes it on."""

from __future__ import annotations

import os

from corten.linux import seccomp, sockets
from corten.runtime.step import Stage, Step


class LoadNotifyingFilter(Step):
    """Load the filter and send the listener's descriptor to the launcher.

    A profile that asks the listener about sendmsg(2), close(2) or recvfrom(2) stops here for good: nobody listens yet.
    """

    program: bytes
    flags: tuple[str, ...]

    def run(self, stage: Stage) -> None:
        fd = seccomp.load(self.program, self.flags)
        if fd is not None:
            assert stage.channel is not None
            sockets.send(stage.channel, b"Listener", (fd,))
            os.close(fd)

    def describe(self) -> str:
        return f"load system call filter ({len(self.program) // 8} instructions) and hand over its listener"
