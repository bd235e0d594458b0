"""The zygote: a process with the modules loaded that calls need. It forks, and each fork enters a container.

Rule 1: it never runs a call itself, and has one thread; so each fork begins with the same, untouched memory.
Rule 2: its caller is trusted (requests are pickled); what it answers is not believed by the caller (plain text).
Rule 3: a fork is made in the container's PID namespace, and enters the others itself. It holds nothing of the zygote
        but its memory, in which nothing was ever put that a call may not see.

Requests, one datagram each:                    answers:
    ("setup", {...})                              ready JSON | failed TEXT | threads MODULE
    ("function", key, pickled)                    -
    ("entry", key, operations)                    -
    ("fork", id, entry, pid index, environment)   forked ID PID | refused ID TEXT;  later: ended ID STATUS
with the descriptors of a fork: call socket, stdin, stdout, stderr, and those that the operations count.
"""

from __future__ import annotations

import _signal
import gc
import importlib
import os
import pickle
import select
import signal
import socket
import struct
import sys

from . import entering, wire, work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_DESCRIPTORS = 64
_SIGINT, _SIGCHLD = int(signal.SIGINT), int(signal.SIGCHLD)
_NEWPID = 0x20000000
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_DUMPABLE = 1, 15, 4
_PRCTL = {"x86_64": 157, "aarch64": 167}.get(os.uname().machine, 0)


class Zygote:
    """The loop."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.entries: dict[str, list[tuple[Any, ...]]] = {}
        self.forks: dict[int, int] = {}
        self.own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self.woken, self.waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self.waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the caller

    def run(self) -> None:
        """Serve until the caller has gone."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(self.woken, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self.woken:
                    self._drain()
                elif not self._serve():
                    return

    def answer(self, text: str) -> None:
        """Tell the caller something."""
        try:
            self.control.sendall(text.encode(errors="replace")[:60000])
        except OSError:
            pass  # it is gone; the next read says so

    def _drain(self) -> None:
        try:
            os.read(self.woken, 4096)
        except BlockingIOError:
            pass
        self._reap()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            identity = self.forks.pop(pid, None)
            if identity is not None:
                self.answer(f"ended {identity} {status}")

    def _serve(self) -> bool:
        try:
            data, descriptors = _receive(self.control)
        except ConnectionResetError:  # the caller was killed, and had not read all of our answers
            return False
        if not data:
            return False
        try:
            word, *rest = pickle.loads(data)
            if word == "fork":
                self._fork(descriptors, *rest)
            elif word == "function":
                work.know(rest[0], rest[1] if rest[1] is not None else _contents(descriptors[0]))
            elif word == "entry":
                self.entries[rest[0]] = rest[1]
            elif word == "setup":
                self.answer(_set_up(rest[0]))
        finally:
            for fd in descriptors:
                os.close(fd)
        return True

    def _fork(
        self, descriptors: tuple[int, ...], identity: int, entry: str, pid_index: int, environment: dict[str, str]
    ) -> None:
        work.set_environment(environment)
        try:
            entering.join(descriptors[pid_index], _NEWPID)
            try:
                pid = os.fork()
            finally:
                if os.getpid() == _PID[0]:
                    entering.join(self.own_pid_namespace, _NEWPID)
        except OSError as error:
            self.answer(f"refused {identity} fork into the container: {error.strerror}")
            return
        if pid == 0:
            self._become(descriptors, self.entries[entry])
        self.forks[pid] = identity
        self.answer(f"forked {identity} {pid}")

    def _become(self, descriptors: tuple[int, ...], operations: list[tuple[Any, ...]]) -> None:
        """The fork: enter, then work. Never returns."""
        status = 125
        sock = None
        try:
            sock = socket.socket(fileno=descriptors[0])
            # By `_signal`: the enums of `signal` would copy a dozen pages of the zygote, at 2.4 µs each.
            _signal.set_wakeup_fd(-1)
            _signal.signal(_SIGCHLD, _signal.SIG_DFL)
            _signal.signal(_SIGINT, _signal.default_int_handler)
            entering.call(_PRCTL, _PR_SET_NAME, b"corten:call\0", 0, 0, 0)
            self.control.close()
            for number, fd in enumerate(descriptors[1:4]):
                os.dup2(fd, number)
            entering.perform(operations, descriptors)
            for fd in (*descriptors[1:], self.own_pid_namespace, self.woken, self.waker):
                os.close(fd)
            work.be_fresh()
            wire.send(sock, b"H", 0, b"")
            status = work.serve(sock)
        except BaseException as error:  # a copy of the zygote must never run on as one
            if sock is not None:
                try:
                    wire.send(sock, b"!", 0, f"{error}".encode(errors="replace")[:4000])
                except OSError:
                    pass
        os._exit(status)


_PID = [0]


def _set_up(wishes: dict[str, Any]) -> str:
    """Load what is wished for, and say what is here. What only may be wanted is left out if it cannot be loaded."""
    import json

    if wishes.get("path") is not None:
        sys.path[:] = wishes["path"]
    for name in (*wishes["imports"], *wishes["likely"]):
        try:
            importlib.import_module(name)
        except BaseException as error:  # a module may raise anything, SystemExit too
            if name in wishes["imports"]:
                return f"failed import {name}: {type(error).__name__}: {error}"
        if _threads() > 1:
            return f"threads {name}"
    import cloudpickle

    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr] # what calls print can be seen as it comes
    gc.collect()
    gc.freeze()
    facts = {"python": list(sys.version_info[:3]), "pickler": cloudpickle.__version__, "modules": len(sys.modules)}
    return "ready " + json.dumps(facts)


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _contents(fd: int) -> bytes:
    parts = [b""]
    offset = 0
    while True:
        part = os.pread(fd, 1 << 20, offset)
        if not part:
            return b"".join(parts)
        parts.append(part)
        offset += len(part)


def _receive(sock: socket.socket) -> tuple[bytes, tuple[int, ...]]:
    data, ancillary, _, _ = sock.recvmsg(1 << 18, socket.CMSG_SPACE(4 * _MAX_DESCRIPTORS), 0x40000000)  # CMSG_CLOEXEC
    descriptors: list[int] = []
    for level, kind, rights in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors += struct.unpack(f"{len(rights) // 4}i", rights[: len(rights) // 4 * 4])
    return data, tuple(descriptors)


def main(control: int, shielded: bool = True) -> None:
    """Serve the caller at the other end of the descriptor `control`. shielded: nobody may trace us; not in a container
    of our own, where whoever owns our user namespace has to open it."""
    _PID[0] = os.getpid()
    work.IN_CONTAINER = True
    os.closerange(control + 1, os.sysconf("SC_OPEN_MAX"))  # what the caller left open for its children is not ours
    entering.call(_PRCTL, _PR_SET_NAME, b"corten:zygote\0", 0, 0, 0)
    if shielded:
        entering.call(_PRCTL, _PR_SET_DUMPABLE, 0, 0, 0, 0)
    os.set_inheritable(control, False)
    Zygote(socket.socket(fileno=control)).run()
