"""Functions in containers: what is kept for further calls goes at the end of each test, before the leak check."""

from __future__ import annotations

import pytest

import corten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def nothing_kept(nothing_left_behind: None) -> Iterator[None]:
    """Zygotes and containers made ahead are ended."""
    yield
    corten.shutdown()
