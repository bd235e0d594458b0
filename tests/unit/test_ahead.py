"""What may be made before it is asked for, and how one plan serves many containers."""

from __future__ import annotations

import os

import pytest

from corten.engine.options import make
from corten.engine.prepare import prepare
from corten.runtime import aside, defaults
from corten.runtime.plan import Plan
from corten.runtime.spec import Mount
from corten.runtime.template import Template


def plan_of(tmp_path: object, monkeypatch: pytest.MonkeyPatch, identity: str) -> Plan:
    monkeypatch.setenv("CORTEN_HOME", str(tmp_path))
    monkeypatch.setattr("os.urandom", lambda _count: bytes.fromhex(identity))
    return prepare(make("host", ["true"], userns="host" if os.geteuid() == 0 else None)).plan


def test_a_template_gives_the_plan_that_would_have_been_made(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = "0123456789ab", "ba9876543210"
    first, second = (plan_of(tmp_path, monkeypatch, identity) for identity in (one, other))
    assert first != second
    assert one in repr(first)
    template = Template(first, one)
    assert template.plan(other) == second
    assert template.plan(one) == first


def test_nothing_of_the_host_is_looked_at_ahead(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(tmp_path, monkeypatch, "0123456789ab")
    names = [type(step).__name__ for step in plan.inside]
    assert 0 < plan.ahead == names.index("LayPlaces")
    assert names.index("MoveIn") == plan.ahead + 2
    made = [getattr(step, "target", "") for step in plan.inside[: plan.ahead]]
    assert "/proc" in made
    assert "/sys/fs/cgroup" in made


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), 7),
        ((Mount("/data", "bind", "/data", ("rbind",)),), 7),
        ((Mount("/dev/shm/x", "bind", "/x", ("rbind",)),), 0),
        ((Mount("/sys/../dev/x", "bind", "/x", ("rbind",)),), 0),
        ((Mount("//proc/", "bind", "/x", ("rbind",)),), 0),
        ((Mount("/", "tmpfs", "tmpfs"),), 0),
    ],
)
def test_what_is_made_aside(given: tuple[Mount, ...], expected: int) -> None:
    assert aside.count((*defaults.MOUNTS, *given)) == expected


def test_a_mount_that_needs_the_root_is_not_made_aside() -> None:
    assert aside.count((Mount("/dev/shm", "tmpfs", "tmpfs"),)) == 0
    assert aside.count((Mount("/proc", "proc", "proc"), Mount("/dev", "tmpfs", "tmpfs", ("tmpcopyup",)))) == 0
    assert aside.tops(defaults.MOUNTS) == aside.TOPS
    assert aside.below("/proc/sys", aside.TOPS)
    assert not aside.below("/process", aside.TOPS)
