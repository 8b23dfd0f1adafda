"""Ambiguous HTTP: requests that two servers could read differently are rejected."""

import inspect
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import gunicorn
import pytest
from gunicorn.http.errors import NoMoreData
from gunicorn.http.wsgi import default_environ
from gunicorn.workers.gthread import ThreadWorker

from tests.support.gunicorn import GunicornService
from tests.support.polling import least, least_seconds, wait_until
from tests.support.raw_http import ConnectionClosed, RawConnection, RawResponse, request_bytes
from userapi.serving.worker import Worker

LIVE = "/api/v1/health/live"
LOGIN = "/api/v1/auth/login"
BODY = b'{"username":"robin","password":"wrong-password-1"}'
NEXT = request_bytes("GET", LIVE)
ALONE = {"ENVIRONMENT": "testing", "PASSWORD_HASH_ROUNDS": "4", "RATE_LIMIT_ENABLED": "false"}
# As CRLF, unless a line is about something else.
HEAD = f"POST {LOGIN} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
LENGTH = b"Content-Length: %d\r\n" % len(BODY)

AMBIGUOUS = {
    "both lengths, the coding last": HEAD + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "both lengths, the coding first": HEAD
    + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n"
    + CHUNKS,
    "two different lengths": HEAD + LENGTH + b"Content-Length: 0\r\n\r\n" + BODY,
    "the same length twice": HEAD + LENGTH + LENGTH + b"\r\n" + BODY,
    "a list of lengths": HEAD + b"Content-Length: %d, %d\r\n\r\n" % (len(BODY), 0) + BODY,
    "a signed length": HEAD + b"Content-Length: +%d\r\n\r\n" % len(BODY) + BODY,
    "a length in other digits": HEAD + "Content-Length: ٥\r\n\r\n".encode() + BODY,
    "a length with a stroke": HEAD + b"Content-Length: 1_0\r\n\r\n" + BODY,
    "a coding that is not the last": HEAD
    + b"Transfer-Encoding: chunked, identity\r\n\r\n"
    + CHUNKS,
    "a coding twice": HEAD
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"
    + CHUNKS,
    "a coding that is unknown": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS,
    "a coding with a vertical tab": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNKS,
    "a space before the colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKS,
    "a folded header": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKS,
    "a header without a name": HEAD + b": chunked\r\n\r\n",
    "a header without a colon": HEAD + b"Transfer-Encoding\r\n\r\n",
    "a name with a blank": HEAD + b"Transfer Encoding: chunked\r\n\r\n" + CHUNKS,
    "a null in a value": HEAD + b"X-Thing: a\0b\r\n\r\n",
    "a bare line feed in a value": HEAD + b"X-Thing: a\nX-Other: b\r\n\r\n",
    "a bare carriage return in a value": HEAD + b"X-Thing: a\rX-Other: b\r\n\r\n",
    "bare line feeds between lines": b"GET %b HTTP/1.1\nHost: localhost\n\n" % LIVE.encode(),
    "a method in small letters with a null": b"G\0T / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "another version": b"GET / HTTP/3.0\r\nHost: localhost\r\n\r\n",
    "no version": b"GET /\r\nHost: localhost\r\n\r\n",
    "a version in two parts": b"GET / HTTP/1.1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
}

BAD_CHUNKS = {
    "a size with a prefix": b"0x%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
    "a size with a sign": b"+%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
    "a size with a stroke": b"3_2\r\n%b\r\n0\r\n\r\n" % BODY,
    "no size": b"\r\n%b\r\n0\r\n\r\n" % BODY,
    "a negative size": b"-1\r\n%b\r\n0\r\n\r\n" % BODY,
    "an end that is none": b"%x\r\n%bXX0\r\n\r\n" % (len(BODY), BODY),
    "a bare line feed in an extension": b"%x;a\nb\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
    "a bare line feed after the size": b"%x\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
}

SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}


@pytest.fixture(scope="module")
def service() -> Iterator[GunicornService]:
    with GunicornService(ALONE) as service:
        yield service


@pytest.fixture
def connection(service: GunicornService) -> Iterator[RawConnection]:
    with RawConnection("127.0.0.1", service.port) as connection:
        yield connection


def is_problem(response: RawResponse) -> bool:
    body = json.loads(response.body)
    return (
        response.header("content-type") == "application/problem+json"
        and body["status"] == response.status
        and body["correlation_id"] == response.header("x-correlation-id")
        and SECURITY_HEADERS.items() <= dict(response.headers).items()
    )


def assert_nothing_more(connection: RawConnection) -> None:
    """Bytes after a rejected request must not be parsed as another request."""
    try:
        answer = connection.receive()
    except (ConnectionClosed, ConnectionResetError):
        return
    pytest.fail(f"a second answer came: {answer}")


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_a_request_that_is_read_differently_elsewhere_is_refused(
    connection: RawConnection, name: str
) -> None:
    answer = connection.exchange(AMBIGUOUS[name] + NEXT)

    assert answer.status in {400, 501}
    assert is_problem(answer)
    assert_nothing_more(connection)


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_a_body_in_broken_chunks_is_refused(connection: RawConnection, name: str) -> None:
    answer = connection.exchange(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + BAD_CHUNKS[name] + NEXT
    )

    assert answer.status == 400
    assert is_problem(answer)
    assert_nothing_more(connection)


def test_a_body_in_good_chunks_is_read(connection: RawConnection) -> None:
    answer = connection.exchange(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS)

    assert json.loads(answer.body)["code"] == "invalid_credentials"


@pytest.mark.parametrize(
    ("request_line_and_headers", "status"),
    [
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 20000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: a\r\n" * 100 + b"\r\n", 431),
    ],
    ids=["a long line", "a long header", "many headers"],
)
def test_a_request_that_is_too_large_is_refused(
    connection: RawConnection, request_line_and_headers: bytes, status: int
) -> None:
    answer = connection.exchange(request_line_and_headers)

    assert answer.status == status
    assert is_problem(answer)


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"Host:\r\n",
        b"Host: a b\r\n",
        b"Host: localhost/evil\r\n",
        b"Host: localhost@evil\r\n",
        b"Host: localhost:port\r\n",
        b"Host: one\r\nHost: two\r\n",
    ],
)
def test_a_request_without_a_usable_host_is_refused(connection: RawConnection, host: bytes) -> None:
    answer = connection.exchange(b"GET %b HTTP/1.1\r\n%b\r\n" % (LIVE.encode(), host))

    assert answer.status == 400
    assert is_problem(answer)


UNFINISHED = {
    "no byte": b"",
    "half a line": b"GET /api",
    "half a head": HEAD,
    "half a body": HEAD + LENGTH + b"\r\n{",
    "half a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\n{",
    "half a chunk with an empty line": HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\n{\r\n\r\n",
    "half a second chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\nff\r\n{",
    "half a trailer": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\n",
    "no http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("name", UNFINISHED)
def test_clients_that_do_not_finish_do_not_delay_others(
    service: GunicornService, name: str
) -> None:
    """Each of them occupied a thread permanently: eight were enough to stop the service."""

    def measure() -> float:
        with ExitStack() as stack:
            for _ in range(40):
                slow = stack.enter_context(RawConnection("127.0.0.1", service.port))
                slow.send(UNFINISHED[name])
            quick = stack.enter_context(RawConnection("127.0.0.1", service.port))
            begun = time.monotonic()
            assert quick.exchange(NEXT).status == 200
            return time.monotonic() - begun

    assert least(measure, below=2) < 2


LAST = request_bytes("GET", LIVE, headers=("Connection: close",))


def test_clients_that_never_pause_leave_room_for_others(service: GunicornService) -> None:

    def probe() -> None:
        with RawConnection("127.0.0.1", service.port) as quick:
            assert quick.exchange(NEXT).status == 200

    with ExitStack() as stack:
        enough = threading.Event()
        answers = [0] * 6

        def never_pause(number: int) -> None:
            with RawConnection("127.0.0.1", service.port) as connection:
                while not enough.is_set():
                    answers[number] += connection.exchange(NEXT).status == 200

        busy = stack.enter_context(ThreadPoolExecutor(6))
        running = [busy.submit(never_pause, number) for number in range(6)]
        try:
            for _ in range(20):
                assert least_seconds(probe, below=2) < 2
            wait_until(lambda: min(answers) > 20)
        finally:
            enough.set()
        for client in running:
            client.result()


@pytest.mark.slow
def test_a_client_that_does_not_close_is_closed(connection: RawConnection) -> None:
    assert connection.exchange(LAST).status == 200
    time.sleep(7)

    with pytest.raises(ConnectionError):  # A reset, and then a broken pipe.
        for _ in range(2):
            connection.send(b"x")
            time.sleep(0.1)


@pytest.mark.parametrize("mebibytes", [3, 12])
def test_a_client_that_sends_all_of_a_long_body_reads_why_it_is_refused(
    connection: RawConnection, mebibytes: int
) -> None:
    """To close at once would reset the connection."""
    size = mebibytes * 1024 * 1024
    connection.send(HEAD + b"Content-Length: %d\r\n\r\n" % size)
    for _ in range(size // 65536):
        connection.send(b"a" * 65536)
        time.sleep(0.0005)

    answer = connection.receive()
    assert (answer.status, json.loads(answer.body)["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_request_in_small_pieces_is_put_together(connection: RawConnection, size: int) -> None:
    request = HEAD + LENGTH + b"\r\n" + BODY
    for start in range(0, len(request), size):
        connection.send(request[start : start + size])

    assert json.loads(connection.receive().body)["code"] == "invalid_credentials"


def test_a_client_that_expects_100_continue_receives_it(connection: RawConnection) -> None:
    connection.send(HEAD + LENGTH + b"Expect: 100-continue\r\n\r\n")
    go_on = connection.receive()
    answer = connection.exchange(BODY)

    assert go_on.status == 100
    assert json.loads(answer.body)["code"] == "invalid_credentials"


def test_a_long_body_is_refused_before_it_has_come(connection: RawConnection) -> None:
    answer = connection.exchange(HEAD + b"Content-Length: 70000\r\n\r\n{")

    assert answer.status == 413


def test_an_old_client_is_answered_and_the_connection_closed(connection: RawConnection) -> None:
    answer = connection.exchange(b"GET %b HTTP/1.0\r\nHost: localhost\r\n\r\n" % LIVE.encode())

    assert answer.status == 200
    assert connection.is_closed_by_peer()


def test_two_requests_at_once_get_two_answers_in_order(connection: RawConnection) -> None:
    first = connection.exchange(request_bytes("GET", "/nothing") + NEXT)
    second = connection.receive()

    assert (first.status, second.status) == (404, 200)


@pytest.mark.parametrize(
    ("request_bytes_sent", "status"),
    [
        (NEXT, 200),
        (request_bytes("GET", "/nothing"), 404),
        (request_bytes("DELETE", LIVE), 405),
        (request_bytes("GET", "/api/v1/auth/me"), 401),
        (request_bytes("POST", LOGIN, headers=("Content-Type: application/json",), body=b"{"), 400),
        (request_bytes("POST", LOGIN, headers=("Content-Type: text/plain",), body=b"{}"), 415),
        (request_bytes("POST", LOGIN, headers=("Content-Length: 999999999",)), 413),
        (request_bytes("GET", LIVE, host="a b"), 400),
        (b"NONSENSE\r\n\r\n", 400),
    ],
)
def test_every_answer_has_the_security_headers(
    connection: RawConnection, request_bytes_sent: bytes, status: int
) -> None:
    answer = connection.exchange(request_bytes_sent)

    assert answer.status == status
    assert SECURITY_HEADERS.items() <= dict(answer.headers).items()
    assert answer.header("x-correlation-id")
    assert answer.header("server") == "gunicorn"
    assert len(answer.headers) == len(dict(answer.headers))


def test_what_is_relied_on_in_gunicorn_is_that_of_the_pinned_version() -> None:
    """Before this number is raised: read what `userapi/serving` uses of Gunicorn, and the hooks of
    `gunicorn.conf.py`, against its documentation and changelog, and run all tests of this folder.
    """
    assert gunicorn.__version__ == "27.0.1"
    assert list(inspect.signature(ThreadWorker.handle_error).parameters) == [
        "self",
        "req",
        "client",
        "addr",
        "exc",
    ]
    assert issubclass(NoMoreData, OSError)
    assert "gunicorn.socket" in inspect.getsource(default_environ)
    assert [name for name in vars(Worker) if not name.startswith("__")] == ["handle_error"]
