"""Work on layers whose files may belong to others than this user: done by root, or as root of a user namespace.

Root does it in its own process. An ordinary user's layers have files of its ranges in /etc/subuid: for it a helper with
all these ids does the work, and with a mount namespace of its own, for there it may mount.
"""

from __future__ import annotations

import os

from corten.build.selection import SelectionError
from corten.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def call(where: str, arguments: Sequence[Any], fds: Sequence[int] = ()) -> Any:
    """What `module:function(*arguments, *descriptors)` gives. SelectionError, Error, OSError: as that raises them.

    Unsupported: this user has no range of ids, so no image can be made.
    """
    if os.geteuid() == 0:
        return _function(where)(*arguments, *fds)
    from corten.linux import idmap
    from corten.runtime import helper

    maps = helper.own_maps()
    if maps is None:
        raise Unsupported(f"builds need more ids than one: {idmap.subordinate_problem(os.geteuid())}")
    kind, value = helper.call("corten.build.inside:serve", (where, tuple(arguments)), fds, maps, mounts=True)
    if kind == "selection":
        raise SelectionError(value)
    return value


def serve(where: str, arguments: tuple[Any, ...], *fds: int) -> tuple[str, Any]:
    """The helper's side: the answer, or what is wrong with what was selected."""
    try:
        return "answer", _function(where)(*arguments, *fds)
    except SelectionError as error:
        return "selection", str(error)


def _function(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(__import__(module, fromlist=[name]), name)
