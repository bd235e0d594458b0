"""Keys of steps: whatever changes a result changes its key, and nothing else does."""

from __future__ import annotations

import pytest

from corten.build.evaluate import DirectoryStep, RunStep
from corten.build.instructions import Copy, RunMount
from corten.build.keys import copy_key, directory_key, run_key
from corten.build.lines import Heredoc

RUN = RunStep(("sh", "-c", "x"), (("A", "1"), ("B", "2")), "", "/")
COPY = Copy(1, "COPY a /b", ("a",), "/b")


def key(step: RunStep = RUN, below: tuple[str, ...] = ("l1",), mounts: tuple[str, ...] = (), net: str = "host") -> str:
    return run_key(below, step, mounts, net, None)


def test_what_a_command_depends_on() -> None:
    keys = [
        key(),
        key(below=("l1", "l2")),
        key(below=()),
        key(net="none"),
        key(mounts=("digest",)),
        key(RUN.replace(argv=("sh", "-c", "y"))),
        key(RUN.replace(argv=("sh", "-c x"))),
        key(RUN.replace(env=(("A", "1"),))),
        key(RUN.replace(env=(("A", "1B=2"),))),
        key(RUN.replace(user="1")),
        key(RUN.replace(workdir="/w")),
        key(RUN.replace(script="#!x")),
        key(RUN.replace(mounts=(RunMount("cache", (("target", "/c"),)),))),
        run_key(("l1",), RUN, (), "host", 1),
        directory_key(("l1",), DirectoryStep("/w", ""), (0, 0), None),
        directory_key(("l1",), DirectoryStep("/w", ""), (1, 0), None),
    ]
    assert len(set(keys)) == len(keys)
    assert key(RUN.replace(env=(("B", "2"), ("A", "1")))) == key()
    assert key(RUN.replace(proxies=(("http_proxy", "p"),))) == key()


WRITTEN = (Heredoc("n", "c", True, False),)


@pytest.mark.parametrize("change", [{"target": "/c"}, {"chmod": "0644"}, {"heredocs": WRITTEN}, {"parents": True}])
def test_what_a_copy_depends_on(change: dict[str, object]) -> None:
    same = copy_key(("l1",), COPY, ("d",), (0, 0), None)
    assert copy_key(("l1",), COPY.replace(**change), ("d",), (0, 0), None) != same
    assert copy_key(("l1",), COPY, ("other",), (0, 0), None) != same
    assert copy_key(("l1",), COPY, ("d",), (1, 0), None) != same
    assert copy_key(("l2",), COPY, ("d",), (0, 0), None) != same
    assert copy_key(("l1",), COPY.replace(chown="0:0"), ("d",), (0, 0), None) == same


def test_a_linked_copy_stands_on_nothing() -> None:
    link = COPY.replace(link=True)
    assert copy_key(("l1",), link, ("d",), (0, 0), None) == copy_key(("l2",), link, ("d",), (0, 0), None)
