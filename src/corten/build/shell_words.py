"""Words of a Containerfile: split at spaces, quotes taken off, `$NAME` and `${NAME…}` replaced. Pure.

Rule 1: this is not a shell. What is understood is what BuildKit documents: `${n:-w} ${n-w} ${n:+w} ${n+w} ${n:?w}
        ${n?w} ${n#p} ${n##p} ${n%p} ${n%%p} ${n/p/w} ${n//p/w}`; in a pattern `*` and `?` are special.
Rule 2: quotes and escapes survive splitting (`split`) and are taken off by expansion (`expand`), never twice.
Source: docs.docker.com/reference/dockerfile, "Environment replacement"; POSIX sh 2.6.2.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_SPACE = " \t\n\r\v\f"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?$!-]")


class WordError(ValueError):
    """A word that cannot be read, and why; whoever knows the line makes a whole sentence of it."""


def split(text: str, escape: str = "\\") -> list[str]:
    """Words between spaces; a space in quotes or after the escape character does not count. Quotes stay."""
    words: list[str] = []
    word, quote, at, inside = "", "", 0, False
    while at < len(text):
        char = text[at]
        if char == escape and quote != "'" and at + 1 < len(text):
            word, at, inside = word + text[at : at + 2], at + 2, True
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in _SPACE:
            if inside:
                words.append(word)
            word, inside, at = "", False, at + 1
            continue
        word, inside, at = word + char, True, at + 1
    if inside:
        words.append(word)
    return words


def expand(text: str, values: Mapping[str, str], escape: str = "\\") -> str:
    """One word with variables replaced, quotes and escapes taken off. WordError: it cannot be read."""
    return "".join(char for char, _ in _Reader(text, values, escape).read(""))


def expand_words(text: str, values: Mapping[str, str], escape: str = "\\") -> list[str]:
    """The same, and what an unquoted variable holds is split at spaces, too."""
    words: list[str] = []
    word: str | None = None
    for char, quoted in _Reader(text, values, escape).read(""):
        if char in _SPACE and not quoted and char:
            if word is not None:
                words.append(word)
            word = None
        else:
            word = (word or "") + char
    return words if word is None else [*words, word]


def expand_document(text: str, values: Mapping[str, str]) -> str:
    """A here-document with its variables replaced: quotes are ordinary, a backslash protects `$` and itself."""
    return "".join(char for char, _ in _Reader(text, values, "\\").ordinary(""))


class _Reader:
    """Reads one text. Characters come with a mark: whether quotes protect them. ("", True) is an empty quotation."""

    def __init__(self, text: str, values: Mapping[str, str], escape: str) -> None:
        self.text, self.values, self.escape, self.at = text, values, escape, 0

    def read(self, stop: str) -> list[tuple[str, bool]]:
        """Everything up to an unquoted `stop` (which is passed over), or to the end where it is empty."""
        found: list[tuple[str, bool]] = []
        while self.at < len(self.text):
            char = self.text[self.at]
            if stop and char == stop:
                self.at += 1
                return found
            if char == "'":
                end = self.text.find("'", self.at + 1)
                if end < 0:
                    raise WordError("a single quote is not closed")
                found += [("", True), *((one, True) for one in self.text[self.at + 1 : end])]
                self.at = end + 1
            elif char == '"':
                self.at += 1
                found += [("", True), *self.ordinary('"')]
            elif char == self.escape:
                escaped = self.text[self.at + 1 : self.at + 2]
                found.append((escaped or char, True))
                self.at += 2
            elif char == "$":
                found += [(one, False) for one in self._variable()]
            else:
                found.append((char, False))
                self.at += 1
        if stop:
            raise WordError("a '${' is not closed with '}'")
        return found

    def ordinary(self, end: str) -> list[tuple[str, bool]]:
        """Everything up to `end` (which is passed over), or to the end of the text where it is empty.

        As between double quotes: spaces and quotes are ordinary, and the escape character protects only itself, `$`
        and `end`.
        """
        found: list[tuple[str, bool]] = []
        protected = {self.escape, "$", end} - {""}
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == end:
                self.at += 1
                return found
            if char == self.escape and self.text[self.at + 1 : self.at + 2] in protected:
                found.append((self.text[self.at + 1], True))
                self.at += 2
            elif char == "$":
                found += [(one, True) for one in self._variable()]
            else:
                found.append((char, True))
                self.at += 1
        if end:
            raise WordError("a double quote is not closed")
        return found

    def _variable(self) -> str:
        """The value at a `$`."""
        self.at += 1
        braced = self.text[self.at : self.at + 1] == "{"
        self.at += braced
        match = _NAME.match(self.text, self.at)
        if match is None:
            if braced:
                raise WordError("'${' is not followed by a name")
            return "$"
        name, self.at = match.group(), match.end()
        value = self.values.get(name)
        if not braced:
            return value or ""
        sign = self._sign()
        if sign == "}":
            return value or ""
        if sign in ("/", "//"):
            pattern, new = self._raw("/"), self._word()
            found = _pattern(pattern)
            return re.sub(found, lambda _: new, value or "", count=1 if sign == "/" else 0)
        word = self._word() if sign[-1] not in "#%" else self._raw("}")
        return _modified(name, value, sign, word)

    def _sign(self) -> str:
        """What follows the name in braces."""
        for sign in (":-", ":+", ":?", "##", "%%", "//", "-", "+", "?", "#", "%", "/", "}"):
            if self.text.startswith(sign, self.at):
                self.at += len(sign)
                return sign
        rest = self.text[self.at : self.at + 1]
        raise WordError(f"'{rest}' cannot follow a name in '${{…}}'" if rest else "a '${' is not closed with '}'")

    def _word(self) -> str:
        return "".join(char for char, _ in self.read("}"))

    def _raw(self, stop: str) -> str:
        """A pattern: variables are replaced in it; what was quoted is protected from being special."""
        return "".join(f"\\{char}" if quoted and char in "*?\\" else char for char, quoted in self.read(stop))


def _modified(name: str, value: str | None, sign: str, word: str) -> str:
    missing = not value if sign[0] == ":" else value is None
    if sign[-1] == "-":
        return word if missing else value or ""
    if sign[-1] == "+":
        return "" if missing else word
    if sign[-1] == "?":
        if missing:
            raise WordError(f"{name}: {word or ('is empty or not set' if sign[0] == ':' else 'is not set')}")
        return value or ""
    return _without(value or "", word, sign)


def _without(value: str, pattern: str, sign: str) -> str:
    """The value without its shortest (one sign) or longest (two) beginning (#) or end (%) that matches."""
    whole = re.compile(_pattern(pattern), re.DOTALL)
    cuts = range(len(value) + 1)
    if sign[0] == "#":
        order = cuts if sign == "#" else reversed(cuts)
        return next((value[cut:] for cut in order if whole.fullmatch(value, 0, cut)), value)
    order = reversed(cuts) if sign == "%" else cuts
    return next((value[:cut] for cut in order if whole.fullmatch(value, cut)), value)


def _pattern(pattern: str) -> str:
    """A shell pattern as a regular expression."""
    found, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        if char == "\\" and at + 1 < len(pattern):
            at += 1
            found += re.escape(pattern[at])
        else:
            found += {"*": ".*", "?": "."}.get(char, re.escape(char))
        at += 1
    return found
