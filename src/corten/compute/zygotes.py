"""A zygote from its caller's side: what it is asked, what it answers.

Where its process lives is another matter: for root and the image `host` on the host (`zygote_bare`), otherwise in a
container of its own (`zygote_contained`).
"""

from __future__ import annotations

import json
import os
import pickle
import select
import socket
import struct
import sys

from corten.compute.entry import STREAMS, Entry
from corten.compute.pickling import PackedFunction
from corten.errors import Error, InvalidInput
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    class Process(Protocol):
        """Where a zygote lives."""

        def kill(self) -> None: ...  # noqa: D102
        def end(self) -> None: ...  # noqa: D102

_BUFFER = 1 << 20


class Kind(Record):
    """What makes two zygotes the same. image: by name, or the options of their containers as text; contained: they have
    containers of their own; imports: that must load; likely: that load if they can."""

    image: str
    contained: bool
    imports: tuple[str, ...]
    likely: tuple[str, ...]


class Answer(Record):
    """What a zygote said. word: ready, failed, forked, refused, ended, gone; fork: which one; text: the rest."""

    word: str
    fork: int = 0
    text: str = ""


class Zygote:
    """One zygote. Requests may be sent at once; it answers `ready` (or `failed`) first. Used by one thread."""

    def __init__(self, kind: Kind, start: Callable[[int], Process], path: list[str] | None) -> None:
        """start: makes the process, given its end of the socket; path: where it finds modules, None: where its Python
        does. `Error`: it cannot be started."""
        self.kind = kind
        self.failed = ""
        self.facts: dict[str, list[int]] = {}
        self.functions: set[str] = set()
        self.entries: set[str] = set()
        self.gone = False
        self.workers: dict[int, Callable[[Answer], None]] = {}
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._control, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        try:
            self.process = start(theirs.fileno())
        except BaseException:
            self._control.close()
            raise
        finally:
            theirs.close()
        try:
            self._send(("setup", {"path": path, "imports": kind.imports, "likely": kind.likely}))
        except Error:
            pass  # it has ended already; what it said before tells why

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
            raise Error(f"its zygote has ended ({error.strerror})") from None

    @property
    def same_python(self) -> bool:
        """Whether byte code of ours runs there: the same version of Python, but for the last number."""
        return tuple(self.facts.get("python", sys.version_info)[:2]) == sys.version_info[:2]

    def teach(self, function: PackedFunction) -> None:
        """Let it know a function, if it does not yet: its forks know it, too. `InvalidInput`: that cannot be."""
        if function.key in self.functions or self.gone:
            return
        data = self.form_of(function)
        self.functions.add(function.key)
        if len(data) < 1 << 17:
            self._send(("function", function.key, data))
            return
        fd = os.memfd_create("corten-function", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(fd), "wb") as file:
                file.write(data)
            self._send(("function", function.key, None), (fd,))
        finally:
            os.close(fd)

    def form_of(self, function: PackedFunction) -> bytes:
        """The function as its Python can take it. `InvalidInput`: it could only go as byte code of our Python."""
        if not function.by_value or self.same_python:
            return function.data
        if function.source:
            return function.source
        theirs = ".".join(map(str, self.facts["python"][:2]))
        raise InvalidInput(
            f"the image has Python {theirs} and this is {sys.version_info[0]}.{sys.version_info[1]}, "
            f"so it cannot go as byte code, and not as source either: {function.source_trouble}"
        )

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

    def wait_ready(self, seconds: float) -> Answer:
        """Wait for the first answer: `ready`, `failed`, `threads` or `gone`. For a thread that has time."""
        ready, _, _ = select.select([self._control], [], [], seconds)
        if not ready:
            return Answer("failed", 0, f"its imports took more than {seconds:g} s")
        return next(self.answers(), Answer("gone"))

    def answers(self) -> Iterator[Answer]:
        """What it has said since; `gone` at its end."""
        while True:
            try:
                data = self._control.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except ConnectionResetError:
                continue  # it ended with something unread; what it had said before comes after this (unix(7))
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
        """End it. Its forks live on: they end with their containers."""
        self._control.close()
        self.process.end()


def _parsed(data: bytes) -> Answer | None:
    word, _, rest = data.decode(errors="replace").partition(" ")
    if word in ("ready", "failed", "threads"):
        return Answer(word, 0, rest)
    number, _, text = rest.partition(" ")
    if word in ("forked", "refused", "ended") and number.isascii() and number.isdigit():
        return Answer(word, int(number), text)
    return None
