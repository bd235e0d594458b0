"""`corten-oci create`."""

from __future__ import annotations

import os

from corten.engine import creating
from corten.oci.making import request
from corten.oci.table import MAKING, command, parse
from corten.runtime import parked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from corten.oci.main import Settings

COMMAND = command("create", "[OPTIONS] ID", "Make a container from a bundle. Its program waits for 'start'.", *MAKING)


def run(settings: Settings, words: Sequence[str]) -> int:
    """Make it and leave it behind; 0."""
    parsed = parse(COMMAND, words)
    if parsed is None:
        return 0
    options, outlets, config = request(settings, parsed[0])
    created = creating.create(settings.root, parsed[1][0], options, outlets, config=config)
    for warning in created.bundle.warnings:
        settings.warn(warning)
    assert created.child is not None
    created.child.leave(parked.PARK)
    os.close(created.lock)
    return 0
