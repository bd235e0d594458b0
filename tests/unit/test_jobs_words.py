"""Inputs of `corten map`: how they are read, what command each becomes, what its files are called."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.compute.jobs.words import Item, command, file_name, fixed, items, read_inputs
from corten.errors import InvalidInput

TEXTS = st.binary(min_size=1, max_size=120).filter(lambda data: b"\0" not in data).map(os.fsdecode)


def one(text: str, number: int = 7) -> Item:
    return Item(number, text, file_name(text))


@pytest.mark.parametrize(
    ("template", "text", "expected"),
    [
        (["python", "score.py", "{}"], "a.csv", ["python", "score.py", "a.csv"]),
        (["cat"], "a b", ["cat", "a b"]),
        (["cp", "{}", "{.}.txt"], "d.x/f.csv", ["cp", "d.x/f.csv", "d.x/f.txt"]),
        (["x", "{/}", "{//}", "{/.}", "{#}"], "/a/b.c/f.tar.gz", ["x", "f.tar.gz", "/a/b.c", "f.tar", "7"]),
        (["x", "{//}"], "f", ["x", "."]),
        (["x", "--in={}", "{}{}"], "y", ["x", "--in=y", "yy"]),
        (["sh", "-c", "echo ${HOME} {x} {}"], "1", ["sh", "-c", "echo ${HOME} {x} 1"]),
        (["x", "{}", "{.}"], "{#}.{}", ["x", "{#}.{}", "{#}"]),
        (["{}"], "true", ["true"]),
    ],
)
def test_command(template: list[str], text: str, expected: list[str]) -> None:
    assert command(template, one(text)) == tuple(expected)


def test_fixed() -> None:
    assert fixed("python")
    assert fixed("{x}")
    assert not fixed("./{/}")


@given(TEXTS)
def test_an_input_is_one_word(text: str) -> None:
    assert command(["a", "{}"], one(text)) == ("a", text)
    assert command(["a"], one(text)) == ("a", text)


def test_read_inputs() -> None:
    assert read_inputs(b"a\nb c\n\n d\nlast") == ["a", "b c", " d", "last"]
    assert read_inputs(b"") == []
    assert read_inputs(b"a\nb\0\0c\0", by_nul=True) == ["a\nb", "", "c"]
    assert read_inputs(b"a\0b", by_nul=True) == ["a", "b"]
    assert [os.fsencode(text) for text in read_inputs(b"\xff\n\xc3\xa4\n")] == [b"\xff", b"\xc3\xa4"]
    with pytest.raises(InvalidInput, match="input 2 has a NUL byte"):
        items(["a", "b\0c"])


@given(st.lists(TEXTS, max_size=30))
def test_names_of_files_are_safe_and_differ(texts: list[str]) -> None:
    names = [item.name for item in items(texts)]
    assert len(set(names)) == len(texts)
    for name in names:
        assert 0 < len(os.fsencode(name)) < 200
        assert "/" not in name
        assert name[0] not in ".-"
        assert name.isprintable()
        assert name.isascii()


@given(TEXTS, TEXTS)
def test_a_name_belongs_to_one_input(first: str, second: str) -> None:
    assert (file_name(first) == file_name(second)) == (first == second)


@pytest.mark.parametrize(
    ("first", "second"), [("a/b", "a_b"), ("a", "a~2"), ("a b", file_name("a b")), ("x" * 200, "x" * 201), ("é", "e")]
)
def test_names_that_could_be_mistaken(first: str, second: str) -> None:
    assert len({item.name for item in items([first, second, first])}) == 3


def test_plain_names_stay() -> None:
    assert [item.name for item in items(["a.csv", "b-1", "a.csv"])] == ["a.csv", "b-1", "a.csv~2"]
