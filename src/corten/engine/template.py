"""Many containers of one kind: everything is decided once, and each gets an identity of its own.

Why: deciding takes as long as half of the rest. Ids have the same length, so that a pickled plan with one id in it is
made that of another by replacing the id, wherever it stands in a path or a name.
"""

from __future__ import annotations

import os
import pickle

from corten.engine import home
from corten.engine.container import Container
from corten.engine.options import RunOptions
from corten.engine.prepare import prepare
from corten.linux.cgroup.group import Group


class Template:
    """A container that is decided but not made. Errors: as `prepare`."""

    def __init__(self, options: RunOptions, held: bool = False, within: int = 0) -> None:
        """held, within: as for `prepare`."""
        self.prepared = prepare(options, held, within)
        self._data = pickle.dumps(self.prepared.plan, pickle.HIGHEST_PROTOCOL)

    def container(self) -> Container:
        """A container of this kind with an id of its own, not started."""
        old, new = self.prepared.id, os.urandom(6).hex()
        plan = self.prepared.plan
        if plan.group is not None:
            name, renamed = home.group_name(old), home.group_name(new)
            own = tuple(one.replace(path=one.path.replace(name, renamed)) for one in plan.group.dirs)
            plan = plan.replace(group=Group(own))
        return Container(self.prepared.replace(id=new, plan=plan), self._data.replace(old.encode(), new.encode()))
