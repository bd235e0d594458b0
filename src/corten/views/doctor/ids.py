"""User namespaces, what blocks them, and ranges of ids."""

from __future__ import annotations

import os
import pwd

from corten.linux import idmap
from corten.views.doctor.abilities import DEGRADED, MISSING, OK, Ability, Trial
from corten.views.doctor.remedies import install

_AREA = "Users"
# sysctl: (the value that forbids user namespaces to ordinary users, a value that allows them)
_BLOCKS = {
    "user.max_user_namespaces": ("0", "15000"),
    "kernel.unprivileged_userns_clone": ("0", "1"),
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
}


def abilities(trials: dict[str, Trial]) -> list[Ability]:
    """User namespaces and ids."""
    return [_namespace(trials["user namespace"]), _ranges(trials["id ranges"])]


def _namespace(trial: Trial) -> Ability:
    ordinary = os.geteuid() != 0
    blocked = block()
    if trial.worked and not (blocked and ordinary and "apparmor" in blocked):
        return Ability(_AREA, "user namespaces", OK, trial.words, needed=ordinary)
    follows = "containers need root" if ordinary else "no --userns private; ordinary users have no containers at all"
    if blocked:
        mend = f"sysctl -w {blocked}={_BLOCKS[blocked][1]}"
        return Ability(_AREA, "user namespaces", MISSING, f"{trial.words}: {blocked} is {_value(blocked)}", follows,
                       mend, ordinary)  # fmt: skip
    return Ability(_AREA, "user namespaces", MISSING, trial.words, follows, "", ordinary)


def block() -> str:
    """The sysctl that forbids user namespaces here; empty if none does."""
    return next((key for key, (forbids, _) in _BLOCKS.items() if _value(key) == forbids), "")


def _value(key: str) -> str:
    try:
        with open(f"/proc/sys/{key.replace('.', '/')}") as file:
            return file.read().strip()
    except OSError:
        return ""


def login() -> str:
    """The user's name, or its number where it has none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _ranges(trial: Trial) -> Ability:
    if trial.worked:
        return Ability(_AREA, "ranges of ids", OK, trial.words)
    uid, name = os.geteuid(), login()
    ranges = idmap.subordinate(uid)
    if not ranges.uids or not ranges.gids:
        lacking = [kind for kind, have in (("uid", ranges.uids), ("gid", ranges.gids)) if not have]
        wanted = "".join(f" --add-sub{kind}s 100000-165535" for kind in lacking)
        mend = f"usermod{wanted} {name}"
    else:
        helpers = [program for program in ("newuidmap", "newgidmap") if idmap.find_program(program) is None]
        mend = install("uidmap") if helpers else ""
    found = trial.words.partition(": an administrator")[0].partition(": install")[0]
    if uid:
        follows = "one user and one group in a container: images with files of other users do not unpack"
        return Ability(_AREA, "ranges of ids", DEGRADED, found, follows, mend)
    follows = "--userns private needs --uidmap and --gidmap"
    return Ability(_AREA, "ranges of ids", DEGRADED, found, follows, mend)
