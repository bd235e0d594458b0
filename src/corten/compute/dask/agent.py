"""What runs on another machine for a cluster: `PYTHON -m corten.compute.dask.agent facts|worker`, started by ssh.

    facts    one line of JSON: what this machine has, and by which address it sees the one that asks
    worker   reads one line of JSON, starts the container, and serves it to its end

Rule 1: the container lives no longer than the connection: end of file on standard input ends it. (A process that ssh
        starts without a terminal gets no signal when the connection goes; its input is all that it notices.)
Rule 2: standard output is for JSON, a line each: started, then ended; or failed. What the worker writes goes to
        standard error.
"""

from __future__ import annotations

import json
import os
import select
import sys

from corten.compute import capacity
from corten.compute.dask.end import to_plain
from corten.engine.container import DEVNULL, Container, start
from corten.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(words: list[str]) -> int:
    """Do what the one word says; the exit code."""
    if words == ["facts"]:
        return _say(facts())
    if words == ["worker"]:
        return _worker(json.loads(_line()))
    sys.stderr.write("usage: python -m corten.compute.dask.agent facts|worker\n")
    return 2


def facts() -> dict[str, Any]:
    """cpus; memory: bytes; python: version; distributed: version, or None if it is not here; seen_from: the address
    that the connection comes from, or ""."""
    from importlib import metadata

    try:
        distributed: str | None = metadata.version("distributed")
    except metadata.PackageNotFoundError:
        distributed = None
    return {
        "cpus": capacity.cpus(),
        "memory": capacity.total_memory(),
        "python": list(sys.version_info[:2]),
        "distributed": distributed,
        "seen_from": os.environ.get("SSH_CONNECTION", "").partition(" ")[0],
    }


def _line() -> bytes:
    """The first line of standard input, and nothing of what may follow it."""
    found = b""
    while not found.endswith(b"\n") and (chunk := os.read(0, 1 << 16)):
        found += chunk
    return found


def _worker(request: dict[str, Any]) -> int:
    python = request["python"] or (sys.executable if request["image"] == "host" else "python3")
    try:
        box = start(
            request["image"], [python, *request["argv"]], stdin=DEVNULL, stdout=2, stderr=2, **request["options"]
        )
    except Error as error:
        return _say({"failed": str(error)})
    with box:
        _say({"started": box.id})
        _attend(box)
        try:
            return _say({"ended": to_plain(box.wait())})
        except Error as error:
            return _say({"failed": str(error)})


def _attend(box: Container) -> None:
    """Wait for the end of the container, or of the connection, which then ends it."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(box.fileno(), select.POLLIN)
    while True:
        ready = [fd for fd, _ in poll.poll()]
        if 0 in ready and not os.read(0, 1 << 12):
            box.kill()
            return
        if box.fileno() in ready and not box.advance():
            return


def _say(what: dict[str, Any]) -> int:
    try:
        os.write(1, json.dumps(what).encode() + b"\n")
    except OSError:
        return 1  # nobody is there to read it
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
