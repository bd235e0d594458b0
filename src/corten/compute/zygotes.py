"""A zygote from its caller's side: how it is started, what it is asked, what it answers.

The zygote of the image `host` is a process of the host, as the spawner is: it lives where its modules lie. Its forks
enter containers, so its executable is a sealed copy of the interpreter in memory: whatever a call does with
/proc/self/exe, it is not the host's python (CVE-2019-5736). It is started with almost no environment and knows
nothing of its caller's memory: what it holds, every call could read.
"""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import socket
import struct
import sys

from corten.compute.entry import STREAMS, Entry
from corten.compute.pickling import PackedFunction
from corten.errors import Error, Unsupported
from corten.linux import pidfd, signals
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ADD_SEALS, _SEALS = 1033, 0x1 | 0x2 | 0x4 | 0x8
_MFD_EXEC = 0x10
_BUFFER = 1 << 20
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS")
_KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "OPENBLAS_CORETYPE", "TZ")
"""Variables of the caller that reach a zygote: those that decide how libraries load. The rest may hold secrets."""


class Kind(Record):
    """What makes two zygotes the same. imports: that must load; likely: that load if they can."""

    image: str
    imports: tuple[str, ...]
    likely: tuple[str, ...]


class Answer(Record):
    """What a zygote said. word: ready, failed, forked, refused, ended, gone; fork: which one; text: the rest."""

    word: str
    fork: int = 0
    text: str = ""


class Zygote:
    """One zygote. Requests may be sent at once; it answers `ready` (or `failed`) first. Used by one thread."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.ready = False
        self.failed = ""
        self.facts: dict[str, object] = {}
        self.functions: set[str] = set()
        self.entries: set[str] = set()
        self.gone = False
        self.workers: dict[int, Callable[[Answer], None]] = {}
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._control, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        try:
            self.pid = _start(theirs.fileno())
        except OSError as error:
            self._control.close()
            raise Error(f"cannot start a zygote with {sys.executable}: {error}") from None
        finally:
            theirs.close()
        self.pidfd = pidfd.open_pid(self.pid)
        cwd = os.getcwd()
        path = [os.path.join(cwd, place) for place in sys.path]
        self._send(("setup", {"path": path, "imports": kind.imports, "likely": kind.likely}))

    def fileno(self) -> int:
        """Readable when there is an answer."""
        return self._control.fileno()

    def _send(self, request: object, descriptors: tuple[int, ...] = ()) -> None:
        data = pickle.dumps(request, 4)
        rights = struct.pack(f"{len(descriptors)}i", *descriptors)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
        try:
            self._control.sendmsg([data], ancillary)
        except OSError as error:
            raise Error(f"the zygote of {self.kind.image} has ended ({error.strerror})") from None

    def teach(self, function: PackedFunction) -> None:
        """Let it know a function, if it does not yet: its forks know it, too."""
        if function.key in self.functions or self.gone:
            return
        self.functions.add(function.key)
        if len(function.data) < 1 << 17:
            self._send(("function", function.key, function.data))
            return
        fd = os.memfd_create("corten-function", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(fd), "wb") as file:
                file.write(function.data)
            self._send(("function", function.key, None), (fd,))
        finally:
            os.close(fd)

    def fork(
        self, number: int, key: str, entry: Entry, environment: dict[str, str], streams: tuple[int, int, int, int],
        descriptors: tuple[int, ...],
    ) -> None:  # fmt: skip
        """Have it fork into a container. key: of the entry; streams: the call's socket, stdin, stdout, stderr;
        descriptors: of the namespaces `entry.kinds`, then of the group's files."""
        if key not in self.entries:
            self.entries.add(key)
            self._send(("entry", key, list(entry.operations)))
        assert len(streams) == STREAMS
        self._send(("fork", number, key, entry.pid_index, environment), (*streams, *descriptors))

    def answers(self) -> Iterator[Answer]:
        """What it has said since; `gone` at its end."""
        while True:
            try:
                data = self._control.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                if not self.gone:
                    self.gone = True
                    yield Answer("gone")
                return
            answer = _parsed(data)
            if answer is None:
                continue
            if answer.word == "ready":
                self.ready = True
                self.facts = json.loads(answer.text)
            elif answer.word in ("failed", "threads"):
                self.failed = answer.text
            yield answer

    def on_answer(self, answer: Answer) -> None:
        """Hand an answer about a fork to its worker."""
        hear = self.workers.get(answer.fork)
        if hear:
            hear(answer)

    def end(self) -> None:
        """End and reap it. Its forks live on: they end with their containers."""
        self._control.close()
        pidfd.send_signal(self.pidfd, signals.KILL)
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass  # somebody who waits for any child was first
        os.close(self.pidfd)


def _parsed(data: bytes) -> Answer | None:
    word, _, rest = data.decode(errors="replace").partition(" ")
    if word in ("ready", "failed", "threads"):
        return Answer(word, 0, rest)
    number, _, text = rest.partition(" ")
    if word in ("forked", "refused", "ended") and number.isascii() and number.isdigit():
        return Answer(word, int(number), text)
    return None


def _start(control: int) -> int:
    if not sys.executable:
        raise Unsupported("cannot start a zygote: sys.executable is empty; run under an ordinary interpreter")
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = f"import sys;sys.path.insert(0,{source!r});from corten.compute.inside.zygote import main;main(3)"
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environment.update(dict.fromkeys(_ONE_THREAD, "1"))
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
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create("corten:python", flags | _MFD_EXEC)
    except OSError as error:
        if error.errno != 22:  # EINVAL: a kernel that does not know the flag executes without it
            raise
        fd = os.memfd_create("corten:python", flags)
    with open(os.path.realpath(sys.executable), "rb") as source:
        size = os.fstat(source.fileno()).st_size
        offset = 0
        while offset < size:
            offset += os.sendfile(fd, source.fileno(), offset, size - offset)
    fcntl.fcntl(fd, _ADD_SEALS, _SEALS)
    return fd
