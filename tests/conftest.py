"""What holds for all tests: a temporary directory of its own for each run, and the same generated examples in each."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import hypothesis
import pytest

# A landing must not depend on luck or on the machine's load. Others: pytest --hypothesis-profile=default
hypothesis.settings.register_profile("same", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("same")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """pytest's usual one is shared by all runs: one that was killed could leave a mount there, and fail the next."""
    if config.option.basetemp is None:
        config.option.basetemp = tempfile.mkdtemp(prefix="corten-tests-")
        config.stash[OURS] = Path(config.option.basetemp)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """After success it goes; what a failed test wrote stays to be looked at."""
    path = session.config.stash.get(OURS, None)
    if path is None:
        return
    if exitstatus == 0:
        shutil.rmtree(path)  # a mount below would be an error, as it should
    else:
        print(f"\nthe tests' files are in {path}")


OURS = pytest.StashKey[Path]()
