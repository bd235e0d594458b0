"""`checkpoint`: the processes of a container saved to files by criu, and ended unless they are to run on."""

from __future__ import annotations

import os

from corten.engine import criu
from corten.engine.executing import stored_config
from corten.engine.oci_state import store
from corten.errors import InvalidInput, Unsupported
from corten.json_text import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.engine.lifecycle import Found


def checkpoint(found: Found, values: dict[str, Any]) -> None:
    """Save a container that runs or is paused. values: the options of the command line.

    With `leave_running` or `pre_dump` it runs on; else its processes are gone afterwards. `Error` with criu's words;
    then it runs on too.
    """
    criu_program = criu.program("checkpoint")
    config = stored_config(found.path)
    if (config.get("process") or {}).get("terminal"):
        raise Unsupported("checkpoint: process.terminal: a container with a terminal is not saved")
    images = criu.directory(values, "image_path", "checkpoint")
    work = criu.directory(values, "work_path", images)
    pre = bool(values.get("pre_dump"))
    log = criu.fresh(f"{work}/{'pre-dump' if pre else 'dump'}.log")
    words = [
        "criu", "pre-dump" if pre else "dump", "--tree", str(found.pid), "--images-dir", images, "--work-dir", work,
        "--log-file", log, "-v4", *criu.options(values, config.get("annotations") or {}),
    ]  # fmt: skip
    for place, _ in criu.external_mounts(config, found.state["bundle"], found.group):
        words += ["--external", f"mnt[{place}]:{place}"]
    if criu.joined_network(config):
        inode = os.stat(f"/proc/{found.pid}/ns/net").st_ino
        words += ["--external", f"net[{inode}]:{criu.NETWORK}"]
    freezer = found.group.directory("freezer") if found.group else None
    if freezer:
        words += ["--freeze-cgroup", freezer]
    if values.get("parent_path"):
        words += ["--prev-images-dir", values["parent_path"]]
    if pre or values.get("parent_path"):
        words.append("--track-mem")
    if values.get("status_fd"):
        _inherit("--status-fd", values["status_fd"])
        words += ["--status-fd", values["status_fd"]]
    streams = [os.readlink(f"/proc/{found.pid}/fd/{fd}") for fd in range(3)]
    store(f"{images}/{criu.STREAMS}", dumps(streams), 0o600)
    status = os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn(criu_program, words, os.environ), 0)[1])
    if status:
        os.unlink(f"{images}/{criu.STREAMS}")
        criu.explain("checkpoint", log, status)


def _inherit(option: str, text: str) -> None:
    """Let criu have a descriptor of our caller's. `InvalidInput`: it is none."""
    try:
        os.set_inheritable(int(text), True)
    except (ValueError, OSError):
        raise InvalidInput(f"{option} {text}: not an open descriptor") from None
