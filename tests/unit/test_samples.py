"""Series of readings, what happened between them, and their picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.errors import Error, InvalidInput
from corten.views.plotting import plot
from corten.views.samples import Event, Reading, Series, cpus_between, happened

MIB = 1 << 20
FIRST = Reading(100.0, 1.0, 1.0, 10 * MIB, 64 * MIB, 3, 20, {"cpu": 1.0}, {"cpu": 1000}, 0)


def later(reading: Reading, seconds: float, **changes: object) -> Reading:
    return reading.replace(at=reading.at + seconds, **changes)


def test_what_happened() -> None:
    assert happened(FIRST, later(FIRST, 1, memory=MIB, cpu_seconds=7.0)) == []
    resized = later(FIRST, 1, memory_limit=128 * MIB, cpu_limit=None)
    words = ["memory: 64 MiB to 128 MiB", "cpu: 1 CPUs to no limit"]
    assert [(one.kind, one.words) for one in happened(FIRST, resized)] == [("resize", one) for one in words]
    assert happened(FIRST, later(FIRST, 1, oom_kills=1)) == [Event(101.0, "oom", "killed for memory")]
    assert happened(FIRST, later(FIRST, 1, oom_kills=3))[0].words == "3 killed for memory"
    assert happened(FIRST, later(FIRST, 1, oom_kills=None)) == []


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0.001, 1e4))
def test_cpus_are_never_negative(before: float, after: float, seconds: float) -> None:
    used = cpus_between(FIRST.replace(cpu_seconds=before), later(FIRST, seconds, cpu_seconds=after))
    assert used is not None
    assert used >= 0
    assert cpus_between(FIRST.replace(cpu_seconds=None), FIRST) is None
    assert cpus_between(FIRST, FIRST) is None


def test_rates_of_a_series() -> None:
    second = later(FIRST, 2, cpu_seconds=2.0, waited_us={"cpu": 501_000})
    series = Series("a", "a", (FIRST, second, later(second, 1, cpu_seconds=None)))
    assert series.cpus() == ((102.0, 0.5),)
    assert series.waits("cpu") == ((102.0, 25.0), (103.0, 0.0))
    assert series.waits("io") == ()


def example() -> Series:
    readings = tuple(
        later(FIRST, step, cpu_seconds=step / 2, memory_limit=(64 if step < 5 else 128) * MIB) for step in range(10)
    )
    events = (Event(105.0, "resize", "memory: 64 MiB to 128 MiB"), Event(108.0, "oom", "killed for memory"))
    return Series("abc", "box", readings, events)


def test_a_picture_has_limits_and_events(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    plot([example(), example().replace(label="<other>")], str(path))
    words = " ".join(ET.fromstring(path.read_text()).itertext())
    for shown in ("box, <other>", "CPUs in use", "memory, MiB", "limit", "killed for memory", "5.0 s", "for io"):
        assert shown in words
    first = path.read_bytes()
    plot([example(), example().replace(label="<other>")], str(path))
    assert path.read_bytes() == first
    for name, theme, start in (("b.png", "dark", b"\x89PNG"), ("c.PDF", "light", b"%PDF")):
        plot([example()], str(tmp_path / name), theme)
        assert (tmp_path / name).read_bytes().startswith(start)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.svg", "b.png", "c.PDF"]


def test_bad_pictures(tmp_path: Path) -> None:
    series = [example()]
    for path, said in (("a.jpeg", ".png, .svg"), ("none/a.png", "no directory"), ("a", "no suffix")):
        with pytest.raises(InvalidInput, match=said):
            plot(series, str(tmp_path / path))
    with pytest.raises(InvalidInput, match="light or dark"):
        plot(series, str(tmp_path / "a.png"), "blue")
    with pytest.raises(InvalidInput, match="nothing to draw"):
        plot([Series("a", "a", (FIRST,))], str(tmp_path / "a.png"))
    (tmp_path / "a.png").mkdir()
    with pytest.raises(Error, match="cannot write"):
        plot(series, str(tmp_path / "a.png"))
    assert [one.name for one in tmp_path.iterdir()] == ["a.png"]


def test_public_views_are_not_hidden_by_modules() -> None:
    import importlib
    import pkgutil

    from corten import views

    for module in pkgutil.iter_modules(views.__path__):
        assert module.name not in views.__all__
    for name in views.__all__:
        assert callable(getattr(importlib.import_module("corten.views"), name))
