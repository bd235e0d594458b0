"""`create`: the launcher of an OCI container. It makes the container, leaves it waiting, and ends.

The order of things, so that a kill at any point leaves what `state` and `delete --force` understand:
directory with its lock; state `creating` with our own pid, which says where the control group will be; the group;
the clone; state with its pid; set-up and hooks; pid file; state `created`; only then the child learns that it may
outlive us.
"""

from __future__ import annotations

import os

from corten.engine import bundle as bundles
from corten.engine import lifecycle, notifying, oci_state
from corten.engine.bundle import Bundle, MakeOptions
from corten.engine.child import Child, Outlets, Process, check_preserved, check_terminal, send_descriptor
from corten.errors import Error, KernelError, NameInUse
from corten.json_text import dumps
from corten.runtime import id_maps, joining, parked
from corten.runtime.spec import VERSION, Hook
from corten.runtime.step import Stage, perform
from corten.runtime.steps.hooks import HookFailed, run_hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from corten.linux.signals import Mask


class Created:
    """A container that was made: its directory, locked by us; its child; its bundle and state."""

    def __init__(self, path: str, lock: int, bundle: Bundle, state: dict[str, Any]) -> None:
        self.path, self.lock, self.bundle, self.state = path, lock, bundle, state
        self.child: Process | None = None

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
    lock = claim(root, path, identity)
    state = first_state(identity, options.bundle, made)
    created = Created(path, lock, made, state)
    try:
        oci_state.write(path, state)
        oci_state.store(f"{path}/config.json", made.text)
        if options.notify:
            notifying.make(path)
        _make(created, outlets, run, mask)
    except BaseException:
        created.destroy()
        raise
    return created


def claim(root: str, path: str, identity: str) -> int:
    """Make a container's directory; the descriptor of its lock. `NameInUse`."""
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


def first_state(identity: str, bundle: str, made: Bundle) -> dict[str, Any]:
    """The state to begin with: `creating`, by this process."""
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
    id_maps.give(plan, child.pid)
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
