"""What an ability is, and the report over all of them. Pure.

Rule 1: `ok` was tried and worked; `degraded`: Corten goes on with less; `missing`: what follows cannot be had.
Rule 2: whatever is not ok says what follows for the user and, where there is one, the one command that mends it.
"""

from __future__ import annotations

from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OK, DEGRADED, MISSING = "ok", "degraded", "missing"


class Ability(Record):
    """area, name: what it is; state: ok, degraded or missing; found: what was seen when it was tried; follows: what
    that means for the user, empty when ok; mend: a command that mends it, empty where there is none; needed: containers
    of this user do not work, or not safely, without it.
    """

    area: str
    name: str
    state: str
    found: str
    follows: str = ""
    mend: str = ""
    needed: bool = False


class Trial(Record):
    """How a trial went: worked, and what it found or why it failed."""

    worked: bool
    words: str


class Report(Record):
    """All abilities of this user on this machine. who: the user; machine: kernel and layout of control groups."""

    who: str
    machine: str
    abilities: tuple[Ability, ...]

    @property
    def exit_status(self) -> int:
        """For scripts. 0: all that is needed works; 1: something needed is degraded; 2: something needed is missing."""
        states = {one.state for one in self.abilities if one.needed}
        return 2 if MISSING in states else 1 if DEGRADED in states else 0

    def to_json(self) -> dict[str, Any]:
        """The same as an object."""
        rows = [{name: one.__dict__[name] for name in one._fields} for one in self.abilities]
        return {"user": self.who, "machine": self.machine, "exit_status": self.exit_status, "abilities": rows}


_MARKS = {OK: "ok      ", DEGRADED: "degraded", MISSING: "missing "}


def text(report: Report, width: int = 100) -> str:
    """The report for people: by area; what is not ok with what follows and how to mend it; the sum at the end."""
    lines = [f"{report.who} on {report.machine}"]
    area = ""
    for one in report.abilities:
        if one.area != area:
            area = one.area
            lines += ["", area]
        lines += _wrapped(f"  {_MARKS[one.state]}  {one.name}: ", one.found, width)
        if one.state != OK:
            lines += _wrapped(" " * 14, one.follows, width) if one.follows else []
            lines += [f"{' ' * 14}mend: {one.mend}"] if one.mend else []
    return "\n".join([*lines, "", *_wrapped("", _sum(report), width)]) + "\n"


def _sum(report: Report) -> str:
    bad = [one for one in report.abilities if one.needed and one.state != OK]
    other = [one for one in report.abilities if not one.needed and one.state != OK]
    if not bad:
        rest = f"; {len(other)} that it can do without are not" if other else ""
        return f"All that containers need is here{rest}."
    names = ", ".join(one.name for one in bad)
    return f"Not as it should be: {names}." + (f" {len(other)} more can be done without." if other else "")


def _wrapped(head: str, words: str, width: int) -> list[str]:
    import textwrap

    lines = textwrap.wrap(words, max(width - len(head), 30), break_on_hyphens=False) or [""]
    indent = " " * min(len(head), 14)
    rest = textwrap.wrap(" ".join(lines[1:]), width - len(indent), break_on_hyphens=False)
    return [(head + lines[0]).rstrip(), *(indent + line for line in rest)]
