"""The laws of partitions, for arbitrary ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corten.views.partition import Partition, join, meet

SET = range(12)
LABELLINGS = st.fixed_dictionaries({element: st.integers(0, 5) for element in SET})
PARTITIONS = LABELLINGS.map(Partition.by)
PARTLY = st.dictionaries(st.sampled_from(SET), st.integers(0, 3)).map(Partition.by)
DISCRETE = Partition.by({element: element for element in SET})
TRIVIAL = Partition.by(dict.fromkeys(SET, 0))


def divides(partition: Partition) -> set[frozenset[int]]:
    return set(partition.classes)


@given(LABELLINGS)
def test_classes_are_not_empty_and_disjoint_and_cover(labels: dict[int, int]) -> None:
    made = Partition.by(labels)
    assert all(made.classes)
    assert sum(len(own) for own in made.classes) == len(labels)
    assert made.elements == set(labels)
    assert made.label_of() == labels
    assert [min(own) for own in made.classes] == sorted(min(own) for own in made.classes)


@given(LABELLINGS, st.sampled_from(SET), st.sampled_from(SET))
def test_together_means_the_same_label(labels: dict[int, int], one: int, other: int) -> None:
    assert Partition.by(labels).same(one, other) == (labels[one] == labels[other])


def test_what_is_not_in_the_set_is_neither_together_nor_apart() -> None:
    assert TRIVIAL.same(0, 99) is None
    assert TRIVIAL.class_of(99) is None


@given(PARTITIONS, PARTITIONS, PARTITIONS)
def test_refinement_is_an_order(p: Partition, q: Partition, r: Partition) -> None:
    assert p.refines(p)
    assert DISCRETE.refines(p)
    assert p.refines(TRIVIAL)
    if p.refines(q) and q.refines(r):
        assert p.refines(r)
    if p.refines(q) and q.refines(p):
        assert divides(p) == divides(q)


@given(PARTITIONS, PARTITIONS)
def test_refinement_by_its_definition(p: Partition, q: Partition) -> None:
    assert p.refines(q) == all(q.same(one, other) for own in p.classes for one in own for other in own)


@given(PARTITIONS, PARTITIONS, PARTITIONS)
def test_the_meet_is_the_greatest_lower_bound(p: Partition, q: Partition, r: Partition) -> None:
    both = meet((p, q))
    assert both.refines(p)
    assert both.refines(q)
    assert (r.refines(p) and r.refines(q)) == r.refines(both)
    for one in SET:
        for other in SET:
            assert both.same(one, other) == (p.same(one, other) and q.same(one, other))


@given(PARTITIONS, PARTITIONS, PARTITIONS)
def test_the_join_is_the_least_upper_bound(p: Partition, q: Partition, r: Partition) -> None:
    either = join((p, q))
    assert p.refines(either)
    assert q.refines(either)
    assert (p.refines(r) and q.refines(r)) == either.refines(r)


@given(PARTITIONS, PARTITIONS, PARTITIONS)
def test_they_form_a_lattice(p: Partition, q: Partition, r: Partition) -> None:
    assert divides(meet((p, q))) == divides(meet((q, p)))
    assert divides(meet((p, meet((q, r))))) == divides(meet((p, q, r)))
    assert divides(join((p, join((q, r))))) == divides(join((p, q, r)))
    assert divides(meet((p, join((p, q))))) == divides(p)
    assert divides(join((p, meet((p, q))))) == divides(p)
    assert p.refines(q) == (divides(meet((p, q))) == divides(p)) == (divides(join((p, q))) == divides(q))


@given(PARTLY, PARTLY)
def test_the_meet_speaks_only_of_what_both_know(p: Partition, q: Partition) -> None:
    assert meet((p, q)).elements == p.elements & q.elements


@given(PARTITIONS, st.frozensets(st.sampled_from(SET)))
def test_a_part_of_the_set_is_divided_as_before(p: Partition, part: frozenset[int]) -> None:
    left = p.only(part)
    assert left.elements == part
    assert divides(left) == {own & part for own in p.classes} - {frozenset()}


def test_of_no_partitions() -> None:
    assert meet(()).classes == join(()).classes == ()
    assert DISCRETE.refines(TRIVIAL)
    assert not TRIVIAL.refines(DISCRETE)
    assert not DISCRETE.refines(DISCRETE.only([1]))
