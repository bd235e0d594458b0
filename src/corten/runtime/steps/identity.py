"""Steps about who and what the process is: names, limits, rights. The last ones before the program."""

from __future__ import annotations

import fcntl
import os
from _socket import AF_INET, SOCK_DGRAM

from corten.errors import KernelError
from corten.linux import capabilities, mounts, paths, process, seccomp, sockets, syscalls, terminal
from corten.linux.capabilities import Sets
from corten.runtime.step import Stage, Step


class BecomeMappedRoot(Step):
    """Be the first mapped user of the new user namespace while setting up: an unmapped one can make no files."""

    uid: int
    gid: int

    def run(self, stage: Stage) -> None:
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)

    def describe(self) -> str:
        return f"be user {self.uid}:{self.gid} of the user namespace"


class SetHostname(Step):
    """Name the machine, in its own UTS namespace."""

    name: str
    domain: str = ""

    def run(self, stage: Stage) -> None:
        if self.name:
            syscalls.call("sethostname", self.name.encode(), len(self.name.encode()))
        if self.domain:
            syscalls.call("setdomainname", self.domain.encode(), len(self.domain.encode()))

    def describe(self) -> str:
        return " ".join(
            part for part in (self.name and f"host name {self.name}", self.domain and f"domain {self.domain}") if part
        )


class RaiseLoopback(Step):
    """Bring up `lo` in a new network namespace. Source: netdevice(7)."""

    def run(self, stage: Stage) -> None:
        ifname_flags = b"lo".ljust(16, b"\0") + (0x1).to_bytes(2, "little") + bytes(14)  # IFF_UP
        sock = sockets.Socket(AF_INET, SOCK_DGRAM)
        fcntl.ioctl(sock.fileno(), 0x8914, ifname_flags)  # SIOCSIFFLAGS
        sock.close()

    def describe(self) -> str:
        return "bring up the loopback interface"


class Sysctl(Step):
    """Set a kernel parameter of the container's namespaces. Runs before the pivot, when /proc is still the host's."""

    key: str
    value: str

    def run(self, stage: Stage) -> None:
        try:
            with open(f"/proc/sys/{self.key}", "w") as file:
                file.write(self.value)
        except FileNotFoundError as error:
            raise KernelError(self.describe(), error.errno or 0, "this kernel has no such parameter") from None

    def describe(self) -> str:
        return f"sysctl {self.key} = {self.value}"


class OomScore(Step):
    """How soon the kernel picks this process when memory runs out. Runs before the pivot."""

    value: int

    def run(self, stage: Stage) -> None:
        try:
            process.set_oom_score(self.value)
        except PermissionError as error:
            hint = "a lower score than that of whoever starts it needs CAP_SYS_RESOURCE"
            raise KernelError(self.describe(), error.errno or 0, hint) from None

    def describe(self) -> str:
        return f"oom_score_adj = {self.value}"


class LimitResource(Step):
    """Set a resource limit."""

    kind: str
    soft: int
    hard: int

    def run(self, stage: Stage) -> None:
        process.set_limit(self.kind, self.soft, self.hard)

    def describe(self) -> str:
        return f"{self.kind} = {process.limit_words(self.soft)}:{process.limit_words(self.hard)}"


class NewKeyring(Step):
    """Leave the caller's keys behind."""

    name: str

    def run(self, stage: Stage) -> None:
        try:
            process.new_session_keyring(self.name)
        except OSError as error:
            if error.errno != 38:  # ENOSYS: a kernel without keys has none to leave behind
                raise

    def describe(self) -> str:
        return "new session keyring"


class NewSession(Step):
    """Leave the caller's session, so that its terminal cannot be typed into from inside."""

    def run(self, stage: Stage) -> None:
        os.setsid()

    def describe(self) -> str:
        return "new session"


class OpenTerminal(Step):
    """Make a terminal in the container's own devpts, send its master end to the launcher, and take the other end.

    uid: its owner; rows, columns: its first size, 0 for none.
    """

    uid: int
    rows: int = 0
    columns: int = 0

    def run(self, stage: Stage) -> None:
        master = paths.open_in_root(stage.root, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
        peer, number = terminal.open_peer(master)
        os.fchown(peer, self.uid, -1)
        if self.rows or self.columns:
            terminal.set_size(master, self.rows, self.columns)
        terminal.take(peer)
        place = paths.file_in_root(stage.root, "/dev/console")
        pts = paths.open_in_root(stage.root, f"/dev/pts/{number}", os.O_PATH)
        tree = mounts.open_tree("", at=pts)
        mounts.attach(tree, place)
        assert stage.channel is not None
        sockets.send(stage.channel, f"Terminal\0/dev/pts/{number}".encode(), (master,))
        for fd in (place, pts, tree, master):
            os.close(fd)
        for fd in (0, 1, 2):
            os.dup2(peer, fd)
        if peer > 2:
            os.close(peer)

    def describe(self) -> str:
        return "open a terminal on /dev/console"


class BecomeUser(Step):
    """Take the program's user, groups and capabilities, in the one order that works.

    Bounding set first (it needs CAP_SETPCAP), then the change of user with capabilities kept, then the other sets.
    groups None: supplementary groups cannot be set in this user namespace.
    """

    uid: int
    gid: int
    groups: tuple[int, ...] | None
    umask: int | None
    sets: Sets | None

    def run(self, stage: Stage) -> None:
        if self.sets is not None:
            capabilities.drop_bounding(self.sets.bounding)
            capabilities.keep_across_setuid()
        process.set_identity(self.uid, self.gid, self.groups)
        if self.sets is not None:
            capabilities.set_sets(self.sets)
            capabilities.raise_ambient(self.sets.ambient)
        if self.umask is not None:
            os.umask(self.umask)

    def describe(self) -> str:
        groups = f" groups {','.join(map(str, self.groups))}" if self.groups else ""
        held = "all capabilities kept" if self.sets is None else f"{len(self.sets.effective)} capabilities"
        return f"become user {self.uid}:{self.gid}{groups}, {held}"


class NoNewPrivileges(Step):
    """No set-user-id program or file capability will ever give more rights."""

    def run(self, stage: Stage) -> None:
        seccomp.set_no_new_privs()

    def describe(self) -> str:
        return "no new privileges"


class LoadFilter(Step):
    """Load the system call filter, compiled beforehand."""

    program: bytes
    flags: tuple[str, ...]
    name: str

    def run(self, stage: Stage) -> None:
        seccomp.load(self.program, self.flags)

    def describe(self) -> str:
        return f"load system call filter {self.name} ({len(self.program) // 8} instructions)"


class Shield(Step):
    """Forbid others to trace this process or to read its /proc files, before any namespace is shared with them.

    Against the class of CVE-2019-5736: the interpreter of the host must not be reached through /proc/PID/exe. Comes
    after the steps that write to /proc/self, which then belongs to the real root.
    """

    def run(self, stage: Stage) -> None:
        process.set_dumpable(False)

    def describe(self) -> str:
        return "shield the set-up process from being traced"
