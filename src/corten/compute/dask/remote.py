"""Workers on other machines, reached by the `ssh` program.

Why the program and not a library: what `ssh HOST` does by hand for this person, with the configuration, keys, agents,
jump hosts and known hosts of this machine, is then what happens here; and it is one dependency less.

Rule 1: nothing is asked of the person: no passwords, and a host whose key is not known is an error.
Rule 2: the connection is the lease: when it ends, the agent there ends the container.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import sys

from corten.compute.dask.end import End, from_plain
from corten.compute.dask.worker import WorkerContainer
from corten.errors import Error, InvalidInput, NotFound, Unsupported
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from typing import Any

_OPTIONS = ("BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=5", "ServerAliveCountMax=3", "LogLevel=ERROR")
"""What ssh does unless the configuration of the person's own `ssh_options` says otherwise: a host that is silent for
15 s is lost."""


class Host(Record):
    """Another machine. name: as ssh knows it; options: words for ssh, before ours; python: the Python there that has
    Corten; cpus; memory: bytes; seen_from: the address of ours from which it is reached, as it sees it."""

    name: str
    options: tuple[str, ...]
    python: str
    cpus: float = 0.0
    memory: int = 0
    seen_from: str = ""


def checked(name: Any) -> str:
    """The name of a host, or `InvalidInput`: it would be an option of ssh, or is no name at all."""
    if not isinstance(name, str) or not name or name.startswith("-") or any(char.isspace() for char in name):
        raise InvalidInput(f"hosts: {name!r} is not the name of a host: use HOST or USER@HOST")
    return name


async def _open(host: Host, verb: str) -> Process:
    words = [word for option in _OPTIONS for word in ("-o", option)]
    there = f"exec {shlex.quote(host.python)} -m corten.compute.dask.agent {verb}"
    try:
        return await asyncio.create_subprocess_exec(
            "ssh", *host.options, *words, "-T", "--", host.name, there,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the cluster, which closes it in good order
        )  # fmt: skip
    except FileNotFoundError:
        raise Unsupported(f"host {host.name}: there is no ssh on this machine: install openssh-client") from None


async def look(host: Host, same_python: bool = False) -> Host:
    """What a host has. One error for each way in which it may be of no use. same_python: its own is to run workers."""
    process = await _open(host, "facts")
    out, err = await process.communicate()
    if process.returncode != 0:
        raise _refusal(host, process.returncode, err.decode(errors="replace").split("\n"))
    try:
        facts = json.loads(out)
        found = host.replace(
            cpus=float(facts["cpus"]), memory=int(facts["memory"]), seen_from=str(facts["seen_from"])
        )
    except (ValueError, KeyError, TypeError):
        raise Error(f"host {host.name}: its answer is none of Corten's: {out[:100]!r}") from None
    if not facts.get("distributed"):
        raise Unsupported(f"host {host.name}: {host.python} has no distributed there: pip install 'corten[dask]'")
    theirs, ours = list(facts["python"]), list(sys.version_info[:2])
    if same_python and theirs != ours:
        raise Unsupported(
            f"host {host.name}: Python {theirs[0]}.{theirs[1]} there and {ours[0]}.{ours[1]} here: what Dask sends "
            f"does not go between them: give remote_python=, one of {ours[0]}.{ours[1]} that has Corten"
        )
    return found


def _refusal(host: Host, code: int | None, lines: list[str]) -> Error:
    words = next((line.strip() for line in reversed(lines) if line.strip()), "")
    if code == 255:  # ssh's own; its last line is the one that says why
        return NotFound(f"host {host.name} cannot be reached: {words}")
    if code in (126, 127):
        return Unsupported(f"host {host.name}: no Python at {host.python} there: give python=, the one with Corten")
    if "No module named" in words and "corten" in words:
        return Unsupported(f"host {host.name}: {host.python} has no Corten there: pip install 'corten[dask]'")
    return Error(f"host {host.name}: its agent ended with code {code}: {words}")


class RemoteWorkerContainer(WorkerContainer):
    """A container with a Dask worker on another machine. gate: how many connections may be opened at once; contact:
    the scheduler's address, as that machine reaches it."""

    def __init__(self, scheduler: str, *, host: Host, gate: asyncio.Semaphore, contact: str, **rest: Any) -> None:  # noqa: ARG002
        self.host = host
        self._gate = gate
        super().__init__(contact, **rest)
        self._process: Process | None = None
        self._serving: asyncio.Task[None] | None = None
        self._started = asyncio.Event()

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return self.host.name

    def _begun(self) -> bool:
        return self._process is not None

    async def _launch(self) -> None:
        async with self._gate:
            self._process = await _open(self.host, "worker")
            assert self._process.stdin is not None
            request = {"image": self.image, "python": self.python, "argv": self.argv, "options": self.options}
            try:
                self._process.stdin.write(json.dumps(request).encode() + b"\n")
                await self._process.stdin.drain()
            except ConnectionError:
                pass  # it has ended already, and its output says why
            self._serving = asyncio.ensure_future(self._serve(self._process))
            await self.until(self._started)

    async def _serve(self, process: Process) -> None:
        """Hear what the agent says, to the end of the connection."""
        assert process.stdout is not None
        assert process.stderr is not None
        errors = asyncio.ensure_future(self._keep_all(process.stderr))
        end: End | None = None
        while line := await process.stdout.readline():
            try:
                said = json.loads(line)
            except ValueError:
                continue  # a login script that talks
            if not isinstance(said, dict):
                continue
            if "started" in said:
                self._started.set()
            elif "ended" in said:
                result = from_plain(said["ended"])
                end = End(result.reason, result)
                self.ended(end)  # the rest of the connection's end may take its time
            elif "failed" in said:
                end = End(str(said["failed"]))
        await errors
        code = await process.wait()
        if end is None:
            end = End(str(_refusal(self.host, code, list(self.lines))), host_lost=code == 255)
            self.lines.clear()
        self.ended(end)

    async def _keep_all(self, stream: asyncio.StreamReader) -> None:
        while data := await stream.read(1 << 16):
            self.keep(data)

    def kill(self) -> None:
        """End it now: the end of the agent's input does."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    async def close(self) -> None:
        """Kill it and wait for that; a machine that does not answer is left to end it by itself."""
        if self._process is not None and self._serving is not None:
            self.kill()
            try:
                await asyncio.wait_for(asyncio.shield(self._serving), 10)
            except TimeoutError:
                self._process.kill()
                await self._serving
        await super().close()
