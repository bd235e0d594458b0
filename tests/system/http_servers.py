"""HTTP servers of the tests' own, each in a thread, on a port of this machine."""

from __future__ import annotations

import http.server
import threading


class Request(http.server.BaseHTTPRequestHandler):
    """One that writes no log."""

    def log_message(self, *words: object) -> None:
        pass


class HttpServer:
    """The server, started."""

    def __init__(self, handler: type[http.server.BaseHTTPRequestHandler]) -> None:
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
