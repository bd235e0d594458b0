"""Tables for terminals: they fit, and a long word does not push others off."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corten.views.tables import render

rows = st.tuples(st.text("ab", max_size=60), st.text("12", max_size=9), st.text("xy", max_size=60))
cells = st.lists(rows, max_size=5)


@given(cells, st.integers(10, 150))
def test_no_line_is_wider_than_asked_for(rows: list[tuple[str, str, str]], width: int) -> None:
    lines = render(("NAME", "SIZE", "REST"), rows, "<><", width).splitlines()
    assert len(lines) == len(rows) + 1
    assert all(len(line) <= width for line in lines)
    if all(len(line) <= width for line in render(("NAME", "SIZE", "REST"), rows, "<><").splitlines()):
        assert lines == render(("NAME", "SIZE", "REST"), rows, "<><").splitlines()


def test_a_long_name_makes_room_for_what_comes_after() -> None:
    found = render(("NAME", "SIZE", "WHY"), [("n" * 60, "12", "because"), ("short", "7", "")], "<><", 50)
    assert found == (
        f"{'NAME':35}  SIZE  WHY\n{'n' * 34}…    12  because\n{'short':35}     7\n"
    )
    assert "12" not in render(("NAME", "SIZE", "WHY"), [("n" * 60, "12", "w")], "<><", 18)
