"""`restore`: a container made from what `checkpoint` saved. criu makes its processes; group and state are ours.

criu runs in a mount namespace of its own, in which the root file system is a mount as it needs it, so the host's
mounts stay as they are. The first process becomes our child (`--restore-sibling`), and so falls to whoever adopts it.
"""

from __future__ import annotations

import os

from corten.engine import bundle as bundles
from corten.engine import creating, criu, oci_state
from corten.engine.child import Outlets, Process
from corten.engine.creating import Created
from corten.errors import Error, InvalidInput, Unsupported
from corten.json_text import loads
from corten.linux import clone, mounts, pidfd, syscalls
from corten.runtime.step import Stage, perform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.engine.bundle import MakeOptions


def restore(root: str, identity: str, options: MakeOptions, outlets: Outlets, values: dict[str, Any]) -> Created:
    """Bring a container back; on an error nothing is left. values: the options of the command line."""
    program = criu.program("restore")
    path = oci_state.directory(root, identity)
    images = os.path.abspath(values.get("image_path") or "checkpoint")
    if not os.path.isfile(f"{images}/inventory.img"):
        raise InvalidInput(f"--image-path {images}: no image of criu is there (inventory.img)")
    work = criu.directory(values, "work_path", images)
    made = bundles.prepare(identity, path, options)
    _require(made)
    lock = creating.claim(root, path, identity)
    created = Created(path, lock, made, creating.first_state(identity, options.bundle, made))
    try:
        oci_state.write(path, created.state)
        oci_state.store(f"{path}/config.json", made.text)
        _restore(created, program, images, work, values, outlets)
    except BaseException:
        created.destroy()
        raise
    return created


def _require(made: bundles.Bundle) -> None:
    spec = made.spec
    if spec.process and spec.process.terminal:
        raise Unsupported("restore: process.terminal: a container with a terminal is not restored")
    for field, given in (
        ("prestart", made.hooks.prestart),
        ("createRuntime", made.hooks.create_runtime),
        ("createContainer", made.hooks.create_container),
        ("startContainer", made.hooks.start_container),
    ):
        if given:
            raise Unsupported(f"restore: hooks.{field}: cannot be run while criu makes the processes")
    if made.scope:
        raise Unsupported("restore: --systemd-cgroup: use cgroupfs")


def _restore(
    created: Created, program: str, images: str, work: str, values: dict[str, Any], outlets: Outlets
) -> None:
    made, stage = created.bundle, Stage()
    try:
        perform(made.plan.host, stage)
    finally:
        stage.close()
    place = f"{created.path}/root"
    os.mkdir(place, 0o700)
    log, pid_file = criu.fresh(f"{work}/restore.log"), f"{created.path}/criu.pid"
    words = [
        "criu", "restore", "--restore-detached", "--restore-sibling", "--root", place, "--pidfile", pid_file,
        "--images-dir", images, "--work-dir", work, "--log-file", log, "-v4",
        *criu.options(values, made.spec.annotations),
    ]  # fmt: skip
    config = loads(made.text)
    for where, source in criu.external_mounts(config, created.state["bundle"], made.group):
        words += ["--external", f"mnt[{where}]:{source}"]
    words += _cgroup_roots(created)
    words += _inherited(images)
    kept = -1
    network = criu.joined_network(config)
    if network:
        kept = os.open(network, os.O_RDONLY)
        words += ["--inherit-fd", f"fd[{kept}]:{criu.NETWORK}"]
    try:
        status = _run(program, words, created, place, kept)
    finally:
        if kept >= 0:
            os.close(kept)
    if status:
        criu.explain("restore", log, status)
    os.rmdir(place)
    with open(pid_file, encoding="ascii") as file:
        pid = int(file.read())
    os.unlink(pid_file)
    child = created.child = Process(pid, pidfd.open_pid(pid))
    created.state["pid"], created.state["corten"]["start"] = pid, oci_state.process_start(pid)
    created.state["status"] = "created"
    child.announce(outlets)
    oci_state.write(created.path, created.state)


def _cgroup_roots(created: Created) -> list[str]:
    """Where the processes go: the group of this container, which may not be that of the saved one."""
    from corten.linux.cgroup import layout as layouts

    words: list[str] = []
    group = created.bundle.group
    for own in group.dirs if group else ():
        for hierarchy in layouts.detect().hierarchies:
            if not own.path.startswith(hierarchy.mount + "/") or hierarchy.version != own.version:
                continue
            path = own.path.removeprefix(hierarchy.mount)
            names = [] if own.version == 2 else list(own.controllers)
            words += ["--cgroup-root", f"{','.join(names)}:{path}" if names else path]
    return words


def _inherited(images: str) -> list[str]:
    """Pipes that were the container's streams become ours."""
    try:
        with open(f"{images}/{criu.STREAMS}", encoding="utf-8") as file:
            streams = loads(file.read())
    except FileNotFoundError:
        return []
    words: list[str] = []
    for fd, what in enumerate(streams):
        if str(what).startswith("pipe:"):
            words += ["--inherit-fd", f"fd[{fd}]:{what}"]
    return words


def _run(program: str, words: list[str], created: Created, place: str, kept: int) -> int:
    """Run criu where the root file system is a mount; its exit status."""
    root = created.bundle.spec.root
    assert root is not None
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if created.bundle.group:
                created.bundle.group.join()
            syscalls.call("unshare", clone.flags_of(("mount",)))
            # Not private: criu gives a mount that follows one of the host's the same master again.
            mounts.set_propagation("/", mounts.SLAVE)
            tree = mounts.open_tree(root.path, recursive=True)
            at = os.open(place, os.O_PATH | os.O_DIRECTORY)
            mounts.attach(tree, at)
            if kept >= 0:
                os.set_inheritable(kept, True)
            os.execv(program, words)
        except BaseException as error:  # a copy of us must never run on
            os.write(tell, f"{error}".encode())
        os._exit(Error.exit_code)
    os.close(tell)
    with open(told, "rb") as file:
        said = file.read().decode(errors="replace")
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if said:
        raise Error(f"restore: cannot start criu: {said}")
    return status
