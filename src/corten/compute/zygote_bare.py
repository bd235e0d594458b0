"""The zygote of the image `host`, for root: a process of the host, as the spawner is: it lives where its modules lie.

Its forks enter containers, so its executable is a sealed copy of the interpreter in memory: whatever a call does with
/proc/self/exe, it is not the host's python (CVE-2019-5736). It is started with almost no environment and knows nothing
of its caller's memory: what it holds, every call could read.
"""

from __future__ import annotations

import os
import sys

from corten.errors import Error, Unsupported
from corten.linux import machine_code, pidfd, signals

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS")
"""Libraries are loaded with one thread: a process that forks can have no more."""
_KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "OPENBLAS_CORETYPE", "TZ")
"""Variables of the caller that reach a zygote: those that decide how libraries load. The rest may hold secrets."""


class BareProcess:
    """The process, started. control: its end of the socket, still the caller's."""

    def __init__(self, control: int) -> None:
        try:
            self._pid = _start(control)
        except OSError as error:
            raise Error(f"cannot start a zygote with {sys.executable}: {error}") from None
        self._pidfd = pidfd.open_pid(self._pid)

    def kill(self) -> None:
        """Have it end, from any thread; `end` is still to come."""
        pidfd.send_signal(self._pidfd, signals.KILL)

    def end(self) -> None:
        """End and reap it. Its forks live on: they end with their containers."""
        self.kill()
        try:
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            pass  # somebody who waits for any child was first
        os.close(self._pidfd)


def _start(control: int) -> int:
    if not sys.executable:
        raise Unsupported("cannot start a zygote: sys.executable is empty; run under an ordinary interpreter")
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = f"import sys;sys.path.insert(0,{source!r});from corten.compute.inside.zygote import main;main(3)"
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environment.update(dict.fromkeys(ONE_THREAD, "1"))
    _keep_library(environment)
    executable = _sealed_interpreter()
    try:
        return os.posix_spawn(
            f"/proc/self/fd/{executable}",
            [sys.executable, "-I", "-X", "utf8", "-c", code],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
                (os.POSIX_SPAWN_DUP2, 0, 1),
                (os.POSIX_SPAWN_DUP2, control, 3),
            ],
            setsid=True,  # Ctrl-C is for the caller
            setsigmask=[],
        )
    finally:
        os.close(executable)


def _keep_library(environment: dict[str, str]) -> None:
    """A shared libpython is found beside the executable by some builds; a copy in memory has no place of its own."""
    import sysconfig

    place = sysconfig.get_config_var("LIBDIR")
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and place:
        others = environment.get("LD_LIBRARY_PATH")
        environment["LD_LIBRARY_PATH"] = f"{place}:{others}" if others else str(place)


def _sealed_interpreter() -> int:
    """A copy of the interpreter that nobody can write to; its close-on-exec descriptor."""
    fd = machine_code.executable_file("corten:python")
    with open(os.path.realpath(sys.executable), "rb") as source:
        size = os.fstat(source.fileno()).st_size
        offset = 0
        while offset < size:
            offset += os.sendfile(fd, source.fileno(), offset, size - offset)
    machine_code.seal(fd)
    return fd
