"""`corten-oci run`: create and start; in the foreground also wait and delete."""

from __future__ import annotations

import os

from corten.cli.parser import Option
from corten.engine import creating
from corten.engine.foreground import attend
from corten.engine.notifying import Listening, supervisor
from corten.errors import Error
from corten.linux import signals
from corten.oci.making import request
from corten.oci.table import MAKING, command, parse
from corten.runtime import parked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from corten.engine.child import Process
    from corten.engine.creating import Created
    from corten.oci.main import Settings

COMMAND = command(
    "run",
    "[OPTIONS] ID",
    "Make a container from a bundle and start it; end as its program does, and remove it then.",
    *MAKING,
    Option(("-d", "--detach"), "", "Leave it running"),
    Option(("--keep",), "", "Do not remove it at its end"),
)


def run(settings: Settings, words: Sequence[str]) -> int:
    """Run it; the program's exit code, or 0 when it was left behind."""
    parsed = parse(COMMAND, words)
    if parsed is None:
        return 0
    values, (identity,) = parsed
    options, outlets, config = request(settings, values)
    detach = bool(values.get("detach"))
    # Blocked before the child is made: a signal that comes meanwhile is for its program.
    mask = signals.block_all() if not detach else None
    created = creating.create(
        settings.root, identity, options, outlets, run=True, detach=detach, config=config, mask=mask
    )
    try:
        for warning in created.bundle.warnings:
            settings.warn(warning)
        assert created.child is not None
        notify = Listening(created.path, supervisor()) if options.notify else None
        created.child.leave(parked.GO)
        hooks = created.bundle.hooks.poststart
        creating.run_hooks(hooks, "poststart", created.hook_state("running"), settings.warn)
        if mask is not None:
            also = None if notify is None else (notify.fileno(), _teller(notify, settings))
            code = attend(created.child, mask, lambda: os.close(created.lock), also)
    except BaseException:
        created.destroy()
        raise
    if mask is None:
        os.close(created.lock)
        if notify is not None:
            _await(notify, created.child, settings)
        return 0
    if not values.get("keep"):
        finish(settings, created)
    return code


def _await(notify: Listening, child: Process, settings: Settings) -> None:
    """Stay until the supervisor has been told that the program is ready: that it cannot be is no reason to end it."""
    try:
        notify.await_ready(child.pid, child.pidfd)
    except Error as error:
        settings.warn(str(error))


def _teller(notify: Listening, settings: Settings) -> Callable[[], None]:
    """What tells the supervisor that the program is ready: for it we are the main process, and end with the program."""

    def tell() -> None:
        if ready := notify.ready():
            try:
                notify.tell(ready, os.getpid(), wait=False)
            except Error as error:
                settings.warn(str(error))

    return tell


def finish(settings: Settings, created: Created) -> None:
    """Remove a container after its end, unless somebody has done so meanwhile."""
    from corten.engine import lifecycle
    from corten.errors import NotFound

    try:
        lock = lifecycle.lock(created.path)
    except NotFound:  # somebody has deleted it meanwhile
        return
    assert lock is not None
    creating.remove(created.path, created.state, created.bundle.hooks.poststop, settings.warn)
    os.close(lock)
