"""`hooks`: programs to run at points of a container's life. Source: OCI runtime specification 1.3, config.md."""

from __future__ import annotations

from corten.records import Record


class Hook(Record):
    """A program on the host (`startContainer`: in the container). `timeout`: seconds until it is aborted; None: never.

    `args` begins with argv[0], as for execv(3); `path` is absolute.
    """

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


class Hooks(Record):
    """In the order in which they run; `prestart` is the older name of what `createRuntime` does."""

    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()
