"""What stands between us and Debian's registry in tests: fronts that misbehave at chosen moments, and proxies."""

from __future__ import annotations

import base64
import http.client
import select
import socket
import struct
from collections.abc import Callable
from typing import Any

from http_servers import HttpServer, Request

_HOP = ("connection", "transfer-encoding", "proxy-authorization", "proxy-connection", "host")


class Front:
    """A registry that passes all on to another one, but for what `answer` takes (then it says True).

    host: its name; asked: `METHOD path` of each request, in order; heard: the headers of each.
    """

    def __init__(self, behind: str) -> None:
        self.behind = behind
        self.asked: list[str] = []
        self.heard: list[dict[str, str]] = []
        self.answer: Callable[[Request, bytes], bool] = lambda request, body: False
        front = self

        class Handler(Request):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                front.asked.append(f"{self.command} {self.path}")
                front.heard.append({name.lower(): value for name, value in self.headers.items()})
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if not front.answer(self, body):
                    forward(self, body, behind, self.headers["Host"])

            def __getattr__(self, name: str) -> Any:  # do_GET and its kin
                if name.startswith("do_"):
                    return self.handle_any
                raise AttributeError(name)

        self.server = HttpServer(Handler)
        self.host = f"localhost:{self.server.port}"

    def count(self, method: str, part: str = "") -> int:
        """How many requests there were with this method and a path with this in it."""
        return sum(line.startswith(f"{method} ") and part in line for line in self.asked)

    def close(self) -> None:
        self.server.close()


class Proxy:
    """A proxy that knows one host, wherever it is said to be; both for CONNECT and for plain requests.

    to: HOST:PORT that it leads to; user: `NAME:PASSWORD` that it asks for; asked: what it was asked for.
    """

    def __init__(self, to: str, user: str = "") -> None:
        self.asked: list[str] = []
        proxy = self

        class Handler(Request):
            protocol_version = "HTTP/1.1"

            def allowed(self) -> bool:
                proxy.asked.append(f"{self.command} {self.path}")
                wanted = "Basic " + base64.b64encode(user.encode()).decode()
                if not user or self.headers.get("Proxy-Authorization") == wanted:
                    return True
                reply(self, 407, b"", Proxy_Authenticate="Basic")
                return False

            def do_CONNECT(self) -> None:  # noqa: N802
                if not self.allowed():
                    return
                host, _, port = to.partition(":")
                with socket.create_connection((host, int(port))) as other:
                    self.send_response(200)
                    self.end_headers()
                    _pump(self.connection, other)
                self.close_connection = True

            def do_GET(self) -> None:  # noqa: N802
                if self.allowed():
                    host, _, path = self.path.partition("://")[2].partition("/")
                    self.path = f"/{path}"
                    forward(self, b"", to, host)

        self.server = HttpServer(Handler)
        self.host = f"127.0.0.1:{self.server.port}"

    def close(self) -> None:
        self.server.close()


def forward(request: Request, body: bytes, to: str, host: str, lost: bool = False) -> None:
    """Pass a request on, and its answer back. host: the name under which it is asked; lost: the answer is dropped."""
    connection = http.client.HTTPConnection(to)
    try:
        connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", host)
        for name, value in request.headers.items():
            if name.lower() not in _HOP:
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        data = answer.read()
    finally:
        connection.close()
    if lost:
        return
    request.send_response(answer.status)
    length = answer.getheader("Content-Length") if request.command == "HEAD" else str(len(data))
    for name, value in answer.getheaders():
        if name.lower() not in (*_HOP, "content-length"):
            request.send_header(name, value)
    request.send_header("Content-Length", length or "0")
    request.end_headers()
    request.wfile.write(data)


def reply(request: Request, code: int, data: bytes = b"{}", **headers: str) -> None:
    """An answer; `_` in the names of headers is `-`."""
    request.send_response(code)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(data)


def reset(request: Request) -> None:
    """End the connection as a crashed server does."""
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.close_connection = True


def _pump(one: socket.socket, other: socket.socket) -> None:
    """Bytes in both directions, until one side has ended."""
    pairs = {one: other, other: one}
    while True:
        for ready in select.select(list(pairs), [], [])[0]:
            data = ready.recv(1 << 16)
            if not data:
                return
            pairs[ready].sendall(data)
