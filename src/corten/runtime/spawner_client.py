"""The library's side of the spawner: starts it when first needed, sends it plans, hands out the report sockets."""

from __future__ import annotations

import os
import pickle
import select
import sys
import threading
import weakref

from corten.errors import Error, Unsupported
from corten.linux import sockets
from corten.runtime.plan import Plan
from corten.runtime.spawner import INLINE

_ARGUMENTS = "-I", "-S", "-c"
_BUFFER = 1 << 20
_DEATH_MS = 1000
SLOTS = 8
"""Plans that are kept for being launched again."""


class _Client:
    """One spawner of this process. Safe from any thread: a request is a single message."""

    def __init__(self) -> None:
        self._slots: list[Plan | None] = [None] * SLOTS  # what the spawner keeps, in the same places
        self._next = 0
        self._launched: dict[int, weakref.ref[Plan]] = {}  # by id(plan): those whose own id has been used
        self._lock = threading.Lock()
        self._control: sockets.Socket | None = None
        self._owner = 0
        self._pid = 0

    def launch(self, plan: Plan, identity: str, stdio: tuple[int, int, int], reports: sockets.Socket) -> int:
        """Have a plan carried out: this very object again means one more like it, with an id of its own.

        identity: the id that the plan was made for. reports: the spawner's end of a pair, closed here; the caller still
        owns `stdio`. Returns the pid of the spawner.
        """
        descriptors = *stdio, reports.fileno()
        try:
            with self._lock:
                # A forked copy of the process must not use its parent's spawner: its containers would outlive it.
                if self._control is None or self._owner != os.getpid():
                    self._start()
                try:
                    self._send(plan, identity, descriptors)
                except OSError:  # the spawner was killed: its containers are gone, the next one is a new one's
                    self._start()
                    self._send(plan, identity, descriptors)
                return self._pid
        finally:
            reports.close()

    def lost(self, pid: int) -> None:
        """Reports of this spawner have ended without a word. If it has been killed the next request is a new one's.

        A process that dies closes one socket after the other: what is sent to the last would be lost.
        """
        with self._lock:
            if self._control is None or self._pid != pid:
                return
            poll = select.poll()
            poll.register(self._control, 0)
            if poll.poll(_DEATH_MS):
                self._control.close()
                self._control = None

    def _send(self, plan: Plan, identity: str, descriptors: tuple[int, ...]) -> None:
        for slot, known in enumerate(self._slots):
            if known is plan:
                assert self._control is not None
                sockets.send(self._control, f"again {slot}\n".encode(), descriptors)
                return
        slot = self._next
        self._next = (slot + 1) % SLOTS
        self._slots[slot] = None  # until the spawner surely has the new one
        # The first one may run still, or have left something behind with a spawner that was killed.
        key = id(plan)
        word = "more" if key in self._launched else "new"
        self._send_whole(f"{word} {slot} {identity}", pickle.dumps(plan, pickle.HIGHEST_PROTOCOL), descriptors)
        self._slots[slot] = plan
        self._launched[key] = weakref.ref(plan, lambda _: self._launched.pop(key, None))

    def _send_whole(self, words: str, data: bytes, descriptors: tuple[int, ...]) -> None:
        assert self._control is not None
        head = f"{words}\n".encode()
        if len(data) <= INLINE:
            sockets.send(self._control, head + data, descriptors)
        else:
            file = os.memfd_create("corten-plan", os.MFD_CLOEXEC)
            try:
                with os.fdopen(os.dup(file), "wb") as out:
                    out.write(data)
                os.lseek(file, 0, os.SEEK_SET)
                sockets.send(self._control, head, (*descriptors, file))
            finally:
                os.close(file)

    def _start(self) -> None:
        if not sys.executable:
            raise Unsupported("cannot start the spawner: sys.executable is empty; run under an ordinary interpreter")
        if self._control is not None:
            self._control.close()
        if self._pid and self._owner == os.getpid():
            try:
                os.waitpid(self._pid, 0)
            except ChildProcessError:
                pass  # the caller waits for any child, or for none
        self._slots = [None] * SLOTS
        self._control, theirs = sockets.pair(_BUFFER)
        self._owner = os.getpid()
        source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        code = f"import sys;sys.path.insert(0,{source!r});from corten.runtime.spawner import main;main(3,{os.getpid()})"
        try:
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, *_ARGUMENTS, code],
                {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
                    (os.POSIX_SPAWN_DUP2, 0, 1),
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), 3),
                ],
                setsid=True,  # Ctrl-C is for the library's process; it decides what becomes of its containers
                setsigmask=[],
            )
        except OSError as error:
            self._control.close()
            self._control, self._pid = None, 0
            raise Error(f"cannot start the spawner {sys.executable}: {error}") from None
        finally:
            theirs.close()


    def drop(self) -> None:
        """Have everything ended that was made ahead, and wait until nothing of it is left."""
        with self._lock:
            if self._control is None or self._owner != os.getpid():
                return
            ours, theirs = sockets.pair()
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            try:
                sockets.send(self._control, b"drop\n", (null, null, null, theirs.fileno()))
            except OSError:  # the spawner was killed, and all that it had made with it
                ours.close()
                return
            finally:
                os.close(null)
                theirs.close()
        sockets.receive(ours)
        ours.close()


_client = _Client()
launch = _client.launch
lost = _client.lost
drop = _client.drop
