"""Bounds on request bodies that hold without a proxy: size, completeness, time."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.gunicorn import GunicornService
from tests.support.raw_http import ConnectionClosed, RawConnection, RawResponse, request_bytes

MEBIBYTE = 1024 * 1024
REGISTER = "/api/v1/auth/register"
IMPORTS = ("/api/v1/users/import", "/console/users/import")
PASSWORD = "violet-harbour-93-lantern"
JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"
MULTIPART = "Content-Type: multipart/form-data; boundary=b"
URLENCODED = "Content-Type: application/x-www-form-urlencoded"
FILE_HEAD = (
    b"--b\r\nContent-Disposition: form-data; name=username; filename=f\r\n"
    b"Content-Type: text/plain\r\n\r\n"
)


@pytest.fixture(scope="module")
def service() -> Iterator[GunicornService]:
    environment = {
        "ENVIRONMENT": "testing",
        "PASSWORD_HASH_ROUNDS": "4",
        "RATE_LIMIT_ENABLED": "false",
    }
    with GunicornService(environment) as service:
        yield service


@pytest.fixture
def connection(service: GunicornService) -> Iterator[RawConnection]:
    with RawConnection("127.0.0.1", service.port) as connection:
        yield connection


def code(answer: RawResponse) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["code"]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def anonymous_kilobytes(service: GunicornService) -> int:
    """Return the memory that the workers have for themselves."""
    rollups = (Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in service.worker_pids)
    return sum(int(rollup.split("\nAnonymous:")[1].split()[0]) for rollup in rollups)


def largest_temporary_file(service: GunicornService) -> int:
    """Return the size of the largest file without a name that a worker holds open."""
    sizes = [0]
    for pid in service.worker_pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                if str(link.readlink()).endswith(" (deleted)"):
                    sizes.append(link.stat().st_size)
            except OSError:
                continue  # Closed meanwhile.
    return max(sizes)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("content_type", "first"),
    [(MULTIPART, FILE_HEAD), (URLENCODED, b"username="), (JSON, b'{"username":"')],
    ids=["multipart", "urlencoded", "json"],
)
@pytest.mark.parametrize("path", ["/console/sign-in", "/api/v1/auth/login"])
def test_a_chunked_body_without_end_reaches_neither_disk_nor_memory(
    service: GunicornService, connection: RawConnection, path: str, content_type: str, first: bytes
) -> None:
    """200 MB to `/console/sign-in` went to a temporary file, and a form of 64 MiB took 1.1 GiB."""
    before = anonymous_kilobytes(service)
    connection.send(request_bytes("POST", path, headers=(content_type, CHUNKED)) + chunk(first))
    piece, largest, grown = chunk(b"a" * 65536), 0, 0
    try:
        for _ in range(64 * MEBIBYTE // 65536):
            connection.send(piece)
            largest = max(largest, largest_temporary_file(service))
            grown = max(grown, anonymous_kilobytes(service) - before)
    except ConnectionError:
        pass  # The service has had enough.

    assert largest <= 65536
    assert grown < 20 * 1024


@pytest.mark.parametrize("path", ["/console/sign-in", "/api/v1/auth/login", "/nothing"])
@pytest.mark.parametrize("content_type", [MULTIPART, URLENCODED, JSON])
def test_a_body_over_64_kib_is_413_whatever_the_framing(
    service: GunicornService, path: str, content_type: str
) -> None:
    body = b"a" * 66_000
    by_length = request_bytes("POST", path, headers=(content_type,), body=body)
    in_chunks = request_bytes("POST", path, headers=(content_type, CHUNKED))
    in_chunks += chunk(body) + chunk(b"")
    for request in (by_length, in_chunks):
        with RawConnection("127.0.0.1", service.port) as connection:
            answer = connection.exchange(request)

            assert answer.status == 413
            if not path.startswith("/console"):
                assert code(answer) == (413, "body_too_large")


@pytest.mark.parametrize("path", IMPORTS)
def test_a_stranger_s_import_is_refused_before_its_body_has_come(
    connection: RawConnection, path: str
) -> None:
    """The check against forgery read the form: 24 sockets without a cookie stopped a process."""
    head = request_bytes("POST", path, headers=(MULTIPART, "Content-Length: 10000000"))

    answer = connection.exchange(head + FILE_HEAD)

    assert answer.status == (401 if path.startswith("/api") else 303)


def registration(name: str) -> bytes:
    members = {"username": name, "email": f"{name}@acme.test", "password": PASSWORD}
    return json.dumps(members).encode()


def taken(service: GunicornService, name: str) -> bool:
    return service.command("users", "show", name).exit_code == 0


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("short-length", lambda body: (f"Content-Length: {len(body) + 10}", body)),
        ("no-last-chunk", lambda body: (CHUNKED, chunk(body))),
        ("half-a-chunk", lambda body: (CHUNKED, chunk(body + b" " * 9)[:-5])),
        ("half-a-trailer", lambda body: (CHUNKED, chunk(body) + b"0\r\nX-Sum: 1\r\n")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_body_that_breaks_off_has_no_effect(
    service: GunicornService,
    connection: RawConnection,
    name: str,
    frame: Callable[[bytes], tuple[str, bytes]],
) -> None:
    """Cut short of its Content-Length it made an account; without a last chunk it was a 500."""
    header, body = frame(registration(name))
    connection.send(request_bytes("POST", REGISTER, headers=(JSON, header)) + body)
    connection.socket.shutdown(socket.SHUT_WR)

    try:
        assert code(connection.receive()) == (400, "malformed_request")
    except ConnectionClosed as exc:
        assert exc.received == b""
    assert not taken(service, name)


def test_an_incomplete_body_has_no_effect_on_an_endpoint_without_a_body(
    service: GunicornService, connection: RawConnection
) -> None:
    connection.exchange(
        request_bytes("POST", REGISTER, headers=(JSON,), body=registration("robin"))
    )
    login = json.dumps({"username": "robin", "password": PASSWORD}).encode()
    answer = connection.exchange(
        request_bytes("POST", "/api/v1/auth/login", headers=(JSON,), body=login)
    )
    bearer = f"Authorization: Bearer {json.loads(answer.body)['access_token']}"
    with RawConnection("127.0.0.1", service.port) as broken:
        broken.send(
            request_bytes(
                "DELETE", "/api/v1/auth/sessions", headers=(bearer, JSON, "Content-Length: 9")
            )
        )
        broken.socket.shutdown(socket.SHUT_WR)

        assert code(broken.receive()) == (400, "malformed_request")


@pytest.mark.thorough
@pytest.mark.parametrize("path", ["/api/v1/auth/login", "/console/sign-in"])
@pytest.mark.parametrize("framing", ["Content-Length: 5000", CHUNKED])
def test_a_body_that_trickles_in_is_given_up(
    connection: RawConnection, path: str, framing: str
) -> None:
    """The header is that of the proxy: the request was under way for so long before."""
    connection.send(
        request_bytes("POST", path, headers=(URLENCODED, framing, "X-Request-Seconds: 28.5"))
    )
    begun = time.monotonic()
    piece = chunk(b"a") if framing == CHUNKED else b"a"
    connection.socket.settimeout(0.1)
    head = b""
    while not head and time.monotonic() < begun + 10:
        try:
            connection.send(piece)
            head = connection.socket.recv(65536)
        except TimeoutError:
            continue

    assert head.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() > begun + 1


@pytest.mark.slow
def test_a_body_has_thirty_seconds(connection: RawConnection) -> None:
    connection.socket.settimeout(40)
    begun = time.monotonic()
    connection.send(
        request_bytes("POST", "/api/v1/auth/login", headers=(JSON, "Content-Length: 9")) + b"{"
    )

    assert code(connection.receive()) == (408, "request_timeout")
    assert 29 < time.monotonic() - begun < 35


def test_a_request_that_took_the_proxy_too_long_is_not_served(connection: RawConnection) -> None:
    late = request_bytes(
        "POST", REGISTER, headers=(JSON, "X-Request-Seconds: 31.0"), body=registration("late")
    )

    assert code(connection.exchange(late)) == (408, "request_timeout")


@pytest.mark.parametrize("shape", ["size", "extension", "chunks", "trailer"])
def test_the_cost_of_framing_grows_with_its_size(service: GunicornService, shape: str) -> None:
    """Single bytes of a long line of a chunk's size cost the square of its length."""
    pieces: dict[str, Callable[[int], list[bytes]]] = {
        "size": lambda n: [b"0" * n],
        "extension": lambda n: [b"1;a=", b"b" * n],
        "chunks": lambda n: [chunk(b"a")] * (n // 6),
        "trailer": lambda n: [b"0\r\nX-A: ", b"a" * n],
    }

    def cost(n: int) -> float:
        head = request_bytes("POST", "/api/v1/auth/login", headers=(JSON, CHUNKED))
        before = cpu_seconds(service)
        with RawConnection("127.0.0.1", service.port) as slow:
            slow.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            slow.send(head)
            data = b"".join(pieces[shape](n))
            for start in range(0, len(data), 4):
                slow.send(data[start : start + 4])
            slow.socket.shutdown(socket.SHUT_WR)
            try:
                slow.receive()
            except (ConnectionClosed, ConnectionError):
                pass
        return cpu_seconds(service) - before

    cost(2000)
    few, many = cost(7500), cost(15000)

    assert many < 3 * few + 0.05


def cpu_seconds(service: GunicornService) -> float:
    used = 0.0
    for pid in service.worker_pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            try:
                fields = (task / "schedstat").read_text().split()
            except OSError:
                continue
            used += int(fields[0]) / 1e9
    return used
