"""The text of a Containerfile made into logical lines: directives, comments, continued lines, here-documents. Pure.

Rule 1: a line number is that of the line where an instruction begins, as an editor counts.
Rule 2: directives (`# escape=`) stand before anything else, comments and empty lines included.
Source: docs.docker.com/reference/dockerfile, "Format", "Parser directives", "Here-Documents".
"""

from __future__ import annotations

import re

from corten.build.shell_words import split
from corten.errors import InvalidInput
from corten.records import Record

_DIRECTIVE = re.compile(r"\s*#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*$")
_KNOWN = ("syntax", "escape", "check")
_COMMENT = re.compile(r"\s*#")
_HEREDOC = re.compile(r"(\d*)<<(-?)(.+)$", re.DOTALL)
_MAY_HAVE = ("RUN", "COPY", "ADD")


class Heredoc(Record):
    """A here-document. name: its end mark, and in COPY the name of its file; expand: the name was not quoted."""

    name: str
    content: str
    expand: bool
    strip_tabs: bool
    number: str = ""
    """The file descriptor in front of `<<`."""


class Line(Record):
    """One instruction with everything that belongs to it. number: of the line it begins on, from 1."""

    number: int
    text: str
    heredocs: tuple[Heredoc, ...] = ()


class Source(Record):
    """A whole file. escape: what continues lines and protects characters."""

    name: str
    escape: str
    lines: tuple[Line, ...]
    directives: tuple[tuple[str, str], ...] = ()


class ContainerfileError(InvalidInput):
    """Something is wrong in a Containerfile: `FILE:LINE: INSTRUCTION: what, and what to do`."""

    def __init__(self, file: str, line: int, instruction: str, why: str) -> None:
        self.file, self.line, self.instruction = file, line, instruction
        where = f"{file}:{line}: {instruction}: " if instruction else f"{file}:{line}: "
        super().__init__(where + " ".join(why.split()))


def read_lines(text: str, name: str) -> Source:
    """The logical lines of a file called `name`. ContainerfileError: a directive or a here-document is wrong."""
    physical = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    directives, at = _directives(physical, name)
    escape = dict(directives).get("escape", "\\")
    continued = re.compile(rf"(?:^|(?<!{re.escape(escape)})){re.escape(escape)}[ \t]*$")
    lines: list[Line] = []
    while at < len(physical):
        number = at + 1
        line, at = _logical(physical, at, continued)
        if not line.strip():
            continue
        line = line.strip()
        heredocs: list[Heredoc] = []
        for mark in _marks(line, escape):
            heredoc, at = _heredoc(physical, at, mark, name, number, line)
            heredocs.append(heredoc)
        lines.append(Line(number, line, tuple(heredocs)))
    return Source(name, escape, tuple(lines), directives)


def _directives(physical: list[str], name: str) -> tuple[tuple[tuple[str, str], ...], int]:
    found: dict[str, str] = {}
    at = 0
    while at < len(physical) and (match := _DIRECTIVE.match(physical[at])):
        key, value = match.group(1).lower(), match.group(2)
        if key not in _KNOWN:
            break
        if key in found:
            raise ContainerfileError(name, at + 1, "", f"the directive '{key}' is given twice")
        if key == "escape" and value not in ("\\", "`"):
            raise ContainerfileError(name, at + 1, "", f"escape={value}: only \\ and ` can be the escape character")
        found[key] = value
        at += 1
    return tuple(found.items()), at


def _logical(physical: list[str], at: int, continued: re.Pattern[str]) -> tuple[str, int]:
    """One line with those that continue it, comments and empty lines between them left out; where the next begins."""
    parts: list[str] = []
    going = True
    while going and at < len(physical):
        text = physical[at]
        at += 1
        if _COMMENT.match(text) or (parts and not text.strip()):
            if not parts:
                break
            continue
        match = continued.search(text)
        parts.append(text[: match.start()] if match else text)
        going = match is not None
    return "".join(parts), at


def _marks(line: str, escape: str) -> list[Heredoc]:
    """The here-documents that an instruction announces."""
    words = line.split(None, 1)
    instruction = words[0].upper()
    if instruction == "ONBUILD" and len(words) == 2:
        words = words[1].split(None, 1)
        instruction = words[0].upper()
    if instruction not in _MAY_HAVE or len(words) < 2 or words[1].lstrip().startswith("["):
        return []
    return [mark for word in split(words[1], escape) if (mark := heredoc_mark(word)) is not None]


def heredoc_mark(word: str) -> Heredoc | None:
    """What a word such as `<<-"EOF"` announces, still without content; None for other words."""
    match = _HEREDOC.match(word)
    if match is None or match.group(3).startswith("<"):
        return None
    name = match.group(3)
    quoted = len(name) > 1 and name[0] == name[-1] and name[0] in "'\""
    name = name[1:-1] if quoted else name
    if not name or any(char in "'\"<>|&;()" for char in name):
        return None
    return Heredoc(name, "", not quoted, match.group(2) == "-", match.group(1))


def _heredoc(
    physical: list[str], at: int, mark: Heredoc, file: str, number: int, line: str
) -> tuple[Heredoc, int]:
    content = ""
    while at < len(physical):
        text = physical[at]
        at += 1
        if (text.lstrip("\t") if mark.strip_tabs else text) == mark.name:
            return mark.replace(content=content), at
        content += f"{text}\n"
    instruction = line.split(None, 1)[0].upper()
    why = f"the here-document {mark.name} has no end: no line is {mark.name}"
    raise ContainerfileError(file, number, instruction, why)
