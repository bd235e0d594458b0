"""Command lines as docker and runc have them, driven by a table.

Rule 1: the table (`Option` in `Command`) is the only description: parsing, `--help` and error texts come from it.
Rule 2: options end at the first argument that is not one, or at `--`: what follows belongs to the container.
Rule 3: what an option means is the `read` function of its row; it gets the name as typed, so that errors can name it.

Why not argparse: it costs 9 ms to import, prints usage errors over several lines, and takes abbreviated names.
"""

from __future__ import annotations

from corten.errors import InvalidInput
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_TRUE = ("1", "t", "true")
_FALSE = ("0", "f", "false")


class Option(Record):
    """One option: a row of the table."""

    names: tuple[str, ...]
    """Short names first, as typed: `("-m", "--memory")`."""
    metavar: str = ""
    """What its argument is called in `--help`; empty: the option is a switch, true or false."""
    help: str = ""
    dest: str = ""
    """The key of its value; by default the last name without dashes, with `_` for `-`. Options may share one."""
    repeat: bool = False
    """May be given more than once: the value is a list, in the order given. Otherwise the last one wins."""
    read: Callable[[str, str], Any] | None = None
    """`read(name as typed, argument)`: the value. By default the text."""
    refuse: str = ""
    """The option is known, but cannot be had: why, and what to use. It does not show in `--help`."""
    hidden: bool = False
    """Accepted, but not shown in `--help`."""

    @property
    def key(self) -> str:
        """Where its value is kept."""
        return self.dest or self.names[-1].lstrip("-").replace("-", "_")


class Group(Record):
    """Options that `--help` shows under one heading."""

    title: str
    options: tuple[Option, ...]


class Command(Record):
    """A command and all its options."""

    name: str
    """With the program: `corten run`."""
    usage: str
    """What follows the name: `[OPTIONS] IMAGE [COMMAND] [ARG...]`."""
    summary: str
    groups: tuple[Group, ...] = ()
    notes: str = ""
    """Shown at the end of `--help`, as it stands."""
    minimum: int = 0
    """Arguments that must be given."""
    maximum: int | None = None
    missing: str = ""
    """What to say when there are too few."""
    interspersed: bool = False
    """Options may also follow arguments (`runc update ID --memory 1g`)."""
    single_dash: bool = False
    """Long names may be written with one dash, as Go programs allow (`-no-subreaper`)."""


class UsageError(InvalidInput):
    """The command line is wrong; nothing was done."""


class HelpWanted(Exception):
    """`--help` was given. `command`: whose."""

    def __init__(self, command: Command) -> None:
        self.command = command
        super().__init__(command.name)


def parse(command: Command, words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The values that were given, by `Option.key`, and the arguments. Raises `UsageError` and `HelpWanted`."""
    return _Parser(command, words).run()


class _Parser:
    def __init__(self, command: Command, words: Sequence[str]) -> None:
        self.command = command
        self.words = list(words)
        self.at = 0
        self.values: dict[str, Any] = {}
        self.table = {name: option for group in command.groups for option in group.options for name in option.names}

    def run(self) -> tuple[dict[str, Any], list[str]]:
        arguments: list[str] = []
        while self.at < len(self.words):
            word = self.words[self.at]
            if word == "--":
                self.at += 1
                break
            if word[:1] != "-" or word == "-":
                if not self.command.interspersed:
                    break
                arguments.append(word)
                self.at += 1
                continue
            self.at += 1
            if word.startswith("--"):
                self._long(word)
            elif self.command.single_dash and "-" + word.partition("=")[0] in self.table:
                self._long("-" + word)
            else:
                self._cluster(word)
        arguments += self.words[self.at :]
        self._count(arguments)
        return self.values, arguments

    def _count(self, arguments: list[str]) -> None:
        command = self.command
        if len(arguments) < command.minimum:
            raise UsageError(command.missing or f"too few arguments: usage: {command.name} {command.usage}")
        if command.maximum is not None and len(arguments) > command.maximum:
            surplus = arguments[command.maximum]
            raise UsageError(f"unexpected argument {surplus!r}: usage: {command.name} {command.usage}")

    def _long(self, word: str) -> None:
        name, equals, text = word.partition("=")
        option = self.table.get(name)
        if option is None:
            if name == "--help":
                raise HelpWanted(self.command)
            raise UsageError(self._unknown(name))
        if option.metavar:
            self._set(option, name, text if equals else self._next(name))
        else:
            self._set(option, name, _truth(name, text) if equals else True)

    def _cluster(self, word: str) -> None:
        """`-it`, `-m512m`, `-m=512m`, `-i=false`, and mixtures of them."""
        at = 1
        while at < len(word):
            name, rest = "-" + word[at], word[at + 1 :]
            option = self.table.get(name)
            if option is None:
                if name == "-h":
                    raise HelpWanted(self.command)
                raise UsageError(self._unknown(name if at > 1 or not rest else word))
            if option.metavar:
                self._set(option, name, rest.removeprefix("=") if rest else self._next(name))
                return
            if rest.startswith("="):
                self._set(option, name, _truth(name, rest[1:]))
                return
            self._set(option, name, True)
            at += 1

    def _next(self, name: str) -> str:
        if self.at >= len(self.words):
            raise UsageError(f"{name} requires an argument")
        self.at += 1
        return self.words[self.at - 1]

    def _set(self, option: Option, name: str, given: str | bool) -> None:
        if option.refuse:
            raise UsageError(f"{name}: {option.refuse}")
        value = option.read(name, given) if option.read and isinstance(given, str) else given
        if option.repeat:
            self.values.setdefault(option.key, []).append(value)
        else:
            self.values[option.key] = value

    def _unknown(self, name: str) -> str:
        import difflib

        name = name.partition("=")[0]
        known = [*(key for key, option in self.table.items() if not option.refuse and not option.hidden), "--help"]
        if name.startswith("-") and not name.startswith("--") and "-" + name in known:
            near = ["-" + name]
        else:
            bare = {key.lstrip("-"): key for key in known if len(key) > 2}  # dashes would make all of them alike
            found = difflib.get_close_matches(name.lstrip("-"), bare, 1, 0.6) if len(name) > 2 else []
            near = [bare[key] for key in found]
        advice = f"did you mean {near[0]}?" if near else f"'{self.command.name} --help' lists the options"
        return f"unknown option {name}: {advice}"


def _truth(name: str, text: str) -> bool:
    word = text.lower()
    if word not in (*_TRUE, *_FALSE):
        raise UsageError(f"{name}: {text!r} is neither true nor false")
    return word in _TRUE
