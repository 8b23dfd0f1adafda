"""Lockout of codes: one counter for each account, whichever name was typed or token was used."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask

from tests.support.authenticator import Authenticator
from tests.support.client import JsonClient
from tests.support.facts import audit_rows, events, mails
from tests.support.mailbox import Mailbox
from tests.support.passkeys import SIGN_IN, add_passkey, options
from tests.support.polling import possible_countdown, wait_until
from tests.support.second_factors import (
    App,
    add_app,
    begin_step,
    first_step,
    log_in_with_code,
    mfa_token,
    second_step,
)
from tests.support.users import LogIn, MadeUser, MakeUser
from userapi.cleanup import CleanUp
from userapi.clock import ManualClock
from userapi.infrastructure.database import db, reading, table_of, transaction
from userapi.lockout.models import LoginAttempt
from userapi.wiring.services import Services

WRONG = "wrong-password-1"
LOCKED = (429, "too_many_attempts")
INVALID_CODE = (401, "invalid_code")

_attempts = table_of(LoginAttempt)

pytestmark = [pytest.mark.both_databases, pytest.mark.thorough]


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


@pytest.fixture
def phone(robin: MadeUser, log_in: LogIn, clock: ManualClock) -> App:
    added = add_app(log_in(robin), clock)
    begin_step(clock)
    return added


def problem(answer: Any) -> tuple[int, str | None]:
    return answer.status_code, answer.get_json().get("code")


def fail(app: Flask, user: MadeUser, times: int) -> list[tuple[int, str | None]]:
    """Send so many wrong codes, each with a token of its own."""
    return [problem(second_step(app, mfa_token(app, user), "wrong")) for _ in range(times)]


def hashes(services: Services) -> float:
    return services.metrics.registry.get_sample_value("password_hash_seconds_count") or 0.0


def test_wrong_codes_count_for_the_account_and_not_for_the_token(
    app: Flask, robin: MadeUser, phone: App
) -> None:
    """In other implementations each new challenge allowed new attempts."""
    by_address = MadeUser(id=robin.id, username=robin.email, email="", password=robin.password)
    users = [robin, by_address, robin, by_address, robin]

    began = time.monotonic()
    failures = [problem(second_step(app, mfa_token(app, user), "wrong")) for user in users]
    locked = second_step(app, mfa_token(app, robin), phone.code())

    assert failures == [INVALID_CODE] * 5
    assert problem(locked) == LOCKED
    assert int(locked.headers["Retry-After"]) in possible_countdown(60, began=began)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["app", "recovery"])
def test_thirty_at_once_get_at_most_five_looks(
    make_app: Callable[..., Flask], services: Services, robin: MadeUser, phone: App, kind: str
) -> None:
    app = make_app()
    tokens = [mfa_token(app, robin) for _ in range(10)] * 3
    code = "0000-0000-0000-0000" if kind == "recovery" else "wrong!"
    own: Services = app.extensions["userapi"]
    before = hashes(own)

    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda token: second_step(app, token, code), tokens))

    assert sorted(problem(answer) for answer in answers) == [INVALID_CODE] * 5 + [LOCKED] * 25
    assert hashes(own) - before == (5 if kind == "recovery" else 0)
    failed = [row for row in audit_rows(app, action="auth.login") if row.outcome == "failure"]
    assert len(failed) == 5


def test_a_right_password_between_wrong_codes_clears_nothing(
    app: Flask, robin: MadeUser, phone: App
) -> None:
    fail(app, robin, 4)

    assert first_step(app, robin).status_code == 403
    assert fail(app, robin, 1) == [INVALID_CODE]

    assert problem(second_step(app, mfa_token(app, robin), phone.code())) == LOCKED


def test_the_first_step_alone_does_not_clear_wrong_passwords(
    app: Flask, client: JsonClient, robin: MadeUser, phone: App
) -> None:
    wrong = {"username": "robin", "password": WRONG}
    for _ in range(4):
        client.post("/api/v1/auth/login", json=wrong)

    assert problem(first_step(app, robin)) == (403, "mfa_required")
    assert client.post("/api/v1/auth/login", json=wrong).status_code == 401

    assert problem(first_step(app, robin)) == LOCKED


def test_the_first_step_gives_its_place_back(app: Flask, robin: MadeUser, phone: App) -> None:
    assert [first_step(app, robin).status_code for _ in range(12)] == [403] * 12


def test_a_complete_sign_in_clears_both_counters(
    app: Flask, client: JsonClient, robin: MadeUser, phone: App
) -> None:
    wrong = {"username": "robin", "password": WRONG}
    for _ in range(4):
        client.post("/api/v1/auth/login", json=wrong)
    fail(app, robin, 4)

    log_in_with_code(app, robin, phone.code())

    assert fail(app, robin, 4) == [INVALID_CODE] * 4
    assert [client.post("/api/v1/auth/login", json=wrong).status_code for _ in range(4)] == [
        401
    ] * 4


def test_a_lock_of_the_password_does_not_stop_the_second_step(
    app: Flask, client: JsonClient, robin: MadeUser, phone: App
) -> None:
    token = mfa_token(app, robin)
    for _ in range(6):
        client.post("/api/v1/auth/login", json={"username": "robin", "password": WRONG})
    assert problem(first_step(app, robin)) == LOCKED

    assert second_step(app, token, phone.code()).status_code == 200

    assert problem(first_step(app, robin)) == (403, "mfa_required")


def test_a_lock_of_codes_does_not_stop_the_first_step(
    app: Flask, robin: MadeUser, phone: App
) -> None:
    fail(app, robin, 5)

    assert problem(first_step(app, robin)) == (403, "mfa_required")


def test_a_refused_try_does_not_count_for_the_token(
    app: Flask, robin: MadeUser, phone: App, clock: ManualClock
) -> None:
    fail(app, robin, 5)
    token = mfa_token(app, robin)
    refused = [problem(second_step(app, token, "wrong")) for _ in range(8)]
    clock.advance(seconds=61)

    assert refused == [LOCKED] * 8
    assert [problem(second_step(app, token, "wrong")) for _ in range(4)] == [INVALID_CODE] * 4
    assert second_step(app, token, phone.code()).status_code == 200


def test_five_wrong_codes_end_the_token_and_lock_the_codes(
    app: Flask, robin: MadeUser, phone: App
) -> None:
    token = mfa_token(app, robin)

    failures = [problem(second_step(app, token, "wrong")) for _ in range(5)]

    assert failures == [INVALID_CODE] * 5
    assert problem(second_step(app, token, phone.code())) == (401, "mfa_token_invalid")
    assert problem(second_step(app, mfa_token(app, robin), phone.code())) == LOCKED


@pytest.mark.thorough
def test_each_lock_lasts_longer_and_the_full_threshold_applies_again(
    app: Flask, robin: MadeUser, phone: App, clock: ManualClock
) -> None:
    waits = []
    for _ in range(6):
        assert fail(app, robin, 5) == [INVALID_CODE] * 5
        locked = second_step(app, mfa_token(app, robin), phone.code())
        waits.append(round(int(locked.headers["Retry-After"]), -1))
        clock.advance(seconds=waits[-1] + 2)

    assert waits == [60, 120, 240, 480, 900, 900]


@pytest.mark.thorough
def test_from_the_hundredth_failure_on_a_lock_lasts_a_day(
    make_app: Callable[..., Flask], robin: MadeUser, phone: App, clock: ManualClock
) -> None:
    app = make_app(LOCKOUT_BASE_SECONDS="1", LOCKOUT_MAX_SECONDS="1")
    for _ in range(19):
        assert fail(app, robin, 5) == [INVALID_CODE] * 5
        assert first_lock(app, robin, phone) <= 1
        clock.advance(seconds=2)

    assert fail(app, robin, 5) == [INVALID_CODE] * 5

    assert 86_390 <= first_lock(app, robin, phone) <= 86_400
    clock.advance(hours=24, seconds=1)
    assert fail(app, robin, 5) == [INVALID_CODE] * 5
    assert 86_390 <= first_lock(app, robin, phone) <= 86_400


def first_lock(app: Flask, robin: MadeUser, phone: App) -> int:
    locked = second_step(app, mfa_token(app, robin), phone.code())
    assert problem(locked) == LOCKED
    return int(locked.headers["Retry-After"])


def test_wrong_passwords_are_never_locked_for_a_day(
    app: Flask, client: JsonClient, services: Services, robin: MadeUser
) -> None:
    with app.app_context():
        key = services.lockout.key_of("robin")
        for _ in range(100):
            with transaction():
                lock = services.lockout.fail(key)

    assert lock is not None
    assert (lock.until - services.clock.now()).total_seconds() <= 900


def test_a_lock_of_codes_is_shown_recorded_and_counted(
    app: Flask,
    make_user: MakeUser,
    log_in: LogIn,
    services: Services,
    robin: MadeUser,
    phone: App,
) -> None:
    boss = log_in(make_user("boss", roles=["admin"]))
    locked_before = services.metrics.registry.get_sample_value("auth_lockouts_total") or 0.0

    fail(app, robin, 5)

    assert boss.get(f"/api/v1/users/{robin.id}").get_json()["locked_until"] is not None
    assert boss.get("/api/v1/users/?locked=true").get_json()["total"] == 1
    (row,) = audit_rows(app, action="user.locked")
    assert (row.target_id, row.details["counter"]) == (robin.id, "mfa")
    assert len(events(app, type_="user.locked")) == 1
    counted = services.metrics.registry.get_sample_value("auth_lockouts_total")
    assert counted == locked_before + 1
    today = boss.get("/api/v1/users/stats?days=1").get_json()["days"][0]
    assert (today["lockouts"], today["failed_logins"]) == (1, 5)
    assert phone.client.get("/api/v1/auth/me").status_code == 200


def test_a_refused_code_is_recorded_as_blocked(app: Flask, robin: MadeUser, phone: App) -> None:
    fail(app, robin, 5)

    second_step(app, mfa_token(app, robin), phone.code())

    (row,) = audit_rows(app, action="auth.login_blocked")
    assert (row.outcome, row.target_id) == ("denied", robin.id)
    assert row.details == {"counter": "mfa", "factor": "totp"}


def test_the_owner_gets_one_mail_for_locks_in_a_row(
    app: Flask, robin: MadeUser, phone: App, clock: ManualClock, mailbox: Mailbox
) -> None:
    for _ in range(3):
        fail(app, robin, 5)
        clock.advance(minutes=20)

    assert [mail.kind for mail in mails(app)].count("codes_locked") == 1
    assert "someone knows your password" in str(mailbox.deliver()[-1])


def unlock(app: Flask, robin: MadeUser, boss: JsonClient) -> None:
    answer = boss.post(f"/api/v1/users/{robin.id}/unlock")
    assert (answer.status_code, answer.get_json()["locked_until"]) == (200, None)


def unlock_in_bulk(app: Flask, robin: MadeUser, boss: JsonClient) -> None:
    body = {"action": "unlock", "user_ids": [robin.id]}
    assert boss.post("/api/v1/users/bulk", json=body).get_json()["succeeded"] == 1


def unlock_by_command(app: Flask, robin: MadeUser, boss: JsonClient) -> None:
    assert app.test_cli_runner().invoke(args=["users", "unlock", "robin"]).exit_code == 0


@pytest.mark.thorough
@pytest.mark.parametrize("release", [unlock, unlock_in_bulk, unlock_by_command])
@pytest.mark.parametrize("failures", [4, 5])
def test_an_unlock_clears_both_counters(
    app: Flask,
    client: JsonClient,
    make_user: MakeUser,
    log_in: LogIn,
    robin: MadeUser,
    phone: App,
    release: Callable[..., None],
    failures: int,
) -> None:
    boss = log_in(make_user("boss", roles=["admin"]))
    wrong = {"username": "robin", "password": WRONG}
    for _ in range(failures):
        client.post("/api/v1/auth/login", json=wrong)
    token = None if failures == 5 else mfa_token(app, robin)
    if token is None:
        unlock(app, robin, boss)
    fail(app, robin, failures)

    release(app, robin, boss)

    assert fail(app, robin, 4) == [INVALID_CODE] * 4
    assert second_step(app, mfa_token(app, robin), phone.code()).status_code == 200


def test_a_password_reset_leaves_a_lock_of_codes(
    app: Flask, client: JsonClient, robin: MadeUser, phone: App, mailbox: Mailbox
) -> None:
    fail(app, robin, 5)
    client.post("/api/v1/auth/reset-password", json={"email": robin.email})
    new = "granite-otter-57-teapot"
    body = {"token": mailbox.token(), "new_password": new}
    assert client.post("/api/v1/auth/reset-password/confirm", json=body).status_code == 204

    changed = MadeUser(id=robin.id, username="robin", email=robin.email, password=new)

    assert problem(second_step(app, mfa_token(app, changed), phone.code())) == LOCKED


def test_a_reset_of_the_factors_clears_the_counter_of_codes(
    app: Flask,
    make_user: MakeUser,
    log_in: LogIn,
    robin: MadeUser,
    phone: App,
    clock: ManualClock,
) -> None:
    boss = log_in(make_user("boss", roles=["admin"]))
    fail(app, robin, 5)

    assert boss.delete(f"/api/v1/users/{robin.id}/mfa").status_code == 204

    assert boss.get(f"/api/v1/users/{robin.id}").get_json()["locked_until"] is None
    again = add_app(log_in(robin), clock)
    begin_step(clock)
    assert second_step(app, mfa_token(app, robin), again.code()).status_code == 200


def test_wrong_codes_are_not_forgotten_with_time(
    app: Flask, robin: MadeUser, phone: App, clock: ManualClock
) -> None:
    fail(app, robin, 4)
    clock.advance(days=40)
    with app.app_context():
        CleanUp(clock).delete_due(500)

    assert fail(app, robin, 1) == [INVALID_CODE]

    assert problem(second_step(app, mfa_token(app, robin), phone.code())) == LOCKED


def test_a_deleted_user_leaves_no_counter(
    app: Flask, make_user: MakeUser, log_in: LogIn, robin: MadeUser, phone: App
) -> None:
    boss = log_in(make_user("boss", roles=["admin"]))
    fail(app, robin, 2)

    assert boss.delete(f"/api/v1/users/{robin.id}").status_code == 204

    with app.app_context(), reading() as connection:
        rows = connection.execute(_attempts.select()).all()
    assert rows == []


def test_a_busy_hashing_queue_uses_no_try(
    app: Flask, services: Services, robin: MadeUser, phone: App
) -> None:
    """More callers wait for a hash than the queue has room for."""
    token = mfa_token(app, robin)
    pool = services.hashing_pool
    free = pool.threads + services.settings.password_hash_queue

    release = threading.Event()
    with ThreadPoolExecutor(free) as callers:
        waiting = [callers.submit(pool.run, lambda: release.wait(60)) for _ in range(free)]
        try:
            wait_until(lambda: pool.waiting == services.settings.password_hash_queue)
            refused = [problem(second_step(app, token, phone.recovery_codes[0])) for _ in range(7)]
        finally:
            release.set()
        for call in waiting:
            call.result(60)

    assert refused == [(503, "busy")] * 7
    assert second_step(app, token, phone.recovery_codes[0]).status_code == 200


@pytest.mark.thorough
def test_a_broken_database_uses_no_challenge(app: Flask, robin: MadeUser, log_in: LogIn) -> None:
    """The transaction of a sign-in fails after the signature was verified."""
    laptop = Authenticator()
    add_passkey(log_in(robin), laptop)
    credential = laptop.get(options(JsonClient(app), SIGN_IN))

    with app.app_context(), db.engine.begin() as blocking:
        if blocking.dialect.name == "postgresql":  # SQLite is locked by BEGIN alone.
            blocking.exec_driver_sql("LOCK TABLE audit_logs IN ACCESS EXCLUSIVE MODE")
        broken = JsonClient(app).post(SIGN_IN, json={"credential": credential})

    assert problem(broken) == (503, "service_unavailable")
    assert JsonClient(app).post(SIGN_IN, json={"credential": credential}).status_code == 200


@pytest.mark.thorough
def test_a_broken_database_uses_no_code(app: Flask, robin: MadeUser, phone: App) -> None:
    """The transaction of the second step fails after the code was accepted."""
    token, code = mfa_token(app, robin), phone.code()

    with app.app_context(), db.engine.begin() as blocking:
        if blocking.dialect.name == "postgresql":  # SQLite is locked by BEGIN alone.
            blocking.exec_driver_sql("LOCK TABLE audit_logs IN ACCESS EXCLUSIVE MODE")
        broken = second_step(app, token, code)

    assert problem(broken) == (503, "service_unavailable")
    assert second_step(app, token, code).status_code == 200
