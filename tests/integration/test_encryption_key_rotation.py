"""A new ENCRYPTION_KEY: apps continue to work, imports continue, and no user is locked out."""

import json
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import Row, select, update

from tests.support.deployments import ENVIRONMENT
from tests.support.second_factors import (
    App,
    add_app,
    begin_step,
    first_step,
    mfa_token,
    second_step,
)
from tests.support.users import LogIn, MadeUser, MakeUser, SignedInClient
from userapi.actor import Actor, ActorType
from userapi.clock import ManualClock
from userapi.factors.models import TotpFactor
from userapi.infrastructure.database import reading, table_of, transaction
from userapi.infrastructure.encryption import key_id
from userapi.wiring.services import Services

FORMER = ENVIRONMENT["ENCRYPTION_KEY"]
NEW = "tests-encrypt-with-this-key-from-now-on-3Kd8"
LONG_PASSWORD = "marble-heron-58-lantern"
UNAVAILABLE = (503, "service_unavailable")

_apps = table_of(TotpFactor)

pytestmark = [pytest.mark.both_databases, pytest.mark.thorough]


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


@pytest.fixture
def phone(robin: MadeUser, log_in: LogIn, clock: ManualClock) -> App:
    added = add_app(log_in(robin), clock)
    begin_step(clock)
    return added


@pytest.fixture
def rotated(make_app: Callable[..., Flask]) -> Flask:
    """Return the service with a new key, and the former one still there."""
    return make_app(ENCRYPTION_KEY=NEW, ENCRYPTION_KEY_PREVIOUS=FORMER)


@pytest.fixture
def lost(make_app: Callable[..., Flask]) -> Flask:
    """Return the service with a new key alone."""
    return make_app(ENCRYPTION_KEY=NEW)


def rows(app: Flask) -> Sequence[Row[Any]]:
    with app.app_context(), reading() as connection:
        return connection.execute(select(_apps).order_by(_apps.c.id)).all()


def flask(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(args=list(arguments))


def problem(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["code"]


def test_a_secret_is_not_in_the_database(app: Flask, phone: App) -> None:
    (row,) = rows(app)

    assert phone.secret.encode() not in row.sealed_secret
    assert row.key_id == key_id(FORMER)


def test_a_former_key_decrypts_and_the_use_encrypts_with_the_new_one(
    rotated: Flask, lost: Flask, robin: MadeUser, phone: App, clock: ManualClock
) -> None:
    assert second_step(rotated, mfa_token(rotated, robin), phone.code()).status_code == 200

    assert [row.key_id for row in rows(rotated)] == [key_id(NEW)]
    begin_step(clock)
    assert second_step(lost, mfa_token(lost, robin), phone.code()).status_code == 200


def test_a_wrong_code_encrypts_nothing_again(rotated: Flask, robin: MadeUser, phone: App) -> None:
    second_step(rotated, mfa_token(rotated, robin), "wrong")

    assert [row.key_id for row in rows(rotated)] == [key_id(FORMER)]


def test_without_the_key_codes_of_apps_are_unavailable_and_use_no_try(
    app: Flask, lost: Flask, robin: MadeUser, phone: App
) -> None:
    answer = first_step(lost, robin)
    token = answer.get_json()["mfa_token"]

    refused = [problem(second_step(lost, token, phone.code())) for _ in range(7)]

    assert answer.get_json()["methods"] == ["recovery_code"]
    assert refused == [UNAVAILABLE] * 7
    assert second_step(lost, token, phone.recovery_codes[0]).status_code == 200
    assert second_step(app, mfa_token(app, robin), phone.code()).status_code == 200


def test_codes_cannot_be_guessed_while_one_of_two_apps_is_unreadable(
    lost: Flask, robin: MadeUser, phone: App, make_app: Callable[..., Flask], clock: ManualClock
) -> None:
    """An answer that counts nowhere would allow as many guesses as an attacker wants."""
    rotated = make_app(ENCRYPTION_KEY=NEW, ENCRYPTION_KEY_PREVIOUS=FORMER)
    tablet = add_app(type(phone.client)(rotated, _answer_of(phone)), clock)
    begin_step(clock)

    wrong = [problem(second_step(lost, mfa_token(lost, robin), "000000")) for _ in range(3)]
    right = second_step(lost, mfa_token(lost, robin), tablet.code())

    assert wrong == [(401, "invalid_code")] * 3
    assert right.status_code == 200


def _answer_of(app: App) -> dict[str, str]:
    return {
        "access_token": app.client.access_token,
        "refresh_token": app.client.refresh_token,
        "session_id": app.client.session_id,
    }


def test_a_secret_that_was_moved_to_another_user_opens_nothing(
    app: Flask, make_user: MakeUser, log_in: LogIn, robin: MadeUser, phone: App, clock: ManualClock
) -> None:
    marian = make_user("marian")
    theirs = add_app(log_in(marian), clock)
    begin_step(clock)
    one, two = rows(app)
    with app.app_context(), transaction() as session:
        for row, other in ((one, two), (two, one)):
            session.execute(
                update(_apps).where(_apps.c.id == row.id).values(sealed_secret=other.sealed_secret)
            )

    answers = [
        second_step(app, mfa_token(app, user), code)
        for user in (robin, marian)
        for code in (phone.code(), theirs.code())
    ]

    assert [problem(answer) for answer in answers] == [UNAVAILABLE] * 4


def test_rotating_seals_all_secrets_with_the_present_key(
    rotated: Flask,
    lost: Flask,
    make_user: MakeUser,
    log_in: LogIn,
    robin: MadeUser,
    phone: App,
    clock: ManualClock,
) -> None:
    add_app(log_in(make_user("marian")), clock)

    first, again = flask(rotated, "encryption", "rotate"), flask(rotated, "encryption", "rotate")

    assert (first.exit_code, again.exit_code) == (0, 0)
    assert "Encrypted 2 secrets" in first.output
    assert "Encrypted 0 secrets" in again.output
    assert {row.key_id for row in rows(rotated)} == {key_id(NEW)}
    begin_step(clock)
    assert second_step(lost, mfa_token(lost, robin), phone.code()).status_code == 200


def test_rotating_says_how_many_secrets_no_key_opens(
    lost: Flask, rotated: Flask, robin: MadeUser, phone: App
) -> None:
    result = flask(lost, "encryption", "rotate")

    assert result.exit_code == 1
    assert "1 secrets cannot be decrypted" in result.output
    assert second_step(rotated, mfa_token(rotated, robin), phone.code()).status_code == 200


def test_the_doctor_fails_on_secrets_that_no_key_opens(
    lost: Flask, rotated: Flask, phone: App
) -> None:
    broken, outdated = flask(lost, "doctor"), flask(rotated, "doctor")

    assert broken.exit_code == 1
    assert "no key decrypts the secrets of 1 authenticator apps" in broken.output
    assert outdated.exit_code == 0, outdated.output
    assert "former keys encrypt the secrets of 1 authenticator apps" in outdated.output
    assert flask(rotated, "encryption", "rotate").exit_code == 0
    assert "former keys" not in flask(lost, "doctor").output


def wait_for_worker(
    app: Flask, make_user: MakeUser, log_in: LogIn, *, query: str = ""
) -> tuple[SignedInClient, str]:
    """Upload a file whose passwords the worker hashes; return the job and who may read it."""
    boss = log_in(make_user("boss", roles=["admin"]))
    rows = [
        {"username": f"user{n:03}", "email": f"user{n:03}@example.com", "password": LONG_PASSWORD}
        for n in range(201)
    ]
    answer = boss.post(
        f"/api/v1/users/import{query}",
        data="\n".join(map(json.dumps, rows)).encode(),
        headers={"Content-Type": "application/x-ndjson", "Prefer": "respond-async"},
    )
    assert answer.status_code == 202, answer.text
    return boss, answer.headers["Location"]


def run_imports(app: Flask) -> None:
    services: Services = app.extensions["userapi"]
    with app.app_context():
        while services.import_runner.advance():
            pass


def test_rotating_encrypts_waiting_imports_so_that_the_former_key_can_go(
    app: Flask, rotated: Flask, lost: Flask, make_user: MakeUser, log_in: LogIn
) -> None:
    """Imports that waited during the rotation failed once the former key was removed."""
    boss, location = wait_for_worker(app, make_user, log_in)

    warned = flask(rotated, "doctor").output
    first, again = flask(rotated, "encryption", "rotate"), flask(rotated, "encryption", "rotate")
    run_imports(lost)

    assert "former keys encrypt 21 batches of waiting imports" in warned
    assert "former keys" not in flask(rotated, "doctor").output
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert "Encrypted 21 batches" in first.output
    assert "batches" not in again.output
    job = boss.get(location).get_json()
    assert (job["state"], job["created"], job["failed"]) == ("done", 201, 0)


def test_rotating_encrypts_the_rows_of_a_finished_dry_run(
    app: Flask, rotated: Flask, lost: Flask, make_user: MakeUser, log_in: LogIn
) -> None:
    """They are kept for the import that may follow."""
    boss, location = wait_for_worker(app, make_user, log_in, query="?dry_run=true")
    run_imports(app)
    import_id = UUID(location.rpartition("/")[2])
    owner = boss.get("/api/v1/auth/me").get_json()["id"]
    services: Services = lost.extensions["userapi"]

    result = flask(rotated, "encryption", "rotate")
    with lost.app_context():
        services.import_jobs.import_checked(
            import_id,
            actor=Actor(type=ActorType.USER, id=UUID(owner), username="boss"),
        )
    run_imports(lost)

    assert result.exit_code == 0
    assert boss.get("/api/v1/users/?search=user200").get_json()["total"] == 1


def test_rotating_says_how_many_batches_no_key_opens(
    app: Flask, lost: Flask, make_user: MakeUser, log_in: LogIn
) -> None:
    boss, location = wait_for_worker(app, make_user, log_in)

    result = flask(lost, "encryption", "rotate")
    run_imports(app)

    assert result.exit_code == 1
    assert "21 batches of waiting imports cannot be decrypted" in result.output
    assert boss.get(location).get_json()["created"] == 201
