"""HTTP byte by byte over TCP, for what no client library would send."""

import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Self

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RawResponse:
    """A response as it came in. Header names are in lower case; repeated ones keep their order."""

    version: str
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the first header of that name."""
        return next((value for key, value in self.headers if key == name.lower()), None)


class ConnectionClosed(Exception):
    """The server closed before a whole response had come; `received` is what had."""

    def __init__(self, received: bytes) -> None:
        super().__init__(f"closed after {len(received)} bytes")
        self.received = received


class RawConnection:
    """One TCP connection to an HTTP server; several requests may go over it."""

    def __init__(self, host: str, port: int, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.socket = socket.create_connection((host, port), timeout=timeout_seconds)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def exchange(self, data: bytes, *, has_body: bool = True) -> RawResponse:
        """Send bytes and return the response to them."""
        self.send(data)
        return self.receive(has_body=has_body)

    def receive(self, *, has_body: bool = True) -> RawResponse:
        """Return the next response; `has_body=False` for the answer to HEAD.

        Raises ConnectionClosed where it ends too early and TimeoutError where nothing comes.
        """
        head = self._until(b"\r\n\r\n").decode("latin-1")
        status_line, *lines = head.split("\r\n")
        version, status, *_ = status_line.split(" ", 2)
        headers = tuple(
            (name.strip().lower(), value.strip())
            for name, _, value in (line.partition(":") for line in lines if line)
        )
        first = dict(reversed(headers))
        code = int(status)
        if not has_body or code in {204, 304} or code < 200:
            body = b""
        elif first.get("transfer-encoding", "").lower() == "chunked":
            body = self._chunks()
        elif "content-length" in first:
            body = self._exactly(int(first["content-length"]))
        else:
            body = self._rest()
        return RawResponse(version=version, status=code, headers=headers, body=body)

    def is_closed_by_peer(self) -> bool:
        """Wait for the server to close; return whether it did so without sending more."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self._until(b"\r\n").split(b";")[0], 16):
            body += self._exactly(size)
            self._until(b"\r\n")
        while self._until(b"\r\n") != b"\r\n":
            continue  # A trailer field.
        return body

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._fill()
        end = self._buffer.index(mark) + len(mark)
        found, self._buffer = self._buffer[:end], self._buffer[end:]
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._fill()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def _rest(self) -> bytes:
        try:
            while True:
                self._fill()
        except ConnectionClosed:
            found, self._buffer = self._buffer, b""
            return found

    def _fill(self) -> None:
        received = self.socket.recv(65536)
        if not received:
            raise ConnectionClosed(self._buffer)
        self._buffer += received


def request_bytes(
    method: str,
    path: str,
    *,
    host: str = "localhost",
    headers: tuple[str, ...] = (),
    body: bytes = b"",
) -> bytes:
    """Return a well-formed HTTP/1.1 request, as a start for one that is not."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
    if body and not any(line.lower().startswith(("content-length", "transfer")) for line in lines):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
