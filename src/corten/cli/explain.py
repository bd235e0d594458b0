"""`corten explain`: what a container or process is shut off from, on one screen."""

from __future__ import annotations

import sys

from corten.cli.parser import Command, Group, Option, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND = Command(
    "corten explain",
    "[--json] CONTAINER|PID",
    "Tell what a container or process has of its own and what it shares with the host, which limits hold and who sets "
    "them, its rights, and what an attacker inside would look at first.",
    (Group("Output", (Option(("--json",), "", "Print a JSON object"),)),),
    """
CONTAINER is a name, an id, or the beginning of one. Of a container the program
is looked at, not Corten's init. Without root what may not be read is 'unknown'.""",
    minimum=1,
    maximum=1,
    missing="explain needs a CONTAINER or PID, such as: corten explain $$",
    interspersed=True,
)


def run(words: Sequence[str]) -> int:
    """Print it; 0."""
    values, (word,) = parse(COMMAND, words)
    from corten.engine import listing
    from corten.views import explaining

    seen = explaining.explain(*listing.process(word))
    if values.get("json"):
        import json

        from corten.views.weak_points import weak_points

        points = [{"rank": one.rank, "about": one.about, "words": one.words} for one in weak_points(seen)]
        json.dump({**seen.to_json(), "weak_points": points}, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return 0
    from corten.views import explanation_text

    sys.stdout.write(explanation_text.text(seen, explanation_text.terminal_width()))
    return 0
