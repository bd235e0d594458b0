"""Sizes, durations and counts: exact, and with errors that name the option."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.engine.quantities import cpus, duration, octal, offset, show_size, size, switch, whole
from corten.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("100000000", 100_000_000),
        ("5b", 5),
        ("512m", 512 << 20),
        ("512M", 512 << 20),
        ("512mb", 512 << 20),
        ("1gib", 1 << 30),
        ("1 GiB", 1 << 30),
        ("1.5g", 3 << 29),
        (".5g", 1 << 29),
        ("1.g", 1 << 30),
        ("1.1g", 1181116006),
        ("2t", 2 << 40),
        ("7e", 7 << 60),
    ],
)
def test_sizes(text: str, number: int) -> None:
    assert size("-m", text) == number


@pytest.mark.parametrize(
    "text",
    ["", "12q", "m", "1.5", "1ib", "ib", "b", "1..2g", "1e3", "0x10", "1_000", "-5m", "9" * 30, "8e", "1,5g", "1 m x"],
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^--memory: "):
        size("--memory", text)


def test_a_bad_size_says_what_is_right() -> None:
    with pytest.raises(InvalidInput) as caught:
        size("--memory", "12q")
    assert str(caught.value) == "--memory: '12q' is not a size: use a number with b, k, m, g or t"


def test_no_limit_must_be_allowed() -> None:
    assert size("-m", "-1", unlimited=True) == size("-m", -1, unlimited=True) == -1
    with pytest.raises(InvalidInput):
        size("-m", -1)
    with pytest.raises(InvalidInput):
        size("-m", True)


@given(st.integers(0, 2**62))
def test_a_plain_number_is_itself(number: int) -> None:
    assert size("-m", str(number)) == size("-m", number) == number


@given(st.integers(0, 10**6), st.integers(0, 999), st.sampled_from("kmg"))
def test_decimals_are_exact(whole_part: int, thousandths: int, unit: str) -> None:
    power = 1024 ** (" kmg".index(unit))
    assert size("-m", f"{whole_part}.{thousandths:03}{unit}") == (whole_part * 1000 + thousandths) * power // 1000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", 10), ("2.5", 2.5), ("10s", 10), ("1m30s", 90), ("250ms", 0.25), ("1.5h", 5400), ("1d", 86400)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration("--timeout", text) == seconds


@pytest.mark.parametrize("text", ["", "s", "10x", "1m30", "-1", "1s1", "ms", "1.2.3", "inf", "nan"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^--timeout: "):
        duration("--timeout", text)


def test_durations_as_numbers() -> None:
    assert duration("timeout", 0.5) == 0.5
    for bad in (-1, float("nan"), float("inf"), True):
        with pytest.raises(InvalidInput):
            duration("timeout", bad)


def test_offsets_are_split_as_the_kernel_wants_them() -> None:
    assert offset("o", "7d") == (604800, 0)
    assert offset("o", "-0.5") == (-1, 500_000_000)
    assert offset("o", "-1h30m") == (-5400, 0)
    with pytest.raises(InvalidInput):
        offset("o", "-")


def test_cpus() -> None:
    assert cpus("--cpus", "1.5") == 1.5
    assert cpus("--cpus", 2) == 2
    assert cpus("--cpus", "0") == 0
    for bad in ("x", "-1", "0.001", "1e3", "", float("nan"), True):
        with pytest.raises(InvalidInput, match=r"^--cpus: "):
            cpus("--cpus", bad)


def test_whole_numbers_modes_and_switches() -> None:
    assert whole("n", "-1", -1) == -1
    assert octal("u", "022") == octal("u", 0o22) == octal("u", "0o22") == 0o22
    assert switch("s", "TRUE") is True
    assert switch("s", False) is False
    for wrong in ("1.0", "5", "", "٣"):
        with pytest.raises(InvalidInput):
            whole("n", wrong, 0, 4)
    with pytest.raises(InvalidInput):
        octal("u", "8")
    with pytest.raises(InvalidInput):
        switch("s", "?")


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (100 << 20, "100 MiB"), (3 << 29, "1.5 GiB"), (100_000_000, "95.4 MiB")],
)
def test_sizes_shown(number: int, text: str) -> None:
    assert show_size(number) == text
