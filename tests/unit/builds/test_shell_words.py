"""Variables, quotes and escapes of Containerfiles; the table follows what docker documents."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.build.shell_words import WordError, expand, expand_words, split

VALUES = {"V": "value", "EMPTY": "", "P": "/usr/lib/x.tar.gz", "S": "a b"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$V", "value"),
        ("x${V}y", "xvaluey"),
        ("$NOT", ""),
        ("${NOT:-d}", "d"),
        ("${NOT-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${V:+alt}", "alt"),
        ("${EMPTY:+alt}", ""),
        ("${EMPTY+alt}", "alt"),
        ("${NOT+alt}", ""),
        ("${V:?no}", "value"),
        ("${NOT:-${V}x}", "valuex"),
        ("${NOT:-'$V'}", "$V"),
        ("${P#*/}", "usr/lib/x.tar.gz"),
        ("${P##*/}", "x.tar.gz"),
        ("${P%.*}", "/usr/lib/x.tar"),
        ("${P%%.*}", "/usr/lib/x"),
        ("${P/l?b/L}", "/usr/L/x.tar.gz"),
        ("${P//./-}", "/usr/lib/x-tar-gz"),
        ("'$V'", "$V"),
        ('"$V"', "value"),
        ('"a\\"b\\$V\\\\"', 'a"b$V\\'),
        ('"a\\b"', "a\\b"),
        ("\\$V", "$V"),
        ("a\\ b", "a b"),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("cost 5$", "cost 5$"),
        ("a\\", "a\\"),
        ('""', ""),
    ],
)
def test_expand(text: str, expected: str) -> None:
    assert expand(text, VALUES) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("'a", "single quote"),
        ('"a', "double quote"),
        ("${V", "not closed"),
        ("${V:-x", "not closed"),
        ("${}", "name"),
        ("${V!x}", "cannot follow"),
        ("${NOT?}", "NOT: is not set"),
        ("${EMPTY:?give it}", "EMPTY: give it"),
    ],
)
def test_what_cannot_be_read_says_why(text: str, words: str) -> None:
    with pytest.raises(WordError, match=words):
        expand(text, VALUES)


def test_the_other_escape_character() -> None:
    assert expand("C:\\x`$V", VALUES, "`") == "C:\\x$V"
    assert split("a` b c", "`") == ["a` b", "c"]


def test_words_are_split_outside_quotes() -> None:
    assert split("a 'b c' \"d e\"f g\\ h") == ["a", "'b c'", '"d e"f', "g\\ h"]
    assert expand_words('$S "$S" x', VALUES) == ["a", "b", "a b", "x"]
    assert expand_words("$NOT", VALUES) == []
    assert expand_words('"$NOT"', VALUES) == [""]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8), max_size=5))
def test_what_a_shell_would_quote_comes_back(words: list[str]) -> None:
    line = " ".join(shlex.quote(word) for word in words)
    assert [expand(word, {}) for word in split(line)] == words


@given(st.text("ab$ {}:-+?#%/*'\"\\\n", max_size=20))
def test_anything_is_read_or_refused(text: str) -> None:
    try:
        expand(text, VALUES)
        expand_words(text, VALUES)
    except WordError:
        pass
    split(text)


@given(
    st.text("ab./", max_size=8),
    st.sampled_from(["#", "##", "%", "%%"]),
    st.text("ab.*?", min_size=1, max_size=4),
)
def test_patterns_are_those_of_the_shell(value: str, sign: str, pattern: str) -> None:
    text = f"${{V{sign}{pattern}}}"
    shell = subprocess.run(
        ["/bin/sh", "-c", f'printf %s "{text}"'], env={"V": value}, capture_output=True, text=True, check=True
    )
    assert expand(text, {"V": value}) == shell.stdout
