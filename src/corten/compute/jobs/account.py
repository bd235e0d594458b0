"""The account of `corten map`: a row for each input that has ended, in a file of the kind that its suffix says.

Rule 1: a row is appended by one write as soon as it is known. What is killed at any moment leaves whole rows, and at
        most one torn one at the end, which the next run cuts off.
Rule 2: nothing that is there is overwritten: without `resume` the file may not exist.
Rule 3: Parquet cannot be appended to. Rows go to FILE.partial.jsonl first, and into FILE at the end.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import stat

from corten.compute.jobs.state import Row
from corten.errors import Error, InvalidInput, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Any, Self

FIELDS = ("item", "exit_code", "signal", "reason", "seconds", "memory_peak", "cpu_seconds", "tries")
SUFFIXES = (".csv", ".jsonl", ".ndjson", ".parquet")


class Account:
    """The file, locked while it is open. rows: that were there before."""

    def __init__(self, path: str, resume: bool = False) -> None:
        self.path = path
        self._kind = _kind(path)
        self._journal = f"{path}.partial.jsonl" if self._kind == "parquet" else path
        if self._kind == "parquet":
            _pyarrow()
        for file in dict.fromkeys((path, self._journal)):
            if _size(file) and not resume:
                raise InvalidInput(f"{file} exists: --resume does only what is not done in it; or remove it")
        self._fd = _open_locked(self._journal)
        try:
            before = _read_parquet(path, self._fd) if self._kind == "parquet" and _size(path) else []
            self.rows: list[Row] = before + self._take_in()
        except BaseException:
            os.close(self._fd)
            raise

    def _take_in(self) -> list[Row]:
        """Read what is there, and cut off a torn end."""
        data = b""
        while part := os.pread(self._fd, 1 << 20, len(data)):
            data += part
        as_csv = self._kind == "csv"
        whole = data[: whole_rows(data, as_csv)]
        rows = _parsed(whole, as_csv, self._journal)
        if len(whole) < len(data):
            os.ftruncate(self._fd, len(whole))
        if as_csv and not whole:
            self._write(_csv([FIELDS]))
        return rows

    def check(self, inputs: Iterable[str]) -> None:
        """`InvalidInput` for an input that it could not hold."""
        for text in inputs if self._kind == "parquet" else ():
            try:
                text.encode()
            except UnicodeEncodeError:
                words = f"{self.path}: Parquet holds text, and {text!r} is none: use .jsonl or .csv"
                raise InvalidInput(words) from None

    def append(self, row: Row) -> None:
        """Write a row down."""
        self._write(formatted(row, self._kind == "csv"))
        if self._kind == "parquet":
            self.rows.append(row)

    def _write(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            raise Error(f"cannot write to {self._journal}: {error.strerror}") from None

    def close(self) -> None:
        """Let go of the file; a Parquet file is written now."""
        try:
            if self._kind == "parquet":
                _write_parquet(self.path, self.rows, self._fd)
                os.unlink(self._journal)
        finally:
            os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _kind(path: str) -> str:
    suffix = os.path.splitext(path)[1]
    if suffix not in SUFFIXES:
        raise InvalidInput(f"{path}: an account ends with {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    return {".csv": "csv", ".parquet": "parquet"}.get(suffix, "jsonl")


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _open_locked(path: str) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise InvalidInput(f"cannot open {path}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidInput(f"{path} is not a file")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise InvalidInput(f"{path} is in use by another corten map") from None
    return fd


# --- text


def formatted(row: Row, as_csv: bool) -> bytes:
    """A row as a line of CSV or of JSON."""
    values = [getattr(row, name) for name in FIELDS]
    if as_csv:
        return _csv([values])
    return json.dumps(dict(zip(FIELDS, values, strict=True))).encode() + b"\n"


def _csv(rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO(newline="")
    for row in rows:
        values = list(row)
        # Before Python 3.13 a lone carriage return is not quoted, and read as the end of the row.
        odd = any("\r" in str(value) for value in values)
        csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL).writerow(values)
    return text.getvalue().encode(errors="surrogateescape")


def whole_rows(data: bytes, as_csv: bool) -> int:
    """Bytes up to the end of the last row that is whole. In CSV a line within quotes is not the end of a row."""
    if not as_csv:
        return data.rfind(b"\n") + 1
    end = at = quotes = 0
    while (newline := data.find(b"\n", at)) >= 0:
        quotes += data.count(b'"', at, newline)
        at = newline + 1
        if quotes % 2 == 0:
            end = at
    return end


def _parsed(data: bytes, as_csv: bool, path: str) -> list[Row]:
    text = data.decode(errors="surrogateescape")
    try:
        if not as_csv:
            return [_row(json.loads(line)) for line in text.split("\n") if line]
        lines = csv.reader(io.StringIO(text, newline=""))
        head = tuple(next(lines, FIELDS))
        if head != FIELDS:
            raise ValueError(f"its columns are {', '.join(head)}")
        return [_row({key: value or None for key, value in zip(FIELDS, line, strict=True)}) for line in lines]
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidInput(f"{path} is not an account of corten map: {' '.join(str(error).split())}") from None


def _row(values: dict[str, Any]) -> Row:
    signal, peak = values["signal"], values["memory_peak"]
    return Row(
        item=values["item"] or "",
        exit_code=int(values["exit_code"]),
        signal=None if signal is None else int(signal),
        reason=values["reason"] or "",
        seconds=float(values["seconds"]),
        memory_peak=None if peak is None else int(peak),
        cpu_seconds=float(values["cpu_seconds"]),
        tries=int(values["tries"]),
    )


# --- Parquet


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise Unsupported(
            "an account in Parquet needs pyarrow: pip install 'corten[parquet]', or give a .csv or .jsonl file"
        ) from None
    return pyarrow


def _identity(journal: int) -> dict[bytes, bytes]:
    """Written into the Parquet file: whose rows it has. Who is killed before that is removed leaves both."""
    now = os.fstat(journal)
    return {b"corten.journal": f"{now.st_ino} {now.st_size} {now.st_mtime_ns}".encode()}


def _read_parquet(path: str, journal: int) -> list[Row]:
    arrow = _pyarrow()
    try:
        table = arrow.parquet.read_table(path)
        if (table.schema.metadata or {}).items() >= _identity(journal).items():
            os.ftruncate(journal, 0)
        return [_row(values) for values in table.to_pylist()]
    except (arrow.ArrowException, KeyError, TypeError, OSError) as error:
        raise InvalidInput(f"{path} is not an account of corten map: {' '.join(str(error).split())}") from None


def _write_parquet(path: str, rows: list[Row], journal: int) -> None:
    arrow = _pyarrow()
    text, number, count = arrow.string(), arrow.float64(), arrow.int64()
    kinds = {"item": text, "reason": text, "seconds": number, "cpu_seconds": number}
    schema = arrow.schema([(name, kinds.get(name, count)) for name in FIELDS], metadata=_identity(journal))
    table = arrow.Table.from_pylist([{name: getattr(row, name) for name in FIELDS} for row in rows], schema=schema)
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        arrow.parquet.write_table(table, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise Error(f"cannot write {path}: {error}: its rows are in {path}.partial.jsonl") from None
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
