"""The same command in a container and in a virtual machine of Debian's QEMU: time to its first line, memory, image.

The guest is as small as is fair: Debian's cloud kernel and an initial RAM disk of one static program, no disk, no
network, no init system. With KVM where a guest starts with it, else in software, which the table then says.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from contest import Contestant, Missing, contest
from rivals import BENCH, CORTEN

from corten.views import drawing
from corten.views.picture import Box, Picture

if TYPE_CHECKING:
    from run import Row

SCRIPT = "echo up; read x"
MEMORY = "128m"
BUSYBOX = "/usr/bin/busybox"
CONTAINER, GUEST = "container (corten run)", "virtual machine (QEMU)"
CACHE = os.path.join(BENCH, "..", "build", "guest")
PLOT = os.path.join(BENCH, "results", "virtual-machine.svg")
"""The documentation has a copy of one, in docs/pictures."""
INIT = f"#!/bin/busybox sh\n/bin/busybox sh -c '{SCRIPT}'\n/bin/busybox poweroff -f\n"
PATIENCE = 60.0


class Program:
    """A command line that prints `up`, waits for a line, and ends. Notes the memory that its processes then hold."""

    def __init__(self, name: str, words: Sequence[str]) -> None:
        self.name, self.words = name, list(words)
        self.memory: list[int] = []

    def once(self) -> float:
        start = time.perf_counter()
        with subprocess.Popen(["timeout", str(PATIENCE), *self.words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as process:  # fmt: skip
            assert process.stdin and process.stdout and process.stderr
            for line in process.stdout:
                if line.strip() == b"up":
                    break
            else:
                raise Missing((process.stderr.read().decode().strip().splitlines() or ["it says nothing"])[-1][:200])
            took = (time.perf_counter() - start) * 1e3
            self.memory.append(sum(map(_pss, _below(process.pid))))
            process.stdin.write(b"\n")
            process.stdin.flush()
            process.stdout.read()
        return took


def compare(row: Row, rounds: int) -> None:
    """Fill the row, and draw it."""
    with tempfile.TemporaryDirectory(prefix="corten-bench-", dir="/var/tmp") as place:
        root = f"{place}/root"
        os.makedirs(f"{root}/bin")
        os.mkdir(f"{root}/proc")
        shutil.copy(BUSYBOX, f"{root}/bin/busybox")
        words = [CORTEN, "run", "-i", "--memory", MEMORY, "--cpus", "1", "--writable", "throwaway", "--rootfs", root]
        box = Program(CONTAINER, [*words, "/bin/busybox", "sh", "-c", SCRIPT])
        try:
            kernel, disk = _kernel(), _disk(place)
            how, guest = _guest(kernel, disk)
        except Missing as error:
            row.missing[GUEST] = str(error)
            return
        contestants: list[Contestant] = [box, guest]
        row.times, row.missing = contest(contestants, rounds)
        sizes = {CONTAINER: os.path.getsize(BUSYBOX), GUEST: os.path.getsize(kernel) + os.path.getsize(disk)}
    row.facts["accelerator"] = how
    memory = {one.name: sorted(one.memory)[len(one.memory) // 2] for one in (box, guest) if one.memory}
    for name, held in memory.items():
        row.facts[f"{name}: memory"] = f"{held / 2**20:.1f} MiB (PSS of all its processes, guest of {MEMORY})"
        row.facts[f"{name}: image"] = f"{sizes[name] / 2**20:.1f} MiB"
    if len(row.times) == 2:
        starts = {name: sorted(row.times[name])[len(row.times[name]) // 2] for name in row.times}
        _plot(how, starts, memory, sizes)


def _plot(how: str, starts: dict[str, float], memory: dict[str, int], sizes: dict[str, int]) -> None:
    rows: tuple[tuple[str, dict[str, float], str, float], ...] = (
        ("time to the first line", dict(starts), "ms", 1),
        ("memory", {name: float(value) for name, value in memory.items()}, "MiB", 2**20),
        ("image", {name: float(value) for name, value in sizes.items()}, "MiB", 2**20),
    )
    boxes = tuple(
        Box(title, (), None, (), "plain", tuple(
            Box(name, (f"{values[name] / unit:.1f} {word}",), values[name] / max(values.values()), (),
                "container" if name == CONTAINER else "plain")
            for name in (CONTAINER, GUEST)
        ))
        for title, values, word, unit in rows
    )  # fmt: skip
    note = f"sh -c '{SCRIPT}', medians of {time.strftime('%Y-%m-%d', time.gmtime())}; guest by {how}"
    os.makedirs(os.path.dirname(PLOT), exist_ok=True)
    drawing.save(Picture("The same command in a container and in a virtual machine", boxes, (note,)), PLOT)


def _guest(kernel: str, disk: str) -> tuple[str, Program]:
    """(how it is run, the guest): with KVM, or in software if no guest starts with that."""
    if not shutil.which("qemu-system-x86_64"):
        raise Missing("qemu-system-x86_64 is not installed")
    for how, options in (("KVM", "-accel kvm -cpu host"), ("software (TCG)", "-accel tcg -cpu max")):
        words = f"qemu-system-x86_64 -nodefaults -no-reboot -display none {options} -m {MEMORY} -serial stdio".split()
        append = "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on"
        guest = Program(GUEST, [*words, "-kernel", kernel, "-initrd", disk, "-append", append])
        try:
            guest.once()
            return how, guest
        except Missing:
            continue
    raise Missing("no guest starts, neither with KVM nor in software")


def _kernel() -> str:
    """Debian's cloud kernel, fetched once."""
    for kept in glob.glob(f"{CACHE}/boot/vmlinuz-*"):
        return kept
    os.makedirs(CACHE, exist_ok=True)
    script = (
        "package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: //p' | head -n 1);"
        "apt-get download -q \"$package\" && dpkg-deb -x linux-image-*.deb . && rm linux-image-*.deb && rm -rf lib usr"
    )
    done = subprocess.run(["sh", "-ec", script], cwd=CACHE, capture_output=True, text=True, check=False)
    found = glob.glob(f"{CACHE}/boot/vmlinuz-*")
    if done.returncode or not found:
        raise Missing(f"no kernel: {(done.stderr.strip().splitlines() or ['apt-get download gave none'])[-1][:200]}")
    return found[0]


def _disk(place: str) -> str:
    """An initial RAM disk with one program."""
    os.makedirs(f"{place}/guest/bin")
    shutil.copy(BUSYBOX, f"{place}/guest/bin/busybox")
    with open(f"{place}/guest/init", "w") as file:
        file.write(INIT)
    os.chmod(f"{place}/guest/init", 0o755)
    script = f"find . | cpio --quiet -o -H newc | gzip >{place}/disk"
    done = subprocess.run(["sh", "-ec", script], cwd=f"{place}/guest", capture_output=True, text=True, check=False)
    if done.returncode or done.stderr:
        raise Missing(f"no disk: {done.stderr.strip()[:200]}")
    return f"{place}/disk"


def _below(pid: int) -> list[int]:
    """A process and all that come from it."""
    found = [pid]
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as file:
            for word in file.read().split():
                found += _below(int(word))
    return found


def _pss(pid: int) -> int:
    """Bytes of a process, shared pages in equal parts."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("Pss:"))
