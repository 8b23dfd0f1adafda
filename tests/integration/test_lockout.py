"""Lockout: the number of attempts for an identifier, also concurrent ones and on both databases."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
import pytest
from flask import Flask
from sqlalchemy import insert

from tests.support.client import JsonClient
from tests.support.deployments import Deployment
from tests.support.facts import audit_rows, events, mails
from tests.support.polling import possible_countdown, wait_until
from tests.support.users import PASSWORD, LogIn, MadeUser, MakeUser
from userapi.accounts.models import UserStatus
from userapi.clock import ManualClock
from userapi.infrastructure.database import (
    table_of,
    transaction,
)
from userapi.lockout.models import LoginAttempt
from userapi.lockout.service import ABANDONED_AFTER
from userapi.wiring.services import Services

LOGIN = "/api/v1/auth/login"
WRONG = "wrong-password-1"

pytestmark = [pytest.mark.both_databases, pytest.mark.core]


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


def try_it(client: JsonClient, username: str = "robin", password: str = WRONG) -> Any:
    return client.post(LOGIN, json={"username": username, "password": password})


def statuses(client: JsonClient, times: int, username: str = "robin") -> list[int]:
    return [try_it(client, username).status_code for _ in range(times)]


def checks(services: Services) -> float:
    """Return how many passwords have been hashed so far."""
    return services.metrics.registry.get_sample_value("password_hash_seconds_count") or 0.0


def at_once(times: int, call: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(lambda _: call(), range(times)))


# Number of attempts


@pytest.mark.parametrize("username", ["robin", "robin@example.com", "nobody"])
def test_after_five_failures_the_sixth_is_not_checked(
    client: JsonClient, services: Services, robin: MadeUser, username: str
) -> None:
    began = time.monotonic()
    assert statuses(client, 5, username) == [401] * 5
    before = checks(services)

    locked = try_it(client, username, PASSWORD)

    assert locked.status_code == 429
    assert locked.get_json()["code"] == "too_many_attempts"
    assert int(locked.headers["Retry-After"]) in possible_countdown(60, began=began)
    assert checks(services) == before


@pytest.mark.parametrize("username", ["robin", "nobody"])
def test_thirty_concurrent_attempts_get_at_most_five_checks(
    client: JsonClient, services: Services, robin: MadeUser, username: str
) -> None:
    before = checks(services)

    answers = at_once(30, lambda: try_it(client, username))

    codes = sorted(answer.status_code for answer in answers)
    assert codes == [401] * 5 + [429] * 25
    assert checks(services) - before == 5
    assert len(audit_rows(client.app, action="auth.login")) == 5
    assert len(audit_rows(client.app, action="auth.login_blocked")) == 25
    assert try_it(client, username, PASSWORD).status_code == 429


def test_concurrent_correct_passwords_are_never_counted_as_failures(
    client: JsonClient, robin: MadeUser
) -> None:
    answers = at_once(15, lambda: try_it(client, password=PASSWORD))

    refused = [answer for answer in answers if answer.status_code != 200]
    assert {(a.status_code, a.headers["Retry-After"]) for a in refused} <= {(429, "1")}
    assert len(refused) < 15
    assert try_it(client, password=PASSWORD).status_code == 200
    assert statuses(client, 6) == [401] * 5 + [429]


def test_a_correct_password_releases_its_attempt_also_for_inactive_accounts(
    client: JsonClient, make_user: MakeUser
) -> None:
    make_user("sus", status=UserStatus.SUSPENDED)
    assert statuses(client, 4, "sus") == [401] * 4

    rightful = [try_it(client, "sus", PASSWORD).status_code for _ in range(6)]

    assert rightful == [403] * 6
    assert statuses(client, 2, "sus") == [401, 429]


def test_a_good_log_in_clears_the_count(client: JsonClient, robin: MadeUser) -> None:
    statuses(client, 4)

    assert try_it(client, password=PASSWORD).status_code == 200

    assert statuses(client, 5) == [401] * 5


def test_the_name_and_the_address_are_counted_each_for_itself(
    client: JsonClient, robin: MadeUser
) -> None:
    assert statuses(client, 6) == [401] * 5 + [429]

    assert try_it(client, "robin@example.com", PASSWORD).status_code == 200
    assert try_it(client, "ROBIN", PASSWORD).status_code == 429


def test_a_place_whose_process_died_is_free_again_after_a_while(
    app: Flask, client: JsonClient, services: Services, robin: MadeUser, clock: ManualClock
) -> None:
    table = table_of(LoginAttempt)
    with app.app_context(), transaction() as session:
        session.execute(
            insert(table).values(
                identifier_hash=services.lockout.key_of("robin"),
                failures=0,
                in_flight=5,
                locks=0,
                last_attempt_at=clock.now(),
            )
        )
    refused = try_it(client, password=PASSWORD)

    clock.advance(seconds=ABANDONED_AFTER.total_seconds() + 1)

    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert try_it(client, password=PASSWORD).status_code == 200


# Duration of a lock


@pytest.mark.parametrize("username", ["robin", "nobody"])
def test_each_further_lock_lasts_twice_as_long_up_to_the_longest(
    client: JsonClient, robin: MadeUser, clock: ManualClock, username: str
) -> None:
    lasted = []
    for _ in range(6):
        # The full number of attempts each time.
        assert statuses(client, 5, username) == [401] * 5
        refused = try_it(client, username)
        lasted.append(int(refused.headers["Retry-After"]))
        clock.advance(seconds=lasted[-1])

    expected = [60, 120, 240, 480, 900, 900]
    assert all(full - 3 <= seconds <= full for seconds, full in zip(lasted, expected, strict=True))


def test_a_lock_ends_by_itself(client: JsonClient, robin: MadeUser, clock: ManualClock) -> None:
    statuses(client, 5)
    clock.advance(seconds=57)
    assert try_it(client, password=PASSWORD).status_code == 429

    clock.advance(seconds=4)

    assert try_it(client, password=PASSWORD).status_code == 200


def test_a_good_log_in_after_a_lock_makes_the_next_lock_a_first_one(
    client: JsonClient, robin: MadeUser, clock: ManualClock
) -> None:
    statuses(client, 5)
    clock.advance(seconds=61)
    try_it(client, password=PASSWORD)

    statuses(client, 5)

    assert int(try_it(client).headers["Retry-After"]) <= 60


def test_tries_during_a_lock_do_not_make_it_longer(
    client: JsonClient, robin: MadeUser, clock: ManualClock
) -> None:
    statuses(client, 5)
    clock.advance(seconds=30)
    statuses(client, 10)

    assert int(try_it(client).headers["Retry-After"]) <= 30


# Audit, events and mails


def test_sessions_continue_while_their_user_is_locked(
    client: JsonClient, robin: MadeUser, log_in: LogIn
) -> None:
    session = log_in(robin)

    statuses(client, 6)

    assert session.get("/api/v1/auth/me").status_code == 200
    refreshed = session.post("/api/v1/auth/refresh", json={"refresh_token": session.refresh_token})
    assert refreshed.status_code == 200


def test_administrators_see_the_lock_and_clear_it(
    client: JsonClient, robin: MadeUser, make_user: MakeUser, log_in: LogIn
) -> None:
    boss = log_in(make_user("boss", roles=["admin"]))
    statuses(client, 6), statuses(client, 6, "robin@example.com")
    path = f"/api/v1/users/{robin.id}"
    assert boss.get(path).get_json()["locked_until"] is not None

    unlocked = boss.post(f"{path}/unlock").get_json()

    assert unlocked["locked_until"] is None
    for identifier in ("robin", "robin@example.com"):
        assert try_it(client, identifier, PASSWORD).status_code == 200


def test_of_two_locks_the_later_end_is_shown(
    client: JsonClient, robin: MadeUser, make_user: MakeUser, log_in: LogIn, clock: ManualClock
) -> None:
    boss = log_in(make_user("boss", roles=["admin"]))
    statuses(client, 5)
    clock.advance(seconds=61)
    statuses(client, 5)  # 120 seconds for the name
    statuses(client, 5, "robin@example.com")  # and 60 for the address.

    clock.advance(seconds=90)

    assert boss.get(f"/api/v1/users/{robin.id}").get_json()["locked_until"] is not None


def test_the_lock_of_the_address_is_shown_also_after_a_log_in_by_the_name(
    client: JsonClient, robin: MadeUser, make_user: MakeUser, log_in: LogIn
) -> None:
    boss = log_in(make_user("boss", roles=["admin"]))
    statuses(client, 5, "robin@example.com")
    until = boss.get(f"/api/v1/users/{robin.id}").get_json()["locked_until"]
    assert until is not None

    answer = try_it(client, password=PASSWORD)

    assert answer.get_json()["user"]["locked_until"] == until
    assert boss.get(f"/api/v1/users/{robin.id}").get_json()["locked_until"] == until


def test_the_owner_is_notified_once_for_consecutive_locks(
    app: Flask, client: JsonClient, robin: MadeUser, clock: ManualClock
) -> None:
    def told() -> int:
        return sum(mail.kind == "account_locked" for mail in mails(app))

    for _ in range(3):
        statuses(client, 5)
        clock.advance(seconds=901)
    assert told() == 1
    assert len(audit_rows(app, action="user.locked")) == 3
    assert len(events(app, type_="user.locked")) == 3

    assert try_it(client, password=PASSWORD).status_code == 200
    statuses(client, 5)

    assert told() == 2


def test_no_mail_is_sent_for_an_unknown_identifier(app: Flask, client: JsonClient) -> None:
    statuses(client, 6, "nobody@example.com")

    assert list(mails(app)) == []
    assert audit_rows(app, action="user.locked") == []


def waiting_for_locks(observer: Any) -> int:
    with observer.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        (count,) = cursor.fetchone()
    return int(count)


def wait_until_waiting(observer: Any, count: int) -> None:
    wait_until(lambda: waiting_for_locks(observer) >= count)


def test_an_unlock_and_a_failure_that_locks_do_not_wait_for_each_other(
    deployment: Deployment,
    client: JsonClient,
    robin: MadeUser,
    make_user: MakeUser,
    log_in: LogIn,
) -> None:
    """Each locked the row that the other needed, so one of them got 503."""
    if not deployment.database.url.startswith("postgresql"):
        pytest.skip("SQLite has one lock for all")
    boss = log_in(make_user("boss", roles=["admin"]))
    statuses(client, 4)
    holder = psycopg2.connect(deployment.database.url)
    observer = psycopg2.connect(deployment.database.url)
    observer.autocommit = True
    with holder.cursor() as cursor:
        cursor.execute("SELECT 1 FROM users WHERE username = 'robin' FOR UPDATE")

    with ThreadPoolExecutor(2) as pool:
        unlock = pool.submit(lambda: boss.post(f"/api/v1/users/{robin.id}/unlock"))
        wait_until_waiting(observer, 1)
        failure = pool.submit(lambda: try_it(client))
        wait_until_waiting(observer, 2)
        holder.rollback()
        answers = unlock.result(), failure.result()
    holder.close()
    observer.close()

    assert [answer.status_code for answer in answers] == [200, 401]
