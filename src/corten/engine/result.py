"""How a container ended: the account's facts made into a result and one clear sentence. Pure."""

from __future__ import annotations

import os

from corten.errors import ContainerFailed, Error, KernelError, OutOfMemory, TimedOut
from corten.linux import signals
from corten.linux.cgroup.pressure import Pressure
from corten.records import Record
from corten.runtime.account import Account

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.engine.options import RunOptions

def size_words(size: int) -> str:
    """Bytes for people: `100 MiB`, `1.5 GiB`, `95.4 MiB`."""
    amount, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.1f}".removesuffix(".0") + " " + unit


class Usage(Record):
    """What a container used; None where the kernel does not tell.

    cpu_seconds: of all its processes; throttled_seconds: waited because of the CPU limit, summed over CPUs;
    memory_peak, memory_limit, io_read_bytes, io_write_bytes: bytes; pids_peak: most processes and threads at once;
    pressure: by resource (`cpu`, `memory`, `io`), time lost to waiting for it.
    """

    cpu_seconds: float
    throttled_seconds: float | None = None
    memory_peak: int | None = None
    memory_limit: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None
    pids_peak: int | None = None
    pressure: dict[str, Pressure] | None = None


class Result(Record):
    """How a container ended.

    exit_code: the program's, or 128+N if signal N killed it; signal: N, None otherwise; stdout, stderr: what it
    wrote, empty if that was not captured; oom_killed: a process in it was killed for memory; timed_out: the timeout
    killed it; reason: one sentence; usage: what it used; duration: seconds from start to end; not_applied: limits
    that `best_effort` left out, a line each.
    """

    exit_code: int
    signal: int | None
    oom_killed: bool
    timed_out: bool
    reason: str
    usage: Usage
    duration: float
    stdout: str | bytes = ""
    stderr: str | bytes = ""
    not_applied: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the program exited with 0."""
        return self.exit_code == 0

    def check(self) -> Result:
        """The result itself, or the `ContainerFailed` (`OutOfMemory`, `TimedOut`) that fits a bad end."""
        if self.ok:
            return self
        kind = OutOfMemory if self.oom_killed else TimedOut if self.timed_out else ContainerFailed
        raise kind(self.reason, self)

    def ended_by_limit(self) -> bool:
        """Whether a limit had a part in a bad end: then the command line says so."""
        return not self.ok and (self.oom_killed or self.timed_out or "limit" in self.reason)


def result_of(
    account: Account, options: RunOptions, not_applied: tuple[str, ...] = (), foreign: str = ""
) -> Result:
    """The result that an account amounts to; raises the error if the container never started."""
    _raise_if_never_started(account, options, foreign)
    status = account.status if account.status is not None else account.init_status
    code = os.waitstatus_to_exitcode(status)
    number = -code if code < 0 else None
    if account.status is None and code >= 0:  # pid 1 told nothing and was not killed: its status is the program's
        number = code - 128 if code > 128 else None
    exit_code = 128 + number if number else code
    used = account.usage
    usage = Usage(
        cpu_seconds=used.cpu_seconds if used and used.cpu_seconds is not None else account.cpu_seconds,
        throttled_seconds=used.throttled_seconds if used else None,
        memory_peak=used.memory_peak if used else None,
        memory_limit=used.memory_limit if used else None,
        io_read_bytes=used.io_read_bytes if used else None,
        io_write_bytes=used.io_write_bytes if used else None,
        pids_peak=used.pids_peak if used else None,
        pressure=account.pressure,
    )
    return Result(
        exit_code=exit_code,
        signal=number,
        oom_killed=bool(account.oom and account.oom.oom_kill),
        timed_out=account.timed_out,
        reason=_reason(account, options, usage, code, number),
        usage=usage,
        duration=account.seconds,
        not_applied=not_applied,
    )


def _raise_if_never_started(account: Account, options: RunOptions, foreign: str) -> None:
    if account.failed is not None:
        raise error_of(account.failed.kind, account.failed.errno, account.failed.text, foreign)
    if account.status is None and account.oom and account.oom.oom_kill and not account.started:
        limit = f" of {size_words(options.memory)}" if options.memory else ""
        raise Error(f"out of memory before the program started: the memory limit{limit} is too small to start in")
    if account.status is None and not account.started and not account.timed_out:
        raise Error(f"the set-up was ended from outside ({_ending(os.waitstatus_to_exitcode(account.init_status))})")


def error_of(kind: str, number: int, text: str, foreign: str = "") -> Error:
    """The error that a launcher or child reported, of its own class again. foreign: see `Prepared`."""
    from corten import errors

    if foreign and "(ENOEXEC)" in text:
        text = f"{text}: {foreign}"
    if kind == "KernelError":
        again = KernelError(text, number)
        again.args = (text,)
        return again
    found = getattr(errors, kind, Error)
    return found(text) if isinstance(found, type) and issubclass(found, Error) else Error(text)


def _ending(code: int) -> str:
    return f"killed by {signals.name(-code)}" if code < 0 else f"exited with code {code}"


def _reason(account: Account, options: RunOptions, usage: Usage, code: int, number: int | None) -> str:
    if account.timed_out:
        return f"killed: timeout ({options.timeout:g} s)"
    ending = f"killed by {signals.name(number)}" if number else f"exited with code {code}"
    if account.oom and account.oom.oom_kill:
        facts = _memory_facts(account, usage)
        if number == signals.KILL:
            return f"killed: out of memory ({facts})"
        count = account.oom.oom_kill
        killed = f"{count} of its processes were" if count > 1 else "one of its processes was"
        return f"{ending}; {killed} killed: out of memory ({facts})"
    if account.pids_refused and code != 0:
        limit = f" ({options.pids})" if options.pids else ""
        times = "once" if account.pids_refused == 1 else f"{account.pids_refused} times"
        return f"{ending}; the process limit{limit} refused a new process {times}"
    return ending


def _memory_facts(account: Account, usage: Usage) -> str:
    facts = []
    if usage.memory_limit is not None:
        facts.append(f"limit {size_words(usage.memory_limit)}")
    if usage.memory_peak is not None:
        facts.append(f"peak {size_words(usage.memory_peak)}")
    victim = account.victims[-1] if account.victims else None
    if victim and (victim.name == account.program_name or not account.program_name) and account.program_pid:
        facts.append(f"in {victim.name} pid {account.program_pid}")
    elif victim:
        facts.append(f"in {victim.name}, pid {victim.pid} of the host")
    elif account.program_name:
        facts.append(f"in {account.program_name} pid {account.program_pid}")
    return ", ".join(facts)


def account_line(result: Result, options: RunOptions) -> str:
    """One line that tells how it ended and what it used."""
    usage = result.usage
    facts = [f"{usage.cpu_seconds:.2f} CPU seconds"]
    if usage.throttled_seconds:
        facts[-1] += f" (throttled {usage.throttled_seconds:.2f} s)"
    if usage.memory_peak is not None:
        of = f" of {size_words(options.memory)}" if options.memory else ""
        facts.append(f"memory peak {size_words(usage.memory_peak)}{of}")
    if usage.pids_peak is not None:
        facts.append(f"at most {usage.pids_peak}{f' of {options.pids}' if options.pids else ''} processes")
    return f"{result.reason} after {result.duration:.2f} s: " + ", ".join(facts)
