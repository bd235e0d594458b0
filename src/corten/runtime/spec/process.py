"""`process`: the program, who it is, and what it may do. Source: OCI runtime specification 1.3, config.md, "Process".

Fields are named as the JSON keys in snake case (`keys.py`). An absent string is empty, since the specification gives
an empty one no other meaning; numbers for which 0 means something are None when absent.
"""

from __future__ import annotations

from corten.linux.capabilities import Sets
from corten.records import Record


class User(Record):
    """Numeric ids inside the container. `umask` None: the runtime's default, 0o022."""

    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()
    username: str = ""


class Box(Record):
    """`consoleSize`, in characters."""

    height: int
    width: int


class Rlimit(Record):
    """One of setrlimit(2) by its name, `RLIMIT_NOFILE`; 2**64-1 is no limit."""

    type: str
    hard: int
    soft: int


class Scheduler(Record):
    """sched_setattr(2). `runtime`, `deadline` and `period` are nanoseconds, for SCHED_DEADLINE; 0 where not given."""

    policy: str
    nice: int = 0
    priority: int = 0
    flags: tuple[str, ...] = ()
    runtime: int = 0
    deadline: int = 0
    period: int = 0


class IOPriority(Record):
    """ioprio_set(2): class and, within it, 0 (first) to 7 (last). `class_` is the key `class`."""

    class_: str
    priority: int = 0


class ExecCPUAffinity(Record):
    """CPUs, as a list such as `0-3,7`, of a process that `exec` adds: before and after it enters the control group."""

    initial: str = ""
    final: str = ""


class Process(Record):
    """The program to run. `env` holds `NAME=value`; None for `capabilities` leaves those of the runtime alone."""

    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: User = User()
    terminal: bool = False
    console_size: Box | None = None
    capabilities: Sets | None = None
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    selinux_label: str = ""
    oom_score_adj: int | None = None
    scheduler: Scheduler | None = None
    io_priority: IOPriority | None = None
    exec_cpu_affinity: ExecCPUAffinity | None = None
