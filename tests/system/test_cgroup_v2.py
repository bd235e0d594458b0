"""The same tests on a machine with nothing but cgroup v2: a virtual one, where this checkout has it beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN_IN_VM = ROOT.parent / "shared" / "vm" / "run-in-vm"


def in_vm(*command: str, options: tuple[str, ...] = ()) -> str:
    done = subprocess.run(
        [RUN_IN_VM, "--dir", ROOT, *options, "--", *command], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


if RUN_IN_VM.exists():

    @pytest.mark.slow
    @pytest.mark.timeout(1600)
    def test_everything_on_pure_v2() -> None:
        tests = ("tests/system/test_cgroup.py", "tests/system/cgroup_v2_inside.py")
        said = in_vm(sys.executable, "-m", "pytest", "--noconftest", "-p", "no:cacheprovider", *tests)
        assert " passed" in said
        assert "skipped" not in said

    @pytest.mark.slow
    @pytest.mark.timeout(1600)
    def test_an_ordinary_user_with_a_delegated_group() -> None:
        program = ROOT / "tests" / "system" / "cgroup_v2_as_user.py"
        environment = ("--user", "nobody", "--env", f"PYTHONPATH={ROOT / 'src'}", "--env", "PYTHONDONTWRITEBYTECODE=1")
        assert in_vm(os.path.realpath(sys.executable), str(program), options=environment).endswith("good\n")
