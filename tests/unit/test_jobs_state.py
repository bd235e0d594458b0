"""What `corten map` does next: decisions without containers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.compute.jobs.state import HALT, Job, Row
from corten.compute.jobs.words import Item, items


def row(item: Item, code: int, tries: int = 1) -> Row:
    return Row(item.text, code, None, "", 0.0, None, 0.0, tries)


def test_a_job() -> None:
    job = Job(items("abc"), retries=1)
    a, b = job.begin(), job.begin()
    assert (a.text, b.text, job.waiting, len(job.running)) == ("a", "b", 1, 2)
    assert job.end(a, row(a, 0))
    assert not job.end(b, row(b, 3))  # once more
    again = job.begin()
    assert (again, job.tries(again)) == (b, 2)
    assert job.end(again, row(again, 3))
    c = job.begin()
    assert job.end(c, row(c, 0))
    assert (job.done, job.failed, job.left, job.exit_code()) == (2, 1, 0, 1)


def test_halt() -> None:
    for halt, waiting, ending in (("never", 1, False), ("soon", 0, False), ("now", 0, True)):
        job = Job(items("abc"), halt=halt)
        first, second = job.begin(), job.begin()
        job.end(first, row(first, 1))
        assert (job.waiting, job.ending) == (waiting, ending)
        job.end(second, row(second, 0))
        assert job.exit_code() == 1


def test_an_interrupted_input_has_not_failed() -> None:
    job = Job(items("ab"))
    first = job.begin()
    job.interrupt(first)
    assert (job.failed, job.left, job.tries(first), job.exit_code()) == (0, 2, 0, 1)


def test_resume_counts_inputs_that_come_twice() -> None:
    before = [row(item, code) for item, code in zip(items("aabc"), (0, 9, 0, 1), strict=True)]
    job = Job(items("aaabcd"), before=before)
    assert (job.total, job.skipped) == (6, 2)
    assert [job.begin().text for _ in range(job.waiting)] == ["a", "a", "c", "d"]


@pytest.mark.parametrize(("failures", "code"), [(0, 0), (1, 1), (100, 100), (101, 101), (250, 101)])
def test_exit_code(failures: int, code: int) -> None:
    job = Job(items(map(str, range(300))))
    for at in range(300):
        item = job.begin()
        job.end(item, row(item, int(at < failures)))
    assert job.exit_code() == code


@given(
    st.lists(st.sampled_from("abcd"), max_size=12), st.integers(0, 3), st.sampled_from(HALT), st.integers(1, 4),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_every_input_is_accounted_for(texts: list[str], retries: int, halt: str, most: int, random: object) -> None:
    """However tries end and in whatever order, no input is lost, and none is begun more often than was asked for; what
    a resumed job does and what was done before are all inputs."""
    choose = getattr(random, "choice")  # noqa: B009
    job = Job(items(texts), retries, halt)
    rows: list[Row] = []
    while job.waiting or job.running:
        if job.waiting and len(job.running) < most:
            item = job.begin()
            assert job.tries(item) <= retries + 1
            continue
        item = choose(list(job.running.values()))
        if job.ending:
            job.interrupt(item)
            continue
        ended = row(item, choose([0, 0, 1]), job.tries(item))
        if job.end(item, ended):
            rows.append(ended)
        assert job.done + job.failed + job.left + job.skipped == job.total == len(texts)
    assert len(rows) == job.done + job.failed
    assert (job.exit_code() == 0) == (job.done == len(texts))
    again = Job(items(texts), before=rows)
    assert again.skipped == job.done
    assert again.waiting == len(texts) - job.done
