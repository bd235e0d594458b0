"""The examples of `--help`: there are some for each command, and each is what the command's table reads."""

from __future__ import annotations

import importlib
import pkgutil
import shlex
from pathlib import Path

import pytest

import corten.cli
from corten.cli import help as pages
from corten.cli.examples import EXAMPLES
from corten.cli.parser import Command, parse


def commands() -> dict[str, Command]:
    """All tables of the program, by name."""
    found = {}
    for module in pkgutil.walk_packages(corten.cli.__path__, "corten.cli."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, Command):
                found[value.name] = value
    return found


COMMANDS = commands()


def test_every_command_has_some() -> None:
    assert set(EXAMPLES) == set(COMMANDS)
    for name, examples in EXAMPLES.items():
        assert examples[-1] in pages.render(COMMANDS[name])
        assert max(map(len, examples)) <= 78


@pytest.mark.parametrize(("name", "example"), [(name, line) for name, lines in EXAMPLES.items() for line in lines])
def test_each_is_read(name: str, example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root").mkdir()
    line = next(part for part in example.split("|") if "corten" in part).partition(">")[0]
    words = shlex.split(line)
    head = name.split()
    assert words[: len(head)] == head
    _, arguments = parse(COMMANDS[name], words[len(head) :])
    assert len(arguments) >= COMMANDS[name].minimum
