"""How the container of a Dask worker ended, in the process that asks and on its way there from another machine."""

from __future__ import annotations

from corten.engine.result import Result, Usage
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_USAGE = (
    "cpu_seconds", "throttled_seconds", "memory_peak", "memory_limit", "io_read_bytes", "io_write_bytes", "pids_peak",
)  # fmt: skip
_RESULT = ("exit_code", "signal", "oom_killed", "timed_out", "reason", "duration")


class End(Record):
    """reason: one sentence; result: of the container, None if that is not known; host_lost: nothing is heard of its
    machine any more."""

    reason: str
    result: Result | None = None
    host_lost: bool = False

    @property
    def killed(self) -> bool:
        """Whether something ended it, and not its own decision."""
        return self.result is None or not self.result.ok


def to_plain(result: Result) -> dict[str, Any]:
    """A result as JSON can carry it."""
    plain = {name: getattr(result, name) for name in _RESULT}
    plain["usage"] = {name: getattr(result.usage, name) for name in _USAGE}
    return plain


def from_plain(plain: dict[str, Any]) -> Result:
    """The result again."""
    usage = Usage(**{name: plain["usage"][name] for name in _USAGE})
    return Result(usage=usage, **{name: plain[name] for name in _RESULT})
