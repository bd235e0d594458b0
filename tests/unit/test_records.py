"""Records are frozen, comparable values that survive pickling."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.records import Record


class Point(Record):
    x: int
    y: int = 0


class Line(Record):
    ends: tuple[Point, ...]
    labels: dict[str, Point | None]


def test_fields_by_position_name_and_default() -> None:
    assert Point(1) == Point(x=1, y=0) != Point(1, 1)
    assert repr(Point(1)) == "Point(x=1, y=0)"
    assert Point(1).replace(y=5) == Point(1, 5)


WRONG = [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1}), ((), {"z": 1})]


@pytest.mark.parametrize(("args", "named"), WRONG)
def test_wrong_fields_are_type_errors(args: tuple[int, ...], named: dict[str, int]) -> None:
    with pytest.raises(TypeError, match="Point"):
        Point(*args, **named)


def test_a_record_is_frozen() -> None:
    with pytest.raises(AttributeError, match="frozen"):
        Point(1).x = 2  # type: ignore[misc]


points = st.builds(Point, st.integers(), st.integers())


@given(st.builds(Line, st.lists(points).map(tuple), st.dictionaries(st.text(), st.none() | points)))
def test_a_record_survives_pickling(line: Line) -> None:
    assert pickle.loads(pickle.dumps(line)) == line
