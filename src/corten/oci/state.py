"""`corten-oci state`: polled by others, so it loads nothing but what it prints with."""

from __future__ import annotations

import sys

from corten.engine import oci_state
from corten.json_text import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from corten.oci.main import Settings


def run(settings: Settings, words: Sequence[str]) -> int:
    """Print the state; 0."""
    if len(words) != 1 or words[0][:1] == "-":
        from corten.oci.table import command, parse

        parsed = parse(command("state", "ID", "Print the state of a container as JSON."), words)
        if parsed is None:
            return 0
        words = parsed[1]
    path = oci_state.directory(settings.root, words[0])
    sys.stdout.write(dumps(oci_state.shown(path, oci_state.read(path)), 2) + "\n")
    return 0
