"""`make bench`: the numbers that Corten must hold, side by side with others in one run, as ratios.

Prints a table and writes bench/results/DATE.json. Exit code 0 also where a goal is missed: a benchmark is no test.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import calls
import crowd
import rivals
import virtual_machine as guest
from contest import Contestant, Missing, Times, contest, median, ratio
from lab import Lab, laboratory

import builds
import corten
import images

HERE = os.path.dirname(os.path.abspath(__file__))
FLOOR, RUNC, PODMAN = "floor (C)", "runc run", "podman run"
SMALL, HEAVY = "corten.run, small process", "corten.run, 2 GB heap and 8 threads"
CLI, LIMITED = "corten run host true", "corten run host true, with limits"


class Row:
    """One row of the table: who took part, what they took, which goals were met."""

    def __init__(self, number: int, title: str) -> None:
        self.number, self.title = number, title
        self.times: Times = {}
        self.missing: dict[str, str] = {}
        self.goals: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}

    def goal(self, words: str, figure: float | None, most: float) -> None:
        """A figure that may be `most` at the most; None: a contestant is missing."""
        self.goals.append({"goal": words, "most": most, "figure": figure, "met": figure is not None and figure <= most})

    def compare(self, one: str, other: str, most: float) -> None:
        self.goal(f"{one} / {other}", ratio(self.times, one, other), most)

    def show(self) -> None:
        print(f"\n{self.number}. {self.title}")
        for name in self.times:
            samples = sorted(self.times[name])
            low, high = samples[len(samples) // 10], samples[len(samples) * 9 // 10]
            print(f"     {name:<40} {median(self.times, name):9.2f} ms   (10-90 %: {low:.2f} to {high:.2f})")
        for name, why in self.missing.items():
            print(f"     {name:<40}   missing: {why}")
        for name, value in self.facts.items():
            print(f"     {name:<40} {value}")
        for goal in self.goals:
            figure = "unknown" if goal["figure"] is None else f"{goal['figure']:.2f}"
            verdict = "met    " if goal["met"] else "NOT MET"
            print(f"   {verdict} {goal['goal']}: {figure}, goal at most {goal['most']:g}")


def library(lab: Lab, rounds: int) -> Row:
    """Row 1."""
    row = Row(1, "library: create, run true, wait, remove (512 MiB, 1 CPU, 64 processes; milliseconds)")
    served = [
        rivals.floor(lab),
        rivals.library(lab, "corten.run, rootfs", "rootfs"),
        rivals.library(lab, "corten.run, image host", "host"),
    ]
    contestants: list[Contestant] = [*served, rivals.runc(lab), rivals.bwrap(lab)]
    row.times, row.missing = contest(contestants, rounds)
    for contestant in served:
        contestant.end()
    row.compare("corten.run, rootfs", FLOOR, 1.6)
    row.compare("corten.run, rootfs", RUNC, 0.25)
    row.compare("corten.run, image host", RUNC, 0.25)
    return row


def heavy_process(lab: Lab, rounds: int) -> Row:
    """Row 2."""
    row = Row(2, "the same from a threaded process with a 2 GB heap")
    served = [rivals.library(lab, SMALL, "rootfs"), rivals.library(lab, HEAVY, "rootfs", heap_mib=2048, threads=8)]
    row.times, row.missing = contest([*served], rounds)
    for contestant in served:
        contestant.end()
    row.compare(HEAVY, SMALL, 1.2)
    return row


def command_line(lab: Lab, rounds: int) -> Row:
    """Row 3."""
    row = Row(3, "command line")
    contestants: list[Contestant] = [
        rivals.corten(CLI, "host", "true"),
        rivals.corten(LIMITED, *rivals.LIMITS, "host", "true"),
        rivals.runc(lab),
        rivals.podman(lab),
        rivals.bwrap(lab),
        rivals.python("-I", "-S"),
        rivals.python("-I"),
    ]
    row.times, row.missing = contest(contestants, rounds)
    for name in (CLI, LIMITED):
        row.compare(name, RUNC, 1.5)
        row.compare(name, PODMAN, 0.25)
    return row


def oci(lab: Lab, rounds: int) -> Row:
    """Row 13."""
    row = Row(13, "corten-oci: a bundle of true; the state of a container (milliseconds)")
    made = rivals.Made(lab)
    try:
        contestants: list[Contestant] = [rivals.oci_run(lab), rivals.runc(lab), made.state(), rivals.python("-I")]
        row.times, row.missing = contest(contestants, rounds)
    finally:
        made.end()
    row.compare("corten-oci run", RUNC, 1.5)
    row.compare("corten-oci state", "python -I -c pass", 1.6)
    return row


def left_behind(lab: Lab, in_a_row: int, at_once: int) -> Row:
    """Row 5."""
    row = Row(5, f"{in_a_row} starts in a row and {at_once} at once: what is left behind")
    try:
        found: dict[str, Any] = rivals.leaks(lab, in_a_row, at_once)
    except Missing as error:
        row.missing["corten.run"] = str(error)
        row.goal("things left behind", None, 0)
        return row
    row.facts["in a row"] = f"{found['row_s']:.1f} s, {in_a_row / found['row_s']:.0f} per second"
    row.facts["at once"] = f"{found['once_s']:.1f} s, {at_once / found['once_s']:.0f} per second"
    for kind, things in found["left"].items():
        before, after = found["before"][kind], found["after"][kind]
        row.facts[kind] = f"{before} before, {after} after" + (f": {things[:3]}" if things else "")
        row.goal(f"{kind} left behind", len(things), 0)
    if found["failures"]:
        row.facts["first failure"] = found["failures"][0]
    row.goal("starts that failed", len(found["failures"]), 0)
    return row


def views(rounds: int) -> Row:
    """Row 7."""
    row = Row(7, "looking at the machine: 1,000 processes, 500 control groups")
    crowd.compare(row, rounds)
    return row


def functions(number: int, title: str, fill: Callable[[Row, int], None], rounds: int) -> Row:
    """Rows 4, 8, 9 and 10."""
    row = Row(number, title)
    fill(row, rounds)
    return row


FUNCTIONS = {
    "4": ("a call with numpy in a fresh container, one at a time", calls.one_at_a_time),
    "8": ("empty calls, as many as there are cores at once (milliseconds of one)", calls.throughput),
    "9": ("a numpy array of 1 GiB, in and back", calls.big_array),
    "10": ("200 calls of 50 ms at once", calls.burst),
}


def cached_rebuild(rounds: int) -> Row:
    """Row 11."""
    row = Row(11, "a rebuild with everything cached: three stages, seven layers, 200 files (milliseconds)")
    row.times, row.missing = builds.cached_rebuild(rounds)
    row.compare(builds.CORTEN, builds.BUILDAH, 0.5)
    return row


def virtual_machine(rounds: int) -> Row:
    """Row 12."""
    row = Row(12, "the same command in a container and in a virtual machine: time to its first line")
    guest.compare(row, rounds)
    return row


def pulled(rounds: int) -> Row:
    """Row 14."""
    row = Row(14, "an image of Python packages from a registry of this machine into an empty store (milliseconds)")
    row.times, row.missing, facts = images.pulls(rounds)
    row.facts.update(facts)
    row.compare(images.CORTEN, images.PODMAN, 0.7)
    return row


def ten_layers(lab: Lab, rounds: int) -> Row:
    """Row 15."""
    row = Row(15, "true from an image of ten layers, and from a directory (milliseconds)")
    row.times, row.missing = images.starts(lab.rootfs, rounds)
    row.compare(images.LAYERS, images.DIRECTORY, 1.3)
    return row


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    with open("/proc/mounts") as file:
        kinds = {line.split()[2] for line in file}
    layout = {(True, True): "hybrid", (True, False): "v1", (False, True): "v2"}
    return {
        "kernel": platform.release(), "machine": platform.machine(), "cpus": os.cpu_count(),
        "python": platform.python_version(), "load": os.getloadavg()[0],
        "cgroups": layout.get(("cgroup" in kinds, "cgroup2" in kinds), "none"),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="1,2,3,4,5,7,8,9,10,11,12,13,14,15", help="which rows (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=60, help="rounds of rows 1 and 2 (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="few rounds, to see that it works")
    options = parser.parse_args()
    if os.geteuid():
        parser.error("make bench needs root: the yardstick and runc make control groups")
    # As after an installation by pip: otherwise all sources of an editable one are compiled at each start.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    compileall.compile_dir(os.path.dirname(corten.__file__), quiet=1)
    rounds = 8 if options.quick else options.rounds
    makers: dict[str, Callable[[Lab], Row]] = {
        "1": lambda lab: library(lab, rounds),
        "2": lambda lab: heavy_process(lab, rounds),
        "3": lambda lab: command_line(lab, max(rounds // 2, 5)),
        "5": lambda lab: left_behind(lab, *((50, 20) if options.quick else (1000, 200))),
        "7": lambda _: views(max(rounds // 3, 5)),
        "13": lambda lab: oci(lab, max(rounds // 2, 5)),
        "11": lambda _: cached_rebuild(max(rounds // 6, 5)),
        "14": lambda _: pulled(max(rounds // 12, 3)),
        "15": lambda lab: ten_layers(lab, max(rounds // 2, 5)),
        "12": lambda lab: virtual_machine(3 if options.quick else 9),  # noqa: ARG005
    }
    for name, (title, fill) in FUNCTIONS.items():
        makers[name] = lambda _, name=name, title=title, fill=fill: functions(int(name), title, fill, rounds)  # type: ignore[misc]
    facts = machine()
    print("  ".join(f"{name} {value}" for name, value in facts.items()))
    rows = []
    with laboratory(os.path.join(HERE, "..", "build", "floor")) as lab:
        for number in options.rows.split(","):
            rows.append(makers[number](lab))
            rows[-1].show()
    os.makedirs(os.path.join(HERE, "results"), exist_ok=True)
    path = os.path.join(HERE, "results", time.strftime("%Y-%m-%dT%H%M%SZ.json", time.gmtime()))
    with open(path, "w") as file:
        json.dump({"machine": facts, "rows": [vars(row) for row in rows]}, file, indent=1)
    goals = [goal for row in rows for goal in row.goals]
    print(f"\n{sum(goal['met'] for goal in goals)} of {len(goals)} goals met; all samples: {os.path.relpath(path)}")


if __name__ == "__main__":
    main()
