"""The same bundle under three runtimes, and checkpoints, on pure cgroup v2: in the virtual machine, one boot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RUN_IN_VM = ROOT.parent / "shared" / "vm" / "run-in-vm"


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_everything_on_pure_v2() -> None:
    if not RUN_IN_VM.exists():
        pytest.fail(f"there is no {RUN_IN_VM}: pure cgroup v2 cannot be tried here", pytrace=False)
    tests = [sys.executable, "-m", "pytest", "--noconftest", "--tb=short", "-p", "no:cacheprovider"]
    words = [str(RUN_IN_VM), "--timeout", "1500", "--dir", str(ROOT), "--", *tests]
    inside = "tests/system/oci/differential_v2_inside.py"
    done = subprocess.run([*words, inside], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-2000:]
    assert " passed" in done.stdout or "[100%]" in done.stdout
