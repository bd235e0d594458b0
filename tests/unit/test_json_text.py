"""JSON without `json`: the same values, the same errors."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.json_text import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(values, st.sampled_from([0, 2]))
def test_same_as_json(value: Any, indent: int) -> None:
    text = dumps(value, indent)
    assert text == json.dumps(value, indent=indent or None, separators=(",", ": " if indent else ":"))
    assert loads(text) == value
    assert loads(f" \n{text}\t ") == value


@given(st.text(alphabet='{}[]",:0123456789.eE-+ntrufalse\\ \n', max_size=30))
def test_same_errors(text: str) -> None:
    try:
        wanted = json.loads(text)
    except ValueError as error:
        with pytest.raises(json.JSONDecodeError) as found:
            loads(text)
        assert str(found.value) == str(error)
    else:
        assert repr(loads(text)) == repr(wanted)


@pytest.mark.parametrize("text", ['{"a": {', "", "[1,]", '"\\x"', '{"a":1,}', "\0"])
def test_errors_where_json_is_not_imported_yet(text: str) -> None:
    """The C scanner of Python 3.11 and 3.12 breaks off without an exception then."""
    script = (
        "import sys; sys.path.insert(0, 'src')\n"
        "from corten.json_text import loads\n"
        "assert 'json' not in sys.modules\n"
        f"try: loads({text!r})\n"
        "except ValueError as error: print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "JSONDecodeError\n"


def test_other_types() -> None:
    with pytest.raises(TypeError, match="object has no JSON form"):
        dumps(object())
