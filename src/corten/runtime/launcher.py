"""The launcher: runs a plan's host steps, clones, watches the child to its end, settles the account, undoes.

Rule 1: it lives in a process with one thread: the spawner of a library, or the command line itself.
Rule 2: nothing here waits: `Launch` is driven by whoever polls its descriptors, so one launcher serves many.
Rule 3: once host steps have begun, the undo steps run, whatever happens.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import time

from corten import output
from corten.errors import Error, KernelError
from corten.linux import clone, kmsg, pidfd, process, signals, sockets, vfork
from corten.linux.cgroup import events, pressure, usage
from corten.linux.cgroup.group import Group
from corten.linux.signals import Mask
from corten.runtime import channel, id_maps, init, init_program
from corten.runtime.account import Account, Victim
from corten.runtime.plan import Plan, clone_flags
from corten.runtime.step import Stage, perform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Reported = channel.Started | channel.Failed | channel.Terminal | channel.Namespaces


class Launch:
    """One container from its launcher's side.

    pid, pidfd: of its first process; channel: from where its messages come; deadline: on time.monotonic, or None.
    on_message is called with (message, descriptors) for Started, Failed, Terminal and Namespaces. mask: the signals
    that are blocked for the program, if not those that are now.
    Without stdio it is made ahead (`plan.ahead` steps of it), and goes on at the `call` of somebody who wants it.
    """

    def __init__(
        self,
        plan: Plan,
        stdio: tuple[int, int, int] | None,
        on_message: Callable[[Reported, tuple[int, ...]], None],
        mask: Mask | None = None,
    ) -> None:
        self.plan = plan
        self._tell = on_message
        self._failed: channel.Failed | None = None
        self._ended: channel.Ended | None = None
        self._timed_out = False
        self._started = False
        self._stage = Stage()
        self.deadline: float | None = None
        if stdio is not None:  # else its time runs from the call on
            self._begin()
        try:
            perform(plan.host, self._stage)
            self._clone(stdio, mask)
        except BaseException:
            self._undo()
            raise

    def _begin(self) -> None:
        self._began = time.monotonic()
        self.deadline = None if self.plan.timeout is None else self._began + self.plan.timeout

    def call(
        self,
        stdio: tuple[int, int, int],
        on_message: Callable[[Reported, tuple[int, ...]], None],
    ) -> None:
        """What was made ahead is wanted: let it go on. OSError: it has ended."""
        self._tell = on_message
        self._begin()
        sockets.send(self.channel, b"call", stdio)

    def _clone(self, stdio: tuple[int, int, int] | None, mask: Mask | None) -> None:
        plan, stage = self.plan, self._stage
        stage.arguments = _arguments()
        self.channel, stage.channel = sockets.pair()
        cgroup_fd = plan.group.open_v2() if plan.group else None
        now = signals.block_all()
        gc.disable()  # a collection in the child would copy pages, and could run finalizers of the launcher
        try:
            if stdio is not None and init.may_borrow(plan):
                made = self._lend(stdio, mask or now, cgroup_fd)
            else:
                made = self._clone_into(clone_flags(plan), cgroup_fd)
                if made.pid == 0:
                    init.run_child(plan, stage, stdio, mask or now)
        except OSError as error:
            what = "clone with new namespaces " + " ".join(plan.namespaces)
            raise KernelError(what, error.errno or 0, _clone_hint(plan, error.errno)) from None
        finally:
            gc.enable()
            signals.restore(now)
            stage.channel.close()
            stage.close()
            if cgroup_fd is not None:
                os.close(cgroup_fd)
        self.pid, self.pidfd = made.pid, made.pidfd
        try:
            if "user" in plan.namespaces:
                id_maps.give(plan, self.pid)
                self.channel.send(b"g")
        except BaseException:
            self.kill()
            os.waitpid(self.pid, 0)
            self._close()
            raise

    def _lend(self, stdio: tuple[int, int, int], mask: Mask, cgroup_fd: int | None) -> clone.Clone:
        """A child that is set up in our own memory."""
        plan, stage = self.plan, self._stage.copy()
        arguments = 0 if plan.held else len(plan.program.args)
        program = init_program.prepare(arguments, 3 + plan.keep_fds, mask.bits)
        try:
            return vfork.clone3(clone_flags(plan), cgroup_fd, lambda: init.borrow(plan, stage, stdio, program))
        finally:
            os.close(program)

    def _clone_into(self, flags: int, cgroup_fd: int | None) -> clone.Clone:
        if not self.plan.joined:
            return clone.clone3(flags, cgroup_fd)
        from corten.runtime import joining

        opened = tuple((kind, self._stage.trees[f"ns:{kind}"]) for kind, _ in self.plan.joined)
        return joining.clone_into(joining.Joins(opened), flags, cgroup_fd)

    def read_channel(self) -> bool:
        """Take one message from the child; False at the end of file."""
        data, descriptors = sockets.receive(self.channel)
        if not data:
            return False
        message = init.heard(data, self.plan)
        if isinstance(message, channel.Ended):
            self._ended = message
        elif isinstance(message, channel.Failed):
            self._failed = message
            self._tell(message, descriptors)
        elif isinstance(message, (channel.Started, channel.Terminal, channel.Namespaces)):
            self._started = self._started or isinstance(message, channel.Started)
            self._tell(message, descriptors)
        return True

    def signal(self, number: int) -> bool:
        """Send a signal to the first process (which forwards it, if it is an init); False if it has ended."""
        return pidfd.send_signal(self.pidfd, number)

    def kill(self) -> None:
        """End every process of the container."""
        pidfd.send_signal(self.pidfd, signals.KILL)
        if self.plan.group and "pid" not in self.plan.namespaces:
            self.plan.group.kill()

    def wait(self) -> Account:
        """Serve this one container to its end: for callers that have nothing else to do."""
        poll = select.poll()
        poll.register(self.channel.fileno(), select.POLLIN)
        poll.register(self.pidfd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll(self.patience())}
            if self.channel.fileno() in ready and not self.read_channel():
                poll.unregister(self.channel.fileno())
            if self.pidfd in ready:
                return self.settle()
            self.expire_if_due()

    def patience(self) -> int | None:
        """Milliseconds until the deadline, for poll; None without one."""
        if self.deadline is None:
            return None
        return min(max(0, int((self.deadline - time.monotonic()) * 1000) + 1), _LONGEST)

    def expire_if_due(self) -> None:
        """Once the deadline has passed: end everything and note why."""
        if self.deadline is not None and self.deadline <= time.monotonic():
            self._timed_out = True
            self.deadline = None
            self.kill()

    def settle(self, tell: Callable[[Account], None] = lambda _account: None) -> Account:
        """The first process has ended (its pidfd is readable): reap it, read the account, undo.

        tell: hears the account before the rest is undone, and can make use of it meanwhile.
        """
        _, init_status, spent = os.wait4(self.pid, 0)
        self.channel.setblocking(False)
        try:
            while self.read_channel():
                pass
        except OSError:
            pass  # nothing more to read; a grandchild may keep the channel's other end open for a moment
        seconds = time.monotonic() - self._began
        group = self.plan.group
        status = self._ended.status if self._ended else None
        if status is None and not self.plan.init and self._failed is None:
            status = init_status
        try:
            killed = events.kills(group) if group else None
            oom = events.oom(group) if group and killed else None if killed is None else events.OomEvents(oom_kill=0)
            account = Account(
                failed=self._failed,
                started=self._started,
                status=status,
                init_status=init_status,
                program_pid=self._ended.pid if self._ended else 0,
                program_name=self._ended.name if self._ended else "",
                timed_out=self._timed_out,
                seconds=seconds,
                cpu_seconds=spent.ru_utime + spent.ru_stime,
                usage=usage.read(group, live=False) if group else None,
                oom=oom,
                pids_refused=events.forks_refused(group) if group else None,
                pressure=pressure.read(group) if group else None,
                victims=_victims(group) if group and oom and oom.oom_kill else (),
            )
            tell(account)
        finally:
            self._close()
            self._undo()
        return account

    def discard(self) -> None:
        """The first process has ended, and nobody asks how: reap it, undo."""
        os.waitpid(self.pid, 0)
        self._close()
        self._undo()

    def _close(self) -> None:
        self.channel.close()
        os.close(self.pidfd)

    def _undo(self) -> None:
        self._stage.close()
        for step in self.plan.undo:
            try:
                step.run(self._stage)
            except (OSError, Error) as error:
                # The next command sweeps what is left; the container's own end is worth more than this error.
                output.remark(f"corten: {step.describe()}: {error}")
        self._stage.release()


_LONGEST = 2**31 - 1  # what poll takes, 24 days: then it is asked again
_area: list[tuple[int, int]] = []


def _arguments() -> tuple[int, int]:
    """Where this process's command line lies; it never moves."""
    if not _area:
        _area.append(process.argument_area())
    return _area[0]


def _clone_hint(plan: Plan, number: int | None) -> str:
    if number == errno.ENOSPC:
        return "no more namespaces are allowed: raise the sysctl user.max_user_namespaces (or its like), or run as root"
    if number == errno.EPERM and "user" in plan.namespaces:
        return "user namespaces are forbidden here: see the sysctls kernel.*userns*, or run as root"
    return "CAP_SYS_ADMIN is missing: run as root of the machine, not of a container" if number == errno.EPERM else ""


def _victims(group: Group) -> tuple[Victim, ...]:
    name = os.path.basename(group.dirs[0].path)
    return tuple(Victim(*found) for found in kmsg.victims(name))
