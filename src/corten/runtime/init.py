"""The child of the clone: performs the plan's inside steps, then becomes pid 1 or the program itself.

There are two kinds of it. A child that has the launcher's memory on loan (`borrow`) executes the init as a program of
its own, `init_program`. Where that cannot be (`may_borrow`) a copy of the launcher (`run_child`) goes on as pid 1.

Rule 1: nothing is imported after the pivot: the host's files are gone. All modules that steps use are loaded before.
Rule 2: every way out is a message on the channel, or the channel's end.
Rule 3: as pid 1 it only reaps, forwards and reports. It has the container's rights, no more; it cannot be traced.
"""

from __future__ import annotations

import errno
import os
import select

from corten import errors
from corten.linux import paths, process, signals, sockets
from corten.linux.machine_code import words_to_execute
from corten.linux.signals import Mask
from corten.records import Record
from corten.runtime import channel, init_program
from corten.runtime.plan import Plan, Program
from corten.runtime.step import Stage, perform
from corten.runtime.steps import identity, mounts, namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from corten.linux.vfork import End

_NOT_FOUND = (errno.ENOENT, errno.ENOTDIR)
_WAIT_ANY = os.WEXITED | os.WNOHANG | os.WNOWAIT
# Stops of a background job are between the terminal and the program; the init is not asked.
_NOT_FORWARDED = (signals.CHLD, signals.TTIN, signals.TTOU)


def run_child(plan: Plan, stage: Stage, stdio: tuple[int, int, int] | None, mask: Mask) -> NoReturn:
    """Everything that the child does. mask: the signals that were blocked before, for the program.

    stdio: None for a container that is made ahead: its standard streams come when somebody wants it.
    """
    assert stage.channel is not None
    sock = stage.channel
    status = errors.Error.exit_code
    try:
        process.set_name("corten:setup" if stdio is not None else "corten:ahead")  # engine/listing tells them apart
        process.set_command_line(stage.arguments, "corten:init")
        process.die_with_parent(signals.KILL)
        if not _launcher_lives(sock, wait="user" in plan.namespaces):
            os._exit(status)
        done = 0
        if stdio is None:
            # Nothing of other containers may stay open here: their ends would go unnoticed.
            process.close_all_but((sock.fileno(), *stage.trees.values()))
            done = plan.ahead
            perform(plan.inside[:done], stage)
            stdio = _wait_for_call(sock)
            process.set_name("corten:setup")
        _take_stdio(stdio)
        perform(plan.inside[done:], stage)
        process.die_with_parent(signals.KILL)  # the change of user has cleared it
        kept = tuple(range(3, 3 + plan.keep_fds))
        if plan.init:
            process.close_all_but((*kept, sock.fileno()))
            status = _be_init(plan, stage, sock, mask)
        else:
            process.close_on_exec_from(3 + plan.keep_fds)
            path = find_program(plan.program)
            _say(sock, channel.Started(os.getpid()))
            perform(plan.payload, stage)
            signals.reset_ignored()
            signals.restore(mask)
            _exec(plan.program, path)
    except errors.Error as error:
        _say(sock, channel.Failed(type(error).__name__, getattr(error, "errno", 0), str(error)))
        status = error.exit_code
    except BaseException as error:  # a copy of the launcher must never run on as one
        _say(sock, channel.Failed("Error", 0, f"{type(error).__name__} while setting up: {error}"))
    os._exit(status)


def may_borrow(plan: Plan) -> bool:
    """Whether its child can be set up in the launcher's memory, while the launcher stands still. Pure.

    Not where the launcher has something to do meanwhile (id maps) or would have to wait for long (copies); where what
    the user asks for could end the child half-way, and with it the launcher: limits of memory, stack and CPU time,
    filters of the user's; and where the kernel wants a process with memory of its own: to join a time or user
    namespace; for a new time namespace, which it gives to what is executed only since Linux 6.3.
    """
    own = plan.init and not plan.joined and not plan.payload and "pid" in plan.namespaces
    if not own or "user" in plan.namespaces or ("time" in plan.namespaces and not _NEW_TIME_BY_EXEC):
        return False
    for step in plan.inside:
        if isinstance(step, (namespaces.JoinNamespace, namespaces.TimeOffsets)):
            return False
        if isinstance(step, mounts.Mount) and step.options.copy_up:
            return False
        if isinstance(step, identity.LimitResource) and step.kind in _DEADLY:
            return False
        if isinstance(step, identity.LoadFilter) and step.name != "default":
            return False
    return True


_DEADLY = ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_STACK")
_NEW_TIME_BY_EXEC = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2]) >= (6, 3)


def borrow(plan: Plan, stage: Stage, stdio: tuple[int, int, int], init: int) -> End:
    """Everything that a child does that has the launcher's memory: what to execute at the end, or its exit status.

    init: the descriptor of the `init_program`, which will find its channel behind the descriptors that are kept.
    """
    assert stage.channel is not None
    sock = stage.channel
    try:
        process.set_name("corten:setup")
        process.die_with_parent(signals.KILL)
        _take_stdio(stdio)
        perform(plan.inside, stage)
        process.set_dumpable(False)  # a change of user may have undone it (fs.suid_dumpable), and this is no copy
        words: list[bytes] = []
        if not plan.held:
            variables = [f"{name}={value}" for name, value in _environment(plan.program).items()]
            words = words_to_execute(find_program(plan.program), plan.program.args, variables)
        signals.reset_ignored()
        own = 3 + plan.keep_fds
        kept = tuple(range(3, own))
        process.close_all_but((*kept, sock.fileno(), init))
        try:
            if init == own:
                init = os.dup(init)
            if sock.fileno() == own:
                os.set_inheritable(own, True)
            else:
                os.dup2(sock.fileno(), own)
        except OSError as error:
            raise _no_room(error) from None
        return init, [b"corten:init"], words
    except errors.Error as error:
        number, text = getattr(error, "errno", 0), str(error)
        if number == errno.ENOMEM and plan.group:  # a copy would have been killed: nobody is whose memory is lent
            text = f"out of memory before the program started: {text}: the memory limit is too small to start in"
        _say(sock, channel.Failed(type(error).__name__, number, text))
        return error.exit_code
    except BaseException as error:  # it must end, and its launcher go on
        _say(sock, channel.Failed("Error", 0, f"{type(error).__name__} while setting up: {error}"))
        return errors.Error.exit_code


def heard(data: bytes, plan: Plan) -> Record | None:
    """What the child has said on its channel, in whichever form; None if it is nothing that it would say."""
    message = init_program.heard(data)
    if isinstance(message, int):
        error = _refused(plan.program.args[0], OSError(message, ""))
        return channel.Failed(type(error).__name__, getattr(error, "errno", 0), str(error))
    return message or channel.decode(data)


def _launcher_lives(sock: sockets.Socket, wait: bool) -> bool:
    """Whether the launcher holds its end of the channel; with `wait`, once it has written the id maps."""
    if wait:
        return bool(sock.recv(1))
    poll = select.poll()
    poll.register(sock.fileno(), 0)
    return not poll.poll(0)  # nothing but a hang-up is reported


def _wait_for_call(sock: sockets.Socket) -> tuple[int, int, int]:
    """The standard streams of whoever wants this container; ends with the launcher, or when nobody does."""
    data, descriptors = sockets.receive(sock)
    if not data:
        os._exit(0)
    stdin, stdout, stderr = descriptors
    return stdin, stdout, stderr


def _say(sock: sockets.Socket, message: channel.Failed | channel.Started | channel.Ended) -> None:
    try:
        sock.send(channel.encode(message))
    except OSError:
        pass  # the launcher is gone, and so shall we be


def _take_stdio(stdio: tuple[int, int, int]) -> None:
    if stdio == (0, 1, 2):
        return
    copies = [os.dup(fd) for fd in stdio]
    for number, fd in enumerate(copies):
        os.dup2(fd, number)
        os.close(fd)


def _environment(program: Program) -> dict[str, str]:
    return dict(entry.partition("=")[::2] for entry in program.env)


def find_program(program: Program) -> str:
    """The path of the program inside: its name if that has a slash, else the first match on the search path.

    CommandNotFound or CommandNotRunnable if there is none that could be executed.
    """
    name = program.args[0]
    if not name:
        raise errors.CommandNotFound("the command is empty")
    places = [name] if "/" in name else [f"{place or '.'}/{name}" for place in program.search.split(":")]
    found = ""
    for path in places:
        try:
            os.stat(path)
        except OSError:
            continue
        if os.path.isfile(path) and os.access(path, os.X_OK, effective_ids=True):
            _refuse_own_executable(path)
            return path
        found = found or path
    if found:
        why = "it is a directory" if os.path.isdir(found) else "permission denied"
        raise errors.CommandNotRunnable(f"{found}: cannot be executed: {why}")
    where = "" if "/" in name else f" on the search path {program.search}"
    raise errors.CommandNotFound(f"{name}: not found in the container{where}")


def _refuse_own_executable(path: str) -> None:
    """CommandNotRunnable if a program, or the interpreter that its first line names, is a link such as /proc/self/exe.

    That is the host's Python, in a process that from then on obeys the container's loader and libraries, and through
    whose own /proc/self/exe it could be overwritten as soon as nobody runs it (CVE-2019-5736).
    """
    for _ in range(6):  # the kernel follows five interpreters (fs/exec.c)
        try:
            astray = paths.leads_astray(path)
        except OSError as error:
            raise errors.KernelError(f"look at {path}", error.errno or 0, "a filter must allow openat2") from None
        if astray:
            raise errors.CommandNotRunnable(f"{path}: cannot be executed: it leads out of the container through /proc")
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return
        start = os.read(fd, 256)
        os.close(fd)
        words = start[2:].partition(b"\n")[0].split() if start[:2] == b"#!" else []
        if not words:
            return
        path = os.fsdecode(words[0])


def _refused(path: str, error: OSError) -> errors.Error:
    if error.errno == errno.EAGAIN:  # it was not the program that could not be had, but a process for it
        hint = "a process limit (--pids-limit, --ulimit nproc) leaves no room beside the init"
        return errors.KernelError(f"start {path}", errno.EAGAIN, hint)
    if error.errno in _NOT_FOUND:
        # The file is there, so what is missing is the interpreter that it names.
        return errors.CommandNotFound(f"{path}: its interpreter or loader is not in the container")
    return errors.CommandNotRunnable(f"{path}: cannot be executed: {errors.errno_words(error.errno or 0)}")


def _exec(program: Program, path: str) -> None:
    try:
        os.execve(path, program.args, _environment(program))
    except OSError as error:
        raise _refused(path, error) from None


def _start(plan: Plan, stage: Stage, mask: Mask) -> int:
    """Start the program as a child of this init; its pid."""
    program = plan.program
    path = find_program(program)
    if plan.payload:
        # Steps that the init must not take itself (a filter that does not allow an init): a child takes them.
        try:
            pid = os.fork()
        except OSError as error:
            raise _refused(path, error) from None
        if pid == 0:
            perform(plan.payload, stage)
            signals.reset_ignored()
            signals.restore(mask)
            _exec(program, path)
        return pid
    blocked = [number for number in signals.ALL if mask.bits >> (number - 1) & 1]
    try:
        return os.posix_spawn(
            path, program.args, _environment(program), setsigmask=blocked, setsigdef=signals.ignored()
        )
    except OSError as error:
        raise _refused(path, error) from None


def _be_init(plan: Plan, stage: Stage, sock: sockets.Socket, mask: Mask) -> int:
    """Start the program, serve it to its end; the exit status to end with. A held container's init only reaps."""
    try:
        fd = signals.descriptor()
    except OSError as error:
        raise _no_room(error) from None
    if os.getpid() != 1:
        process.adopt_orphans()
    pid = 0 if plan.held else _start(plan, stage, mask)
    process.set_name("corten:init")
    for number in range(3):
        # So that the end of the program is the end of its streams; a terminal stays open for who opens it again.
        if not os.isatty(number):
            os.close(number)
    _say(sock, channel.Started(pid))
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while True:
        poll.poll()
        for signal in signals.pending(fd):
            if not pid:
                continue  # nobody to forward to: it is ended by SIGKILL
            # Ctrl-C on the container's own terminal has reached the program already.
            if signal.number not in _NOT_FORWARDED and not signal.from_terminal:
                try:
                    os.kill(pid, signal.number)
                except ProcessLookupError:
                    pass
        ended = _reap(pid)
        if ended is not None:
            _say(sock, ended)
            if os.getpid() != 1:
                _end_descendants()
            status = os.waitstatus_to_exitcode(ended.status)
            return status if status >= 0 else 128 - status


def _no_room(error: OSError) -> errors.KernelError:
    """The init's descriptors do not fit. EBADF is what dup2 says of a number beyond the limit."""
    number = errno.EMFILE if error.errno == errno.EBADF else error.errno or 0
    hint = "a limit of open files (--ulimit nofile) leaves no room for the init; --init=false needs none"
    return errors.KernelError("set up the init", number, hint)


def _reap(program: int) -> channel.Ended | None:
    """Collect every child that has ended; the program's own end, if it is among them."""
    ended = None
    while True:
        try:
            waiting = os.waitid(os.P_ALL, 0, _WAIT_ANY)
        except ChildProcessError:
            return ended
        if waiting is None:
            return ended
        pid = waiting.si_pid
        # Of interest only to say who was killed; gone once the process has been reaped.
        name = _name_of(pid) if pid == program and waiting.si_code != os.CLD_EXITED else ""
        status = os.waitpid(pid, 0)[1]
        if pid == program:
            ended = channel.Ended(pid, status, name)


def _name_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            name = file.read().removesuffix(b"\n")
    except OSError:
        return ""
    return name.decode(errors="surrogateescape")  # any bytes: the process names itself


def _end_descendants() -> None:
    """Kill and reap what is left, where no PID namespace does it."""
    while True:
        try:
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                children = [int(word) for word in file.read().split()]
        except OSError:
            return
        if not children:
            return
        for child in children:
            os.kill(child, signals.KILL)
            os.waitpid(child, 0)
