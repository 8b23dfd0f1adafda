"""A proxy that drops every third response, after the service has processed the request."""

import itertools
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import httpx2

HOP_BY_HOP = ("connection", "content-length", "keep-alive", "transfer-encoding")
LOST = 3


class LossyProxy:
    """Forwards requests to a service over HTTP, and counts them by their path."""

    def __init__(self, upstream: str) -> None:
        self.paths: list[str] = []
        self._numbers = itertools.count(1)
        self._http = httpx2.Client(base_url=upstream, timeout=60, trust_env=False)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                proxy.forward(self)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                """Write nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        """The address that clients use."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def forward(self, handler: BaseHTTPRequestHandler) -> None:
        """Send one request on, and its reply back or not."""
        length = int(handler.headers.get("Content-Length") or 0)
        headers = {
            name: value
            for name, value in handler.headers.items()
            if name.lower() not in (*HOP_BY_HOP, "host")
        }
        reply = self._http.request(
            handler.command, handler.path, headers=headers, content=handler.rfile.read(length)
        )
        self.paths.append(handler.path.partition("?")[0])
        if next(self._numbers) % LOST == 0:
            handler.close_connection = True
            return
        handler.send_response(reply.status_code)
        for name, value in reply.headers.multi_items():
            if name.lower() not in (*HOP_BY_HOP, "content-encoding", "date", "server"):
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(reply.content)))
        handler.end_headers()
        handler.wfile.write(reply.content)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._http.close()
