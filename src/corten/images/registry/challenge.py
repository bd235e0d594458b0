"""What a registry answers to those it does not know: `WWW-Authenticate`. Pure.

Source: RFC 9110, section 11; the distribution project's token specification.
"""

from __future__ import annotations

from corten.records import Record


class Challenge(Record):
    """One scheme (lower case) and its parameters."""

    scheme: str
    parameters: dict[str, str]


def parse(header: str) -> list[Challenge]:
    """The challenges of a header; what is malformed is passed over."""
    found: list[Challenge] = []
    at, end = 0, len(header)
    while at < end:
        at = _skip(header, at, " \t,")
        word, at = _token(header, at)
        if not word:
            at += 1
            continue
        after = _skip(header, at, " \t")
        if after < end and header[after] == "=" and found:
            value, at = _value(header, _skip(header, after + 1, " \t"))
            found[-1].parameters[word.lower()] = value
        else:
            found.append(Challenge(word.lower(), {}))
    return found


def _skip(text: str, at: int, what: str) -> int:
    while at < len(text) and text[at] in what:
        at += 1
    return at


def _token(text: str, at: int) -> tuple[str, int]:
    start = at
    while at < len(text) and (text[at].isalnum() or text[at] in "!#$%&'*+-.^_`|~/"):
        at += 1
    return text[start:at], at


def _value(text: str, at: int) -> tuple[str, int]:
    if at >= len(text) or text[at] != '"':
        start = at
        while at < len(text) and text[at] not in ", \t":
            at += 1
        return text[start:at], at
    found = ""
    at += 1
    while at < len(text) and text[at] != '"':
        if text[at] == "\\" and at + 1 < len(text):
            at += 1
        found += text[at]
        at += 1
    return found, at + 1
