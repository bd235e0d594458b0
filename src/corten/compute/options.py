"""The options of a function, normalised: those of its own, and those of its containers."""

from __future__ import annotations

import os

from corten.compute import capacity
from corten.engine import option_readers
from corten.engine import options as run_options
from corten.engine.options import RunOptions
from corten.engine.quantities import cpus as parse_cpus
from corten.engine.quantities import duration, size
from corten.engine.result import size_words
from corten.errors import InvalidInput
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

DEFAULT_MEMORY = 1 << 30
AUTO_MEMORY = 256 << 20
"""Bytes that `memory="auto"` begins with."""
_NOT_FOR_FUNCTIONS = {
    "tty": "a function has no terminal", "init": "a function's container always has one",
    "entrypoint": "a function is not a command", "name": "containers of functions are many",
    "rootfs": 'give the directory as the image: image="./root"',
    "userns": "it is decided by who calls", "uidmap": "it is decided by who calls",
    "gidmap": "it is decided by who calls",
    "stop_signal": "the container of a function is killed",
}  # fmt: skip


class FunctionOptions(Record):
    """How a function is called.

    run: its containers, at the lower bounds; cpus, memory: (lower, upper) bounds, the upper None unless they may
    follow the load; memory_auto: a call that ran out of memory is tried with more; timeout: seconds of a call;
    retries: more tries after a failure; imports: modules that a zygote must load, None: what the function's code
    refers to; reuse: containers serve many calls; trusted: results may be anything that can be pickled; returns:
    (module, name) of classes that untrusted results may hold; stream: what calls write goes to our streams, too.
    """

    run: RunOptions
    cpus: tuple[float, float | None] = (1.0, None)
    memory: tuple[int | None, int | None] = (DEFAULT_MEMORY, None)
    memory_auto: bool = False
    timeout: float | None = None
    retries: int = 0
    imports: tuple[str, ...] | None = None
    reuse: bool = False
    trusted: bool = False
    returns: frozenset[tuple[str, str]] = frozenset()
    stream: bool = False

    @property
    def follows(self) -> bool:
        """Whether limits follow the load of a call while it runs."""
        return self.cpus[1] is not None or (self.memory[1] is not None and not self.memory_auto)


def make(name: str, given: dict[str, Any]) -> FunctionOptions:
    """Options as a person gave them. `InvalidInput` in one line that names the option."""
    given = {key: value for key, value in given.items() if value is not None}
    image = given.pop("image", "host")
    if not isinstance(image, str):
        if not hasattr(image, "for_run"):
            raise InvalidInput(f"{name}: image: {image!r} is neither a name nor a corten.Image")
        image = "host"  # until it is built, see `built`
    cpus = _bounds("cpus", given.pop("cpus", 1), _cpus)
    memory = given.pop("memory", DEFAULT_MEMORY)
    auto = memory == "auto"
    bounds = (AUTO_MEMORY, _machine()) if auto else _bounds("memory", memory, _memory)
    timeout = given.pop("timeout", None)
    for key in given:
        if key in _NOT_FOR_FUNCTIONS:
            raise InvalidInput(f"{name}: {key}: {_NOT_FOR_FUNCTIONS[key]}")
    imports = given.pop("imports", None)
    retries, reuse, trusted = given.pop("retries", 0), given.pop("reuse", False), given.pop("trusted", False)
    returns, output = given.pop("returns", ()), given.pop("output", "keep")
    given.setdefault("writable", "tmpfs")
    if "/" in image and os.path.isdir(image):
        image, given["rootfs"] = "", image
    run = run_options.make(image, (name,), memory=bounds[0], cpus=cpus[0], **given)
    _fit(name, cpus[0], bounds[0])
    return FunctionOptions(
        run=run,
        cpus=cpus,
        memory=bounds,
        memory_auto=auto,
        timeout=None if timeout is None else duration("timeout", timeout) or None,
        retries=_count("retries", retries),
        imports=None if imports is None else _names("imports", imports),
        reuse=bool(reuse),
        trusted=bool(trusted),
        returns=frozenset(_classes(returns)),
        stream=_output(output),
    )


def limit(options: FunctionOptions) -> int:
    """How many such containers this machine could run at once, with nothing else on it."""
    by_cpu = int(capacity.cpus() / (options.cpus[0] or 1.0))
    return max(1, min(by_cpu, capacity.total_memory() // (options.memory[0] or 1)))


def built(given: dict[str, Any]) -> dict[str, Any]:
    """Options whose image is a name: a `corten.Image` is built if it has not been, and brings its mounts."""
    image = given.get("image", "host")
    if isinstance(image, str):
        return given
    name, mounts = image.for_run()
    return {**given, "image": name, "mounts": [*mounts, *(given.get("mounts") or ())]}


def _fit(name: str, cpus: float, memory: int | None) -> None:
    have = capacity.cpus()
    if cpus > have:
        raise InvalidInput(f"{name}: cpus={cpus:g}: this machine has {have:g} for us")
    total = capacity.total_memory()
    if memory and memory > total:
        raise InvalidInput(f"{name}: memory={size_words(memory)}: this machine has {size_words(total)}")


def _bounds(label: str, value: Any, read: Any) -> tuple[Any, Any]:
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise InvalidInput(f"{label}: {value!r}: give one value, or a lower and an upper bound")
        lower, upper = read(label, value[0]), read(label, value[1])
        if lower > upper:
            raise InvalidInput(f"{label}: the lower bound {value[0]} is above the upper one {value[1]}")
        return lower, upper if upper > lower else None
    return read(label, value), None


def _cpus(label: str, value: Any) -> float:
    found = parse_cpus(label, value)
    if not found:
        raise InvalidInput(f"{label}: {value!r}: a function needs some CPU: give a number such as 1 or 0.5")
    return found


def _memory(label: str, value: Any) -> int:
    number = size(label, value)
    if number < option_readers.MINIMUM_MEMORY:
        raise InvalidInput(f"{label}: {value} is less than a container needs to start: give at least 6m")
    return number


def _machine() -> int:
    return capacity.total_memory() // 4 * 3


def _count(label: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidInput(f"{label}: {value!r} is not a number of times")
    return value


def _names(label: str, value: Iterable[str]) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value)
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise InvalidInput(f"{label}: {name!r} is not the name of a module")
    return names


def _classes(value: Any) -> Iterable[tuple[str, str]]:
    for kind in (value,) if isinstance(value, type) else value:
        if not isinstance(kind, type):
            raise InvalidInput(f"returns: {kind!r} is not a class")
        yield kind.__module__, kind.__qualname__


def _output(value: Any) -> bool:
    if value not in ("keep", "stream"):
        raise InvalidInput(f"output: {value!r}: use keep, or stream to see it as it comes")
    return bool(value == "stream")
