"""The page of the live view: it always fits, and what is chosen stays chosen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corten.engine.listing import Live
from corten.views.samples import Reading
from corten.views.top import model
from corten.views.top.model import State, page, settle, visible
from corten.views.top.reading import ProcessRow, Row

MIB = 1 << 20


def row(number: int, name: str = "", cpus: float | None = 0.0, **reading: object) -> Row:
    live = Live(f"{number:012x}", name, "run", "running", 100 + number, None, "")
    return Row(live, "running", Reading(1.0).replace(**reading), cpus)


ROWS = (
    row(1, "one", 0.5, memory=10 * MIB, memory_limit=11 * MIB, pids=9),
    row(2, "two", 0.1, memory=30 * MIB, pids=1),
    row(3, "", None, memory=20 * MIB, pids=5, pressure={"cpu": 3.0, "io": 9.0}),
)
rows = st.lists(
    st.builds(
        row, st.integers(0, 99), st.text(max_size=30), st.none() | st.floats(0, 999),
        memory=st.none() | st.integers(0, 1 << 50), memory_limit=st.none() | st.integers(0, 1 << 50),
        pids=st.none() | st.integers(0, 1 << 22), pressure=st.just({}) | st.just({"cpu": 99.9, "memory": 1.0}),
    ),
    max_size=40, unique_by=lambda one: one.live.id,
)  # fmt: skip
states = st.builds(
    State, order=st.sampled_from(sorted(model.ORDERS)), reverse=st.booleans(), filter=st.text(max_size=2),
    prompt=st.sampled_from(["", "signal for x:"]), typed=st.text(max_size=99), note=st.text(max_size=200),
    help=st.booleans(), held=st.booleans(),
)  # fmt: skip
process = st.builds(ProcessRow, st.integers(1, 1 << 22), st.text(max_size=16), st.just(5), st.none())
processes = st.lists(process, max_size=9)


@given(states, rows, processes, st.integers(1, 250), st.integers(1, 80))
def test_a_page_fits(state: State, found: list[Row], below: list[ProcessRow], width: int, height: int) -> None:
    shown = visible(state, found)
    lines = page(settle(state, shown), shown, below, width, height)
    assert len(lines) <= height
    assert height < 6 or width < 40 or len(lines) == height
    for line in lines:
        assert len(line.text) <= width
        assert line.text.isascii()
        assert line.text.isprintable()


@given(states, rows)
def test_the_chosen_container_is_on_the_page(state: State, found: list[Row]) -> None:
    shown = visible(state.replace(filter=""), found)
    state = settle(state.replace(help=False), shown)
    for chosen in (one.live.id for one in shown):
        lines = page(state.replace(chosen=chosen), shown, (), 120, 12)
        assert [chosen in line.text for line in lines if line.look == model.CHOSEN] == [True]


def order(state: State) -> str:
    return "".join(one.live.id[-1] for one in visible(state, ROWS))


def test_orders() -> None:
    orders = {key: order(State(order=key)) for key in model.ORDERS}
    assert orders == {"c": "123", "m": "231", "t": "132", "w": "312", "n": "312"}
    state = model.sort(State(order="m"), "m")
    assert order(state) == "132"
    assert model.sort(state, "c") == State(order="c")


def test_filter() -> None:
    assert order(State(filter="TW")) == "2"
    assert order(State(filter="000003")) == "3"
    assert order(State(filter="running")) == "123"
    assert order(State(filter="nothing")) == ""
    assert "no containers with 'nothing'" in page(State(filter="nothing"), (), (), 80, 10)[2].text


def test_the_choice() -> None:
    state = settle(State(), ROWS)
    assert state.chosen == ROWS[0].live.id
    state = model.move(state, ROWS, 1)
    assert state.chosen == ROWS[1].live.id
    assert settle(state, tuple(reversed(ROWS))).chosen == ROWS[1].live.id
    left = (ROWS[0], ROWS[2])
    assert settle(state, left, [one.live.id for one in ROWS]).chosen == ROWS[2].live.id  # its neighbour
    assert settle(state, ()).chosen == ""
    assert model.move(state, ROWS, 99).chosen == ROWS[2].live.id
    assert model.move(state, (), 1) == state


def test_near_a_limit() -> None:
    assert [model.near_a_limit(one) for one in ROWS] == [True, False, False]
    assert model.near_a_limit(row(4, oom_kills=1))
    assert not model.near_a_limit(row(4, memory=89, memory_limit=100))


@given(st.integers(40, 200))
def test_no_figure_is_cut_in_half(width: int) -> None:
    long = row(4, "a" * 60, 0.5, memory=1023 * MIB, memory_limit=1024 * MIB, pids=12345, pressure={"cpu": 99.9})
    line = page(settle(State(), (long,)), (long,), (), width, 10)[2].text.rstrip()
    whole = page(settle(State(), (long,)), (long,), (), 100, 10)[2].text.split()
    cells = line.split()
    if width >= 100:
        assert cells[1:] == whole[1:]
        assert len(cells[0]) == min(40, width - 85)
    else:
        assert cells[1:] == [whole[0], *whole[2:]][1 : len(cells)]


def test_the_help_is_whole_at_80_columns() -> None:
    words = " ".join(line.text for line in page(State(help=True), (), (), 80, 24)[2:-2]).split()
    assert words == " ".join(model.HELP).split()
