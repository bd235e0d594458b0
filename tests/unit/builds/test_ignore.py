"""Patterns of .dockerignore and COPY."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.build.ignore import compile_pattern, read_ignore
from corten.errors import InvalidInput


def ignored(text: str, *paths: str) -> list[str]:
    found = read_ignore(text, ".dockerignore")
    return [path for path in paths if found.ignores(path)]


def test_names_directories_and_stars() -> None:
    paths = ("a", "a/b", "b/a", "b/x.pyc", "x.pyc", "d/e/f", "doc")
    assert ignored("a\n", *paths) == ["a", "a/b"]
    assert ignored("/a/\n# c\n\n", *paths) == ["a", "a/b"]
    assert ignored("*.pyc", *paths) == ["x.pyc"]
    assert ignored("**/*.pyc", *paths) == ["b/x.pyc", "x.pyc"]
    assert ignored("*/*", *paths) == ["a/b", "b/a", "b/x.pyc", "d/e/f"]
    assert ignored("d/**", *paths) == ["d/e/f"]
    assert ignored("?oc\n[b-d]/e", *paths) == ["d/e/f", "doc"]
    assert ignored(".\n", *paths) == []
    assert ignored("**", *paths) == list(paths)
    assert ignored("./x/../a", *paths) == ["a", "a/b"]


def test_the_last_match_decides() -> None:
    paths = ("README.md", "README-secret.md", "src/x.md")
    assert ignored("*.md\n!README*.md\nREADME-secret.md", *paths) == ["README-secret.md"]
    assert ignored("README-secret.md\n*.md\n!README*.md", *paths) == []
    assert ignored("src\n!src/x.md", *paths) == []
    assert ignored("**\n!src/**", *paths) == ["README.md", "README-secret.md"]


@pytest.mark.parametrize("pattern", ["[", "[a", "[]a]", "[a-]", "a\\", "!"])
def test_malformed_patterns_name_file_and_line(pattern: str) -> None:
    with pytest.raises(InvalidInput, match=r"^\.dockerignore:2: "):
        read_ignore(f"ok\n{pattern}\n", ".dockerignore")


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [  # answers of Go 1.19's filepath.Match
        ("[^a]", "/", True),
        ("[b-a]", "a", False),
        ("[^b-a]", "a", True),
        ("a[/]b", "a/b", True),
        ("\\*", "*", True),
        ("\\*", "a", False),
        ("[\\]]", "]", True),
        ("*", "", True),
        ("*", "a/b", False),
        ("?", "/", False),
        ("[a-c-e]", "-", False),
    ],
)
def test_as_go_has_it(pattern: str, path: str, matches: bool) -> None:
    try:
        found = compile_pattern(pattern).fullmatch(path) is not None
    except ValueError:
        found = False
    assert found is matches


@given(st.text("ab/*?[]^-\\.!#", max_size=10), st.text("ab/^-.", min_size=1, max_size=6))
def test_anything_is_read_or_refused(pattern: str, path: str) -> None:
    try:
        read_ignore(pattern, "x").ignores(path)
    except InvalidInput:
        pass
