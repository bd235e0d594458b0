"""Patterns for paths, as .dockerignore and the sources of COPY have them. Pure.

Rule 1: `*` and `?` stay within one name, `[a-z]` and `[^a-z]` are classes, `**` is any number of directories,
        backslash protects. Source: Go's path/filepath.Match; docs.docker.com/build/concepts/context, ".dockerignore".
Rule 2: a pattern that matches a directory matches all below it; of several the last one that matches decides.
"""

from __future__ import annotations

import posixpath
import re

from corten.errors import InvalidInput
from corten.records import Record


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A pattern for whole relative paths. ValueError: it is malformed."""
    found, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**", at):
            at += 2
            if pattern.startswith("/", at):
                found, at = found + "(?:.*/)?", at + 1
            else:
                found += ".*"
            continue
        if char == "[":
            part, at = _class(pattern, at)
            found += part
            continue
        if char == "\\":
            at += 1
            if at == len(pattern):
                raise ValueError("a backslash protects nothing")
            found += re.escape(pattern[at])
        else:
            found += {"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char))
        at += 1
    return re.compile(found, re.DOTALL)


def _class(pattern: str, at: int) -> tuple[str, int]:
    """A `[…]` as a regular expression, and where it ends."""
    at += 1
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges: list[str] = []
    while not ranges or pattern[at : at + 1] != "]":
        low, at = _class_char(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _class_char(pattern, at + 1)
        # Go takes a range that is upside down for one that matches nothing; `re` would refuse it.
        ranges.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else "")
    inside = "".join(ranges)
    # Unlike `*`, a class may match a slash: so it is in Go.
    if not inside:
        return ("." if negated else "(?!)"), at + 1
    return f"[{'^' * negated}{inside}]", at + 1


def _class_char(pattern: str, at: int) -> tuple[str, int]:
    char = pattern[at : at + 1]
    if char in ("", "-", "]"):
        raise ValueError("a '[' is not closed, or has an empty range")
    if char == "\\":
        char, at = pattern[at + 1 : at + 2], at + 1
        if not char:
            raise ValueError("a backslash protects nothing")
    return char, at + 1


def is_pattern(text: str) -> bool:
    """Whether a source of COPY is a pattern and not just a name."""
    return any(char in text for char in "*?[")


class Ignore(Record):
    """Which paths of a context do not exist for a build. patterns: (regular expression, takes it back)."""

    patterns: tuple[tuple[re.Pattern[str], bool], ...] = ()

    @property
    def takes_back(self) -> bool:
        """Whether something below an ignored directory may be wanted after all."""
        return any(back for _, back in self.patterns)

    def ignores(self, path: str) -> bool:
        """Whether a path, relative and without a slash at either end, is ignored."""
        names = path.split("/")
        ways = ["/".join(names[:count]) for count in range(len(names), 0, -1)]
        ignored = False
        for pattern, back in self.patterns:
            if back == ignored and any(pattern.fullmatch(way) for way in ways):
                ignored = not back
        return ignored


def read_ignore(text: str, name: str) -> Ignore:
    """The contents of a .dockerignore called `name`. InvalidInput: a pattern is malformed."""
    patterns = []
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        line = raw.strip() if not raw.startswith("#") else ""
        back = line.startswith("!")
        line = line[back:].strip()
        if not line:
            if back:
                raise InvalidInput(f"{name}:{number}: '!' takes back nothing: write a pattern after it")
            continue
        clean = posixpath.normpath(line).lstrip("/")
        if clean == ".":
            continue
        try:
            patterns.append((compile_pattern(clean), back))
        except ValueError as error:
            raise InvalidInput(f"{name}:{number}: pattern {line!r}: {error}") from None
    return Ignore(tuple(patterns))
