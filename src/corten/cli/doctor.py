"""`corten doctor`: what is wrong with this machine."""

from __future__ import annotations

import sys

from corten.cli.parser import Command, Group, Option, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND = Command(
    "corten doctor",
    "[--json]",
    "Try every ability that Corten needs or can use here, as this user, and tell which are missing, what follows, and "
    "the command that mends it.",
    (Group("Output", (Option(("--json",), "", "Print a JSON object"),)),),
    """
Exit code: 0 all that is needed works, 1 something needed is degraded, 2 missing.
What is tried leaves nothing behind. Run it as the user whose containers it is about.""",
    maximum=0,
)


def run(words: Sequence[str]) -> int:
    """Examine, print; 0, 1 or 2."""
    values, _ = parse(COMMAND, words)
    from corten.views.doctor import abilities
    from corten.views.doctor.examine import examine

    report = examine()
    if values.get("json"):
        import json

        json.dump(report.to_json(), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        from corten.views.explanation_text import terminal_width

        sys.stdout.write(abilities.text(report, terminal_width()))
    return report.exit_status
