"""Names made of paths."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corten.linux import paths

PART = st.text("-%a25d.", min_size=1).filter(lambda text: text not in (".", ".."))
PATH = st.lists(PART, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(PATH, PATH)
def test_different_paths_have_different_names(one: str, other: str) -> None:
    assert (paths.flat(one) == paths.flat(other)) == (one == other)
    assert "/" not in paths.flat(one)


def test_names() -> None:
    assert [paths.flat(path) for path in ("/usr", "/a/b", "/a-b", "/a%2db")] == ["usr", "a-b", "a%2db", "a%252db"]
