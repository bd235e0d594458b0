"""Names of images: what is taken comes back, and it is what the distribution project's own grammar takes."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corten.errors import InvalidInput
from corten.images.references import Reference, is_digest, is_prefix, parse

BOUNDED = settings(max_examples=200)

# As github.com/distribution/reference writes it down, in Python's words.
COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
DOMAIN = rf"(?:{LABEL}(?:\.{LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?"
TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
DIGEST = r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}"
GRAMMAR = re.compile(rf"(?:{DOMAIN}/)?{COMPONENT}(?:/{COMPONENT})*(?::{TAG})?(?:@(?:{DIGEST}))?")

words = st.sampled_from(["a", "0", "debian", "localhost", "docker.io", "library", "a.b", "a_b", "a__b", "a---b", "x9"])
names = st.lists(words, min_size=1, max_size=3).map("/".join)
registries = st.sampled_from(
    ["docker.io", "docker.io", "localhost", "localhost:5000", "127.0.0.1:80", "[::1]:5000", "[fe80::2]", "A-b.C"]
)
tags = st.sampled_from(["", "", "latest", "1.2-3_4", "_", "T" * 128])
digests = st.sampled_from(["", "", "sha256:" + "0f" * 32, "sha512:" + "a1" * 64])


@BOUNDED
@given(registries, names, tags, digests)
def test_a_reference_comes_back_from_its_text(registry: str, name: str, tag: str, digest: str) -> None:
    text = f"{registry}/{name}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    found = parse(text)
    expected_name = f"library/{name}" if registry == "docker.io" and "/" not in name else name
    assert found == Reference(registry, expected_name, tag or ("" if digest else "latest"), digest)
    for default in ("docker.io", "r.example:5000", "localhost"):
        assert parse(str(found), default) == found
    assert parse(found.short) == found


@BOUNDED
@given(names, tags)
def test_a_name_alone_is_of_the_default_registry(name: str, tag: str) -> None:
    text = name + (f":{tag}" if tag else "")
    if "/" in name and name.partition("/")[0] in ("localhost", "docker.io", "a.b"):
        return
    assert parse(text, "r.example").registry == "r.example"
    assert parse(text, "r.example").repository == name
    assert str(parse(text)).startswith("docker.io/library/" if "/" not in name else "docker.io/")


PIECES = ["a", "b2", "A", "-", ".", "..", "_", "__", "/", "//", ":", "@", "sha256:", "0" * 64, "localhost", "[::1]",
          ":50", "é", "٣", "\n", " ", "\0", "\udcff", "latest", "x" * 130, "docker.io", "library"]  # fmt: skip


@settings(max_examples=500)
@given(st.one_of(st.text(max_size=30), st.lists(st.sampled_from(PIECES), max_size=8).map("".join)))
@example("")
@example("localhost")
@example("a:1@sha256:" + "0" * 63)
@example("[::1]/a")
def test_any_text_is_what_the_grammar_says_or_one_clear_line(text: str) -> None:
    try:
        found = parse(text)
    except InvalidInput as error:
        assert "\n" not in str(error)
        assert str(error).isprintable()
        if GRAMMAR.fullmatch(text):  # the grammar does not know of lengths, nor that docker.io/x is library/x
            assert "longer than 255" in str(error)
        return
    assert GRAMMAR.fullmatch(text), text
    assert parse(str(found)) == found


@settings(max_examples=100)
@given(st.text(alphabet="0123456789abcdefgABC:sha256 ", max_size=80))
def test_digits_are_a_prefix_or_a_digest_only_if_they_are_hexadecimal(text: str) -> None:
    if is_digest(text):
        assert re.fullmatch(DIGEST, text)
    assert is_prefix(text) == bool(re.fullmatch(r"(?:sha256:)?[0-9a-f]{4,64}", text))


@pytest.mark.parametrize("text", ["a" * 256, "/".join(["r.example", *("b" * 60,) * 5]), "a:" + "t" * 129, "a/", "/a"])
def test_too_long_and_half_names_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="image '"):
        parse(text)
