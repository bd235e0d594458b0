"""`corten run`: a container in the foreground."""

from __future__ import annotations

from corten.cli.parser import Command, UsageError, parse
from corten.cli.run_options import GROUPS, NOTES, options_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from corten.images.registry.watching import Watcher

COMMAND = Command(
    "corten run",
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Run a command in a new container and end with its exit code.",
    GROUPS,
    NOTES,
)


def run(words: Sequence[str]) -> int:
    """Run it; the exit code."""
    values, arguments = parse(COMMAND, words)
    if not arguments and "rootfs" not in values:
        raise UsageError("run needs an IMAGE, such as: corten run host python3 -V")
    options = options_of(values, arguments)
    from corten.engine.attached import run_attached

    return run_attached(
        options,
        interactive=values.get("interactive", False),
        tty=options.tty,
        summary=values.get("summary", False),
        watch=_watch,
    )


def _watch() -> Watcher:
    """Who looks on while an image is fetched; loaded when there is something to see."""
    from corten.cli.transfer_view import watching

    return watching()
