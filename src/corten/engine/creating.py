"""`create`: the launcher of an OCI container. It makes the container, leaves it waiting, and ends.

The order of things, so that a kill at any point leaves what `state` and `delete --force` understand:
directory with its lock; state `creating` with our own pid, which says where the control group will be; the group;
the clone; state with its pid; set-up and hooks; pid file; state `created`; only then the child learns that it may
outlive us.
"""

from __future__ import annotations

import gc
import os

from corten.engine import bundle as bundles
from corten.engine import lifecycle, oci_state
from corten.engine.bundle import Bundle, MakeOptions
from corten.errors import Error, InvalidInput, KernelError, NameInUse, errno_words
from corten.json_text import dumps
from corten.linux import clone, process, signals, sockets
from corten.linux.idmap import write_maps
from corten.records import Record
from corten.runtime import channel, joining, parked
from corten.runtime.plan import Plan, clone_flags
from corten.runtime.spec import VERSION, Hook
from corten.runtime.step import Stage, perform
from corten.runtime.steps.hooks import HookFailed, run_hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from corten.linux.clone import Clone
    from corten.linux.signals import Mask


class Outlets(Record):
    """Where a caller wants to hear of the new process: absolute paths, "" for none."""

    pid_file: str = ""
    console_socket: str = ""
    pidfd_socket: str = ""


class Failure(Error):
    """What a child could not do. kind: the class of its error; errno: 0 if no call failed."""

    def __init__(self, kind: str, errno: int, text: str) -> None:
        self.kind, self.errno = kind, errno
        super().__init__(text)


# --- the child, and the talk with it; `exec` uses these too


class Child:
    """A process of ours that sets itself up: its pid and pidfd, and the channel to it."""

    def __init__(
        self, plan: Plan, joins: joining.Joins, stage: Stage, become: Callable[[Mask], NoReturn],
        mask: Mask | None = None,
    ) -> None:  # fmt: skip
        stage.arguments = process.argument_area()
        self.channel, stage.channel = sockets.pair(1 << 18)
        self.master = -1
        cgroup_fd = plan.group.open_v2() if plan.group else None
        now = signals.block_all()
        gc.disable()  # a collection in the child would copy pages
        try:
            made = self._clone(plan, joins, cgroup_fd)
            if made.pid == 0:
                self.channel.close()
                become(mask or now)
        finally:
            gc.enable()
            signals.restore(now)
            stage.channel.close()
            stage.close()
            if cgroup_fd is not None:
                os.close(cgroup_fd)
        self.pid, self.pidfd = made.pid, made.pidfd

    def _clone(self, plan: Plan, joins: joining.Joins, cgroup_fd: int | None) -> Clone:
        flags = clone_flags(plan)
        if joins != joining.Joins():
            return joining.clone_into(joins, flags, cgroup_fd)
        try:
            return clone.clone3(flags, cgroup_fd)
        except OSError as error:
            raise KernelError("clone with new namespaces " + " ".join(plan.namespaces), error.errno or 0) from None

    def converse(self, state: bytes, on_hooks: Callable[[], None], on_listener: Callable[[int], None]) -> None:
        """Give it the state, and serve it until all but the program is done. A terminal's master end is kept.

        Errors: `Failure` with its own words.
        """
        self.channel.send(state)
        while True:
            data, descriptors = sockets.receive(self.channel)
            if not data:
                raise Error(f"the container's first process was killed while setting up ({self._how_it_ended()})")
            if data == b"Hooks":
                on_hooks()
                self.channel.send(b"done")
            elif data == b"Listener":
                on_listener(descriptors[0])
                os.close(descriptors[0])
            else:
                message = channel.decode(data)
                if isinstance(message, channel.Failed):
                    raise Failure(message.kind, message.errno, message.text)
                if isinstance(message, channel.Started):
                    return
                if isinstance(message, channel.Terminal):
                    self.master, self.terminal = descriptors[0], message.path

    def _how_it_ended(self) -> str:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return "it closed its channel"
        self.pid = 0
        code = os.waitstatus_to_exitcode(status)
        return f"exit status {code}" if code >= 0 else signals.name(-code)

    def leave(self, word: bytes) -> None:
        """Let it go its way: `parked.GO` or `parked.PARK`, and wait until it has heard: it closes the channel.

        Before that it would die with us. Errors of the exec still come, as `Failure`.
        """
        self.channel.send(word)
        data, _ = sockets.receive(self.channel)
        message = channel.decode(data) if data else None
        if isinstance(message, channel.Failed):
            raise Failure(message.kind, message.errno, message.text)

    def end(self) -> None:
        """Kill and reap it."""
        if self.pid:
            try:
                os.kill(self.pid, signals.KILL)
            except ProcessLookupError:
                pass
            os.waitpid(self.pid, 0)
            self.pid = 0

    def announce(self, outlets: Outlets) -> None:
        """Send the terminal, the pidfd and the pid to whoever wants them. `InvalidInput`: nobody listens."""
        if self.master >= 0 and outlets.console_socket:
            send_descriptor(outlets.console_socket, "--console-socket", self.terminal.encode(), self.master)
            os.close(self.master)
            self.master = -1
        if outlets.pidfd_socket:
            send_descriptor(outlets.pidfd_socket, "--pidfd-socket", b"pidfd", self.pidfd)
        if outlets.pid_file:
            try:
                oci_state.store(outlets.pid_file, str(self.pid), 0o644)
            except OSError as error:
                raise InvalidInput(f"--pid-file {outlets.pid_file}: {errno_words(error.errno or 0)}") from None


def send_descriptor(path: str, option: str, payload: bytes, fd: int) -> None:
    """Connect to a stream socket and send one message with a descriptor. `InvalidInput` naming the option."""
    from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM

    sock = sockets.Socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        sock.connect(path)
        sockets.send(sock, payload, (fd,))
    except OSError as error:
        hint = ": nobody listens there" if error.errno == 111 else ""
        raise InvalidInput(f"{option} {path}: {errno_words(error.errno or 0)}{hint}") from None
    finally:
        sock.close()


def check_terminal(terminal: bool, outlets: Outlets, detach: bool) -> None:
    """`InvalidInput` for a console socket without a terminal, or a terminal that nobody would get."""
    if outlets.console_socket and not terminal:
        raise InvalidInput("--console-socket is for a container with a terminal: set process.terminal")
    if terminal and detach and not outlets.console_socket:
        raise InvalidInput("cannot leave a terminal behind: give --console-socket, or no process.terminal")


def check_preserved(count: int) -> None:
    """`InvalidInput` for descriptors that are to be kept but are not open: ours would take their numbers."""
    for fd in range(3, 3 + count):
        try:
            os.fstat(fd)
        except OSError:
            raise InvalidInput(f"--preserve-fds: descriptor {fd} is not open") from None


# --- create


class Created:
    """A container that was made: its directory, locked by us; its child; its bundle and state."""

    def __init__(self, path: str, lock: int, bundle: Bundle, state: dict[str, Any]) -> None:
        self.path, self.lock, self.bundle, self.state = path, lock, bundle, state
        self.child: Child | None = None

    def hook_state(self, status: str) -> bytes:
        """The state as hooks and the specification have it."""
        return state_for_hooks(self.state, status)

    def destroy(self) -> None:
        """Undo everything after a failure: kill, poststop hooks, control group, directory."""
        if self.child is not None:
            self.child.end()
        remove(self.path, self.state, self.bundle.hooks.poststop if self.state["pid"] else ())
        os.close(self.lock)


def state_for_hooks(state: dict[str, Any], status: str) -> bytes:
    """What hooks are told, as JSON."""
    out = {
        "ociVersion": state["ociVersion"],
        "id": state["id"],
        "status": status,
        "pid": 0 if status == "stopped" else state["pid"],
        "bundle": state["bundle"],
        "annotations": state.get("annotations", {}),
    }
    return dumps(out).encode()


def create(
    root: str, identity: str, options: MakeOptions, outlets: Outlets, *, run: bool = False, detach: bool = True,
    config: str = "", mask: Mask | None = None,
) -> Created:  # fmt: skip
    """Make a container. run: its program is to start at once, so there is no fifo; detach: nobody relays its terminal;
    mask: the signals that its program has blocked, if not those that are now.

    On an error nothing is left. The result's child still waits for `leave`.
    """
    path = oci_state.directory(root, identity)
    check_preserved(options.preserve_fds)
    made = bundles.prepare(identity, path, options, config)
    process_spec = made.spec.process
    assert process_spec is not None
    check_terminal(process_spec.terminal, outlets, detach)
    lock = _claim(root, path, identity)
    state = _first_state(identity, options.bundle, made)
    created = Created(path, lock, made, state)
    try:
        oci_state.write(path, state)
        oci_state.store(f"{path}/config.json", made.text)
        _make(created, outlets, run, mask)
    except BaseException:
        created.destroy()
        raise
    return created


def _claim(root: str, path: str, identity: str) -> int:
    os.makedirs(root, 0o711, exist_ok=True)
    try:
        os.mkdir(path, 0o711)
    except FileExistsError:
        # What a killed `create` left before it could write a state is nobody's; anything else is somebody's.
        lock = lifecycle.lock(path, wait=False)
        if lock is not None and not os.path.exists(f"{path}/state.json"):
            return lock
        if lock is not None:
            os.close(lock)
        raise NameInUse(f"container with given ID already exists: {identity}") from None
    except OSError as error:
        raise KernelError(f"make {path}", error.errno or 0) from None
    lock = lifecycle.lock(path)
    assert lock is not None
    return lock


def _first_state(identity: str, bundle: str, made: Bundle) -> dict[str, Any]:
    assert made.spec.root is not None
    state: dict[str, Any] = {
        "ociVersion": VERSION,
        "id": identity,
        "pid": 0,
        "status": "creating",
        "bundle": bundle,
        "rootfs": made.spec.root.path,
        "created": oci_state.timestamp(),
    }
    if made.spec.annotations:
        state["annotations"] = made.spec.annotations
    state["owner"] = ""
    kinds = {space.type: space.path for space in made.spec.linux.namespaces} if made.spec.linux else {}
    state["corten"] = {
        "start": 0,
        "launcher": [os.getpid(), oci_state.process_start(os.getpid())],
        "group": lifecycle.group_lines(made.group),
        "scope": [made.scope.unit, made.scope.slice, made.scope.user] if made.scope else [],
        "hooks": [name for name in ("poststart", "poststop") if getattr(made.hooks, name)],
        "pid_namespace": kinds.get("pid") == "",
    }
    return state


def _make(created: Created, outlets: Outlets, run: bool, mask: Mask | None) -> None:
    made, state = created.bundle, created.state
    plan, stage = made.plan, Stage()
    fifo = -1
    opened: list[tuple[str, int]] = []
    try:
        for kind, place in plan.joined:
            opened.append((kind, _open_namespace(kind, place)))
        perform(plan.host, stage)
        if not run:
            os.mkfifo(f"{created.path}/exec.fifo", 0o600)
            fifo = os.open(f"{created.path}/exec.fifo", os.O_RDWR | os.O_CLOEXEC)
        start_hooks = made.hooks.start_container

        def become(blocked: Mask) -> NoReturn:
            os.close(created.lock)
            parked.run_program(plan, stage, blocked, fifo, start_hooks, made.sealed)

        child = created.child = Child(plan, joining.Joins(tuple(opened)), stage, become, mask)
    finally:
        for fd in (*(fd for _, fd in opened), *([fifo] if fifo >= 0 else [])):
            os.close(fd)
    if "user" in plan.namespaces:
        may_set_groups = os.geteuid() == 0 or len(plan.gid_maps) > 1
        write_maps(child.pid, plan.uid_maps, plan.gid_maps, setgroups_deny=not may_set_groups)
    state["pid"], state["corten"]["start"] = child.pid, oci_state.process_start(child.pid)
    oci_state.write(created.path, state)
    if made.scope is not None:
        from corten.engine.systemd import Manager

        with Manager(made.scope.user) as manager:
            manager.start(made.scope, [("PIDs", ("au", [child.pid])), *made.properties])
        perform(made.on_scope, stage)
    net_devices = made.spec.linux.net_devices if made.spec.linux else {}
    if net_devices:
        from corten.engine.net_devices import move

        move(net_devices, child.pid)

    def on_hooks() -> None:
        for kind in ("prestart", "create_runtime"):
            run_hooks(getattr(made.hooks, kind), "prestart" if kind == "prestart" else "createRuntime",
                      created.hook_state("creating"))  # fmt: skip

    def on_listener(fd: int) -> None:
        told = {
            "ociVersion": state["ociVersion"],
            "fds": ["seccompFd"],
            "pid": child.pid,
            "metadata": made.listener[1],
            "state": {key: value for key, value in state.items() if key not in ("corten", "owner", "created")},
        }
        send_descriptor(made.listener[0], "linux.seccomp.listenerPath", dumps(told).encode(), fd)

    child.converse(created.hook_state("creating"), on_hooks, on_listener)
    child.announce(outlets)
    state["status"] = "created"
    oci_state.write(created.path, state)


def _open_namespace(kind: str, path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(f"open {kind} namespace {path}", error.errno or 0) from None


def run_hooks(hooks: tuple[Hook, ...], kind: str, state: bytes, warn: Callable[[str], None] | None = None) -> None:
    """Run hooks in order. warn: hear of a failure and go on (poststart, poststop); without it `HookFailed`."""
    for hook in hooks:
        try:
            run_hook(hook, kind, state)
        except HookFailed as error:
            if warn is None:
                raise
            warn(str(error))


# --- delete


def remove(
    path: str, state: dict[str, Any], poststop: tuple[Hook, ...], warn: Callable[[str], None] | None = None
) -> None:
    """Remove what is left of a container whose processes are to end: control group, poststop hooks, directory."""
    group = lifecycle.group_of(state)
    if group:
        if group.procs():
            group.kill()
        _stop_scope(state, warn)
        group.remove()
    run_hooks(poststop, "poststop", state_for_hooks(state, "stopped"), warn or (lambda _: None))
    from corten.runtime.removal import remove_tree

    remove_tree(path)


def _stop_scope(state: dict[str, Any], warn: Callable[[str], None] | None) -> None:
    scope = lifecycle.scope_of(state)
    if scope is None:
        return
    from corten.engine.systemd import Manager

    try:
        with Manager(scope.user) as manager:
            manager.stop(scope)
    except Error as error:  # the group is removed all the same, and an empty scope ends by itself
        if warn is not None:
            warn(str(error))
