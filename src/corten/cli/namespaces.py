"""`corten namespaces`: who shares what."""

from __future__ import annotations

import sys

from corten.cli import view_options
from corten.cli.parser import Command, Group, Option, UsageError, parse
from corten.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from corten.views.sharing import Namespaces

COMMAND = Command(
    "corten namespaces",
    "[OPTIONS]",
    "Show, for each kind of namespace, into which classes it divides the live processes: those in one class share it.",
    (
        Group(
            "What to show",
            (
                Option(("--type",), "KIND,...", "Only these kinds: cgroup, ipc, mnt, net, pid, time, user, uts"),
                Option(("--container",), "ID", "Only the namespaces that a container's processes are in (id or name)"),
                Option(("--same",), "A B", "Which kinds two processes share; each a process id or a container"),
                Option(("--common",), "", "The meet of the kinds: the processes that share all of them"),
            ),
        ),
        view_options.group(),
    ),
    maximum=1,
    interspersed=True,
)


def run(words: Sequence[str]) -> int:
    """Print them; 0."""
    values, arguments = parse(COMMAND, words)
    pair = _pair(values, arguments)
    form = view_options.Form(values)
    if form.drawn and (pair or values.get("common")):
        raise UsageError(f"--{'same' if pair else 'common'} is text or JSON: it cannot be drawn")
    from corten.linux.namespaces import KINDS
    from corten.views import sharing

    try:
        kinds = sharing.kinds_of(values["type"]) if "type" in values else KINDS
    except InvalidInput as error:
        raise UsageError(f"--type: {error}") from None
    found = sharing.read(kinds)
    if "container" in values:
        found = _of_container(found, values["container"])
    if form.drawn:
        from corten.views import sharing_picture

        form.draw(lambda: sharing_picture.of(found))
    elif form.format == "json":
        view_options.print_json(_data(found, values, pair))
    else:
        sys.stdout.write(_text(found, values, pair))
    return 0


def _pair(values: dict[str, Any], arguments: list[str]) -> tuple[str, str] | None:
    """The two that --same compares."""
    if "same" not in values:
        if arguments:
            raise UsageError(f"unexpected argument {arguments[0]!r}: it goes with --same")
        return None
    if not arguments:
        raise UsageError("--same needs two processes or containers, such as: corten namespaces --same 1 4711")
    for other in ("container", "common"):
        if other in values:
            raise UsageError(f"--same and --{other} exclude each other")
    return values["same"], arguments[0]


def _of_container(found: Namespaces, word: str) -> Namespaces:
    label, pids = _container(found, word)
    alone = found.only(pids)
    return alone.replace(containers=tuple(one for one in found.containers if one[0] == label))


def _container(found: Namespaces, word: str) -> tuple[str, frozenset[int]]:
    from corten.engine import listing

    label = listing.find(word).label
    return label, next((pids for name, pids in found.containers if name == label), frozenset())


def _process(found: Namespaces, word: str) -> int:
    """A process by its id, or the first one of a container."""
    if word.isdecimal() and int(word) in found.processes:
        return int(word)
    if word.isdecimal() and len(word) < 8:
        raise UsageError(f"--same: process {word}: there is none that lives")
    label, pids = _container(found, word)
    if not pids:
        raise UsageError(f"--same: container {label}: its processes are not known")
    from corten.engine.listing import first_process

    return first_process(pids) or min(pids)


def _data(found: Namespaces, values: dict[str, Any], pair: tuple[str, str] | None) -> dict[str, Any]:
    if pair:
        one, other = (_process(found, word) for word in pair)
        return {"processes": [one, other], "same": found.same(one, other)}
    if values.get("common"):
        return {"kinds": list(found.kinds), "classes": [sorted(own) for own in found.common().classes]}
    return found.to_json()


def _text(found: Namespaces, values: dict[str, Any], pair: tuple[str, str] | None) -> str:
    from corten.views import sharing_table, tables

    width = tables.terminal_width()
    if pair:
        one, other = (_process(found, word) for word in pair)
        return sharing_table.same(pair, found.same(one, other))
    if values.get("common"):
        return sharing_table.common(found, width)
    return sharing_table.table(found, width)
