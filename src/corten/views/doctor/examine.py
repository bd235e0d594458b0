"""The whole examination: trials, then each area's judgement."""

from __future__ import annotations

import os

from corten.engine import home
from corten.linux.cgroup import layout
from corten.views.doctor import gpus, groups, ids, kernel, programs, store, trials
from corten.views.doctor.abilities import Report


def examine() -> Report:
    """Try everything for this user on this machine; takes a second or so, and leaves nothing behind."""
    place = home.path()
    went = trials.run_all(store.existing(place))
    about = os.uname()
    machine = f"Linux {about.release} ({about.machine}), cgroup {layout.detect().kind}"
    rows = (
        *kernel.abilities(went),
        *groups.abilities(),
        *ids.abilities(went),
        *store.abilities(went, place),
        *programs.abilities(went),
        *gpus.abilities(),
    )
    return Report("root" if os.geteuid() == 0 else f"user {ids.login()}", machine, rows)
