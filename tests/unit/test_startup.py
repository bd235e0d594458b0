"""What a command imports is kept in one file: a cache that may never be older than the sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import corten

WATCH = """
import sys
sys.path.insert(0, {source!r})
from corten.startup import Together
together = Together("test")
import corten.errors, corten.linux.clone
print(type(corten.linux.clone.__spec__.loader).__name__, corten.linux.clone.__file__, corten.errors.WORD)
together.keep()
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the sources, without anything compiled."""
    copy = tmp_path / "src"
    shutil.copytree(os.path.dirname(corten.__file__), copy / "corten", ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "corten/errors.py").open("a") as file:
        file.write("\nWORD = 1\n")
    return copy


def run(source: Path, *flags: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-I", "-S", *flags, "-c", WATCH.format(source=str(source))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def kept(source: Path) -> list[Path]:
    return list(source.rglob("*.all"))


def test_the_second_time_all_comes_from_one_file(source: Path) -> None:
    clone = str(source / "corten/linux/clone.py")
    assert run(source) == ["SourceFileLoader", clone, "1"]
    assert len(kept(source)) == 1
    assert run(source) == ["Together", clone, "1"]
    assert not list(source.rglob("*.all.*"))


def test_a_changed_source_is_seen(source: Path) -> None:
    run(source)
    errors = source / "corten/errors.py"
    about = errors.stat()
    errors.write_text(errors.read_text().replace("WORD = 1", "WORD = 2"))  # of the same size
    os.utime(errors, (about.st_atime, about.st_mtime + 2))  # the interpreter's own files count in seconds
    assert run(source)[2] == "2"
    assert run(source)[::2] == ["Together", "2"]
    text = errors.read_text()
    errors.unlink()
    (source / "corten/errors").mkdir()
    (source / "corten/errors/__init__.py").write_text(text.replace("WORD = 2", "WORD = 3"))
    assert run(source)[::2] == ["SourceFileLoader", "3"]


@pytest.mark.parametrize("damage", [b"", b"x", b"\0" * 1000, b"\xe3\0\0"])
def test_a_damaged_file_is_as_none(source: Path, damage: bytes) -> None:
    run(source)
    kept(source)[0].write_bytes(damage)
    assert run(source)[::2] == ["SourceFileLoader", "1"]
    assert run(source)[::2] == ["Together", "1"]


def test_nothing_is_written_where_python_may_not_write(source: Path) -> None:
    run(source, "-B")
    assert not kept(source)
