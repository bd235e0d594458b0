"""What the child tells the launcher: a closed set of messages on a close-on-exec SOCK_SEQPACKET socket.

Rule 1: one message, one datagram: the name of its class and its fields, separated by NUL; numbers in decimal.
        Not marshal or pickle: the sender lives in the container.
Rule 2: the order is  Terminal? Namespaces? (Started Ended? | Failed).  End of file without a word: it was killed.
Rule 3: without an init, end of file after Started means that exec succeeded.
"""

from __future__ import annotations

from corten.errors import printable
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    Message = "Failed | Started | Ended | Terminal | Namespaces"


class Failed(Record):
    """A step failed. kind: the class of the error in corten.errors; text: its one line."""

    kind: str
    errno: int
    text: str


class Started(Record):
    """The program runs. pid: as seen inside."""

    pid: int


class Ended(Record):
    """The program has ended, says its init. status: as wait(2) gives it; name: of the process, for the account."""

    pid: int
    status: int
    name: str


class Terminal(Record):
    """A terminal was made; its master end comes with the message. path: its name inside."""

    path: str


class Namespaces(Record):
    """Descriptors of the child's namespaces come with the message. kinds: theirs, in order, separated by spaces."""

    kinds: str


_CLASSES: dict[str, type[Record]] = {kind.__name__: kind for kind in (Failed, Started, Ended, Terminal, Namespaces)}
_NUMBERS = {"errno", "pid", "status"}


def encode(message: Record) -> bytes:
    """A message as bytes."""
    values = [printable(str(message.__dict__[name])) for name in message._fields]
    return "\0".join([type(message).__name__, *values]).encode()[:60000]


def decode(data: bytes) -> Record | None:
    """The message in these bytes; None if it is none of ours (something inside has forged it)."""
    name, *values = data.decode(errors="replace").split("\0")
    kind = _CLASSES.get(name)
    if kind is None or len(values) != len(kind._fields):
        return None
    try:
        return kind(*[int(v) if f in _NUMBERS else v for f, v in zip(kind._fields, values, strict=True)])
    except ValueError:
        return None
