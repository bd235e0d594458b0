"""Inputs, the command that each becomes, and the name that its files get. Pure.

    {}   the input         {.}   without its last extension     {/}  its last component
    {//} its directory     {/.}  last component, no extension    {#}  its number, from 1
as GNU parallel has them. A command without any of them gets the input as its last word, as with xargs.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter

from corten.errors import InvalidInput
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PLACES = re.compile(r"\{(?:|\.|/|//|/\.|#)\}")
_SAFE = re.compile(r"[A-Za-z0-9_+=@%,:][A-Za-z0-9_+=@%,:.-]*", re.ASCII)
_LONGEST = 80
"""Characters of an input that go into the name of its files."""


class Item(Record):
    """An input. number: from 1; text: what it says; name: of its files, without suffix."""

    number: int
    text: str
    name: str


def read_inputs(data: bytes, by_nul: bool = False) -> list[str]:
    """The inputs in a file: its lines, without empty ones; by_nul: what NUL bytes separate, empty ones too."""
    if by_nul:
        parts = data.split(b"\0")
        return [os.fsdecode(part) for part in (parts[:-1] if not parts[-1] else parts)]
    return [os.fsdecode(line) for line in data.split(b"\n") if line]


def items(texts: Iterable[str]) -> list[Item]:
    """Inputs with their numbers and names; the same may come twice. `InvalidInput`: one that no command can get."""
    seen: Counter[str] = Counter()
    found = []
    for number, text in enumerate(texts, 1):
        if "\0" in text:
            raise InvalidInput(f"input {number} has a NUL byte in it, which no argument can have: -0 splits at those")
        seen[text] += 1
        found.append(Item(number, text, file_name(text, seen[text])))
    return found


def file_name(text: str, occurrence: int = 1) -> str:
    """A name for the files of an input: itself, if that is safe, else what is safe of it and a digest. Two inputs never
    have the same: `~` stands before what was added, and nowhere else."""
    name = text
    if not _SAFE.fullmatch(text) or len(text) > _LONGEST:
        kept = re.sub(r"[^A-Za-z0-9_+=@%,:.-]+", "_", text)[-_LONGEST:].lstrip(".-")
        name = f"{kept}~{hashlib.sha256(os.fsencode(text)).hexdigest()[:12]}"
    return name if occurrence == 1 else f"{name}~{occurrence}"


def command(template: Sequence[str], item: Item) -> tuple[str, ...]:
    """The command for an input."""
    if not any(_PLACES.search(word) for word in template):
        return (*template, item.text)
    # Each word once, from left to right: what an input says is never taken for a place.
    return tuple(_PLACES.sub(lambda found: _filled(found.group(), item), word) for word in template)


def fixed(word: str) -> bool:
    """Whether a word of the command is the same for all inputs."""
    return not _PLACES.search(word)


def _filled(place: str, item: Item) -> str:
    if place == "{#}":
        return str(item.number)
    directory, last = os.path.split(item.text)
    if place == "{//}":
        return directory or "."
    base = last if place.startswith("{/") else item.text
    return os.path.splitext(base)[0] if place.endswith(".}") else base
