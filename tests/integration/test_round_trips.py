"""The number of round trips of a request to PostgreSQL and Redis, which dominate its cost.

Counted on the wire, by a proxy, with warm connections and copies. docs/performance.md shows it.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.support.client import JsonClient
from tests.support.deployments import Deployment, patient_redis
from tests.support.gunicorn import REPOSITORY
from tests.support.machines import make_service
from tests.support.proxy import FaultProxy, proxy_to, url_through
from tests.support.second_factors import add_app, mfa_token, second_step
from tests.support.users import PASSWORD, MadeUser, MakeUser, SignedInClient
from userapi.clock import ManualClock

API = "/api/v1"
# Operation: round trips to PostgreSQL and to Redis.
EXPECTED = {
    "GET /auth/verify": (0, 1),
    "GET /users/me": (0, 1),
    "GET /users/{id}": (1, 1),
    "GET /users/": (2, 1),
    "GET /users/?search=": (1, 1),
    "GET /audit-logs/": (3, 1),
    "POST /auth/refresh": (1, 1),
    "POST /auth/login": (13, 2),
    "POST /auth/login/mfa": (18, 2),
    "POST /auth/token": (1, 1),
    "POST /auth/logout": (11, 2),
    "POST /users/": (9, 1),
    "PATCH /users/me": (10, 2),
    "GET /health/live": (0, 0),
    "GET /health/serving": (0, 0),
}


LIMITS = ("DEFAULT", "LOGIN", "REFRESH", "TOKEN")


@dataclass(frozen=True, slots=True)
class Wire:
    """The service behind proxies that count."""

    app: Flask
    database: FaultProxy
    redis: FaultProxy
    make_user: MakeUser
    clock: ManualClock

    def asked_by(self, operation: str) -> tuple[int, int]:
        """Return the round trips to PostgreSQL and Redis, once everything about it is warm."""
        for number in range(3):
            request = self._prepared(operation, f"asker{number}")
            before = self.database.round_trips, self.redis.round_trips
            answer = request()
            after = self.database.round_trips, self.redis.round_trips
            assert answer.status_code < 300, answer.text
        return after[0] - before[0], after[1] - before[1]

    def _prepared(self, operation: str, name: str) -> Callable[[], TestResponse]:
        """Return what sends the operation as an administrator who has just logged in."""
        method, path = operation.split(" ")
        name = f"{name}{method.lower()}{re.sub('[^a-z]', '', path)}"[:30]
        user = self.make_user(name, roles=("superadmin",))
        credentials = {"username": name, "password": PASSWORD}
        tokens = JsonClient(self.app).post(f"{API}/auth/login", json=credentials).get_json()
        client = JsonClient(self.app, token=tokens["access_token"])
        if path == "/auth/login/mfa":
            return self._second_step(tokens, user)
        if path == "/auth/token":
            return self._token_request(tokens)
        client.get(f"{API}/auth/verify")
        path = API + path.replace("{id}", user.id).replace("search=", f"search={name[:8]}")
        made = {"username": f"{name}a", "email": f"{name}a@example.com", "password": PASSWORD}
        bodies: dict[str, dict[str, str]] = {
            "POST /auth/refresh": {"refresh_token": tokens["refresh_token"]},
            "POST /auth/login": credentials,
            "POST /users/": made,
            "PATCH /users/me": {"first_name": "Ada"},
        }
        options: dict[str, Any] = {}
        if operation in bodies:
            options["json"] = bodies[operation]
        return lambda: client.request(method, path, **options)

    def _token_request(self, tokens: dict[str, str]) -> Callable[[], TestResponse]:
        """Return what requests a token for a new service account, whose key was used before."""
        service = make_service(SignedInClient(self.app, tokens), f"robot-{uuid4().hex[:8]}")
        body = {
            "grant_type": "client_credentials",
            "client_id": service.id,
            "client_secret": service.key.text,
        }
        client = JsonClient(self.app)
        client.post(f"{API}/auth/token", json=body)
        return lambda: client.post(f"{API}/auth/token", json=body)

    def _second_step(self, tokens: dict[str, str], user: MadeUser) -> Callable[[], TestResponse]:
        """Return what sends a code of an app that the user has just added."""
        phone = add_app(SignedInClient(self.app, tokens), self.clock)
        token, code = mfa_token(self.app, user), phone.code(1)
        return lambda: second_step(self.app, token, code)


@pytest.fixture
def wire(
    deployment: Deployment, make_app: Callable[..., Flask], make_user: MakeUser, redis_url: str
) -> Iterator[Wire]:
    url = deployment.database.url
    with proxy_to(url) as database, proxy_to(redis_url) as redis, patient_redis():
        app = make_app(
            DATABASE_URL=url_through(database, url),
            REDIS_URL=url_through(redis, redis_url),
            RATE_LIMIT_ENABLED="true",
            **{f"RATE_LIMIT_{name}": "1000/minute" for name in LIMITS},
        )
        yield Wire(app, database, redis, make_user, deployment.clock)


def test_requests_ask_as_often_as_the_guide_says(wire: Wire) -> None:
    assert {operation: wire.asked_by(operation) for operation in EXPECTED} == EXPECTED


def test_the_guide_shows_this_table() -> None:
    guide = (REPOSITORY / "docs" / "performance.md").read_text("utf-8")
    rows = re.findall(r"^\| `([A-Z]+ /[^`]+)` \| (\d+) \| (\d+) \|$", guide, re.MULTILINE)

    assert {name: (int(a), int(b)) for name, a, b in rows} == EXPECTED
