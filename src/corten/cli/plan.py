"""`corten plan`: what `corten run` would do, step by step, without doing it."""

from __future__ import annotations

import os
import sys

from corten.cli.parser import Command, Group, Option, UsageError, parse
from corten.cli.run_options import GROUPS, NOTES, options_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from corten.runtime.plan import Plan

COMMAND = Command(
    "corten plan",
    "[--json] [--compare-with CONTAINER|PID] [OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Print the ordered list of kernel calls with which 'corten run' would make a container. Nothing is started.",
    (
        Group(
            "Output",
            (
                Option(("--json",), "", "Print JSON"),
                Option(
                    ("--compare-with",),
                    "CONTAINER|PID",
                    "Compare the plan with what a running process really has; exit code 1 if they differ",
                ),
            ),
        ),
        *GROUPS,
    ),
    NOTES,
)


def run(words: Sequence[str]) -> int:
    """Print the plan, or how a process differs from it; 0, or 1 if it does."""
    values, arguments = parse(COMMAND, words)
    other = values.pop("compare_with", None)
    if not arguments and "rootfs" not in values:
        raise UsageError("plan needs an IMAGE, such as: corten plan host python3 -V")
    options = options_of(values, arguments)
    from corten.engine.container import plan_for

    plan = plan_for(options)
    if other is not None:
        return _compare(plan, other, as_json=values.get("json", False))
    if values.get("json"):
        import json

        json.dump(plan.to_json(), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in [*plan.lines(), *_notes(plan)]))
    return 0


def _compare(plan: Plan, other: str, as_json: bool) -> int:
    from corten.engine import listing
    from corten.views.comparing import compare

    found = compare(plan, listing.process(other)[0])
    if as_json:
        import json

        json.dump(found.to_json(), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in found.lines()))
    return 1 if found.differences else 0


def _notes(plan: Plan) -> list[str]:
    """What is good to know and stops nothing: why an ordinary user's container has one id only."""
    if os.geteuid() == 0 or sum(mapping.size for mapping in plan.uid_maps) != 1:
        return []
    from corten.linux import idmap

    why = idmap.subordinate_problem(os.geteuid())
    return [f"note: one user and one group inside: {why}"] if why else []
