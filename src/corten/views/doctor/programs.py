"""Programs that Corten uses where they are the standard."""

from __future__ import annotations

import os

from corten.linux.idmap import find_program
from corten.views.doctor.abilities import DEGRADED, MISSING, OK, Ability, Trial
from corten.views.doctor.remedies import install

_AREA = "Programs"
# trial: (package, what is missing without)
_WANTED = {
    "nft": ("nftables", "no published ports and no firewall between networks"),
    "pasta": ("passt", "as an ordinary user no network but the host's"),
    "criu": ("criu", "no checkpoint and restore"),
}


def abilities(trials: dict[str, Trial]) -> list[Ability]:
    """Each program, as its trial went."""
    return [_program(name, trials[name]) for name in _WANTED]


def _program(name: str, trial: Trial) -> Ability:
    package, follows = _WANTED[name]
    if trial.worked:
        return Ability(_AREA, name, OK, trial.words)
    if find_program(name) is None:
        return Ability(_AREA, name, MISSING, "not installed", follows, install(package))
    mend = ""
    if name == "pasta" and "/dev/net/tun" in trial.words:
        mend = "as root: chmod 666 /dev/net/tun" if os.path.exists("/dev/net/tun") else "as root: modprobe tun"
    return Ability(_AREA, name, DEGRADED, trial.words, follows, mend)
