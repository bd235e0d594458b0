"""`corten-oci spec`: a config.json to begin with."""

from __future__ import annotations

import os

from corten.cli.parser import Option
from corten.errors import InvalidInput, NotFound
from corten.json_text import dumps
from corten.oci.table import BUNDLE, command, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from corten.oci.main import Settings

COMMAND = command(
    "spec",
    "[OPTIONS]",
    "Write a config.json for a shell in the directory rootfs of the bundle.",
    BUNDLE,
    Option(("--rootless",), "", "For a user without root: in a user namespace with the own ids"),
    minimum=0,
    maximum=0,
)


def run(settings: Settings, words: Sequence[str]) -> int:  # noqa: ARG001 - as every command
    """Write it; 0."""
    parsed = parse(COMMAND, words)
    if parsed is None:
        return 0
    from corten.linux.idmap import single
    from corten.runtime import defaults
    from corten.runtime.spec.decoding import encode

    bundle = os.path.abspath(parsed[0].get("bundle") or ".")
    rootless = bool(parsed[0].get("rootless"))
    maps = (single(0, os.geteuid()), single(0, os.getegid())) if rootless else ((), ())
    spec = defaults.default_spec(("sh",), *maps)
    assert spec.process is not None
    spec = spec.replace(hostname="corten", process=spec.process.replace(terminal=True))
    if rootless and spec.linux:
        spec = spec.replace(linux=spec.linux.replace(resources=None))
    path = f"{bundle}/config.json"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise InvalidInput(f"{path} exists already: remove it first") from None
    except FileNotFoundError:
        raise NotFound(f"--bundle {bundle}: no such file or directory") from None
    with open(fd, "w", encoding="utf-8") as file:
        file.write(dumps(encode(spec), 2) + "\n")
    return 0
