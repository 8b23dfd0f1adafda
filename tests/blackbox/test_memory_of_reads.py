"""Large reads: the memory of a worker does not depend on the length of the response."""

import http.client
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.support.databases import PostgresDatabase
from tests.support.gunicorn import GunicornService, add_administrator
from userapi_client import Client, Login

ROWS = 50_000
USERS = 20_000
ALLOWED_MIB = 20
ADMINISTRATOR = "admin"
PASSWORD = "violet-harbour-93-lantern"

# In one statement each: through the service they would take an hour.
FILL_LOG = """
    INSERT INTO audit_logs (id, occurred_at, action, outcome, actor_id, actor_username, actor_type,
                            target_type, target_id, ip_address, user_agent, correlation_id, details)
    SELECT gen_random_uuid(), now() - n * interval '1 second', 'auth.login', 'success', %(id)s,
           'admin', 'user', 'user', %(id)s::text, '203.0.113.7', repeat('browser ', 20), n::text,
           '{"reason": "measured"}'
    FROM generate_series(1, %(rows)s) AS n
"""
FILL_USERS = """
    INSERT INTO users (id, username, email, email_normalized, email_verified, must_change_password,
                       status, attributes, search_text, version, access_version, created_at,
                       updated_at)
    SELECT gen_random_uuid(), 'u' || n, 'u' || n || '@example.com', 'u' || n || '@example.com',
           true, false, 'active', '{"team": "measured"}', 'u' || n, 1, 1, now(), now()
    FROM generate_series(1, %(users)s) AS n
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """A service of one worker, and an administrator's token for it."""

    service: GunicornService
    token: str

    def read(self, path: str) -> tuple[int, bytes]:
        """Return how many bytes an answer has, and its end; nothing more of it is kept."""
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=120)
        connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        size, end = 0, b""
        while piece := answer.read(64 * 1024):
            size += len(piece)
            end = (end + piece)[-100:]
        connection.close()
        return size, end

    def peak_mib(self) -> float:
        """Return the most memory that the worker has had so far."""
        (pid,) = self.service.worker_pids
        status = Path(f"/proc/{pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found
        return int(found[1]) / 1024


@pytest.fixture(scope="module")
def measured(make_database: Any, redis_url: str) -> Iterator[Measured]:
    database: PostgresDatabase = make_database("memory_of_reads")
    environment = {
        "ENVIRONMENT": "testing",
        "DATABASE_URL": database.url,
        "REDIS_URL": redis_url,
        "PASSWORD_HASH_ROUNDS": "4",
        "WEB_CONCURRENCY": "1",
        "RATE_LIMIT_ENABLED": "false",
    }
    service = GunicornService(environment)
    add_administrator(service, PASSWORD, username=ADMINISTRATOR)
    with service:
        token = _log_in(service)
        measured = Measured(service, token)
        # What a first request of each kind loads is no growth.
        for path in PATHS.values():
            measured.read(path)
        url = database.url.replace("+psycopg2", "")
        with psycopg2.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = 0")
            cursor.execute("SELECT id::text FROM users WHERE username = %s", (ADMINISTRATOR,))
            found = cursor.fetchone()
            assert found
            cursor.execute(FILL_LOG, {"id": found[0], "rows": ROWS})
            cursor.execute(FILL_USERS, {"users": USERS})
        connection.close()
        yield measured


PATHS = {
    "export of oneself": "/api/v1/users/me/export",
    "activity": "/api/v1/users/{own}/activity?page_size=100&page=100",
    "export of the audit log": "/api/v1/audit-logs/export",
    "export of the audit log as CSV": "/api/v1/audit-logs/export?format=csv",
    "export of users": "/api/v1/users/export",
}


def _log_in(service: GunicornService) -> str:
    with Client(service.base_url, Login(ADMINISTRATOR, PASSWORD), timeout=60) as client:
        PATHS["activity"] = PATHS["activity"].replace("{own}", client.auth.me().id)
        assert client.tokens is not None
        return client.tokens.access_token


@pytest.mark.thorough
@pytest.mark.parametrize("read", PATHS)
def test_a_worker_does_not_grow_with_the_length_of_its_answer(
    measured: Measured, read: str
) -> None:
    """`/users/me/export` with 150 000 audit rows let a worker grow from 118 to 541 MiB."""
    before = measured.peak_mib()

    size, end = measured.read(PATHS[read])

    grown = measured.peak_mib() - before
    assert grown < ALLOWED_MIB, f"{grown:.1f} MiB for {size / 2**20:.1f} MiB"
    if read == "export of oneself":
        assert size > ROWS * 300 and end.endswith(b"}]}")
