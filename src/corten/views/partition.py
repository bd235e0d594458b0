"""Partitions of a set of processes, with the laws of set theory.

A relation "sees the same" on a set X divides it into classes: the quotient of X by the relation. Here X holds process
ids, and each class has a label, such as the number of the namespace that its processes are in.

Law 1: no class is empty; two classes are disjoint; together they are X.
Law 2: P refines Q where every class of P lies in one class of Q. This orders all partitions of X; the discrete one
       (each process alone) is the least, the trivial one (all together) the greatest.
Law 3: the meet is the greatest partition that refines both: who is together in it is together in both.
Law 4: the join is the least partition that both refine: who can be reached by steps in either is together in it.
"""

from __future__ import annotations

from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping


class Partition(Record):
    """A division of a set into classes. Made by `by`, `meet` and `join`, which see to law 1.

    classes: sorted by their least element; labels: one for each class. Equal partitions have equal labels, too;
    `classes` alone tells whether two divide in the same way.
    """

    classes: tuple[frozenset[int], ...]
    labels: tuple[Hashable, ...]

    @classmethod
    def by(cls, label_of: Mapping[int, Hashable]) -> Partition:
        """The elements of a mapping, together where they have the same label."""
        found: dict[Hashable, list[int]] = {}
        for element, label in label_of.items():
            found.setdefault(label, []).append(element)
        ordered = sorted(found.items(), key=lambda item: min(item[1]))
        return cls(tuple(frozenset(members) for _, members in ordered), tuple(label for label, _ in ordered))

    @property
    def elements(self) -> frozenset[int]:
        """X: everything that is divided."""
        return frozenset().union(*self.classes)

    def class_of(self, element: int) -> frozenset[int] | None:
        """The class of an element; None if it is not in the set."""
        return next((own for own in self.classes if element in own), None)

    def label_of(self) -> dict[int, Hashable]:
        """The label of each element."""
        return {element: label for own, label in zip(self.classes, self.labels, strict=True) for element in own}

    def same(self, one: int, other: int) -> bool | None:
        """Whether two elements are together; None if one of them is not in the set."""
        own, its = self.class_of(one), self.class_of(other)
        return None if own is None or its is None else own == its

    def refines(self, other: Partition) -> bool:
        """Whether every class lies in one class of the other (law 2). False on different sets."""
        return self.elements == other.elements and all(
            any(own <= its for its in other.classes if min(own) in its) for own in self.classes
        )

    def only(self, elements: Iterable[int]) -> Partition:
        """The partition of a part of the set that this one leaves there."""
        wanted = frozenset(elements)
        return Partition.by({element: label for element, label in self.label_of().items() if element in wanted})


def meet(partitions: Iterable[Partition]) -> Partition:
    """The coarsest common refinement (law 3), on the elements that all have; labels are tuples of labels.

    Of no partitions it is the empty one: there is no set to divide.
    """
    tables = [one.label_of() for one in partitions]
    if not tables:
        return Partition((), ())
    common = [element for element in tables[0] if all(element in table for table in tables)]
    return Partition.by({element: tuple(table[element] for table in tables) for element in common})


def join(partitions: Iterable[Partition]) -> Partition:
    """The finest common coarsening (law 4), on all elements of any; the label of a class is its least element."""
    leader: dict[int, int] = {}

    def find(element: int) -> int:
        while leader[element] != element:
            leader[element] = leader[leader[element]]
            element = leader[element]
        return element

    for partition in partitions:
        for own in partition.classes:
            first = min(own)
            leader.setdefault(first, first)
            for element in own:
                leader.setdefault(element, element)
                one, other = sorted((find(element), find(first)))
                leader[other] = one
    return Partition.by({element: find(element) for element in leader})
