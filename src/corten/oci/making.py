"""What `create` and `run` take from their command lines."""

from __future__ import annotations

import os

from corten.engine import notifying
from corten.engine.bundle import MakeOptions
from corten.engine.child import Outlets
from corten.oci.table import absolute, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.oci.main import Settings


def request(settings: Settings, values: dict[str, Any]) -> tuple[MakeOptions, Outlets, str]:
    """(how to make it, whom to tell, the configuration's file or ""). The working directory becomes the bundle."""
    outlets = Outlets(*(absolute(values.get(key)) for key in ("pid_file", "console_socket", "pidfd_socket")))
    config = absolute(values.get("config"))
    bundle = os.path.abspath(values.get("bundle") or ".")
    try:
        os.chdir(bundle)
    except OSError as error:
        from corten.errors import NotFound

        raise NotFound(f"--bundle {bundle}: {(error.strerror or '').lower()}") from None
    options = MakeOptions(
        bundle=bundle,
        pivot=not values.get("no_pivot"),
        keyring=not values.get("no_new_keyring"),
        preserve_fds=preserved(values) + listening(),
        listening=listening(),
        systemd_cgroup=settings.systemd_cgroup,
        cgroups=settings.cgroups,
        notify=bool(notifying.supervisor()),
    )
    return options, outlets, config


def preserved(values: dict[str, Any]) -> int:
    """How many descriptors from 3 on were asked for."""
    return number("--preserve-fds", values.get("preserve_fds"))


def listening() -> int:
    """How many descriptors from 3 on are sockets that whoever activated us listens on. Source: sd_listen_fds(3)."""
    count, pid = os.environ.get("LISTEN_FDS", ""), os.environ.get("LISTEN_PID", "")
    return int(count) if count.isdecimal() and pid == str(os.getpid()) else 0
