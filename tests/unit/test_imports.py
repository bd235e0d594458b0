"""Start-up time, held by counting imported modules and not by a clock (measured costs: docs/architecture.md)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import corten

SOURCE = os.path.dirname(os.path.dirname(corten.__file__))

# Each costs 4 to 30 ms; the whole command line has about 20 over the container itself.
BANNED = {
    "argparse",
    "asyncio",
    "collections",
    "concurrent",
    "contextlib",
    "copy",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
    "enum",
    "functools",
    "hashlib",
    "importlib.metadata",
    "importlib.resources",
    "inspect",
    "json",
    "logging",
    "msgspec",
    "operator",
    "pathlib",
    "platform",
    "pyseccomp",
    "random",
    "re",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "string",
    "subprocess",
    "tarfile",
    "tempfile",
    "textwrap",
    "threading",
    "traceback",
    "typing",
    "zlib",
    "zstandard",
}


def modules_of(script: str, bare: str = "-S", **environment: str) -> set[str]:
    """What a bare interpreter (without installed packages) has imported at the end of a script, beyond its own."""
    watch = "import sys; before = set(sys.modules)\n"
    tell = "\nprint(*sorted(set(sys.modules) - before))"
    found = subprocess.run(
        [sys.executable, "-I", *bare.split(), "-c", f"{watch}sys.path.insert(0, {SOURCE!r})\n{script}{tell}"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert found.returncode == 0, found.stderr
    return set(found.stdout.splitlines()[-1].split())


RUN = """
from corten.cli import main
from corten.cli.parser import parse
from corten.cli.run import COMMAND
from corten.cli.run_options import options_of
words = ["-m", "512m", "--cpus", "1.5", "--pids-limit", "64", "-e", "A=1", "-v", "/etc:/mnt:ro", "host", "true"]
options = options_of(*parse(COMMAND, words))
"""


def test_reading_the_command_line_imports_little() -> None:
    found = modules_of(RUN)
    assert not found & BANNED
    assert len(found) <= 30, sorted(found)


def test_the_way_to_the_container_imports_nothing_heavy(tmp_path: object) -> None:
    # The first call may compile a filter, with what that takes; the second finds it kept.
    script = f"{RUN}from corten.engine import attached\nattached.prepare(options)\n"
    home = {"CORTEN_HOME": f"{tmp_path}/home"}
    modules_of(script, bare="", **home)
    found = modules_of(script, **home)
    assert not found & BANNED
    assert len(found) <= 117, sorted(found)


@pytest.mark.parametrize("words", [["--version"], ["--help"]])
def test_small_things_import_no_command(words: list[str]) -> None:
    found = modules_of(f"from corten.cli.main import main\nmain({words!r})\n")
    assert {name for name in found if name.startswith("corten")} == {
        "corten", "corten.cli", "corten.cli.main", "corten.errors", "corten.output",
    }  # fmt: skip
