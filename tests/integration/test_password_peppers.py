"""A wrong PASSWORD_PEPPER is detected and does not count as a failed log-in."""

import re
from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy import text

from tests.support.client import JsonClient
from tests.support.facts import audit_rows
from tests.support.mailbox import Mailbox
from tests.support.users import PASSWORD, MadeUser, MakeUser
from userapi.infrastructure.database import reading
from userapi.passwords.peppers import NEEDED, pepper_id
from userapi.wiring.services import Services

pytestmark = [pytest.mark.both_databases, pytest.mark.thorough]

MakeApp = Callable[..., Flask]

OTHER_PEPPER = "another-pepper-after-the-change-6Wq8Zn2Xc5"
READY = "/api/v1/health/ready"
LOGIN = "/api/v1/auth/login"


def try_log_in(app: Flask, name: str, password: str = PASSWORD) -> tuple[int, str | None]:
    answer = JsonClient(app).post(LOGIN, json={"username": name, "password": password})
    return answer.status_code, answer.get_json().get("code")


def readiness(app: Flask) -> tuple[int, str]:
    answer = JsonClient(app).get(READY)
    return answer.status_code, answer.get_json()["checks"]["password_pepper"]


def metric(app: Flask, name: str) -> float:
    scrape = app.test_client().get("/metrics").get_data(as_text=True)
    (value,) = re.findall(rf"^{re.escape(name)} (\S+)$", scrape, re.MULTILINE)
    return float(value)


def hashes(pepper: str) -> str:
    return f'password_hashes{{pepper="{pepper_id(pepper)}"}}'


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


@pytest.fixture
def changed(make_app: MakeApp, robin: MadeUser) -> Flask:
    """Return a service with another pepper than the hash of robin needs."""
    return make_app(PASSWORD_PEPPER=OTHER_PEPPER)


def test_a_database_without_a_hash_needs_no_pepper(app: Flask) -> None:
    assert readiness(app) == (200, "up")


def test_the_service_is_not_ready_with_a_wrong_pepper(app: Flask, changed: Flask) -> None:
    """All log-ins were rejected and locked, and the service was ready."""
    assert readiness(app) == (200, "up")
    assert readiness(changed) == (503, "unknown")


def test_a_configured_former_pepper_verifies(
    app: Flask, make_app: MakeApp, robin: MadeUser
) -> None:
    former = app.extensions["userapi"].settings.password_pepper
    both = make_app(PASSWORD_PEPPER=OTHER_PEPPER, PASSWORD_PEPPER_PREVIOUS=former)

    assert readiness(both) == (200, "up")
    assert try_log_in(both, "robin")[0] == 200


def test_no_log_in_counts_as_a_failure(app: Flask, changed: Flask) -> None:
    answers = [try_log_in(changed, "robin") for _ in range(8)]
    answers += [try_log_in(changed, "robin", "a-wrong-password-93") for _ in range(8)]

    assert set(answers) == {(503, "service_unavailable")}
    assert audit_rows(app, action="auth.login") == []
    assert try_log_in(app, "robin") == (200, None)


def test_an_unknown_name_gets_the_same_answer_as_a_known_one(changed: Flask) -> None:
    """Otherwise the responses would reveal which accounts exist while the pepper is missing."""
    known, unknown = (
        JsonClient(changed).post(LOGIN, json={"username": name, "password": PASSWORD})
        for name in ("robin", "nobody")
    )

    def shown(answer: object) -> dict[str, object]:
        body: dict[str, object] = answer.get_json()  # type: ignore[attr-defined]
        return {name: value for name, value in body.items() if name != "correlation_id"}

    assert shown(known) == shown(unknown)
    assert known.headers["Retry-After"] == unknown.headers["Retry-After"]


def test_hashes_with_the_current_pepper_are_verified_as_before(
    changed: Flask, make_user: MakeUser
) -> None:
    body = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}
    assert JsonClient(changed).post("/api/v1/auth/register", json=body).status_code == 201

    assert try_log_in(changed, "ada")[0] == 200
    assert try_log_in(changed, "ada", "a-wrong-password-93") == (401, "invalid_credentials")


def test_a_correct_pepper_changes_no_response(app: Flask, robin: MadeUser) -> None:
    assert try_log_in(app, "robin", "a-wrong-password-93") == (401, "invalid_credentials")
    assert try_log_in(app, "nobody") == (401, "invalid_credentials")


def test_a_password_can_be_reset_without_the_former_pepper(
    app: Flask, changed: Flask, robin: MadeUser
) -> None:
    JsonClient(changed).post("/api/v1/auth/reset-password", json={"email": robin.email})
    body = {"token": Mailbox(app).token(), "new_password": "granite-otter-57-teapot"}

    answer = JsonClient(changed).post("/api/v1/auth/reset-password/confirm", json=body)

    assert answer.status_code == 204
    assert try_log_in(changed, "robin", "granite-otter-57-teapot")[0] == 200
    assert readiness(changed) == (200, "up")


def test_doctor_names_the_variable(app: Flask, changed: Flask) -> None:
    good = app.test_cli_runner().invoke(args=["doctor"])
    bad = changed.test_cli_runner().invoke(args=["doctor"])

    assert "the peppers of all hashes are configured" in good.output
    assert bad.exit_code == 1
    assert "hashes need a pepper that is not configured" in bad.output
    assert "Set PASSWORD_PEPPER to its former value" in " ".join(bad.output.split())


def test_the_metric_shows_when_a_former_pepper_is_unused(
    app: Flask, make_app: MakeApp, make_user: MakeUser, robin: MadeUser
) -> None:
    make_user("ada")
    former = app.extensions["userapi"].settings.password_pepper
    settings = {"PASSWORD_PEPPER": OTHER_PEPPER, "PASSWORD_PEPPER_PREVIOUS": former}
    first, second = make_app(**settings), make_app(**settings)
    before = metric(first, hashes(former)), metric(first, hashes(OTHER_PEPPER))

    try_log_in(first, "robin")
    try_log_in(first, "ada")
    doctor = second.test_cli_runner().invoke(args=["doctor"])

    assert before == (2.0, 0.0)
    assert (metric(second, hashes(former)), metric(second, hashes(OTHER_PEPPER))) == (0.0, 2.0)
    assert metric(second, "password_peppers_missing") == 0.0
    assert "you can remove it from PASSWORD_PEPPER_PREVIOUS" in " ".join(doctor.output.split())


def test_the_metric_counts_missing_peppers(changed: Flask) -> None:
    assert metric(changed, "password_peppers_missing") == 1.0


def test_the_needed_peppers_are_read_from_the_index(
    app: Flask, services: Services, robin: MadeUser
) -> None:
    """The readiness check of every replica runs it, so it must not read the table."""
    if services.settings.uses_sqlite:
        pytest.skip("PostgreSQL explains its plans")
    with app.app_context(), reading() as connection:
        connection.execute(text("SET enable_seqscan = off"))
        plan = "\n".join(connection.execute(text(f"EXPLAIN {NEEDED}")).scalars())
        connection.execute(text("RESET enable_seqscan"))
        needed = connection.execute(text(NEEDED)).scalars().all()

    assert "Seq Scan" not in plan
    assert "ix_users_password_hash_peppers" in plan
    assert needed == [services.peppers.current_id]
