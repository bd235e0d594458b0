"""The plan of a bundle as an oracle: what `corten-oci` made of it has what was promised, and so has what runc made."""

from __future__ import annotations

from pathlib import Path

from corten.engine import bundle as bundles
from corten.engine.bundle import MakeOptions
from corten.views.comparing import Comparison, compare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from oci_runtime import Runtime

    Change = Callable[[dict[str, Any]], None]


def limited(config: dict[str, Any]) -> None:
    config["process"]["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [7], "umask": 0o077}
    config["process"]["oomScoreAdj"] = 200
    config["linux"]["sysctl"] = {"net.core.somaxconn": "77"}
    config["linux"]["resources"] = {
        "devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "minor": 3}],
        "memory": {"limit": 64 << 20},
        "pids": {"limit": 20},
        "cpu": {"quota": 50_000, "period": 100_000},
    }


def looked_at(runtime: Runtime, identity: str, place: Path) -> Comparison:
    runtime.quietly("create", "--bundle", str(place), identity)
    runtime("start", identity, check=True)
    plan = bundles.prepare(identity, f"{runtime.root}/{identity}", MakeOptions(str(place))).plan
    return compare(plan, runtime.state(identity)["pid"])


def different(found: Comparison) -> list[str]:
    return [one.line() for one in found.differences]


def test_a_plain_container(oci: Runtime, runc: Runtime, identity: str, bundle: Callable[..., Path]) -> None:
    place = bundle("/bin/sleep", "60")
    ours = looked_at(oci, identity, place)
    assert different(ours) == []
    assert len(ours.findings) > 50
    theirs = looked_at(runc, f"{identity}-r", place)
    # runc 1.1 also allows /dev/net/tun, and gives a tmpfs without a mode its own, not that of the directory below.
    told = {one.about for one in theirs.differences if "group" not in one.about}
    assert told <= {"allowed devices", "mount /tmp mode"}
    assert len(theirs.findings) == len(ours.findings)


def test_limits_and_rights(oci: Runtime, identity: str, bundle: Callable[..., Path]) -> None:
    place = bundle("/bin/sleep", "60", change=limited)
    ours = looked_at(oci, identity, place)
    assert different(ours) == []
    about = {one.about for one in ours.findings if one.agrees}
    assert {"limit pids.max", "allowed devices", "umask", "sysctl net/core/somaxconn", "oom_score_adj"} <= about
