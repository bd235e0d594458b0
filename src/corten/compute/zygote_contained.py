"""The zygote of an image, or of a caller who is not root: in a container of its own, under the image's Python.

The image is not trusted, and a zygote has to make processes enter containers. So it has every right, but in a user
namespace of its own, over nothing of the host's. The containers of its calls join that user namespace, and their PID
namespaces are made below its own: it can enter them, and nothing else.
"""

from __future__ import annotations

import os

from corten.compute.zygote_bare import ONE_THREAD
from corten.engine.container import DEVNULL, start_with
from corten.engine.mounts import MountOption
from corten.engine.options import RunOptions
from corten.errors import Error, told_of
from corten.linux import idmap
from corten.linux.idmap import IdMapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.engine.container import Container

PLACE = "/run/corten"
"""Where what runs inside is mounted: nothing of it needs to be installed in the image."""
OLDEST = 3, 8
"""Of the Python versions under which `inside` runs."""
_START = f"""
import os, sys
if sys.version_info < {OLDEST}:
    text = "failed its Python %d.%d is too old: functions need {OLDEST[0]}.{OLDEST[1]} or later"
    os.write(0, (text % sys.version_info[:2]).encode())
    sys.exit(1)
sys.path.insert(0, {PLACE!r})
from corten_inside.zygote import main
control, null = os.dup(0), os.open("/dev/null", os.O_RDWR)
os.dup2(null, 0)
main(control, False)
"""
_CONTAINER_IDS = 524288
"""First id of the host for containers of root, where /etc/subuid gives root none: systemd's range for containers
(systemd's docs/UIDS-GIDS.md)."""
_RIGHTS = {
    "cap_add": ("ALL",), "seccomp": "unconfined", "init": False, "network": "none", "timeout": None,
    "cpus": None, "memory": None, "pids": None, "memory_swap": None, "memory_reservation": None,
}  # fmt: skip


def with_maps(options: RunOptions) -> RunOptions:
    """The options of containers that live in a zygote's user namespace, with what calls need mounted."""
    import cloudpickle

    from corten.compute import inside

    mounts = (
        _mount(inside.__path__[0], f"{PLACE}/corten_inside"),
        _mount(os.path.dirname(os.path.abspath(cloudpickle.__file__)), f"{PLACE}/cloudpickle"),
    )
    options = options.replace(mounts=(*options.mounts, *mounts))
    if os.geteuid() != 0:
        return options
    ranges = idmap.subordinate(0)
    if ranges.uids and ranges.gids:
        return options.replace(userns="private")
    maps = (IdMapping(0, _CONTAINER_IDS, 65536),)
    return options.replace(uidmap=maps, gidmap=maps)


def _mount(source: str, target: str) -> MountOption:
    return MountOption(type="bind", source=source, target=target, read_only=True)


class ContainedProcess:
    """The process, in its container. options: of the containers of its calls, from `with_maps`."""

    def __init__(self, options: RunOptions, python: str, control: int) -> None:
        environment = (*options.env, *((name, "1") for name in ONE_THREAD))
        own = options.replace(
            argv=(python, "-I", "-X", "utf8", "-c", _START), env=environment, user=None, read_only=False, **_RIGHTS
        )
        self.options = options
        try:
            self.container: Container = start_with(own, (control, DEVNULL, None))
        except Error as error:
            raise told_of("cannot start a zygote", error) from None

    @property
    def pid(self) -> int:
        """Of the process, on the host."""
        return self.container.pid

    def kill(self) -> None:
        """Have it end, from any thread; `end` is still to come."""
        self.container.kill()

    def end(self) -> None:
        """End it, and with it the containers below it."""
        self.container.kill()
        try:
            self.container.wait()
        except Error:
            pass  # it is gone, which is what was wanted
        self.container.close()
