"""The shipped configuration of nginx, before the service as it is shipped."""

import gzip
import http.client
import json
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.databases import PostgresDatabase
from tests.support.gunicorn import GunicornService
from tests.support.nginx import FOLDER, NginxProxy
from tests.support.polling import least_seconds, wait_until
from tests.support.programs import NGINX, may_be_skipped
from tests.support.raw_http import ConnectionClosed, RawConnection, RawResponse, request_bytes

LIVE = "/api/v1/health/live"
LOGIN = "/api/v1/auth/login"
REGISTER = "/api/v1/auth/register"
IMPORTS = ("/api/v1/users/import", "/console/users/import")
JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}

pytestmark = pytest.mark.skipif(may_be_skipped(NGINX), reason="nginx is not installed")


@dataclass(frozen=True, slots=True)
class Fronted:
    """nginx, and the service behind it."""

    proxy: NginxProxy
    service: GunicornService

    @property
    def port(self) -> int:
        """The port of nginx."""
        return self.proxy.port

    def connect(self, *, timeout_seconds: float = 60) -> RawConnection:
        """Return a connection to nginx."""
        return RawConnection("127.0.0.1", self.port, timeout_seconds=timeout_seconds)

    def ask(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of a GET."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, body


@pytest.fixture(scope="module")
def fronted(
    make_database: Any, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fronted]:
    folder = tmp_path_factory.mktemp("nginx")
    database: PostgresDatabase = make_database("behind_nginx")
    environment = {
        "ENVIRONMENT": "testing",
        "DATABASE_URL": database.url,
        "REDIS_URL": redis_url,
        "TRUSTED_PROXY_COUNT": "1",
        "TRUSTED_HOSTS": "id.acme.test,127.0.0.1,localhost",
        "PASSWORD_HASH_ROUNDS": "4",
        "RATE_LIMIT_ENABLED": "false",
        "WEB_CONCURRENCY": "1",
        "DRAIN_SECONDS": "0",
    }
    with GunicornService(environment) as service, NginxProxy(service.port, folder) as proxy:
        yield Fronted(proxy, service)


def test_requests_reach_the_service_under_the_name_that_they_were_sent_to(fronted: Fronted) -> None:
    assert fronted.ask("/api/v1/health/ready", Host="id.acme.test")[0] == 200
    status, _, body = fronted.ask("/api/v1/health/ready", Host="evil.test")
    assert (status, json.loads(body)["code"]) == (400, "malformed_request")


def test_public_files_are_compressed_and_pages_with_secrets_are_not(fronted: Fronted) -> None:
    """Compressed responses with a secret and the text of a request reveal the secret (BREACH)."""
    sheet = "/console/static/tabler.min.css"
    status, headers, body = fronted.ask(sheet, **{"Accept-Encoding": "gzip"})
    plain = fronted.ask(sheet)[2]
    page = fronted.ask("/console/sign-in", **{"Accept-Encoding": "gzip"})

    assert (status, headers["content-encoding"]) == (200, "gzip")
    assert gzip.decompress(body) == plain and len(body) < len(plain) / 5
    assert page[0] == 200 and "content-encoding" not in page[1]


def test_metrics_are_not_for_those_outside(fronted: Fronted) -> None:
    status, headers, body = fronted.ask("/metrics")

    assert (status, json.loads(body)["code"]) == (404, "not_found")
    assert SECURITY_HEADERS.items() <= headers.items()


def test_prometheus_reaches_the_metrics_and_nothing_else_by_a_port_of_its_own(
    fronted: Fronted,
) -> None:
    metrics = f"http://127.0.0.1:{fronted.proxy.metrics_port}"

    with urllib.request.urlopen(f"{metrics}/metrics", timeout=60) as answer:
        assert b"password_hash_queue" in answer.read()
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(metrics + LIVE, timeout=5)
    assert refusal.value.code == 404
    refusal.value.close()


def test_the_configuration_of_compose_is_one_that_nginx_loads(tmp_path: Path) -> None:
    parts = [(FOLDER / name).read_text("utf-8") for name in ("default.conf", "compose.conf")]
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in kinds)
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/nginx.pid;\nerror_log {tmp_path}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{folders}{''.join(parts)}}}\n"
    )
    program: list[str | Path] = [
        NGINX.require(),
        "-t",
        "-p",
        tmp_path,
        "-c",
        tmp_path / "nginx.conf",
    ]

    run = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)

    assert run.returncode == 0, run.stderr
    assert "service:8000" in parts[1]
    compose = (FOLDER.parents[1] / "docker-compose.yml").read_text("utf-8")
    for name in ("default.conf", "compose.conf"):
        assert f"- ./deploy/nginx/{name}:/etc/nginx/conf.d/{name}:ro" in compose


def test_addresses_are_those_of_callers_and_cannot_be_forged(fronted: Fronted) -> None:
    fronted.ask("/api/v1/auth/verify", **{"X-Forwarded-For": "203.0.113.7"})

    wait_until(lambda: "/api/v1/auth/verify" in fronted.service.log)
    (line,) = [
        json.loads(line)
        for line in fronted.service.log.splitlines()
        if '"/api/v1/auth/verify"' in line
    ]
    assert line["ip_address"] == "127.0.0.1"


def test_a_large_body_is_refused_and_the_client_reads_why(fronted: Fronted) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", fronted.port, timeout=60)
    connection.request(
        "POST",
        "/api/v1/auth/login",
        body=b'{"username": "' + b"a" * 3_000_000 + b'"}',
        headers={"Content-Type": "application/json"},
    )
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()

    assert (answer.status, body["code"]) == (413, "body_too_large")


def test_no_response_reveals_the_version_of_nginx(fronted: Fronted) -> None:
    headers = fronted.ask("/metrics")[1]

    assert headers["server"] == "nginx"


@pytest.mark.thorough
def test_a_service_that_starts_again_is_found_again(fronted: Fronted) -> None:
    fronted.service.stop()
    status, headers, body = fronted.ask("/api/v1/health/live")
    assert (status, json.loads(body)["code"]) == (503, "service_unavailable")
    assert int(headers["retry-after"]) > 0
    assert SECURITY_HEADERS.items() <= headers.items()
    fronted.service.start()

    wait_until(lambda: fronted.ask("/api/v1/health/live")[0] == 200)


def test_a_token_of_the_greatest_length_reaches_the_service(fronted: Fronted) -> None:
    status, _, body = fronted.ask("/api/v1/auth/verify", Authorization="Bearer " + "x" * 4096)

    assert (status, json.loads(body)["code"]) == (401, "token_invalid")


def problem_of(answer: RawResponse) -> tuple[int, str]:
    """Return status and code of a problem document that is complete."""
    body = json.loads(answer.body)
    assert answer.header("content-type") == "application/problem+json"
    assert (body["status"], body["type"]) == (answer.status, f"urn:aima:problem:{body['code']}")
    assert {"title", "detail", "instance"} <= set(body)
    assert body["correlation_id"] == answer.header("x-correlation-id")
    assert SECURITY_HEADERS.items() <= dict(answer.headers).items()
    return answer.status, body["code"]


REFUSED = {
    "no http": (b"NONSENSE\r\n\r\n", 400, "malformed_request"),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400, "malformed_request"),
    "a broken host": (request_bytes("GET", "/", host="a b"), 400, "malformed_request"),
    "two lengths": (
        request_bytes("POST", LOGIN, headers=("Content-Length: 5", "Content-Length: 6")),
        400,
        "malformed_request",
    ),
    "length and coding": (
        request_bytes("POST", LOGIN, headers=("Content-Length: 5", CHUNKED)),
        400,
        "malformed_request",
    ),
    "a chunk that is none": (
        request_bytes("POST", LOGIN, headers=(JSON, CHUNKED)) + b"zz\r\n",
        400,
        "malformed_request",
    ),
    "another coding": (
        request_bytes("POST", LOGIN, headers=("Transfer-Encoding: xchunked",)),
        501,
        "not_implemented",
    ),
    "trace": (request_bytes("TRACE", "/"), 405, "method_not_allowed"),
    "another version": (b"GET / HTTP/3.0\r\nHost: localhost\r\n\r\n", 400, "malformed_request"),
    "trace with a long body": (
        request_bytes("TRACE", "/", headers=("Content-Length: 70000",)),
        405,
        "method_not_allowed",
    ),
    "no host and a long body": (
        b"POST / HTTP/1.1\r\nContent-Length: 70000\r\n\r\n",
        400,
        "malformed_request",
    ),
    "a long line": (request_bytes("GET", "/" + "a" * 20_000), 414, "uri_too_long"),
    "a long header": (
        request_bytes("GET", "/", headers=("X-A: " + "a" * 20_000,)),
        431,
        "headers_too_large",
    ),
    "a long body": (
        request_bytes("POST", LOGIN, headers=(JSON, "Content-Length: 70000")),
        413,
        "body_too_large",
    ),
    "a long chunked body": (
        request_bytes("POST", LOGIN, headers=(JSON, CHUNKED)) + b"11170\r\n" + b"a" * 70_000,
        413,
        "body_too_large",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_nginx_refuses_itself_is_a_problem_document(fronted: Fronted, name: str) -> None:
    request, status, code = REFUSED[name]
    with fronted.connect() as connection:
        answer = connection.exchange(request)

    assert problem_of(answer) == (status, code)
    assert answer.header("server") == "nginx"


def test_a_head_without_end_is_refused(fronted: Fronted) -> None:
    with fronted.connect() as connection:
        answer = connection.exchange(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 70000)

    assert problem_of(answer) == (431, "headers_too_large")


def test_the_client_s_correlation_id_is_kept_where_it_is_well_formed(fronted: Fronted) -> None:
    for given, kept in (("abc-1.2_3", True), ('a"b', False), ("a" * 65, False)):
        headers = (f"X-Correlation-ID: {given}", JSON, "Content-Length: 70000")
        with fronted.connect() as connection:
            refused = connection.exchange(request_bytes("POST", LOGIN, headers=headers))
        with fronted.connect() as connection:
            served = connection.exchange(request_bytes("GET", LIVE, headers=headers[:1]))

        assert problem_of(refused) == (413, "body_too_large")
        assert (refused.header("x-correlation-id") == given) is kept
        assert (served.header("x-correlation-id") == given) is kept


def test_problem_documents_cannot_be_requested_by_their_path(fronted: Fronted) -> None:
    assert fronted.ask("/_problem/413")[0] == 404


@pytest.mark.parametrize("path", ["/api/v1/health/", LIVE, "/api/v1/health/ready"])
def test_a_probe_of_a_load_balancer_is_answered(fronted: Fronted, path: str) -> None:
    """HAProxy's default check is HTTP/1.0 without Host."""
    with fronted.connect() as connection:
        assert connection.exchange(b"GET %b HTTP/1.0\r\n\r\n" % path.encode()).status == 200
    with RawConnection("127.0.0.1", fronted.service.port) as connection:
        assert connection.exchange(b"GET %b HTTP/1.0\r\n\r\n" % path.encode()).status == 200
    with fronted.connect() as connection:
        answer = connection.exchange(b"GET /api/v1/auth/me HTTP/1.0\r\n\r\n")
        assert problem_of(answer) == (400, "malformed_request")


def registration(name: str) -> bytes:
    members = {"username": name, "email": f"{name}@acme.test", "password": "violet-93-lantern"}
    return json.dumps(members).encode()


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_that_breaks_off_has_no_effect(fronted: Fronted, framing: str) -> None:
    """A body shorter than its Content-Length, on a half-closed connection, created an account."""
    name = f"cut-short-{framing}"
    body = registration(name)
    header = CHUNKED if framing == "chunks" else f"Content-Length: {len(body) + 10}"
    sent = b"%x\r\n%b\r\n" % (len(body), body) if framing == "chunks" else body
    with fronted.connect() as connection:
        connection.send(request_bytes("POST", REGISTER, headers=(JSON, header)) + sent)
        connection.socket.shutdown(socket.SHUT_WR)
        with suppress(ConnectionClosed):
            assert problem_of(connection.receive()) == (400, "malformed_request")

    assert fronted.service.command("users", "show", name).exit_code != 0


@pytest.mark.parametrize("path", IMPORTS)
def test_a_stranger_s_import_is_refused_before_its_body_has_come(
    fronted: Fronted, path: str
) -> None:
    head = request_bytes(
        "POST", path, headers=("Content-Type: text/csv", "Content-Length: 9000000")
    )
    with fronted.connect() as connection:
        answer = connection.exchange(head + b"username")

    assert answer.status == (401 if path.startswith("/api") else 303)
    assert not [path for path in _temporary_files(fronted.proxy) if path.stat().st_size > 65536]


def _temporary_files(proxy: NginxProxy) -> list[Path]:
    folder = Path(f"/proc/{proxy.pid}/cwd").resolve()
    return [path for path in folder.rglob("client_body/**/*") if path.is_file()]


HEAD = f"POST {LOGIN} HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\n".encode()
HOSTILE: dict[str, Callable[[int], tuple[bytes, bytes]]] = {
    # What is sent first, and what is sent every now and then.
    "slow heads": lambda n: (b"GET /api", b"X"),
    "slow bodies": lambda n: (HEAD + b"Content-Length: 60000\r\n\r\n{", b" "),
    "drip-fed chunks": lambda n: (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "a long size of a chunk": lambda n: (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 60_000,
        b"a",
    ),
    "many chunks and then nothing": lambda n: (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 11_200,
        b"",
    ),
    "expectations": lambda n: (
        HEAD + b"Content-Length: 60000\r\nExpect: 100-continue\r\n\r\n",
        b" ",
    ),
    "stalled uploads": lambda n: (
        f"POST {IMPORTS[n % 2]} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\n"
        "Content-Length: 9000000\r\n\r\nusername".encode(),
        b"",
    ),
    "other methods where files are sent to": lambda n: (
        request_bytes("PUT", IMPORTS[n % 2], headers=("Content-Length: 9000",)),
        b"a",
    ),
    "another spelling of where files are sent to": lambda n: (
        request_bytes("GET", "/console/x/../users/import", headers=("Content-Length: 9000",)),
        b"a",
    ),
    "clients that do not close": lambda n: (
        request_bytes("GET", LIVE, headers=("Connection: close",)),
        b"",
    ),
    "long bodies that do not end": lambda n: (
        request_bytes("POST", LOGIN, headers=(JSON, "Content-Length: 700000")) + b" " * 70_000,
        b" ",
    ),
    "clients that read nothing": lambda n: (
        request_bytes("GET", "/docs/assets/swagger-ui-bundle.js"),
        b"",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_clients_do_not_delay_others(fronted: Fronted, name: str) -> None:
    """24 of them stopped a process: each held one of its threads."""
    make = HOSTILE[name]

    def probe() -> None:
        with fronted.connect() as quick:
            assert quick.exchange(request_bytes("GET", LIVE)).status == 200
            login = request_bytes("POST", LOGIN, headers=(JSON,), body=b"{}")
            assert quick.exchange(login).status == 422

    with ExitStack() as stack:
        hostile = []
        for number in range(100):
            first, more = make(number)
            slow = stack.enter_context(fronted.connect())
            with suppress(ConnectionError):
                slow.send(first)
            hostile.append((slow, more))
        seconds = []
        for _ in range(20):
            for slow, more in hostile[::10]:
                with suppress(ConnectionError):
                    slow.send(more)
            seconds.append(least_seconds(probe, below=1))

    assert max(seconds) < 1


@pytest.mark.thorough
def test_uploads_that_continue_after_their_rejection_do_not_delay_others(fronted: Fronted) -> None:
    """What still came was read for two seconds, by as many threads as there were such clients."""
    head = request_bytes(
        "POST", IMPORTS[0], headers=("Content-Type: text/csv", "Content-Length: 9000000")
    )
    enough = threading.Event()

    def trickle() -> None:
        while not enough.is_set():
            with ExitStack() as stack, suppress(ConnectionError):
                slow = [stack.enter_context(fronted.connect()) for _ in range(20)]
                for connection in slow:
                    connection.send(head)
                for _ in range(50):
                    for connection in slow:
                        connection.send(b"a")
                    if enough.wait(0.04):
                        break

    def probe() -> None:
        with fronted.connect() as quick:
            assert quick.exchange(request_bytes("GET", LIVE)).status == 200

    with ThreadPoolExecutor(10) as hostile:
        running = [hostile.submit(trickle) for _ in range(10)]
        seconds = []
        try:
            for _ in range(20):
                time.sleep(0.1)
                seconds.append(least_seconds(probe, below=1))
        finally:
            enough.set()
        for client in running:
            client.result()

    assert max(seconds) < 1


@pytest.mark.slow
def test_a_head_that_trickles_in_is_given_up(fronted: Fronted) -> None:
    with fronted.connect(timeout_seconds=1) as connection:
        connection.send(b"GET / HTTP/1.1\r\n")
        begun = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() < begun + 30:
                connection.send(b"X")
                with suppress(TimeoutError):
                    if not connection.socket.recv(1):
                        raise ConnectionError

    assert 10 < time.monotonic() - begun < 20


@pytest.mark.slow
def test_a_body_that_stalls_ends_with_its_connection_and_one_that_trickles_with_408(
    fronted: Fronted,
) -> None:
    """nginx closes idle connections without a response; the service returns 408 for a late body."""
    body = registration("too-late")

    def stall() -> float:
        begun = time.monotonic()
        with fronted.connect(timeout_seconds=20) as connection:
            connection.send(HEAD + b"Content-Length: 9\r\n\r\n{")
            assert connection.is_closed_by_peer()
        return time.monotonic() - begun

    def trickle() -> RawResponse:
        head = request_bytes("POST", REGISTER, headers=(JSON, f"Content-Length: {len(body)}"))
        with fronted.connect(timeout_seconds=20) as connection:
            connection.send(head + body[:-8])
            for start in range(8, 0, -1):
                time.sleep(4.5)
                connection.send(body[-start:][:1])
            return connection.receive()

    with ThreadPoolExecutor(2) as pool:
        stalled, trickled = pool.submit(stall), pool.submit(trickle)

        assert 8 < stalled.result() < 15
        assert problem_of(trickled.result()) == (408, "request_timeout")
    assert fronted.service.command("users", "show", "too-late").exit_code != 0


def test_bodies_are_buffered_but_for_files_of_those_who_may_send_them() -> None:
    """The directives of the configuration that the guarantees depend on."""
    configuration = (FOLDER / "default.conf").read_text("utf-8")

    assert configuration.count("proxy_request_buffering on;") == 1
    assert configuration.count("proxy_request_buffering off;") == 1
    assert configuration.count("client_max_body_size 64k;") == 1
    assert configuration.count("client_max_body_size 10m;") == 1
    assert "reset_timedout_connection on;" in configuration
