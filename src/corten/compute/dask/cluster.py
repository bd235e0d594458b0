"""`ContainerCluster`: a Dask cluster whose workers are containers, on this machine or on others.

Rule 1: what the scheduler is told of a worker, its container is held to: threads by the CPU limit, memory by the
        memory limit.
Rule 2: `_wanted` is how many workers somebody asked for. One that ends by itself is replaced, under a new name, where
        there is room; what cannot be replaced now is when a host that was lost answers again.
Rule 3: everything but the constructor, `scale` and `adapt` runs in the cluster's event loop.
"""

from __future__ import annotations

import asyncio
import logging
import math

import dask.config
from distributed.core import Status
from distributed.deploy.spec import SpecCluster

from corten.compute import capacity
from corten.compute.dask.remote import Host, RemoteWorkerContainer, checked, look
from corten.compute.dask.scheduler import TOPIC, ContainerScheduler
from corten.compute.dask.worker import WorkerContainer
from corten.engine import option_readers
from corten.engine import options as run_options
from corten.engine.quantities import cpus as parse_cpus
from corten.engine.quantities import size
from corten.engine.result import size_words
from corten.errors import Error, InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from distributed.deploy.adaptive import Adaptive

_log = logging.getLogger("corten.dask")
_RETRY = (1.0, 15.0)
"""Seconds between looks at a host that was lost: at first, at most."""
_GATE = 4
"""Connections that are opened to one host at the same time; sshd drops some where there are 10 (MaxStartups)."""


class Place:
    """A machine: how many workers it has room for, and whether it answers. host: None for this one."""

    def __init__(self, host: Host | None, room: int) -> None:
        self.host, self.room = host, room
        self.away = False
        self.gate = asyncio.Semaphore(_GATE)

    def __str__(self) -> str:
        return self.host.name if self.host else "this machine"


class ContainerCluster(SpecCluster):
    """A Dask cluster of containers: `with ContainerCluster(n_workers=2) as cluster, cluster.get_client() as client:`

    image: of the workers, with Python and `distributed` in it ("host"); cpus, memory: enforced limits of each, and
    what the scheduler is told (threads: CPUs, rounded up); n_workers: to begin with; hosts: other machines that run
    them, as `ssh` knows them (None: this machine); ssh_options: further words for ssh, such as ("-p", "2222");
    remote_python: the Python there that has Corten (this one's path); python: the one in the image; scheduler_host: our
    address that workers reach (found out, if not given); worker_arguments: further ones of `dask worker`; all else,
    such as mounts, env, pids, network ("host" here), as of `corten.run`.

    `scale(n)` and `adapt(minimum, maximum)` add and remove workers. A worker that is killed, for memory or with its
    machine, is replaced; its tasks run again elsewhere. The reason is an event (`client.get_events("corten")`), a line
    in the log, and part of the error of a task that is given up (`corten.dask.WorkerOutOfMemory`).

    Raises `InvalidInput` for what makes no sense or does not fit on the machines, `NotFound` for a host that cannot be
    reached, `Unsupported` for one without Corten, `Error` with a worker's last words if one does not start.
    """

    def __init__(
        self, image: str = "host", *, cpus: float | str = 1, memory: int | str = 1 << 30, n_workers: int = 0,
        hosts: Iterable[str] | None = None, ssh_options: Sequence[str] = (), remote_python: str | None = None,
        python: str | None = None, scheduler_host: str | None = None, scheduler_options: dict[str, Any] | None = None,
        worker_arguments: Sequence[str] = (), name: str | None = None, asynchronous: bool = False,
        **options: Any,
    ) -> None:  # fmt: skip
        self.status = Status.closed  # for __del__, until there is something to close
        self._cpus, self._memory = _limits(cpus, memory)
        self._hosts = _hosts(hosts, ssh_options, remote_python)
        self._places: list[Place] = []
        self._wanted = _count("n_workers", n_workers)
        self._scheduler_host = scheduler_host
        self._scheduler_options = scheduler_options or {}
        self._containers: dict[Any, WorkerContainer] = {}
        self._serial = 0
        self._runs_theirs = image == "host" and python is None
        self._built = False
        self._tasks: set[asyncio.Task[Any]] = set()
        given: dict[str, Any] = {"network": "host", "memory": self._memory, "cpus": self._cpus, **options}
        _check(image, given, remote=bool(self._hosts))
        given["env"] = _with_configuration(given.get("env"))
        self._base: dict[str, Any] = {
            "image": image, "options": given, "python": python, "nthreads": math.ceil(self._cpus),
            "memory_limit": self._memory, "arguments": tuple(worker_arguments), "containers": self._containers,
            "on_end": self._on_end,
        }  # fmt: skip
        try:
            super().__init__(
                worker={"cls": WorkerContainer, "options": self._base}, asynchronous=asynchronous, name=name,
                silence_logs=logging.WARNING, scheduler={"cls": ContainerScheduler, "options": {}},
            )  # fmt: skip
        except BaseException:
            if not asynchronous:
                self.close()
            raise
        self.quiet = True

    # --- what callers do

    def scale(self, n: int = 0, memory: int | str | None = None, cores: int | None = None) -> Any:
        """Have n workers, or as many as give so much memory or so many cores. `InvalidInput` if there is no room."""
        if memory is not None:
            n = max(n, math.ceil(size("memory", memory) / self._memory))
        if cores is not None:
            n = max(n, math.ceil(cores / self._threads_per_worker()))
        if n:  # closing scales to none
            self._check_room(_count("n", n), "n")
        self._wanted = n
        return super().scale(min(n, max(self._room_now(), len(self.worker_spec))))

    def adapt(  # type: ignore[override]
        self, *, minimum: float = 0, maximum: float | None = None, **how: Any
    ) -> Adaptive:
        """Follow the load between these numbers of workers. maximum: default all that there is room for."""
        if maximum is None or math.isinf(maximum):
            maximum = sum(place.room for place in self._places)
        self._check_room(maximum, "maximum")
        return super().adapt(minimum=minimum, maximum=maximum, **how)

    # --- as SpecCluster calls it

    async def _start(self) -> None:
        if self.status in (Status.running, Status.closed) or self._places:
            await super()._start()
            return
        try:
            await self._look_at_machines()
            self._check_room(self._wanted, "n_workers")
        except BaseException:
            self.status = Status.closed
            raise
        self.scheduler_spec = {
            "cls": ContainerScheduler,
            "options": {
                "host": self._listen(), "port": 0, "dashboard_address": "127.0.0.1:0", **self._scheduler_options,
                "containers": self._containers,
            },
        }  # fmt: skip
        try:
            await super()._start()
        except RuntimeError as error:
            raise Error(f"the scheduler did not start: {error.__cause__ or error}") from error
        while len(self.worker_spec) < self._wanted:
            self.worker_spec.update(self.new_worker_spec())

    async def _correct_state_internal(self) -> None:
        try:
            await super()._correct_state_internal()
        except Error as error:
            if not self._built:
                raise
            self._not_started(error)
        self._built = True

    def new_worker_spec(self) -> dict[Any, dict[str, Any]]:
        """A worker more: on the machine that has most room left."""
        load = dict.fromkeys(self._places, 0)
        for spec in self.worker_spec.values():
            load[spec["place"]] += 1
        place = max((place for place in self._places if not place.away), key=lambda place: place.room - load[place])
        self._serial += 1
        if place.host is None:
            return {self._serial: {"cls": WorkerContainer, "options": self._base, "place": place}}
        options = {**self._base, "host": place.host, "gate": place.gate, "contact": self._contact(place.host)}
        name = f"{place.host.name}-{self._serial}"
        return {name: {"cls": RemoteWorkerContainer, "options": options, "place": place}}

    def _update_worker_status(self, op: str, message: Any) -> None:
        if op == "remove" and message not in self.scheduler_info["workers"]:
            return  # it came and went before we heard of it; Dask's would fail, and hear of nothing any more
        super()._update_worker_status(op, message)

    async def scale_down(self, workers: Iterable[Any]) -> None:
        """Have these no longer; Dask's adaptive scaling chooses them."""
        workers = list(workers)
        self._wanted = max(0, self._wanted - sum(name in self.worker_spec for name in workers))
        await super().scale_down(workers)

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await super()._close()

    @property
    def _dask(self) -> ContainerScheduler:
        scheduler = self.scheduler
        assert isinstance(scheduler, ContainerScheduler)
        return scheduler

    # --- room

    async def _look_at_machines(self) -> None:
        if not self._hosts:
            self._places = [Place(None, self._room(capacity.cpus(), capacity.total_memory()))]
            return
        found = await asyncio.gather(*(look(host, self._runs_theirs) for host in self._hosts))
        self._places = [Place(host, self._room(host.cpus, host.memory)) for host in found]

    def _room(self, cpus: float, memory: int) -> int:
        return min(int((cpus + 1e-9) / self._cpus), memory // self._memory)

    def _room_now(self) -> int:
        return sum(place.room for place in self._places if not place.away)

    def _check_room(self, n: float, label: str) -> None:
        room = sum(place.room for place in self._places)
        if n > room:
            raise InvalidInput(
                f"{label}={n:g}: {_listed(self._places)} {'have' if len(self._places) > 1 else 'has'} room for {room} "
                f"workers with cpus={self._cpus:g} and memory={size_words(self._memory)} each"
            )

    def _listen(self) -> str:
        """Where the scheduler listens: no wider than workers need."""
        if self._scheduler_host:
            return self._scheduler_host
        if not self._hosts:
            return "127.0.0.1"
        seen = {place.host.seen_from for place in self._places if place.host}
        if "" in seen:
            raise InvalidInput("scheduler_host: give our address that the hosts reach: ssh does not tell it there")
        return seen.pop() if len(seen) == 1 else "0.0.0.0"

    def _contact(self, host: Host) -> str:
        """The scheduler's address, as a host reaches it."""
        own: str = self._dask.address
        if self._scheduler_host or not host.seen_from:
            return own
        address = f"[{host.seen_from}]" if ":" in host.seen_from else host.seen_from
        return f"{own.partition('://')[0]}://{address}:{own.rpartition(':')[2]}"

    # --- workers that end

    def _on_end(self, container: WorkerContainer) -> None:
        """One has ended by itself."""
        if self.status == Status.running:
            self._do(self._replace(container))

    async def _replace(self, container: WorkerContainer) -> None:
        name, end = container.name, container.end
        assert end is not None
        await self._remove_from_scheduler(name)
        spec = self.worker_spec.get(name)
        if spec is None or self.status != Status.running:
            return  # it was told to end
        self.worker_spec.pop(name)
        self.workers.pop(name, None)
        self._containers.pop(name, None)
        if container.retired:  # Dask's adaptive scaling has the scheduler end it, and tells us after that
            self._wanted = max(0, self._wanted - 1)
            return
        facts = {"oom_killed": bool(end.result and end.result.oom_killed), "host_lost": end.host_lost}
        self._tell("worker-ended", f"worker {name} on {container.place}: {end.reason}", worker=name, **facts)
        if end.host_lost:
            self._lose(spec["place"])
        self._refill()

    async def _remove_from_scheduler(self, name: Any) -> None:
        address = self._dask.aliases.get(name)
        if address is not None:
            await self._dask.remove_worker(address, stimulus_id=f"corten-worker-ended-{name}")

    def _refill(self) -> None:
        """As many as are wanted, or as there is room for now."""
        target = min(self._wanted, self._room_now())
        while len(self.worker_spec) < target:
            self.worker_spec.update(self.new_worker_spec())
        self._correct_state()

    def _not_started(self, error: Error) -> None:
        """Workers did not start, and nobody waits for the error: say so, and do not try again for ever."""
        for name, worker in list(self.workers.items()):
            if worker.status == Status.failed:
                spec = self.worker_spec.pop(name, None)
                del self.workers[name]
                self._do(worker.close())
                if worker.end is not None and worker.end.host_lost and spec is not None:
                    self._lose(spec["place"])
                else:
                    self._wanted = max(0, self._wanted - 1)
        self._tell("worker-failed", str(error))
        if len(self.worker_spec) < min(self._wanted, self._room_now()):
            self._refill()

    def _lose(self, place: Place) -> None:
        if not place.away and place.host is not None:
            place.away = True
            self._tell("host-lost", f"host {place} is lost: looking for it again")
            self._do(self._await_host(place, place.host))

    async def _await_host(self, place: Place, host: Host) -> None:
        pause, most = _RETRY
        while place.away:
            await asyncio.sleep(pause)
            pause = min(pause * 2, most)
            try:
                await look(host)
            except Error:
                continue
            place.away = False
        self._tell("host-back", f"host {place} answers again")
        self._refill()

    def _tell(self, action: str, words: str, **facts: Any) -> None:
        _log.warning("%s", words)
        self._log(words)
        self._dask.log_event(TOPIC, {"action": action, "reason": words, **facts})

    def _do(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


# --- reading what was given


def _limits(cpus: float | str, memory: int | str) -> tuple[float, int]:
    found, limit = parse_cpus("cpus", cpus), size("memory", memory)
    if not found:
        raise InvalidInput(f"cpus: {cpus!r}: a worker needs some CPU")
    if limit < option_readers.MINIMUM_MEMORY:
        raise InvalidInput(f"memory: {memory!r}: a worker needs more to start in")
    return found, limit


def _count(label: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidInput(f"{label}: {value!r} is not a number of workers")
    return value


def _hosts(names: Iterable[str] | None, options: Sequence[str], python: str | None) -> tuple[Host, ...]:
    import sys

    if names is None:
        return ()
    if isinstance(names, str):
        raise InvalidInput(f"hosts: {names!r} is one string: give a list such as [{names!r}]")
    found = tuple(Host(checked(name), tuple(options), python or sys.executable) for name in names)
    if not found:
        raise InvalidInput("hosts: the list is empty: leave it out for this machine")
    if len({host.name for host in found}) < len(found):
        raise InvalidInput("hosts: one is listed twice: each gets as many workers as it has room for")
    return found


def _check(image: str, options: dict[str, Any], remote: bool) -> None:
    """Have them refused here and now, and not by each worker."""
    import json

    run_options.make(image, ("python3",), **options)
    if options["network"] == "none":
        raise InvalidInput("network: none: a worker must reach its scheduler: use host, or ns:PATH")
    if remote:
        try:
            json.dumps(options)
        except TypeError as error:
            raise InvalidInput(f"options for other machines are text, numbers and lists of them: {error}") from None


def _listed(places: list[Place]) -> str:
    names = [str(place) for place in places]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _with_configuration(env: Any) -> list[Any]:
    """The variables, and with them this process's configuration of Dask."""
    pairs = [key if value is None else f"{key}={value}" for key, value in env.items()] if isinstance(env, dict) else env
    return [f"DASK_INTERNAL_INHERIT_CONFIG={dask.config.serialize(dask.config.global_config)}", *(pairs or ())]
