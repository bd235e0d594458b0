"""Contestants take turns (A B C A B C ...), so that a change of the machine's mood meets all of them alike."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Protocol

WARM_UPS = 3


class Missing(Exception):
    """A contestant cannot take part; the text says why. It is shown in the table, never left out."""


class Contestant(Protocol):
    """Something that makes one container (or one process) at a time and says how long that took."""

    name: str

    def once(self) -> float:
        """Milliseconds that one took. Raises `Missing`."""
        ...


Times = dict[str, list[float]]
"""Milliseconds by contestant, in the order of the rounds."""


def contest(contestants: list[Contestant], rounds: int) -> tuple[Times, dict[str, str]]:
    """The times of those that could take part, and why the others could not."""
    fit, missing = [], {}
    for contestant in contestants:
        try:
            for _ in range(WARM_UPS):
                contestant.once()
            fit.append(contestant)
        except Missing as error:
            missing[contestant.name] = str(error)
    times: Times = {contestant.name: [] for contestant in fit}
    for number in range(rounds):
        for contestant in list(fit):
            try:
                times[contestant.name].append(contestant.once())
            except Missing as error:  # half a series compares with nothing
                missing[contestant.name] = f"failed in round {number + 1}: {error}"
                fit.remove(contestant)
                del times[contestant.name]
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{number + 1}/{rounds} ")
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    return times, missing


def median(times: Times, name: str) -> float | None:
    """Milliseconds; None for one that is missing."""
    return statistics.median(times[name]) if name in times else None


def ratio(times: Times, one: str, other: str) -> float | None:
    """The median of the ratios of the rounds: each round compares two neighbours in time."""
    if one not in times or other not in times:
        return None
    return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))


class Timed:
    """A command that must end well; `before` is done first, and not timed."""

    def __init__(
        self, name: str, words: list[str], environment: dict[str, str], before: Callable[[], None] = lambda: None
    ) -> None:
        self.name, self._words, self._environment, self._before = name, words, environment, before

    def once(self) -> float:
        self._before()
        start = time.perf_counter()
        try:
            done = subprocess.run(self._words, env=self._environment, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise Missing(f"{self._words[0]} is not installed") from None
        took = (time.perf_counter() - start) * 1e3
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            raise Missing(lines[-1][:200] if lines else "it says nothing")
        return took
