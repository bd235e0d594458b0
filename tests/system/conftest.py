"""System tests: real containers with the real kernel, as root. Each one ends with the leak check."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import corten
from corten.runtime import spawner_client
from leaks import left_behind, picture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of the tests' own, with a spawner already running and the host image's mask made."""
    if os.geteuid() != 0:
        pytest.fail("the system tests make containers as root: run them as root", pytrace=False)
    # A script's job in the background ignores them, and so would every program that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    path = tmp_path_factory.mktemp("corten-home")
    path.chmod(0o755)
    os.environ["CORTEN_HOME"] = str(path)
    assert corten.run("host", ["true"]).exit_code == 0
    return path


@pytest.fixture(autouse=True)
def nothing_left_behind(home: Path) -> Iterator[None]:
    """Mounts, control groups, processes, namespaces, descriptors and files are as they were."""
    spawner_client.drop()  # what an earlier test had made ahead
    before = picture(home)
    yield
    spawner_client.drop()
    left = left_behind(before, home)
    assert not left, "left behind:\n" + "\n".join(left)


@pytest.fixture
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `corten ...` as a person would, and return how it ended."""

    def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
        settings = {"capture_output": True, "text": True, "timeout": 120, "stdin": subprocess.DEVNULL, **options}
        return subprocess.run([CORTEN, *words], check=False, **settings)  # type: ignore[call-overload, no-any-return]

    return run


CORTEN = str(Path(sys.executable).parent / "corten")
