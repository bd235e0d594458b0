"""The change of root for hosts whose root cannot be pivoted away (an initramfs): OCI `--no-pivot`."""

from __future__ import annotations

import os

from corten.linux import mounts, syscalls
from corten.runtime.step import Stage, Step

_MS_MOVE = 8192


class MoveRoot(Step):
    """Move the container's root over `/` and chroot into it. The old root stays below it, out of sight.

    Weaker than a pivot: who has CAP_SYS_CHROOT and a descriptor of the old root gets back. Nothing is left open here.
    """

    def run(self, stage: Stage) -> None:
        for fd in stage.trees.values():
            os.close(fd)
        stage.trees.clear()
        os.fchdir(stage.root)
        syscalls.call("mount", b".", b"/", None, _MS_MOVE, None)
        os.chroot(".")
        os.chdir("/")
        os.close(stage.root)
        stage.root = -1
        mounts.set_propagation("/", mounts.SLAVE)

    def describe(self) -> str:
        return "move the root over the old one (no pivot)"
