"""The table of faults: each dependency × each fault × each group of endpoints → status and time.

All groups are called at once while the fault lasts, on connections that were good a moment before.
Afterwards the fault is taken away, and the service has to be as it was.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.support.client import JsonClient
from tests.support.deployments import Deployment
from tests.support.facts import events, mails
from tests.support.metrics import sample
from tests.support.proxy import FaultProxy
from tests.support.smtp import SmtpServer
from tests.support.users import PASSWORD, MadeUser, MakeUser, SignedInClient
from userapi.infrastructure.database import db
from userapi.wiring.services import Services

ATTEMPTS = 4
BACK_WITHIN_SECONDS = 5.0
# Beside the fault there are a dozen requests at once, on a machine that others use, too.
UNDISTURBED_SECONDS = 3.0


class Dependency(StrEnum):
    POSTGRESQL = "postgresql"
    RABBITMQ = "rabbitmq"
    REDIS = "redis"
    SMTP = "smtp"


class Fault(StrEnum):
    BLACK_HOLE = "black_hole"
    CUT_MID_ANSWER = "cut_mid_answer"
    DELAY = "delay"
    REFUSE = "refuse"
    TRICKLE = "trickle"

    def strike(self, proxy: FaultProxy) -> None:
        """Activate this fault of the proxy."""
        if self is Fault.CUT_MID_ANSWER:
            proxy.cut_mid_answer(3)
        elif self is Fault.DELAY:
            proxy.delay(0.05)
        else:
            getattr(proxy, self)()


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What an answer may be. Without statuses: that of an undisturbed service."""

    statuses: frozenset[int] | None = None
    within_seconds: float = UNDISTURBED_SECONDS


AS_EVER = Expected()
AWAY = Expected(statuses=frozenset({503}), within_seconds=5.0)
ALSO_WITHOUT = Expected(statuses=frozenset({200, 503}), within_seconds=5.0)
NEEDS_NO_DATABASE = {"live", "document", "keys"}
# They check each server and report its state.
ASK_ALL = Expected(within_seconds=5.0)


def expected(dependency: Dependency, fault: Fault, group: str) -> Expected:
    """Return the cell of the table."""
    if group == "metrics":
        return ASK_ALL
    if group == "components" and dependency is not Dependency.POSTGRESQL:
        return ASK_ALL
    if dependency is not Dependency.POSTGRESQL or group in NEEDS_NO_DATABASE:
        return AS_EVER
    if fault is Fault.DELAY:
        return Expected(within_seconds=5.0)
    # The copy in Redis contains whether a session is live.
    return ALSO_WITHOUT if group in ("token", "components") else AWAY


FIRST = (Dependency.POSTGRESQL, Fault.REFUSE)
QUICK = {
    (Dependency.POSTGRESQL, Fault.BLACK_HOLE),
    (Dependency.RABBITMQ, Fault.BLACK_HOLE),
    (Dependency.REDIS, Fault.BLACK_HOLE),
    (Dependency.SMTP, Fault.BLACK_HOLE),
}


def part_of(dependency: Dependency, fault: Fault) -> list[pytest.MarkDecorator]:
    """Return the marker of the part that tries a fault: the first one is in `make test`."""
    if (dependency, fault) == FIRST:
        return []
    return [pytest.mark.thorough if (dependency, fault) in QUICK else pytest.mark.slow]


TABLE = [
    pytest.param(
        dependency,
        fault,
        id=f"{dependency}-{fault}",
        marks=part_of(dependency, fault),
    )
    for dependency, fault in product(Dependency, Fault)
]


class Bench:
    """An application that reaches all its servers through proxies, and callers of every kind."""

    def __init__(
        self, app: Flask, proxies: Mapping[Dependency, FaultProxy], boss: MadeUser
    ) -> None:
        self.app = app
        self.proxies = proxies
        self.services: Services = app.extensions["userapi"]
        self._anybody = JsonClient(app)
        self._boss = boss
        self._number = 0
        self.client = self.log_in()
        self.refreshing = self.log_in()

    def log_in(self) -> SignedInClient:
        """Return a client of the administrator."""
        answer = self._log_in()
        assert answer.status_code == 200, answer.text
        return SignedInClient(self.app, answer.get_json())

    def _log_in(self) -> TestResponse:
        body = {"username": self._boss.username, "password": PASSWORD}
        return self._anybody.post("/api/v1/auth/login", json=body)

    def _new(self) -> dict[str, str]:
        self._number += 1
        name = f"user{self._number}"
        return {"username": name, "email": f"{name}@example.com", "password": PASSWORD}

    def groups(self) -> dict[str, Callable[[], TestResponse]]:
        """Return one request of each group of endpoints."""
        keyed = {"Idempotency-Key": f"key-{self._number}"}
        new, registered = self._new(), self._new()
        refresh = {"refresh_token": self.refreshing.refresh_token}
        return {
            "live": lambda: self._anybody.get("/api/v1/health/live"),
            "ready": lambda: self._anybody.get("/api/v1/health/ready"),
            "components": lambda: self.client.get("/api/v1/health/detailed"),
            "metrics": lambda: self._anybody.get("/metrics"),
            "document": lambda: self._anybody.get("/openapi.json"),
            "keys": lambda: self._anybody.get("/.well-known/jwks.json"),
            "token": lambda: self.client.get("/api/v1/auth/verify"),
            "read": lambda: self.client.get("/api/v1/users/"),
            "write": lambda: self.client.post("/api/v1/users/", json=new, headers=keyed),
            "register": lambda: self._anybody.post("/api/v1/auth/register", json=registered),
            "login": self._log_in,
            "refresh": lambda: self._anybody.post("/api/v1/auth/refresh", json=refresh),
            "reset": lambda: self._anybody.post(
                "/api/v1/auth/reset-password", json={"email": self._boss.email}
            ),
        }

    def call_all(self) -> dict[str, tuple[TestResponse, float]]:
        """Call every group concurrently; return responses and seconds."""

        def timed(call: Callable[[], TestResponse]) -> tuple[TestResponse, float]:
            begun = time.monotonic()
            return call(), time.monotonic() - begun

        groups = self.groups()
        with ThreadPoolExecutor(len(groups)) as pool:
            return dict(zip(groups, pool.map(timed, groups.values()), strict=True))

    def lent_connections(self) -> int:
        """Return how many connections were not returned to the pool."""
        with self.app.app_context():
            return int(db.engine.pool.checkedout())  # type: ignore[attr-defined]


def proxied(url: str, proxy: FaultProxy) -> str:
    parts = urlsplit(url)
    account = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{account}@{proxy.host}:{proxy.port}"))


@pytest.fixture
def bench(
    deployment: Deployment,
    make_app: Callable[..., Flask],
    make_user: MakeUser,
    redis_url: str,
    rabbitmq_url: str,
) -> Iterator[Bench]:
    urls = {
        Dependency.POSTGRESQL: deployment.database.url,
        Dependency.RABBITMQ: rabbitmq_url,
        Dependency.REDIS: redis_url,
    }
    with ExitStack() as stack:
        server = SmtpServer().start()
        stack.callback(server.stop)
        urls[Dependency.SMTP] = f"smtp://127.0.0.1:{server.port}"
        proxies = {
            name: stack.enter_context(
                FaultProxy(urlsplit(url).hostname or "", urlsplit(url).port or 0)
            )
            for name, url in urls.items()
        }
        boss = make_user("boss", roles=["superadmin"])
        app = make_app(
            DATABASE_URL=proxied(urls[Dependency.POSTGRESQL], proxies[Dependency.POSTGRESQL]),
            DATABASE_POOL_SIZE="14",
            REDIS_URL=proxied(urls[Dependency.REDIS], proxies[Dependency.REDIS]),
            RABBITMQ_URL=proxied(urls[Dependency.RABBITMQ], proxies[Dependency.RABBITMQ]),
            SMTP_HOST="127.0.0.1",
            SMTP_PORT=str(proxies[Dependency.SMTP].port),
            SMTP_STARTTLS="false",
            RATE_LIMIT_ENABLED="true",
            DOCS_ENABLED="true",
            **{
                f"RATE_LIMIT_{name}": "100000/minute"
                for name in ("DEFAULT", "LOGIN", "REGISTER", "PASSWORD_RESET", "REFRESH")
            },
        )
        yield Bench(app, proxies, boss)


@pytest.mark.parametrize(("dependency", "fault"), TABLE)
def test_the_service_answers_as_the_table_says(
    bench: Bench, dependency: Dependency, fault: Fault
) -> None:
    usual = {group: answer.status_code for group, (answer, _) in bench.call_all().items()}
    bench.refreshing = bench.log_in()
    proxy = bench.proxies[dependency]

    for _ in range(ATTEMPTS):
        fault.strike(proxy)
        found = bench.call_all()
        proxy.pass_on()
        back_after = _seconds_until_as_ever(bench)

        wrong = [
            f"{group}: {answer.status_code}"
            for group, (answer, _) in found.items()
            if not _fits(answer, expected(dependency, fault, group), usual[group])
        ]
        assert wrong == []
        late = [
            f"{group}: {seconds:.2f} s"
            for group, (_, seconds) in found.items()
            if seconds > expected(dependency, fault, group).within_seconds
        ]
        # Other work on the machine delays some attempts, a missing bound delays each.
        if not late and back_after < BACK_WITHIN_SECONDS:
            break
    assert late == []
    assert back_after < BACK_WITHIN_SECONDS
    assert bench.lent_connections() == 0
    assert sample(JsonClient(bench.app), "db_pool_connections", state="in_use") == 0


def _fits(answer: TestResponse, cell: Expected, usual: int) -> bool:
    statuses = cell.statuses or {usual}
    if answer.status_code == 503 and answer.get_json().get("code") == "service_unavailable":
        if not int(answer.headers.get("Retry-After", "0")):
            return False
    return answer.status_code in statuses


def _seconds_until_as_ever(bench: Bench) -> float:
    begun = time.monotonic()
    while True:
        ready = JsonClient(bench.app).get("/api/v1/health/ready")
        token = bench.client.get("/api/v1/auth/verify")
        if (ready.status_code, token.status_code) == (200, 200):
            if ready.get_json()["status"] == "ready":
                return time.monotonic() - begun
        assert token.status_code in (200, 503)
        if time.monotonic() - begun > BACK_WITHIN_SECONDS:
            return time.monotonic() - begun
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [Fault.BLACK_HOLE, Fault.TRICKLE])
def test_connections_that_have_been_idle_are_given_up_in_time_too(
    bench: Bench, fault: Fault
) -> None:
    """They are pinged first, and then a new connection is opened: both take time."""
    bench.call_all()
    time.sleep(6)
    fault.strike(bench.proxies[Dependency.POSTGRESQL])
    begun = time.monotonic()

    answer = bench.client.get("/api/v1/users/")

    assert answer.status_code == 503
    assert time.monotonic() - begun < 5
    bench.proxies[Dependency.POSTGRESQL].pass_on()


@pytest.mark.slow
@pytest.mark.parametrize("fault", [f for f in Fault if f is not Fault.DELAY], ids=str)
def test_a_mail_waits_for_a_broken_server_a_bounded_time_and_goes_out_later(
    bench: Bench, deployment: Deployment, fault: Fault
) -> None:
    bench.client.post("/api/v1/auth/reset-password", json={"email": "boss@example.com"})
    fault.strike(bench.proxies[Dependency.SMTP])
    begun = time.monotonic()

    with bench.app.app_context():
        sent = bench.services.mail_delivery.deliver_due(1)
    took = time.monotonic() - begun
    bench.proxies[Dependency.SMTP].pass_on()
    deployment.clock.advance(minutes=5)
    with bench.app.app_context():
        sent_later = bench.services.mail_delivery.deliver_due(1)

    assert (sent, sent_later) == (0, 1)
    assert took < 12
    (mail,) = mails(bench.app)
    assert mail.sent_at is not None


def test_events_of_requests_wait_while_the_broker_is_away(bench: Bench) -> None:
    Fault.REFUSE.strike(bench.proxies[Dependency.RABBITMQ])

    answer = bench.client.post("/api/v1/users/", json=_somebody())
    health: Any = bench.client.get("/api/v1/health/detailed").get_json()

    assert answer.status_code == 201
    assert health["status"] == "degraded"
    assert health["components"]["rabbitmq"]["status"] == "down"
    assert health["components"]["outbox"]["pending"] == len(events(bench.app))
    assert health["components"]["outbox"]["oldest_seconds"] >= 0


def _somebody() -> dict[str, str]:
    return {"username": "ada", "email": "ada@example.com", "password": PASSWORD}
