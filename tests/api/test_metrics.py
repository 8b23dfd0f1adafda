"""The metrics that Prometheus scrapes."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import update

from tests.support.client import JsonClient
from tests.support.machines import OWN_KEYS, basic, make_key, make_service, wrong_secret
from tests.support.metrics import sample
from tests.support.second_factors import add_app, mfa_token, second_step
from tests.support.users import PASSWORD, LogIn, MakeUser
from userapi.clock import ManualClock
from userapi.events.models import OutboxEvent
from userapi.infrastructure.database import db, transaction
from userapi.infrastructure.heartbeat import WorkerHeartbeat
from userapi.mail.models import MailKind, OutgoingMail

pytestmark = pytest.mark.thorough


def series(client: JsonClient) -> set[str]:
    text = client.get("/metrics").text
    return {line.rsplit(" ", 1)[0] for line in text.splitlines() if line[:1] != "#"}


def send_password(client: JsonClient, username: str, password: str) -> None:
    client.post("/api/v1/auth/login", json={"username": username, "password": password})


def test_requests_are_counted_by_template_method_and_status(
    make_app: Callable[..., Flask],
) -> None:
    client = JsonClient(make_app())
    for _ in range(3):
        client.get("/api/v1/users/01900000-0000-7000-8000-000000000000")

    labels = {"method": "GET", "endpoint": "/api/v1/users/<uuid:user_id>", "status": "401"}
    assert sample(client, "flask_http_request_total", **labels) == 3
    assert sample(client, "flask_http_request_duration_seconds_count", **labels) == 3


def test_what_has_not_happened_yet_is_zero_and_not_absent(make_app: Callable[..., Flask]) -> None:
    """Prometheus saw no increase, and no alert, when the first refresh token was used again."""
    present = series(JsonClient(make_app()))

    assert 'auth_refreshes_total{outcome="reused"}' in present
    assert 'auth_logins_total{outcome="locked"}' in present
    assert 'rate_limited_total{endpoint="auth.login"}' in present
    assert {"auth_lockouts_total", "events_published_total"} <= present
    assert 'auth_logins_total{outcome="mfa_required"}' in present
    assert 'auth_sign_ins_total{method="passkey"}' in present
    assert 'auth_mfa_total{method="totp",outcome="failure"}' in present
    assert {'users_mfa{method="passkey"}', "totp_secrets_unreadable"} <= present
    assert 'key_checks_total{outcome="token_revoked"}' in present
    assert 'tokens_issued_total{outcome="invalid_client"}' in present
    assert 'rate_limited_total{endpoint="auth.token"}' in present
    assert 'service_accounts_total{status="suspended"}' in present
    assert 'api_keys_active{owner_type="service"}' in present


def test_log_ins_and_locks_are_counted_by_outcome(
    make_app: Callable[..., Flask], make_user: MakeUser
) -> None:
    make_user("robin")
    client = JsonClient(make_app())
    send_password(client, "robin", PASSWORD)
    for _ in range(6):
        send_password(client, "robin", "wrong-password-1")

    assert sample(client, "auth_logins_total", outcome="success") == 1
    assert sample(client, "auth_logins_total", outcome="failure") == 5
    assert sample(client, "auth_logins_total", outcome="locked") == 1
    assert sample(client, "auth_lockouts_total") == 1
    assert sample(client, "password_hash_seconds_count") == 6
    assert sample(client, "password_hash_queue") == 0


def test_second_steps_are_counted_by_method_and_outcome(
    make_app: Callable[..., Flask], make_user: MakeUser, log_in: LogIn, clock: ManualClock
) -> None:
    robin = make_user("robin")
    phone = add_app(log_in(robin), clock)
    app = make_app()
    client = JsonClient(app)
    second_step(app, mfa_token(app, robin), phone.code(1))
    second_step(app, mfa_token(app, robin), phone.recovery_codes[0])
    for _ in range(5):
        second_step(app, mfa_token(app, robin), "000000")
    second_step(app, mfa_token(app, robin), phone.recovery_codes[1])

    assert sample(client, "auth_logins_total", outcome="mfa_required") == 8
    assert sample(client, "auth_logins_total", outcome="success") == 0
    assert sample(client, "auth_sign_ins_total", method="password") == 2
    assert sample(client, "auth_mfa_total", method="totp", outcome="success") == 1
    assert sample(client, "auth_mfa_total", method="totp", outcome="failure") == 5
    assert sample(client, "auth_mfa_total", method="recovery_code", outcome="success") == 1
    assert sample(client, "auth_mfa_total", method="recovery_code", outcome="locked") == 1
    assert sample(client, "users_mfa", method="totp") == 1
    assert sample(client, "users_mfa", method="passkey") == 0
    assert sample(client, "totp_secrets_unreadable") == 0
    lost = make_app(ENCRYPTION_KEY="tests-encrypt-with-this-key-from-now-on-3Kd8")
    assert sample(JsonClient(lost), "totp_secrets_unreadable") == 1


def test_service_accounts_keys_and_tokens_are_counted(
    make_app: Callable[..., Flask], make_user: MakeUser, log_in: LogIn
) -> None:
    boss = log_in(make_user("boss", roles=["superadmin"]))
    service = make_service(boss, "asker", roles=["admin"])
    bound = make_service(boss, "bound", allowed_networks=["192.0.2.0/24"])
    dead = make_key(boss, bound.keys_path)
    make_key(boss, OWN_KEYS)
    boss.delete(dead.path)
    client = JsonClient(make_app())
    grant = {"grant_type": "client_credentials", "client_id": service.id}
    secret = {"client_secret": service.key.text}

    mistyped = dead.text[:-6] + "000000"
    for token in (service.key.text, bound.key.text, dead.text, wrong_secret(dead.text), mistyped):
        client.as_user(token).get("/api/v1/auth/verify")
    client.post(
        "/api/v1/auth/introspect",
        json={"token": "x"},
        headers=basic(service.id, service.key.text),
    )
    for more in (secret, {"client_secret": "x"}, {**secret, "scope": "nothing"}):
        client.post("/api/v1/auth/token", json={**grant, **more})
    client.post("/api/v1/auth/token", data="{", content_type="application/json")
    client.post("/api/v1/auth/token", json={})

    boss.post(f"{bound.path}/suspend")

    # One by bearer token, and one by Basic.
    assert sample(client, "key_checks_total", outcome="accepted") == 2
    for outcome in ("network_not_allowed", "token_revoked"):
        assert sample(client, "key_checks_total", outcome=outcome) == 1
    # A wrong secret, and a wrong checksum.
    assert sample(client, "key_checks_total", outcome="token_invalid") == 2
    for outcome in ("success", "invalid_client", "invalid_scope"):
        assert sample(client, "tokens_issued_total", outcome=outcome) == 1
    assert sample(client, "tokens_issued_total", outcome="invalid_request") == 2
    assert sample(client, "service_accounts_total", status="active") == 1
    assert sample(client, "service_accounts_total", status="suspended") == 1
    assert sample(client, "api_keys_active", owner_type="service") == 2
    assert sample(client, "api_keys_active", owner_type="user") == 1


@pytest.mark.parametrize("username", ["robin", "nobody"])
def test_a_wrong_password_costs_one_hash_whether_or_not_the_user_is_there(
    make_app: Callable[..., Flask], make_user: MakeUser, username: str
) -> None:
    make_user("robin")
    client = JsonClient(make_app())

    send_password(client, username, "wrong-password-1")

    assert sample(client, "password_hash_seconds_count") == 1


def test_figures_of_the_database_are_exported(
    make_app: Callable[..., Flask], make_user: MakeUser
) -> None:
    make_user("robin")
    client = JsonClient(make_app())
    send_password(client, "robin", PASSWORD)

    assert sample(client, "users_total", status="active") == 1
    assert sample(client, "sessions_active") == 1
    assert sample(client, "outbox_pending") == 2
    assert sample(client, "outbox_oldest_seconds") > 0
    assert sample(client, "outbox_parked") == 0
    assert sample(client, "dependency_up", dependency="database") == 1
    assert sample(client, "db_pool_connections", state="idle") >= 1
    assert sample(client, "db_pool_connections", state="in_use") <= 1


def test_the_worker_and_refused_events_show(
    make_app: Callable[..., Flask], make_user: MakeUser, clock: ManualClock
) -> None:
    make_user("robin")
    app = make_app()
    with app.app_context(), transaction() as session:
        session.execute(update(OutboxEvent).values(parked_at=clock.now()))
        session.add(WorkerHeartbeat(name="worker", last_seen_at=clock.now()))
    client = JsonClient(app)

    assert sample(client, "outbox_parked") == 1
    assert sample(client, "outbox_pending") == 0
    seen = sample(client, "worker_last_seen_timestamp_seconds")
    assert seen == pytest.approx(clock.now().timestamp())


def test_mails_that_wait_and_those_that_were_refused_are_counted(
    make_app: Callable[..., Flask], make_user: MakeUser, clock: ManualClock
) -> None:
    robin = make_user("robin")
    app = make_app()
    client = JsonClient(app)
    assert sample(client, "mails_waiting") == 0
    assert sample(client, "mail_oldest_seconds") == 0
    for age, values in ((70, {}), (7, {}), (700, {"parked_at": clock.now()})):
        with app.app_context(), transaction() as session:
            session.add(
                OutgoingMail(
                    kind=MailKind.PASSWORD_CHANGED,
                    recipient=robin.email,
                    created_at=clock.now() - timedelta(seconds=age),
                    next_attempt_at=clock.now(),
                    **values,
                )
            )

    client = JsonClient(make_app())  # Figures are kept for a moment.
    assert sample(client, "mails_waiting") == 2
    assert sample(client, "mails_parked") == 1
    assert sample(client, "mail_oldest_seconds") == pytest.approx(70, abs=30)


def test_no_caller_adds_a_series(make_app: Callable[..., Flask], make_user: MakeUser) -> None:
    """A thousand paths, methods, user names, tokens and addresses."""
    make_user("robin")
    client = JsonClient(make_app())

    def be_hostile(number: int) -> None:
        client.get(f"/nothing/{number}")
        client.request(f"M{number}", f"/api/v1/users/{number}")
        client.request(f"M{number}", "/api/v1/users/")
        client.post("/api/v1/auth/refresh", json={"refresh_token": f"x{number}"})
        client.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {number}"})

    be_hostile(0)
    send_password(client, "nobody", PASSWORD)
    client.get("/metrics")
    before = series(client)

    for number in range(1, 200):
        be_hostile(number)
    for number in range(20):
        send_password(client, f"nobody{number}", PASSWORD)

    assert series(client) == before


def test_connections_that_break_are_not_counted_for_ever(
    make_app: Callable[..., Flask],
) -> None:
    """A broken connection decreased the number of idle ones permanently."""
    app = make_app()
    client = JsonClient(app)
    with app.app_context():
        for _ in range(3):
            with db.engine.connect() as connection:
                connection.invalidate()
        connections = [db.engine.connect() for _ in range(4)]
        lent = sample(client, "db_pool_connections", state="in_use")
        for connection in connections:
            connection.close()

    assert lent == 4
    assert sample(client, "db_pool_connections", state="in_use") == 0
    assert sample(client, "db_pool_connections", state="idle") >= 4


def test_a_scrape_does_not_count_each_time(
    make_app: Callable[..., Flask], make_user: MakeUser
) -> None:
    client = JsonClient(make_app())
    before = sample(client, "users_total", status="active")

    make_user("robin")

    assert sample(client, "users_total", status="active") == before


def test_a_scrape_succeeds_without_a_database(make_app: Callable[..., Flask]) -> None:
    client = JsonClient(make_app(DATABASE_URL="sqlite:////nonexistent/none.sqlite3"))

    answer = client.get("/metrics")

    assert answer.status_code == 200
    assert sample(client, "dependency_up", dependency="database") == 0


def test_a_token_can_be_required(make_app: Callable[..., Flask]) -> None:
    client = JsonClient(make_app(METRICS_TOKEN="scrape-with-this"))

    anonymous = client.get("/metrics")
    assert anonymous.status_code == 401
    assert anonymous.headers["WWW-Authenticate"] == "Bearer"
    assert client.as_user("something-else").get("/metrics").status_code == 401
    assert client.as_user("scrape-with-this").get("/metrics").status_code == 200
