"""`corten-oci exec`. Its errors end with exit code 255; everything else is the program's."""

from __future__ import annotations

import os

from corten.cli.parser import Option, UsageError
from corten.engine import executing, lifecycle
from corten.engine.child import Outlets
from corten.engine.executing import ExecOptions
from corten.engine.foreground import attend
from corten.errors import InvalidInput
from corten.linux import signals
from corten.oci.making import preserved
from corten.oci.table import CONSOLE_SOCKET, PID_FILE, PIDFD_SOCKET, PRESERVE_FDS, absolute, command, parse
from corten.runtime import parked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from corten.oci.main import Settings

COMMAND = command(
    "exec",
    "[OPTIONS] ID [COMMAND [ARG...]]",
    "Run another program in a running container and end with its exit code.",
    CONSOLE_SOCKET,
    PIDFD_SOCKET,
    PID_FILE,
    PRESERVE_FDS,
    Option(("-p", "--process"), "FILE", "The process as JSON (OCI `process`); the options below change it"),
    Option(("-d", "--detach"), "", "Leave it running"),
    Option(("-t", "--tty"), "", "Give it a terminal"),
    Option(("-u", "--user"), "UID[:GID]", "Run as this user of the container"),
    Option(("-g", "--additional-gids"), "GID", "A group besides", repeat=True),
    Option(("--cwd",), "DIR", "The working directory in the container"),
    Option(("-e", "--env"), "NAME=VALUE", "Add a variable to the environment", repeat=True),
    Option(("-c", "--cap"), "NAME", "Add a capability", repeat=True),
    Option(("--no-new-privs",), "", "Set no_new_privs"),
    Option(("--apparmor",), "PROFILE", "The AppArmor profile"),
    Option(("--process-label",), "LABEL", "The SELinux label"),
    Option(("--cgroup",), "[CONTROLLER,...:]PATH", "Join this group below the container's", repeat=True),
    Option(("--ignore-paused",), "", "Also in a paused container"),
    Option(("--no-subreaper",), "", hidden=True),
    maximum=None,
    interspersed=False,
)


def run(settings: Settings, words: Sequence[str]) -> int:
    """Run it; the program's exit code, or 0 when it was left behind."""
    parsed = parse(COMMAND, words)
    if parsed is None:
        return 0
    values, (identity, *args) = parsed
    outlets = Outlets(*(absolute(values.get(key)) for key in ("pid_file", "console_socket", "pidfd_socket")))
    found = lifecycle.find(settings.root, identity)
    if found.status != "paused" or not values.get("ignore_paused"):
        found.allow("exec")
    options = ExecOptions(
        _process(executing.stored_config(found.path), values, args),
        detach=bool(values.get("detach")),
        preserve_fds=preserved(values),
        cgroups=tuple(_cgroup(text) for text in values.get("cgroup", ())),
    )
    # Blocked before the child is made: a signal that comes meanwhile is for its program.
    mask = None if options.detach else signals.block_all()
    child = executing.launch(found, options, outlets, settings.warn, mask)
    try:
        child.leave(parked.GO)
        return 0 if mask is None else attend(child, mask, lambda: None)
    except BaseException:
        child.end()
        raise


def _process(config: dict[str, Any], values: dict[str, Any], args: list[str]) -> dict[str, Any]:
    """The process as JSON data: from the file, or the container's own with other arguments."""
    if values.get("process"):
        data = _read(values["process"])
        if args:
            data = {**data, "args": args}
    else:
        if not args:
            raise UsageError("exec: an argument is missing: corten-oci exec [OPTIONS] ID COMMAND [ARG...]")
        data = {**config["process"], "args": args, "terminal": False}
        data.pop("consoleSize", None)
    if values.get("tty"):
        data["terminal"] = True
    data["user"] = _user(dict(data.get("user") or {}), values)
    for key, field in (("cwd", "cwd"), ("apparmor", "apparmorProfile"), ("process_label", "selinuxLabel")):
        if values.get(key):
            data[field] = values[key]
    data["env"] = [*(data.get("env") or []), *values.get("env", ())]
    if values.get("no_new_privs"):
        data["noNewPrivileges"] = True
    if values.get("cap"):
        sets = dict(data.get("capabilities") or {})
        for field in ("bounding", "effective", "permitted"):
            sets[field] = list(dict.fromkeys([*(sets.get(field) or []), *map(_capability, values["cap"])]))
        data["capabilities"] = sets
    return data


def _user(user: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    if values.get("user"):
        uid, _, gid = values["user"].partition(":")
        if not uid.isdecimal() or (gid and not gid.isdecimal()):
            raise UsageError(f"--user: {values['user']!r}: numbers are needed, UID or UID:GID")
        user["uid"] = int(uid)
        if gid:
            user["gid"] = int(gid)
    for gid in values.get("additional_gids", ()):
        user["additionalGids"] = [*(user.get("additionalGids") or []), _number("--additional-gids", gid)]
    return user


def _read(path: str) -> dict[str, Any]:
    from corten.engine.bundle import read_text
    from corten.runtime.spec.files import parse as parse_json

    data = parse_json(read_text(path).encode(), os.path.basename(path))
    if not isinstance(data, dict):
        raise InvalidInput(f"{path}: expected object")
    return data


def _capability(word: str) -> str:
    return word.upper() if word.upper().startswith("CAP_") else f"CAP_{word.upper()}"


def _number(name: str, text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"{name}: {text!r} is not a number")
    return int(text)


def _cgroup(text: str) -> tuple[str, str]:
    controllers, colon, path = text.rpartition(":")
    return (controllers, path) if colon else ("", text)
