"""What the kernel must do for a container, judged from the trials. Pure, but for the kernel's name."""

from __future__ import annotations

import os

from corten.linux.clone import NAMESPACES
from corten.views.doctor.abilities import DEGRADED, MISSING, OK, Ability, Trial
from corten.views.doctor.remedies import install

_OLDEST = (6, 1)
_AREA = "Kernel"

# trial: (name, what follows when it fails, what to do)
_CALLS = {
    "clone3": ("clone3", "no container can be made: a filter of an outer container may refuse it", ""),
    "openat2": ("openat2", "no path in a container can be resolved safely", ""),
    "pidfd": ("pidfd_open", "no process can be held safely", ""),
    "mount calls": ("mounts by descriptor", "no root can be made", ""),
    "proc": ("a new /proc", "no PID namespace of its own: --pid host is left", "umount what covers parts of /proc"),
    "sysfs": ("a new /sys", "no network namespace of its own: --network host is left", ""),
    "overlay in memory": ("overlay in memory", "no --writable tmpfs", "modprobe overlay"),
    "filter": ("system call filters", "only --security-opt seccomp=unconfined is left", ""),
}


def abilities(trials: dict[str, Trial]) -> list[Ability]:
    """The kernel's abilities."""
    rows = [_release()]
    rows += [_tried(name, follows, mend, trials[trial]) for trial, (name, follows, mend) in _CALLS.items()]
    rows += _namespaces(trials)
    library = trials["libseccomp"]
    rows.append(
        Ability(_AREA, "libseccomp", OK, library.words, needed=True) if library.worked else
        Ability(_AREA, "libseccomp", MISSING, library.words, "no filter can be compiled", install("libseccomp2"), True)
    )  # fmt: skip
    mapped = trials["id-mapped mounts"]
    if mapped.worked:
        rows.append(Ability(_AREA, "id-mapped mounts", OK, mapped.words))
    elif os.geteuid():
        rows.append(Ability(_AREA, "id-mapped mounts", DEGRADED, mapped.words,
                            "files of the host show as nobody's where the user is another inside"))  # fmt: skip
    else:
        rows.append(Ability(_AREA, "id-mapped mounts", MISSING, mapped.words,
                            "no --userns private with images: the file system of the store or the kernel cannot",
                            "export CORTEN_HOME=DIR with a DIR on ext4, xfs or btrfs"))  # fmt: skip
    return rows


def _release() -> Ability:
    release = os.uname().release
    numbers = tuple(int(part) for part in release.replace("-", ".").split(".")[:2] if part.isdigit())
    if numbers >= _OLDEST:
        return Ability(_AREA, "release", OK, release, needed=True)
    wanted = ".".join(map(str, _OLDEST))
    return Ability(_AREA, "release", DEGRADED, release, f"Corten is made for Linux {wanted} or later", "", True)


def _tried(name: str, follows: str, mend: str, trial: Trial) -> Ability:
    if trial.worked:
        return Ability(_AREA, name, OK, trial.words, needed=True)
    return Ability(_AREA, name, MISSING, trial.words, follows, mend, needed=True)


def _namespaces(trials: dict[str, Trial]) -> list[Ability]:
    """One line for those that work, one for each that does not."""
    kinds = [kind for kind in NAMESPACES if kind != "user"]
    works = [kind for kind in kinds if trials[f"{kind} namespace"].worked]
    rows = [Ability(_AREA, "namespaces", OK, ", ".join(works), needed=True)] if works else []
    for kind in kinds:
        trial = trials[f"{kind} namespace"]
        if not trial.worked:
            limit = f"sysctl -w user.max_{_SYSCTL.get(kind, kind)}_namespaces=10000" if "space" in trial.words else ""
            rows.append(Ability(_AREA, f"{kind} namespace", MISSING, trial.words, "no container", limit, True))
    return rows


_SYSCTL = {"network": "net", "mount": "mnt"}
