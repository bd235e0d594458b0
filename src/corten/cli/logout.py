"""`corten logout`: credentials forgotten."""

from __future__ import annotations

import sys

from corten.cli.parser import Command, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND = Command(
    "corten logout", "[REGISTRY]", "Forget the credentials for a registry that 'corten login' keeps.", maximum=1
)


def run(words: Sequence[str]) -> int:
    """Log out; 0."""
    _, arguments = parse(COMMAND, words)
    from corten.cli.login import registry_name
    from corten.errors import NotFound
    from corten.images.registry import configuration, credentials

    host = registry_name(arguments[0]) if arguments else configuration.load().default
    where = credentials.forget(host)
    if where is None:
        raise NotFound(f"logout {host}: not logged in: {credentials.own_file()} has nothing for it")
    sys.stdout.write(f"logged out of {host}: removed from {where}\n")
    other = credentials.find(host)
    if other:
        sys.stderr.write(f"corten: {other.source} still has credentials for {host}\n")
    return 0
