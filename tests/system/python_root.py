"""A root file system with a Python of another version in it, copied from this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import small_root

_LEFT_OUT = shutil.ignore_patterns(
    "test", "tests", "site-packages", "dist-packages", "__pycache__", "idlelib", "config-*", "*.a", "tkinter",
    "ensurepip",
)  # fmt: skip
_PREFIX = "import os, sys; print(sys.base_prefix); print(os.path.realpath(sys.executable)); print(sys.version_info[:2])"
_VERSIONS = ("3.8", "3.9", "3.10", "3.12", "3.13")


@cache
def shared() -> tuple[str, tuple[int, int]]:
    """(directory, version) of one for all tests, in the tests' home: the oldest other Python that this machine has."""
    for version in _VERSIONS:
        if version != f"{sys.version_info[0]}.{sys.version_info[1]}":
            for place in _places(version):
                facts = _ask(place)
                if facts:
                    target = Path(os.environ["CORTEN_HOME"]) / "python-root"
                    _make(target, facts[0], facts[1])
                    return str(target), facts[2]
    pytest.fail(f"no other Python than {sys.version} on this machine, of {', '.join(_VERSIONS)}", pytrace=False)


@cache
def same() -> str:
    """Directory of one with the Python that runs the tests, but with nothing that is installed in it."""
    facts = _ask(sys.executable)
    assert facts is not None
    target = Path(os.environ["CORTEN_HOME"]) / "python-root-same"
    _make(target, facts[0], facts[1])
    return str(target)


@cache
def newer() -> tuple[str, str, tuple[int, int]]:
    """(prefix, executable, version) of another Python of this machine under which Dask runs."""
    for version in reversed(_VERSIONS):
        for place in _places(version):
            facts = _ask(place)
            if facts and facts[2] != sys.version_info[:2] and facts[2] > (3, 9):
                return facts
    pytest.fail(f"no other Python than {sys.version} on this machine, of {', '.join(_VERSIONS)}", pytrace=False)


def _places(version: str) -> list[str]:
    """Where that version may be: on PATH, or beside the Python that runs the tests."""
    beside = Path(sys.base_prefix).parent
    found = [str(path / "bin/python3") for path in sorted(beside.glob(f"{version}.*"))]
    on_path = shutil.which(f"python{version}")
    return [*([on_path] if on_path else []), *found]


def _ask(python: str) -> tuple[str, str, tuple[int, int]] | None:
    done = subprocess.run([python, "-I", "-c", _PREFIX], capture_output=True, text=True, check=False)
    if done.returncode:
        return None  # the shim of a version that is not there
    prefix, executable, version = done.stdout.splitlines()
    major, minor = version.strip("()").split(", ")
    return prefix, executable, (int(major), int(minor))


def _make(target: Path, prefix: str, executable: str) -> None:
    for name in ("usr/bin", "etc", "tmp", "proc", "dev", "sys", "run"):
        (target / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        link = Path("/", name)
        if link.is_symlink():
            (target / name).symlink_to(link.readlink())
    home = target / prefix.lstrip("/")
    shutil.copytree(f"{prefix}/lib", home / "lib", symlinks=True, ignore=_LEFT_OUT)
    (home / "bin").mkdir(exist_ok=True)
    shutil.copy(executable, home / "bin/python3")
    if not (target / "usr/bin/python3").exists():
        (target / "usr/bin/python3").symlink_to(f"{prefix}/bin/python3")
    shutil.copy(small_root.BUSYBOX, target / "usr/bin/sh")
    for library in _libraries(executable, home / "lib"):
        if not library.startswith(prefix):
            place = target / os.path.realpath(os.path.dirname(library)).lstrip("/") / os.path.basename(library)
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                shutil.copy(os.path.realpath(library), place)


def _libraries(executable: str, modules: Path) -> set[str]:
    """What the interpreter and its modules load, by ldd(1)."""
    files = [executable, *(str(path) for path in modules.rglob("*.so"))]
    done = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False)
    words = done.stdout.split()
    return {word for word in words if word.startswith("/") and not word.endswith(":")}
