"""Containers on a machine with nothing but cgroup v2: a virtual one, as root and as a user with a delegated group."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN_IN_VM = ROOT.parent / "shared" / "vm" / "run-in-vm"
USER = "nobody"  # it exists everywhere, and has no home to which anything could be written


def run_inside(*options: str) -> None:
    if not RUN_IN_VM.exists():
        pytest.fail(f"there is no {RUN_IN_VM}: pure cgroup v2 cannot be tried here", pytrace=False)
    quiet = ["--noconftest", "--tb=short", "-p", "no:cacheprovider"]
    tests = [sys.executable, "-m", "pytest", *quiet, "tests/system/vm_v2_inside.py"]
    words = [str(RUN_IN_VM), "--timeout", "1500", "--dir", str(ROOT), *options, "--", *tests]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_as_root() -> None:
    run_inside()


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_as_a_user_with_a_delegated_group() -> None:
    run_inside("--user", USER, "--env", "PYTHONDONTWRITEBYTECODE=1")
