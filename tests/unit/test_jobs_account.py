"""The account of `corten map` on disk: whole rows, whatever happens."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corten.compute.jobs import account as accounts
from corten.compute.jobs.account import FIELDS, Account, formatted, whole_rows
from corten.compute.jobs.state import Row
from corten.errors import InvalidInput, Unsupported

BYTES = st.binary(max_size=30).filter(lambda data: b"\0" not in data)
ROWS = st.builds(
    Row,
    item=BYTES.map(os.fsdecode),
    exit_code=st.integers(0, 255),
    signal=st.none() | st.integers(1, 64),
    reason=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30),
    seconds=st.floats(0, 1e6).map(lambda number: round(number, 3)),
    memory_peak=st.none() | st.integers(0, 1 << 50),
    cpu_seconds=st.floats(0, 1e6).map(lambda number: round(number, 3)),
    tries=st.integers(1, 9),
)
ROW = Row("a", 0, None, "fine", 1.5, 4096, 0.25, 1)
SUFFIXES = [".csv", ".jsonl", ".ndjson", ".parquet"]


@given(st.lists(ROWS, max_size=6), st.booleans(), st.integers(0, 400))
@example([ROW, ROW.replace(reason="\r")], True, 400)
def test_whatever_is_cut_off_leaves_whole_rows(rows: list[Row], as_csv: bool, cut: int) -> None:
    lines = ([accounts._csv([FIELDS])] if as_csv else []) + [formatted(row, as_csv) for row in rows]
    data = b"".join(lines)[:cut]
    whole = whole_rows(data, as_csv)
    fitting, length = -1 if as_csv else 0, 0
    for line in lines:
        if length + len(line) > len(data):
            break
        length, fitting = length + len(line), fitting + 1
    assert whole == length
    assert accounts._parsed(data[:whole], as_csv, "x") == rows[: max(0, fitting)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_come_back(tmp_path: Path, suffix: str) -> None:
    path = str(tmp_path / f"a{suffix}")
    rows = [ROW, ROW.replace(item='b "c",\nd\r', signal=9, exit_code=137, memory_peak=None, reason="killed\r\n"), ROW]
    with Account(path) as account:
        assert account.rows == []
        for row in rows[:2]:
            account.append(row)
    with Account(path, resume=True) as account:
        assert account.rows == rows[:2]
        account.append(rows[2])
    with Account(path, resume=True) as account:
        assert account.rows == rows
    assert sorted(os.listdir(tmp_path)) == [f"a{suffix}"]


def test_others_can_read_it(tmp_path: Path) -> None:
    import pyarrow.parquet

    for suffix in SUFFIXES:
        with Account(str(tmp_path / f"a{suffix}")) as account:
            account.append(ROW)
    with open(tmp_path / "a.csv", newline="") as file:
        assert [line["memory_peak"] for line in csv.DictReader(file)] == ["4096"]
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {name: getattr(ROW, name) for name in FIELDS}
    assert pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pylist()[0]["cpu_seconds"] == 0.25


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_torn_row_is_cut_off(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    journal = Path(f"{path}.partial.jsonl") if suffix == ".parquet" else path
    whole = (accounts._csv([FIELDS]) if suffix == ".csv" else b"") + formatted(ROW, suffix == ".csv")
    journal.write_bytes(whole + formatted(ROW.replace(item='b"\nc'), suffix == ".csv")[:-9])
    with pytest.raises(InvalidInput, match="--resume"):
        Account(str(path))
    with Account(str(path), resume=True) as account:
        assert account.rows == [ROW]
        account.append(ROW.replace(item="d"))
    with Account(str(path), resume=True) as account:
        assert [row.item for row in account.rows] == ["a", "d"]


def test_a_torn_head(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("item,exit_co")
    with Account(str(path), resume=True) as account:
        assert account.rows == []
        account.append(ROW)
    with Account(str(path), resume=True) as account:
        assert account.rows == [ROW]


def test_parquet_is_not_counted_twice(tmp_path: Path) -> None:
    """Killed after the Parquet file was written and before the journal was removed."""
    path = str(tmp_path / "a.parquet")
    account = Account(path)
    account.append(ROW)
    accounts._write_parquet(path, account.rows, account._fd)
    os.close(account._fd)
    assert os.path.exists(f"{path}.partial.jsonl")
    with Account(path, resume=True) as again:
        assert again.rows == [ROW]
        again.append(ROW.replace(item="b"))
    with Account(path, resume=True) as again:
        assert [row.item for row in again.rows] == ["a", "b"]


def test_one_at_a_time(tmp_path: Path) -> None:
    path = str(tmp_path / "a.csv")
    with Account(path), pytest.raises(InvalidInput, match="in use by another corten map"):
        Account(path, resume=True)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", "x,y\n1,2\n"), ("a.csv", "item,exit_code,signal,reason,seconds,memory_peak,cpu_seconds,tries\n1,2\n"),
     ("a.jsonl", "{}\n"), ("a.jsonl", "nonsense\n"), ("a.parquet", "PAR1")],
)  # fmt: skip
def test_files_that_are_no_accounts(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidInput, match="not an account of corten map") as caught:
        Account(str(tmp_path / name), resume=True)
    assert "\n" not in str(caught.value)
    assert (tmp_path / name).read_text() == content


def test_bad_paths(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"ends with \.csv"):
        Account(str(tmp_path / "a.txt"))
    with pytest.raises(InvalidInput, match="cannot open"):
        Account(str(tmp_path / "no" / "a.csv"))
    (tmp_path / "endless.csv").symlink_to("/dev/full")
    with pytest.raises(InvalidInput, match="is not a file"):
        Account(str(tmp_path / "endless.csv"))


def test_parquet_holds_text(tmp_path: Path) -> None:
    with Account(str(tmp_path / "a.parquet")) as account, pytest.raises(InvalidInput, match="Parquet holds text"):
        account.check(["a", os.fsdecode(b"\xff")])
    with Account(str(tmp_path / "a.csv")) as account:
        account.check([os.fsdecode(b"\xff")])


def test_parquet_without_pyarrow(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from corten.compute.jobs.account import Account\n"
        f"Account({str(tmp_path / 'a.parquet')!r})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert Unsupported.__name__ in done.stderr
    assert "pip install 'corten[parquet]'" in done.stderr
    assert os.listdir(tmp_path) == []
