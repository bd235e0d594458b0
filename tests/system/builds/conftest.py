"""Builds are tried on a context of the test's own, with a static busybox as all that is in the image."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from small_root import BUSYBOX

BASE = 'FROM scratch AS base\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "--install", "-s", "/bin"]\n'
"""A first stage with a shell and its kin."""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    path = tmp_path / "context"
    path.mkdir()
    shutil.copy(BUSYBOX, path / "busybox")
    return path
