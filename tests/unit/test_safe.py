"""What may come out of a container that is not trusted, and how exceptions are made again."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import os
import pickle
import subprocess
import uuid
from pathlib import PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import corten
from corten.compute import safe
from corten.compute.inside import wire, work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def message(value: Any) -> wire.Message:
    payload, buffers = wire.dump(value, pickle.dumps)
    return wire.Message(b"R", 1, payload, list(buffers))


def returned(value: Any, **how: Any) -> Any:
    return safe.load(message(value), how.pop("trusted", False), **how)


numbers = st.booleans() | st.integers() | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False)
plain = st.recursive(
    st.none() | numbers | st.text() | st.binary() | st.frozensets(st.integers()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(plain)
def test_plain_data_comes_out_as_it_was(value: Any) -> None:
    assert returned(value) == value


@pytest.mark.parametrize(
    "value",
    [
        {1, 2}, range(3), slice(1, 2), collections.OrderedDict(a=1), collections.deque([1]), collections.Counter("aab"),
        datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), datetime.timedelta(1), decimal.Decimal("1.5"),
        fractions.Fraction(1, 3), uuid.UUID(int=5), PurePosixPath("/a/b"), bytearray(b"abc"),
    ],
)  # fmt: skip
def test_values_of_the_standard_library(value: Any) -> None:
    assert returned(value) == value


@pytest.mark.parametrize("dtype", ["i8", "f4", "c16", "U5", "S3", "M8[s]", "?", [("a", "i4"), ("b", "f8")]])
def test_numpy(dtype: Any) -> None:
    slices = np.zeros((4, 6), dtype)[::2, ::3]
    for array in (np.zeros(3, dtype), np.zeros((50, 100), dtype), slices, np.zeros(1, dtype)[0]):
        again = returned(array)
        assert again.dtype == array.dtype
        assert np.array_equal(again, array)


class Call:
    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


@pytest.mark.parametrize(
    "value",
    [
        Call(os.system, "true"), Call(eval, "1"), Call(subprocess.Popen, ["true"]), Call(getattr, 1, "real"),
        Call(print, 1), Call(bytearray, 10**12), Call(__import__, "os"), Call(open, "/etc/passwd"), Point(1), Point,
        np.array([Call(os.system, "true")], dtype=object), {"a": [Call(os.system, "true")]}, os.system,
        Call(np.load, "/etc/passwd"), Call(pickle.loads, b"N."), np.random.default_rng(),
    ],
)  # fmt: skip
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(corten.InvalidInput, match=r"untrusted|made of a number"):
        returned(value)


def test_classes_that_are_allowed_and_trusted_functions() -> None:
    assert returned(Point(3), returns=frozenset({(Point.__module__, "Point")})).x == 3
    assert returned(Call(len, "abc"), trusted=True) == 3


@given(st.binary(max_size=300))
def test_noise_is_an_error_of_ours(noise: bytes) -> None:
    try:
        safe.load(wire.Message(b"R", 1, noise, []), trusted=False)
    except corten.Error:
        pass


# --- exceptions


class Own(Exception):
    def __init__(self, *, needed: int) -> None:
        self.needed = needed
        super().__init__(f"needs {needed}")


class Guarded(Exception):
    def __new__(cls, *args: Any) -> Guarded:
        raise AssertionError("code of the caller's ran")


def again(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as raised:
        return safe.load_exception(wire.Message(b"X", 1, work._failure(raised), []))[1]


def test_exceptions_as_themselves() -> None:
    error = again(Own(needed=4))
    assert (type(error), error.args, error.needed) == (Own, ("needs 4",), 4)  # type: ignore[attr-defined]
    missing = again(FileNotFoundError(2, "No such file", "/x"))
    assert isinstance(missing, FileNotFoundError)
    assert (missing.errno, missing.strerror, missing.filename) == (2, "No such file", "/x")
    assert isinstance(again(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")), UnicodeDecodeError)
    assert "raise error" in str(again(KeyError("a")).__cause__)


def test_exceptions_that_cannot_be_had() -> None:
    for error in (SystemExit(3), KeyboardInterrupt(), GeneratorExit()):
        assert isinstance(again(error), corten.RemoteError)
    guarded = Exception.__new__(Guarded)
    assert isinstance(again(guarded), corten.RemoteError)
    local = type("Local", (Exception,), {"__module__": "nowhere"})("text")
    found = again(local)
    assert isinstance(found, corten.RemoteError)
    assert str(found) == "nowhere.Local: text"


NO_CLASS: Any = ("raised", "os", "system", ("true",), {}, "", "")


@pytest.mark.parametrize("parts", [1, (), ("raised",) * 7, NO_CLASS, ["x"] * 7])
def test_failures_that_are_none(parts: Any) -> None:
    try:
        _, error = safe.load_exception(wire.Message(b"X", 1, pickle.dumps(parts), []))
        assert isinstance(error, corten.RemoteError)
    except corten.Error:
        pass
