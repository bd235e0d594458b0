"""How many containers a lane should have: laws that hold whatever the figures."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corten.compute.scaling import Capacity, Decision, View, decide, room

small = st.integers(0, 12)


@st.composite
def views(draw: st.DrawFn) -> View:
    least = draw(st.integers(0, 4))
    return View(
        backlog=draw(st.integers(0, 300)), busy=draw(small), ready=draw(small), making=draw(small),
        fresh=draw(st.booleans()), least=least, most=draw(st.integers(max(least, 1), 8)), room=draw(small),
        active=draw(st.booleans()), limit=draw(st.integers(1, 8)),
    )  # fmt: skip


@given(views())
def test_never_more_than_allowed(view: View) -> None:
    decision = decide(view)
    live = view.busy + view.ready + view.making
    ahead = 2 if view.fresh and view.active else 0
    if decision.start:
        assert live + decision.start <= view.most + ahead
    assert 0 <= decision.retire <= view.ready
    assert not (decision.start and decision.retire)
    assert bool(decision.reason) == bool(decision.start or decision.retire)


@given(views())
def test_what_it_decides_brings_it_to_rest(view: View) -> None:
    """Once containers are made and retired as decided, nothing more is decided."""
    decision = decide(view)
    after = view.replace(making=view.making + decision.start, ready=view.ready - decision.retire)
    assert decide(after) == Decision()


@given(views())
def test_who_waits_is_served(view: View) -> None:
    """With room, a bound that is not reached and nothing in the making, a call that waits gets a container."""
    nothing = view.replace(busy=0, ready=0, making=0, backlog=max(view.backlog, 1), room=max(view.room, 1))
    assert decide(nothing).start >= 1


@given(views())
def test_idle_pools_shrink_to_their_minimum(view: View) -> None:
    idle = view.replace(backlog=0, busy=0, making=0, active=False)
    assert idle.ready - decide(idle).retire == min(idle.ready, idle.least) or decide(idle).start


def test_the_minimum_is_made_without_calls() -> None:
    view = View(backlog=0, busy=0, ready=0, making=0, fresh=False, least=3, most=5, room=5, active=False, limit=5)
    assert decide(view).start == 3
    assert decide(view.replace(ready=3)) == Decision()


amounts = st.floats(0.1, 64, allow_nan=False)


sizes = st.integers(0, 1 << 40)


@given(amounts, sizes, st.integers(0, 5), amounts, sizes, amounts, st.integers(1, 1 << 38))
def test_calls_fit_into_what_is_free(
    have: float, memory: int, running: int, used: float, reserved: int, cpus: float, each: int
) -> None:
    found = room(Capacity(have, memory), running, used, reserved, cpus, each)
    assert found >= 0
    if running:
        assert used + found * cpus <= max(have, used) + 1e-6
        assert reserved + found * each <= max(memory, reserved)
    else:
        assert found >= 1  # or nothing would ever run


@given(amounts, st.integers(0, 5))
def test_pressure_is_a_brake(cpus: float, running: int) -> None:
    assert room(Capacity(64, 1 << 40, "pressed"), running, 0, 0, cpus, 1) == (0 if running else 1)
