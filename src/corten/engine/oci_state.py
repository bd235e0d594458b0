"""The state of an OCI container: a directory of files, and what they and the kernel say about it together.

    ROOT/ID/state.json    what `state` prints, with the pid and status of the last command, and under `corten` our own
    ROOT/ID/config.json   the configuration as it was at `create`; later changes in the bundle have no effect
    ROOT/ID/exec.fifo     the init waits on it; there until `start`
    ROOT/ID/console.sock  only while `run -t` runs

Rule 1: a file is written under another name, synced and renamed. The lock is a flock on the directory.
Rule 2: the status is never believed from the file: a process lives if its pid has the start time that was written.
Rule 3: this module is all that `corten-oci state` loads: it imports nothing but `os`, `time` and `json_text`.
"""

from __future__ import annotations

import os
import time

from corten.errors import InvalidInput, NotFound
from corten.json_text import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    State = dict[str, Any]

_ID_EXTRA = "_+-."


def default_root() -> str:
    """Where containers are kept if `--root` does not say: of root in /run, of others in their runtime directory."""
    if os.geteuid() == 0:
        return "/run/corten"
    base = os.environ.get("XDG_RUNTIME_DIR")
    if not base:
        raise InvalidInput("XDG_RUNTIME_DIR is not set: name a directory of yours with --root")
    return f"{base}/corten"


def directory(root: str, identity: str) -> str:
    """The directory of a container. `InvalidInput`: not an id (letters, digits and `_+-.`, at most 1024)."""
    plain = identity.isascii() and all(c.isalnum() or c in _ID_EXTRA for c in identity)
    if not plain or identity in ("", ".", "..") or identity[0] == "." or len(identity) > 1024:
        raise InvalidInput(f"invalid container id {identity[:80]!r}: use letters, digits and {_ID_EXTRA}")
    return f"{root}/{identity}"


def read(path: str) -> State:
    """The stored state of the container in the directory `path`. `NotFound`: there is none."""
    try:
        fd = os.open(f"{path}/state.json", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"container does not exist: {path.rpartition('/')[2]}") from None
    with open(fd, encoding="utf-8") as file:
        text = file.read()
    try:
        state: State = loads(text)
        state["corten"]["start"]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path}/state.json: not written by corten-oci: {error}") from None
    return state


def write(path: str, state: State) -> None:
    """Store the state, all or nothing."""
    store(f"{path}/state.json", dumps(state, 2) + "\n")


def store(path: str, text: str, mode: int = 0o600) -> None:
    """Write a file of its own under another name, sync it and rename it."""
    draft = f"{path}.{os.getpid()}"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        os.rename(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def process_start(pid: int) -> int:
    """When a process was started, in clock ticks since boot; 0 if it has ended (a zombie has). Source: proc(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in (b"Z", b"X", b"x") else int(fields[19])


def alive(pid: int, start: int) -> bool:
    """Whether the process that had this pid and start time still lives: a reused pid is not it."""
    return pid > 0 and start > 0 and process_start(pid) == start


def status(path: str, state: State) -> str:
    """creating, created, running, pausing, paused or stopped: as it is now."""
    ours = state["corten"]
    if state["status"] == "creating":
        # Until `create` is done. If it was killed its init, which then dies too, may need a moment.
        return "creating" if alive(*ours["launcher"]) else "stopped"
    if not alive(state["pid"], ours["start"]):
        return "stopped"
    held = freezer(ours["group"])
    if held != "running":
        return held
    return "created" if os.path.exists(f"{path}/exec.fifo") else "running"


def freezer(dirs: list[list[Any]]) -> str:
    """running, pausing or paused, by the directories of a control group as they are stored.

    Either freezer may hold it where a machine has both.
    """
    for version, controllers, path in dirs:
        try:
            if "freezer" in controllers.split(","):
                with open(f"{path}/freezer.state", "rb") as file:
                    word = file.read().strip()
                if word != b"THAWED":
                    return "paused" if word == b"FROZEN" else "pausing"
            elif version == 2:
                with open(f"{path}/cgroup.events", "rb") as file:
                    if b"frozen 1" in file.read():
                        return "paused"
        except OSError:
            continue
    return "running"


def shown(path: str, state: State) -> State:
    """The state as the specification and runc have it: the present status, and pid 0 when it has stopped."""
    now = status(path, state)
    out = {key: value for key, value in state.items() if key != "corten"}
    out["status"] = now
    if now == "stopped":
        out["pid"] = 0
    return out


def timestamp(seconds: int | None = None) -> str:
    """Now as RFC 3339 with nanoseconds, as Go prints it."""
    nanoseconds = time.time_ns() if seconds is None else seconds * 10**9
    whole, part = divmod(nanoseconds, 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{part:09d}Z"


def containers(root: str) -> list[str]:
    """The ids of all containers below a root, sorted."""
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return []
    return [name for name in names if os.path.isfile(f"{root}/{name}/state.json")]
