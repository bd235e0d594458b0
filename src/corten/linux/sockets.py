"""Local sockets that keep message boundaries and carry file descriptors.

Why `_socket` and not `socket`: the latter costs 8 ms at import (selectors, enum); the class is the same.
"""

from __future__ import annotations

import os
from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    SCM_RIGHTS,
    SO_RCVBUF,
    SO_SNDBUF,
    SOCK_CLOEXEC,
    SOCK_SEQPACKET,
    SOL_SOCKET,
)
from _socket import socket as Socket  # noqa: N812 - a class under its lower-case name
from _socket import socketpair as _socketpair

__all__ = ["MAX_MESSAGE", "Socket", "adopt", "pair", "receive", "send"]

MAX_MESSAGE = 1 << 16
_MAX_DESCRIPTORS = 32


def pair(size: int = 0) -> tuple[Socket, Socket]:
    """Two connected SOCK_SEQPACKET sockets, close-on-exec. size: bytes of buffer to ask for (0: the default)."""
    ours, theirs = _socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    if size:
        for end in (ours, theirs):
            end.setsockopt(SOL_SOCKET, SO_SNDBUF, size)
            end.setsockopt(SOL_SOCKET, SO_RCVBUF, size)
    return ours, theirs


def send(sock: Socket, data: bytes, descriptors: tuple[int, ...] = ()) -> None:
    """Send one message, with copies of some descriptors."""
    rights = b"".join(fd.to_bytes(4, "little") for fd in descriptors)
    sock.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, rights)] if rights else [])


def receive(sock: Socket, size: int = MAX_MESSAGE) -> tuple[bytes, tuple[int, ...]]:
    """Receive one message of at most `size` bytes and its descriptors (close-on-exec); empty at the end of file."""
    data, ancillary, _, _ = sock.recvmsg(size, CMSG_SPACE(4 * _MAX_DESCRIPTORS), MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for level, kind, rights in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            descriptors += [int.from_bytes(rights[at : at + 4], "little") for at in range(0, len(rights) - 3, 4)]
    return data, tuple(descriptors)


def adopt(fd: int) -> Socket:
    """The socket behind a descriptor that was inherited."""
    os.set_inheritable(fd, False)
    return Socket(fileno=fd)
