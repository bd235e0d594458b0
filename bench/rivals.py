"""The contestants: the yardstick in C, the engines of Debian, Corten's library and its command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence

from contest import Missing
from lab import Lab

BENCH = os.path.dirname(os.path.abspath(__file__))
CORTEN = os.path.join(os.path.dirname(sys.executable), "corten")
LIMITS = ("--memory", "512m", "--cpus", "1", "--pids-limit", "64")


class Command:
    """A command line, from spawn to wait; nothing of it is shown unless it fails."""

    def __init__(self, name: str, words: Sequence[str], directory: str = "", filter_path: str = "") -> None:
        self.name, self.words, self.filter_path = name, list(words), filter_path
        self.directory = directory or os.getcwd()

    def once(self) -> float:
        program = shutil.which(self.words[0], path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
        if not program:
            raise Missing(f"{self.words[0]} is not installed")
        files = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                 (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                 (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]  # fmt: skip
        if self.filter_path:
            files.append((os.POSIX_SPAWN_OPEN, 9, self.filter_path, os.O_RDONLY, 0))
        here = os.getcwd()
        os.chdir(self.directory)
        try:
            start = time.perf_counter()
            pid = os.posix_spawn(program, self.words, os.environ, file_actions=files)
            _, status = os.waitpid(pid, 0)
            took = (time.perf_counter() - start) * 1e3
        finally:
            os.chdir(here)
        if status:
            raise Missing(f"ended with {os.waitstatus_to_exitcode(status)}: {self._complaint(program)}")
        return took

    def _complaint(self, program: str) -> str:
        """The last line that it says when it is run once more."""
        words = [program, *self.words[1:]]
        if self.filter_path:
            words = ["sh", "-c", 'exec "$@" 9<"$0"', self.filter_path, *words]
        done = subprocess.run(words, cwd=self.directory, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False)  # fmt: skip
        lines = (done.stderr or done.stdout).strip().splitlines()
        return lines[-1][:200] if lines else "it says nothing"


class Served:
    """A process that makes a container for each line it reads, and answers with the milliseconds it took."""

    def __init__(self, name: str, words: Sequence[str], request: str = "go") -> None:
        self.name, self.words, self.request = name, list(words), request
        self._process: subprocess.Popen[str] | None = None

    def once(self) -> float:
        if self._process is None:
            self._process = subprocess.Popen(
                self.words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        process = self._process
        assert process.stdin and process.stdout and process.stderr
        try:
            process.stdin.write(self.request + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            lines = process.stderr.read().strip().splitlines()
            raise Missing(lines[-1][:200] if lines else "it says nothing")
        return float(answer)

    def end(self) -> None:
        if self._process is not None:
            self._process.communicate()


def floor(lab: Lab) -> Served:
    return Served("floor (C)", [lab.floor, "-n", "1000000", "-w", lab.rootfs, lab.filter_path, "/bin/true"])


def library(lab: Lab, name: str, request: str, heap_mib: int = 0, threads: int = 0) -> Served:
    worker = os.path.join(BENCH, "worker.py")
    return Served(name, [sys.executable, worker, lab.rootfs, str(heap_mib), str(threads)], request)


def runc(lab: Lab) -> Command:
    return Command("runc run", ["runc", "run", "--bundle", lab.bundle, f"corten-bench-{os.getpid()}"])


def podman(lab: Lab) -> Command:
    # runc and cgroupfs: Debian's crun refuses the hybrid layout, and there may be no systemd. The ulimits: podman
    # raises them otherwise, which root without CAP_SYS_RESOURCE may not.
    words = ["podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs", "run", "--rm", "--network", "none",
             "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", *LIMITS,
             "--rootfs", f"{lab.rootfs}:O", "/bin/true"]  # fmt: skip
    return Command("podman run", words)


def bwrap(lab: Lab) -> Command:
    words = ["bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup",
             "--bind", lab.rootfs, "/", "--proc", "/proc", "--dev", "/dev", "--mqueue", "/dev/mqueue",
             "--ro-bind", "/sys", "/sys", "--hostname", "bench", "--cap-drop", "ALL", "--seccomp", "9",
             "--new-session", "--die-with-parent", "/bin/true"]  # fmt: skip
    return Command("bwrap (no limits, no overlay)", words, filter_path=lab.filter_path)


def corten(name: str, *words: str) -> Command:
    return Command(name, [CORTEN, "run", *words])


OCI = os.path.join(os.path.dirname(sys.executable), "corten-oci")


def oci_run(lab: Lab) -> Command:
    """The bundle that runc runs, by corten-oci."""
    return Command("corten-oci run", [OCI, "run", "--bundle", lab.bundle, f"corten-bench-oci-{os.getpid()}"])


class Made:
    """A container of corten-oci that was created and waits: for commands that look at one. Deleted by `end`."""

    def __init__(self, lab: Lab) -> None:
        self._name = f"corten-bench-state-{os.getpid()}"
        with open(f"{lab.bundle}/config.json") as file:
            config = json.load(file)
        config["linux"]["cgroupsPath"] += "-state"
        bundle = f"{lab.bundle}-state"
        os.makedirs(bundle, exist_ok=True)
        with open(f"{bundle}/config.json", "w") as file:
            json.dump(config, file)
        subprocess.run(
            [OCI, "create", "--bundle", bundle, self._name],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True,
        )  # fmt: skip

    def state(self) -> Command:
        return Command("corten-oci state", [OCI, "state", self._name])

    def end(self) -> None:
        subprocess.run([OCI, "delete", "--force", self._name], check=True)


def python(*flags: str) -> Command:
    words = [sys.executable, *flags, "-c", "pass"]
    return Command(f"python {' '.join(flags)} -c pass", words)


def leaks(lab: Lab, in_a_row: int, at_once: int) -> dict[str, object]:
    """What `before_after.py` found. Raises `Missing`."""
    words = [sys.executable, os.path.join(BENCH, "before_after.py"), lab.rootfs, str(in_a_row), str(at_once)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise Missing(lines[-1][:200] if lines else "it says nothing")
    found: dict[str, object] = json.loads(done.stdout)
    return found
