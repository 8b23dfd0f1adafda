"""The log of the service as shipped: the form of every line, and what no line contains."""

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.support.gunicorn import GunicornService
from tests.support.polling import wait_until
from tests.support.raw_http import RawConnection, request_bytes
from tests.support.service_clients import RecordingClient

LIVE = "/api/v1/health/live"


@pytest.fixture(scope="module")
def service() -> Iterator[GunicornService]:
    environment = {"ENVIRONMENT": "testing", "RATE_LIMIT_ENABLED": "false"}
    # Migrations write lines, too.
    with GunicornService(environment, migrated=False) as service:
        yield service


def events(service: GunicornService) -> list[dict[str, Any]]:
    return [json.loads(line) for line in service.log.split("\n") if line]


def access_lines(service: GunicornService, correlation_id: str) -> list[dict[str, Any]]:
    wait_until(lambda: correlation_id in service.log)
    return [
        event
        for event in events(service)
        if event["logger"] == "userapi.access" and event["correlation_id"] == correlation_id
    ]


def paths_of(log: Path) -> list[str]:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line["path"] for line in lines if line["logger"] == "userapi.access"]


def test_every_line_is_json_from_the_very_first_on(service: GunicornService) -> None:
    first, *others = events(service)

    assert first["message"].startswith("Starting gunicorn")
    for event in [first, *others]:
        assert list(event)[:5] == ["timestamp", "level", "logger", "message", "correlation_id"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", LIVE, 200),
        ("GET", "/nothing", 404),
        ("DELETE", LIVE, 405),
        ("GET", "/api/v1/auth/me", 401),
        ("POST", "/api/v1/auth/login", 400),
    ],
)
def test_a_request_is_one_line(
    service: GunicornService, method: str, path: str, status: int
) -> None:
    correlation_id = f"once-{method}-{status}"
    with RawConnection("127.0.0.1", service.port) as connection:
        answer = connection.exchange(
            request_bytes(method, path, headers=(f"X-Correlation-ID: {correlation_id}",))
        )

    (line,) = access_lines(service, correlation_id)
    assert answer.header("x-correlation-id") == correlation_id
    assert (line["method"], line["path"], line["status"]) == (method, path, status)
    assert line["duration_ms"] >= 0
    assert line["ip_address"] == "127.0.0.1"


# What Gunicorn reads of all fields together: 64 of 16 KiB, see gunicorn.conf.py.
MAX_FIELDS = 64 * (16384 + 2) + 4

HOSTILE = {
    "escaped lines": request_bytes("GET", "/a%0d%0ab%00c%1b[31m%e2%80%a8%c2%85"),
    "no utf-8": request_bytes("GET", "/a%ff%fe%ed%a0%80"),
    "raw bytes": b"GET /\xff\xfe\xed\xa0\x80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a long path": request_bytes("GET", "/" + "a" * 8000),
    "a forged id": request_bytes("GET", LIVE, headers=('X-Correlation-ID: a"}{"b',)),
    "a long id": request_bytes("GET", LIVE, headers=("X-Correlation-ID: " + "a" * 65,)),
    "a hostile agent": request_bytes("GET", LIVE, headers=("User-Agent: \x1b[31m" + "a" * 9000,)),
    "a null in a header": b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: a\0b\r\n\r\n",
    "a hostile method": b"G\x1bT / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a hostile host": request_bytes("GET", LIVE, host="a\x1b[31m\xff"),
    "headers without end": b"GET / HTTP/1.1\r\n"
    + b"Host: localhost\r\nX-A: ".ljust(MAX_FIELDS + 1, b"a"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_is_one_well_formed_line(service: GunicornService, name: str) -> None:
    with RawConnection("127.0.0.1", service.port) as connection:
        answer = connection.exchange(HOSTILE[name])
    correlation_id = answer.header("x-correlation-id")

    assert correlation_id
    (line,) = access_lines(service, correlation_id)
    assert line["status"] == answer.status
    assert all(line.isprintable() for line in service.log.split("\n"))


def test_one_id_leads_from_the_header_to_log_audit_and_event(service: GunicornService) -> None:
    body = b'{"username":"ada","email":"ada@example.com","password":"violet-harbour-93-lantern"}'
    headers = ("X-Correlation-ID: trace-me", "Content-Type: application/json")
    with RawConnection("127.0.0.1", service.port) as connection:
        answer = connection.exchange(
            request_bytes("POST", "/api/v1/auth/register", headers=headers, body=body)
        )

    audit = service.flask("audit", "export", "--format", "ndjson").stdout
    database = service.directory / "instance" / "userapi.sqlite3"
    with closing(sqlite3.connect(database)) as connection:
        ids = connection.execute("SELECT DISTINCT correlation_id FROM outbox_events").fetchall()
    assert answer.status == 201
    assert [line["path"] for line in access_lines(service, "trace-me")] == ["/api/v1/auth/register"]
    assert '"correlation_id":"trace-me"' in audit.replace(" ", "")
    assert ids == [("trace-me",)]


@pytest.mark.thorough
def test_a_file_is_reopened_after_logrotate_has_moved_it() -> None:
    service = GunicornService({"ENVIRONMENT": "testing"})
    path = service.directory / "logs" / "service.log"
    service.environment["LOG_FILE"] = str(path)
    with service:
        client = RecordingClient(service.base_url)
        client.once("GET", "/api/v1/before")
        moved = path.with_suffix(".1")
        path.rename(moved)
        os.kill(service.pid, signal.SIGUSR1)
        # A worker looks twice a second where its file is: the next lines may still follow the old.
        sent = (f"/api/v1/after-{number}" for number in count())
        asked = []
        while not (path.exists() and "/after-" in path.read_text()):
            asked.append(next(sent))
            client.once("GET", asked[-1])

        service.stop()
        before, after = paths_of(moved), paths_of(path)
        assert "/api/v1/before" in before
        assert after == asked[-len(after) :]
        assert [*before, *after][-len(asked) :] == asked


def test_people_may_have_lines_that_are_not_json() -> None:
    environment = {"ENVIRONMENT": "testing", "LOG_FORMAT": "console"}
    with GunicornService(environment) as service:
        RecordingClient(service.base_url).once("GET", "/api/v1/a-path")
        wait_until(lambda: "/api/v1/a-path" in service.log)

        assert "Starting gunicorn" in service.log
        assert all(line.isprintable() for line in service.log.split("\n"))
        assert '{"' not in service.log
