"""No secret of settings or people appears in any output or storage of the service.

Looked at: the log at its most talkative, the worker's log, audit rows, events, metrics, refusals,
every table of the database, and Redis. What is looked for is proved to be findable: one harmless
text has to be there.
"""

import base64
import json
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from signal import SIGTERM
from typing import Any
from urllib.parse import quote

import psycopg2
import pytest
import redis

from tests.support.databases import PostgresDatabase
from tests.support.gunicorn import GunicornService, add_administrator
from tests.support.polling import wait_until
from tests.support.worker_process import WorkerProcess

pytestmark = pytest.mark.thorough

API = "/api/v1"
SETTINGS = (
    *("SECRET_KEY", "JWT_SECRET_KEY", "PASSWORD_PEPPER", "PASSWORD_PEPPER_PREVIOUS"),
    *(
        "ENCRYPTION_KEY",
        "ENCRYPTION_KEY_PREVIOUS",
        "AUDIT_SEAL_KEY",
        "AUDIT_SEAL_KEY_PREVIOUS",
        "METRICS_TOKEN",
    ),
)
HARMLESS = "canaryrobin"


@dataclass(slots=True)
class Journey:
    """What was sent, which of it is secret, and what was refused with which body."""

    service: GunicornService
    secrets: dict[str, str] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)

    def secret(self, name: str) -> str:
        """Return a new secret and remember it."""
        self.secrets[name] = f"Kestrel-{secrets.token_hex(8)}-Quarry"
        return self.secrets[name]

    def send(
        self, method: str, path: str, body: Any = None, *, token: str = "", **headers: str
    ) -> Any:
        """Send a request; keep the body of a refusal."""
        connection = HTTPConnection("127.0.0.1", self.service.port, timeout=60)
        sent = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        content = {"Content-Type": "application/json"} if body is not None else {}
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request(
            method, path, sent if body is not None else None, {**content, **bearer, **headers}
        )
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if answer.status >= 400:
            self.refusals.append(f"{answer.headers}{text}")
        return json.loads(text) if text.startswith("{") else text


@pytest.fixture(scope="module")
def travelled(
    make_database: Callable[[str], PostgresDatabase],
    redis_url: str,
    rabbitmq_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Journey, dict[str, str]]]:
    """Return a journey, and by name all output and stored data that could contain its secrets."""
    folder = tmp_path_factory.mktemp("canaries")
    settings = {name: secrets.token_urlsafe(36) for name in SETTINGS}
    database = make_database("canaries").url
    environment = {
        "ENVIRONMENT": "testing",
        "DATABASE_URL": database,
        "REDIS_URL": redis_url,
        "RABBITMQ_URL": rabbitmq_url,
        "RABBITMQ_EXCHANGE": "canary_events",
        "PASSWORD_HASH_ROUNDS": "4",
        "LOG_LEVEL": "DEBUG",
        "RATE_LIMIT_ENABLED": "false",
        "LOCKOUT_THRESHOLD": "50",
        "MAIL_DIR": str(folder / "mail"),
        **settings,
    }
    with GunicornService(environment) as service:
        worker = WorkerProcess(
            {**environment, "INSTANCE_DIR": str(folder / "worker")}, folder / "worker.log"
        )
        try:
            journey = Journey(service, dict(settings))
            _travel(journey, folder / "mail")
            _travel_by_keys(journey)
            metrics = journey.send("GET", "/metrics", token=settings["METRICS_TOKEN"])
        finally:
            worker.end(SIGTERM)
        service.stop()
        yield (
            journey,
            {
                "log": service.log,
                "log of the worker": worker.log.read_text("utf-8"),
                "metrics": metrics,
                "refusals": "\n".join(journey.refusals),
                "audit": _rows(database, "audit_logs"),
                "events": _rows(database, "outbox_events"),
                "mails that were asked for": _rows(database, "outgoing_mails"),
                "database": "\n".join(_rows(database, table) for table in _tables(database)),
                "Redis": _redis_dump(redis_url),
            },
        )


def _travel(journey: Journey, mail: Path) -> None:
    """Use every kind of secret rightly, and in the ways in which people get it wrong."""
    password = journey.secret("password")
    person = {"username": HARMLESS, "email": f"{HARMLESS}@example.com"}
    journey.send("POST", f"{API}/auth/register", {**person, "password": password})
    log_in = {"username": HARMLESS, "password": password}
    tokens = journey.send("POST", f"{API}/auth/login", log_in)
    journey.secrets |= {f"{name} 1": tokens[name] for name in ("access_token", "refresh_token")}
    access, refresh = tokens["access_token"], tokens["refresh_token"]
    # Got wrong.
    for wrong in (
        {"username": HARMLESS, "password": journey.secret("wrong password")},
        {"username": journey.secret("password as a name"), "password": "x"},
        {"username": HARMLESS, "password": [journey.secret("password in a list")]},
        f'{{"username": "{HARMLESS}", "password": "{journey.secret("password in broken JSON")}',
    ):
        journey.send("POST", f"{API}/auth/login", wrong)
    journey.send("GET", f"{API}/auth/verify?token={quote(access)}")
    query = quote(journey.secret("password in a query"))
    journey.send("POST", f"{API}/auth/login?password={query}", log_in)
    journey.send("GET", f"{API}/users/me", token=access + "x")
    basic = base64.b64encode(f"{HARMLESS}:{password}".encode()).decode()
    journey.secrets["basic credentials"] = basic
    journey.send("GET", f"{API}/users/me", Authorization=f"Basic {basic}")
    journey.send("POST", f"{API}/auth/register", {**person, "password": password})
    journey.send("POST", f"{API}/auth/refresh", {"refresh_token": access})
    journey.send("POST", f"{API}/auth/refresh", {"refresh_token": refresh + "x"})
    # Got right.
    changed = journey.secret("new password")
    change = {"current_password": password, "new_password": changed}
    tokens = journey.send("POST", f"{API}/auth/change-password", change, token=access)
    journey.secrets["refresh_token 2"] = tokens["refresh_token"]
    fresh = journey.send("POST", f"{API}/auth/refresh", {"refresh_token": tokens["refresh_token"]})
    journey.secrets |= {f"{name} 3": fresh[name] for name in ("access_token", "refresh_token")}
    journey.send("POST", f"{API}/auth/reset-password", {"email": person["email"]})
    found: list[str] = []

    def mail_has_come() -> bool:
        for file in mail.glob("*.eml"):
            found.extend(re.findall(r"^([A-Za-z0-9_-]{43})\r?$", file.read_text(), re.MULTILINE))
        return bool(found)

    wait_until(mail_has_come)
    journey.secrets["one-time token"] = found[0]
    reset = {"token": found[0], "new_password": journey.secret("password after a reset")}
    for _ in range(2):  # The second time it is refused.
        journey.send("POST", f"{API}/auth/reset-password/confirm", reset)


def _travel_by_keys(journey: Journey) -> None:
    """Use keys and client tokens rightly and wrongly."""
    add_administrator(journey.service, journey.secret("password of the administrator"))
    log_in = {"username": "admin", "password": journey.secrets["password of the administrator"]}
    admin = journey.send("POST", f"{API}/auth/login", log_in)["access_token"]
    own = journey.send("POST", f"{API}/users/me/api-keys/", {"name": HARMLESS}, token=admin)
    account = journey.send("POST", f"{API}/service-accounts/", {"name": "robot"}, token=admin)
    keys = f"{API}/service-accounts/{account['id']}/api-keys/"
    # The answers are kept for repetitions.
    again = {"token": admin, "Idempotency-Key": "one-key"}
    made, replayed = (journey.send("POST", keys, {"name": "deploy"}, **again) for _ in range(2))
    assert made["key"] == replayed["key"]
    again["Idempotency-Key"] = "one-rotation"
    rotated = journey.send("POST", f"{keys}{made['id']}/rotate", {}, **again)
    for name, text in (("own", own["key"]), ("old", made["key"]), ("new", rotated["key"])):
        journey.secrets[f"{name} key"] = text
        # Without prefix, id and checksum.
        journey.secrets[f"secret of the {name} key"] = text[-49:-6]
    # Got right.
    key, grant = rotated["key"], {"grant_type": "client_credentials"}
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    basic = base64.b64encode(f"{account['id']}:{key}".encode()).decode()
    journey.secrets["credentials of a client"] = basic
    token = journey.send("POST", f"{API}/auth/token", grant, Authorization=f"Basic {basic}")[
        "access_token"
    ]
    journey.secrets["client token"] = token
    for credential in (own["key"], key, token):
        journey.send("GET", f"{API}/auth/verify", token=credential)
        journey.send("POST", f"{API}/auth/introspect", {"token": credential}, token=admin)
    # Got wrong.
    for wrong in (key + "x", key[:-1], token + "x"):
        journey.send("GET", f"{API}/auth/verify", token=wrong)
    journey.send("GET", f"{API}/auth/verify?access_token={key}")
    journey.send("POST", f"{API}/auth/token", {**grant, "client_id": key, "client_secret": key})
    journey.send("POST", f"{API}/auth/token", {**grant, "client_id": account["id"], "scope": key})
    journey.send("POST", f"{API}/auth/token", f"{key}={key}&&", **form)
    journey.send("POST", f"{API}/auth/token?client_secret={key}", grant)
    journey.send("GET", f"{API}/auth/verify", Authorization=f"Basic {basic}")
    journey.send("POST", f"{API}/auth/login", {"username": key, "password": key})
    journey.send("POST", f"{API}/users/me/api-keys/", {"name": "x", "permissions": [key]})
    # The problem repeats the path to the caller alone; the log must not.
    journey.send("GET", f"{keys}{key}", token=admin)
    journey.refusals.pop()
    # Revoked, also by a person who finds it.
    journey.send("POST", f"{API}/auth/revoke", {"token": token})
    journey.send("POST", f"{API}/auth/revoke", {"token": own["key"]})
    for dead in (token, own["key"]):
        journey.send("GET", f"{API}/auth/verify", token=dead)


def _tables(url: str) -> list[str]:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return [row[0] for row in cursor.fetchall()]


def _rows(url: str, table: str) -> str:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        # Bytes as the text that they are, or a secret among them would not be found.
        cursor.execute("SET bytea_output = 'escape'")
        cursor.execute(f"SELECT row_to_json(t)::text FROM {table} t")
        return "\n".join(row[0] for row in cursor.fetchall())


def _redis_dump(url: str) -> str:
    with redis.Redis.from_url(url) as client:
        return "\n".join(f"{key!r} {client.dump(key)!r}" for key in client.scan_iter("*"))


PLACES = (
    *("log", "log of the worker", "metrics", "refusals"),
    *("audit", "events", "mails that were asked for", "database", "Redis"),
)


@pytest.mark.parametrize("place", PLACES)
def test_no_secret_is_where_it_could_be_read(
    travelled: tuple[Journey, dict[str, str]], place: str
) -> None:
    journey, left = travelled

    assert len(journey.secrets) >= 20
    assert left[place]
    assert [name for name, secret in journey.secrets.items() if secret in left[place]] == []


@pytest.mark.parametrize("place", ["log of the worker", "audit", "events"])
def test_what_is_no_secret_is_found(travelled: tuple[Journey, dict[str, str]], place: str) -> None:
    """Otherwise the test above would search in the wrong place."""
    _, left = travelled

    assert (HARMLESS if place != "log of the worker" else "worker.started") in left[place]
