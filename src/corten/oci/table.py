"""The tables of options, and how they are parsed: runc's rules and words on the parser of the command line."""

from __future__ import annotations

import os
import sys

from corten.cli.parser import Command, Group, HelpWanted, Option, UsageError
from corten.cli.parser import parse as parse_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

CONSOLE_SOCKET = Option(("--console-socket",), "PATH", "Send the terminal's master end to this socket")
PIDFD_SOCKET = Option(("--pidfd-socket",), "PATH", "Send a pidfd of the process to this socket")
PID_FILE = Option(("--pid-file",), "FILE", "Write the process id there")
PRESERVE_FDS = Option(("--preserve-fds",), "N", "Give the program this many descriptors from 3 on")
BUNDLE = Option(("-b", "--bundle"), "DIR", "The bundle (default: the working directory)")
MAKING = (
    BUNDLE,
    CONSOLE_SOCKET,
    PIDFD_SOCKET,
    PID_FILE,
    PRESERVE_FDS,
    Option(("--no-pivot",), "", "Move the root instead of pivoting into it (initramfs)"),
    Option(("--no-new-keyring",), "", "Keep the caller's session keyring"),
    Option(("-f", "--config"), "FILE", "Another file than the bundle's config.json"),
    Option(("--no-subreaper",), "", hidden=True),
)


def command(name: str, usage: str, summary: str, *options: Option, minimum: int = 1, maximum: int | None = 1,
            interspersed: bool = True) -> Command:  # fmt: skip
    """A command of `corten-oci`. Options may follow arguments, except where what follows belongs to the container."""
    groups = (Group("Options", options),) if options else ()
    return Command(
        f"corten-oci {name}", usage, summary, groups, minimum=minimum, maximum=maximum, interspersed=interspersed,
        missing=f"{name}: an argument is missing: corten-oci {name} {usage}", single_dash=True,
    )  # fmt: skip


def parse(table: Command, words: Sequence[str]) -> tuple[dict[str, Any], list[str]] | None:
    """The options that were given and the arguments; None when help was asked for, and given."""
    try:
        return parse_table(table, words)
    except HelpWanted:
        from corten.cli import help as pages

        sys.stdout.write(pages.render(table, pages.width()))
        return None
    except UsageError as error:
        text = str(error)
        if text.endswith(" requires an argument"):
            # podman looks for these words to see whether an option exists
            raise UsageError(f"flag needs an argument: {text.removesuffix(' requires an argument')}") from None
        raise


def number(name: str, value: str | None) -> int:
    """A count. `UsageError`."""
    if value is None:
        return 0
    if not value.isdecimal():
        raise UsageError(f"{name}: {value!r} is not a number")
    return int(value)


def absolute(value: str | None) -> str:
    """A path made absolute before anything changes the working directory; "" for none."""
    return os.path.abspath(value) if value else ""
