"""A mail server for tests: takes every mail and keeps it."""

import socketserver
import threading
from typing import Self


class _Conversation(socketserver.StreamRequestHandler):
    """What RFC 5321 asks for at least."""

    server: "_Listener"

    def handle(self) -> None:
        """Speak with one client until it says QUIT or goes."""
        self._say("220 tests ready")
        while line := self.rfile.readline():
            verb = line.split(maxsplit=1)[0].upper() if line.strip() else b""
            if verb == b"DATA":
                self._say("354 go on")
                self.server.mails.append(self._message())
                self._say("250 taken")
            elif verb == b"QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 tests")

    def _message(self) -> bytes:
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line)
        return b"".join(lines)

    def _say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")


class _Listener(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    mails: list[bytes]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that breaks off is what the tests are about."""


class MailServer:
    """Listens on a port of its own while the block lasts."""

    def __init__(self) -> None:
        self._listener = _Listener(("127.0.0.1", 0), _Conversation)
        self._listener.mails = []

    @property
    def port(self) -> int:
        """The port that clients connect to."""
        return int(self._listener.server_address[1])

    @property
    def mails(self) -> list[bytes]:
        """What has come in so far."""
        return self._listener.mails

    def __enter__(self) -> Self:
        threading.Thread(target=self._listener.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown()
        self._listener.server_close()
