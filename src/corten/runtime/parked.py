"""The first process of an OCI container, and of an exec: no init of Corten's; it becomes the program itself.

Rule 1: what it says and hears on its channel (one datagram each), in this order:
        hears the state as JSON; says Hooks?, Terminal?; then Failed, or Started when all but the program is done;
        hears `go` (become the program) or `park` (wait at the fifo until `start` writes to it). The channel's end is
        the end of this process.
Rule 2: when the container's files have become ours nothing can be imported any more: sys.path is emptied.
Rule 3: it dies with its launcher until it has heard `go` or `park`; after that it belongs to whoever adopts it.
"""

from __future__ import annotations

import os
import select
import sys

from corten import errors
from corten.linux import process, signals, sockets
from corten.linux.signals import Mask
from corten.runtime import channel, trampoline
from corten.runtime.init import find_program
from corten.runtime.plan import Plan, Program
from corten.runtime.spec.hooks import Hook
from corten.runtime.step import Stage, perform
from corten.runtime.steps.hooks import run_hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

GO, PARK = b"go", b"park"
_STATE_MAX = 1 << 18
_NULL = os.makedev(1, 3)
_OURSELVES = os.stat("/proc/self/exe")
# What ends a container that has not been started, as it would end its program.
_ENDING = (signals.HUP, signals.INT, signals.QUIT, signals.TERM)


def run_program(
    plan: Plan, stage: Stage, mask: Mask, fifo: int = -1, hooks: tuple[Hook, ...] = (), sealed: bool = True
) -> NoReturn:
    """Everything that the child does.

    mask: the signals that were blocked before; fifo: where to park, open for reading and writing; hooks: of
    startContainer; sealed: go by the trampoline, which needs execveat(2).
    """
    assert stage.channel is not None
    sock = stage.channel
    status = errors.Error.exit_code
    started = False
    try:
        process.set_name("corten:setup")
        process.set_command_line(stage.arguments, "corten-oci: init")
        process.die_with_parent(signals.KILL)
        stage.state = sock.recv(_STATE_MAX)
        if not stage.state:  # the launcher has ended, or given up
            os._exit(status)
        perform(plan.inside, stage)
        process.die_with_parent(signals.KILL)  # the change of user has cleared it
        _take_own_null()
        sys.path.clear()
        sys.meta_path.clear()
        path = find_program(plan.program)
        _check_interpreter(path, sealed)
        environment = _environment(plan.program)
        kept = tuple(range(3, 3 + plan.keep_fds))
        process.close_all_but((*kept, sock.fileno(), *([fifo] if fifo >= 0 else [])))
        sockets.send(sock, channel.encode(channel.Started(os.getpid())))
        word = sock.recv(16)
        if word not in (GO, PARK):
            os._exit(status)
        process.die_with_parent(0)
        if word == PARK:
            sock.close()
            started = True
            _park(fifo)
            stage.state = stage.state.replace(b'"creating"', b'"created"', 1)
        for hook in hooks:
            run_hook(hook, "startContainer", stage.state)
        process.close_on_exec_from(3 + plan.keep_fds)
        by = trampoline.prepare(len(plan.program.args)) if sealed else -1
        perform(plan.payload, stage)
        signals.reset_ignored()
        signals.restore(mask)
        _become(path, plan.program, environment, by)
    except errors.Error as error:
        status = error.exit_code
        _fail(sock, started, channel.Failed(type(error).__name__, getattr(error, "errno", 0), str(error)))
    except BaseException as error:  # a copy of the launcher must never run on as one
        _fail(sock, started, channel.Failed("Error", 0, f"{type(error).__name__} while setting up: {error}"))
    os._exit(status)


def _take_own_null() -> None:
    """The host's null device as a stream becomes the container's: criu can save only what is in the container."""
    try:
        if not _is_null(os.stat("/dev/null")):
            return  # whatever it is, it is not to be opened
        for fd in range(3):
            if _is_null(os.fstat(fd)):
                null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
                os.dup2(null, fd)
                os.close(null)
    except OSError:
        pass  # there is none, or it may not be opened: the host's will do


def _is_null(found: os.stat_result) -> bool:
    return found.st_rdev == _NULL and found.st_mode & 0o170000 == 0o020000  # a character device


def _fail(sock: sockets.Socket, started: bool, message: channel.Failed) -> None:
    """Say why on the channel; when nobody listens there any more, where the program's own errors would go."""
    try:
        if started:
            os.write(2, f"corten-oci: {message.text}\n".encode())
        else:
            sock.send(channel.encode(message))
    except OSError:
        pass


def _park(fifo: int) -> None:
    """Wait until `start` writes to the fifo. A signal that would end the program ends this process."""
    arrived = signals.descriptor()
    poll = select.poll()
    poll.register(fifo, select.POLLIN)
    poll.register(arrived, select.POLLIN)
    while True:
        ready = [fd for fd, _ in poll.poll()]
        if fifo in ready and os.read(fifo, 1):
            os.close(arrived)
            return
        if arrived in ready:
            for signal in signals.pending(arrived):
                if signal.number in _ENDING:
                    os._exit(128 + signal.number)


def _environment(program: Program) -> dict[str, str]:
    found = dict(entry.partition("=")[::2] for entry in program.env)
    if "HOME" not in found:
        found["HOME"] = _home(os.geteuid())
    return found


def _home(uid: int) -> str:
    """The home directory of a user by the container's own /etc/passwd; `/` where that does not say."""
    try:
        with open("/etc/passwd", "rb") as file:
            for line in file:
                fields = line.rstrip(b"\n").split(b":")
                if len(fields) >= 6 and fields[2] == b"%d" % uid:
                    return os.fsdecode(fields[5]) or "/"
    except OSError:
        pass
    return "/"


def _check_interpreter(path: str, sealed: bool) -> None:
    """CommandNotFound if what a script's first line names is not there: said now, it is the caller's to hear.

    Not sealed: CommandNotRunnable if that leads to our own interpreter, as far as can be told before the exec.
    """
    for _ in range(6):  # the kernel follows five
        try:
            with open(path, "rb") as file:
                if not sealed and os.path.samestat(os.fstat(file.fileno()), _OURSELVES):
                    raise errors.CommandNotRunnable(f"{path}: permission denied: it is the interpreter of the host")
                first = file.readline(256)
        except OSError:
            return  # executable, but not to be read
        if first[:2] != b"#!" or not first[2:].split():
            return
        path = os.fsdecode(first[2:].split()[0])
        if not os.path.exists(path):
            raise errors.CommandNotFound(f"{path}: the interpreter that a script names is not in the container")


def _become(path: str, program: Program, environment: dict[str, str], by: int) -> None:
    try:
        if by >= 0:
            trampoline.execute(by, path, program.args, environment)
        os.execve(path, program.args, environment)
    except OSError as error:
        if error.errno in (2, 20):
            raise errors.CommandNotFound(f"{path}: its interpreter or loader is not in the container") from None
        words = errors.errno_words(error.errno or 0)
        raise errors.CommandNotRunnable(f"{path}: cannot be executed: {words}") from None
