"""The clean-up deletes only expired rows, in batches that skip locked rows."""

import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import Table, insert, text

from tests.support.client import JsonClient
from tests.support.users import MadeUser, MakeUser
from userapi.accounts.models import User
from userapi.cleanup import CleanUp
from userapi.clock import ManualClock
from userapi.events.models import OutboxEvent
from userapi.factors.models import TotpFactor, UsedChallenge
from userapi.infrastructure.database import new_id, reading, transaction
from userapi.infrastructure.heartbeat import WorkerHeartbeat
from userapi.infrastructure.idempotency_keys import IdempotencyKey
from userapi.lockout.models import LoginAttempt
from userapi.mail.models import OutgoingMail
from userapi.passwords.models import OneTimeToken
from userapi.sessions.models import PendingSignIn, UserSession
from userapi.wiring.services import Services
from userapi.worker import tasks_of


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


def add(app: Flask, model: Any, **values: Any) -> None:
    table: Table = model.__table__
    with app.app_context(), transaction() as session:
        session.execute(insert(table).values(**values))


def count(app: Flask, model: Any) -> int:
    with app.app_context(), reading() as connection:
        query = text(f"SELECT COUNT(*) FROM {model.__tablename__}")
        return int(connection.execute(query).scalar_one())


def clean_up(app: Flask, clock: ManualClock, limit: int = 500) -> int:
    with app.app_context():
        return CleanUp(clock).delete_due(limit)


def row(model: Any, clock: ManualClock, robin: MadeUser, **values: Any) -> Mapping[str, Any]:
    """Return a row with all required columns."""
    now, user_id = clock.now(), UUID(robin.id)
    usual: dict[Any, dict[str, Any]] = {
        IdempotencyKey: {
            "scope_hash": new_id().hex,
            "request_hash": "h",
            "status": 201,
            "headers": {},
            "body": b"",
            "created_at": now,
            "expires_at": now,
        },
        LoginAttempt: {"identifier_hash": new_id().hex, "last_attempt_at": now},
        OneTimeToken: {
            "id": new_id(),
            "user_id": user_id,
            "purpose": "password_reset",
            "token_hash": new_id().hex,
            "email": "r@example.com",
            "created_at": now,
            "expires_at": now,
        },
        OutboxEvent: {
            "id": new_id(),
            "type": "user.updated",
            "subject": robin.id,
            "data": {},
            "occurred_at": now,
            "attempts": 0,
        },
        OutgoingMail: {
            "id": new_id(),
            "kind": "password_changed",
            "recipient": "r@example.com",
            "data": {},
            "created_at": now,
            "next_attempt_at": now,
            "attempts": 1,
        },
        PendingSignIn: {
            "id": new_id(),
            "user_id": user_id,
            "token_hash": new_id().hex,
            "lockout_key": new_id().hex,
            "amr": "pwd",
            "remember_me": False,
            "created_at": now,
            "expires_at": now,
        },
        TotpFactor: {
            "id": new_id(),
            "user_id": user_id,
            "name": "Authenticator app",
            "sealed_secret": b"",
            "key_id": "",
            "created_at": now,
            "expires_at": now,
        },
        UsedChallenge: {"challenge_hash": new_id().hex, "expires_at": now},
        UserSession: {
            "id": new_id(),
            "user_id": user_id,
            "rotated_at": now,
            "created_at": now,
            "last_used_at": now,
            "expires_at": now + timedelta(days=3650),
        },
        WorkerHeartbeat: {"name": new_id().hex, "last_seen_at": now},
    }
    return {**usual[model], **values}


# Model, the column that counts, and how long a row is kept after it.
KEPT = [
    (IdempotencyKey, "expires_at", timedelta()),
    (LoginAttempt, "last_attempt_at", timedelta(hours=24)),
    (OneTimeToken, "expires_at", timedelta(days=7)),
    (OutboxEvent, "sent_at", timedelta(days=7)),
    (OutgoingMail, "sent_at", timedelta(days=30)),
    (OutgoingMail, "parked_at", timedelta(days=30)),
    (PendingSignIn, "expires_at", timedelta()),
    (UsedChallenge, "expires_at", timedelta()),
    (UserSession, "expires_at", timedelta(days=30)),
    (UserSession, "revoked_at", timedelta(days=30)),
    (WorkerHeartbeat, "last_seen_at", timedelta(days=1)),
]


@pytest.mark.both_databases
@pytest.mark.parametrize(
    ("model", "column", "kept"), KEPT, ids=[f"{m.__tablename__}.{c}" for m, c, _ in KEPT]
)
def test_a_row_is_deleted_when_it_expires_and_not_before(
    app: Flask, clock: ManualClock, robin: MadeUser, model: Any, column: str, kept: timedelta
) -> None:
    before = count(app, model)
    second = timedelta(seconds=1)
    moment = clock.now() - kept
    add(app, model, **row(model, clock, robin, **{column: moment - second}))
    add(app, model, **row(model, clock, robin, **{column: moment + 30 * second}))

    removed = clean_up(app, clock)

    assert removed == 1
    assert count(app, model) == before + 1


@pytest.mark.both_databases
@pytest.mark.parametrize(
    ("age", "confirmed", "deleted"), [(1, False, 1), (-30, False, 0), (1, True, 0)]
)
def test_an_app_is_deleted_if_it_expires_before_it_is_confirmed(
    app: Flask, clock: ManualClock, robin: MadeUser, age: int, confirmed: bool, deleted: int
) -> None:
    expires_at = clock.now() - timedelta(seconds=age)
    confirmed_at = clock.now() if confirmed else None
    values = {"expires_at": expires_at, "confirmed_at": confirmed_at}
    add(app, TotpFactor, **row(TotpFactor, clock, robin, **values))

    assert clean_up(app, clock) == deleted


@pytest.mark.both_databases
def test_waiting_and_parked_rows_are_kept_at_any_age(
    app: Flask, clock: ManualClock, robin: MadeUser
) -> None:
    long_ago = clock.now() - timedelta(days=400)
    for values in ({}, {"parked_at": long_ago}):
        add(app, OutboxEvent, **row(OutboxEvent, clock, robin, occurred_at=long_ago, **values))
    # Parked mails are deleted after a time, see above.
    add(app, OutgoingMail, **row(OutgoingMail, clock, robin, created_at=long_ago))

    assert clean_up(app, clock) == 0


def clean_up_as_worker(app: Flask) -> None:
    """Run the clean-up task of the worker."""
    services: Services = app.extensions["userapi"]
    with app.app_context():
        (task,) = (task for task in tasks_of(services) if task.name == "clean-up")
        task.run()


@pytest.mark.both_databases
def test_without_a_broker_events_expire_and_are_counted(
    make_app: Callable[..., Flask], clock: ManualClock, robin: MadeUser
) -> None:
    """Without RabbitMQ the outbox grew without limit, also in the default configuration."""
    app = make_app(OUTBOX_RETENTION_DAYS="7")
    before = count(app, OutboxEvent)
    for age in (timedelta(days=7, seconds=1), timedelta(days=6, hours=23)):
        moment = clock.now() - age
        add(app, OutboxEvent, **row(OutboxEvent, clock, robin, occurred_at=moment))
    assert count(app, OutboxEvent) == before + 2

    clean_up_as_worker(app)

    assert count(app, OutboxEvent) == before + 1
    metrics = JsonClient(app).get("/metrics").text
    assert "events_expired_total 1.0" in metrics
    assert "events_published_total 0.0" in metrics


@pytest.mark.both_databases
def test_no_unsent_event_expires_while_a_broker_is_configured(
    make_app: Callable[..., Flask], clock: ManualClock, robin: MadeUser
) -> None:
    app = make_app(RABBITMQ_URL="amqp://127.0.0.1:1/", OUTBOX_RETENTION_DAYS="1")
    before = count(app, OutboxEvent)
    clock.advance(days=400)

    clean_up_as_worker(app)

    assert count(app, OutboxEvent) == before > 0


@pytest.mark.both_databases
def test_an_active_lock_is_not_deleted(app: Flask, clock: ManualClock, robin: MadeUser) -> None:
    now = clock.now()
    values = {"last_attempt_at": now - timedelta(days=3), "locked_until": now + timedelta(days=4)}
    add(app, LoginAttempt, **row(LoginAttempt, clock, robin, **values))

    assert clean_up(app, clock) == 0


@pytest.mark.both_databases
def test_a_batch_does_not_exceed_its_limit(app: Flask, clock: ManualClock, robin: MadeUser) -> None:
    old = clock.now() - timedelta(days=2)
    for _ in range(5):
        add(app, WorkerHeartbeat, **row(WorkerHeartbeat, clock, robin, last_seen_at=old))

    assert [clean_up(app, clock, limit=2) for _ in range(4)] == [2, 2, 1, 0]


def test_a_locked_row_is_left_for_the_next_pass(
    app: Flask, clock: ManualClock, robin: MadeUser
) -> None:
    old = clock.now() - timedelta(days=2)
    for name in ("held", "free"):
        add(app, WorkerHeartbeat, name=name, last_seen_at=old)
    holds, release = threading.Event(), threading.Event()

    def hold() -> None:
        with app.app_context(), transaction() as session:
            session.execute(text("SELECT * FROM worker_heartbeats WHERE name = 'held' FOR UPDATE"))
            holds.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait(10)
    meanwhile = clean_up(app, clock)
    release.set()
    thread.join()

    assert meanwhile == 1
    assert clean_up(app, clock) == 1


@pytest.mark.both_databases
def test_the_clean_up_changes_no_user(app: Flask, clock: ManualClock, robin: MadeUser) -> None:
    clock.advance(days=4000)

    clean_up(app, clock)

    assert count(app, User) == 1
