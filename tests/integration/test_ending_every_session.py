"""flask sessions revoke --all: ends every session of every user."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import insert

from tests.support.client import JsonClient
from tests.support.facts import audit_rows, events
from tests.support.pages import PageReader
from tests.support.users import LogIn, MakeUser, SignedInClient
from userapi.actor import system_actor
from userapi.clock import ManualClock
from userapi.infrastructure.database import new_id, transaction
from userapi.sessions.models import UserSession
from userapi.wiring.services import Services

ME = "/api/v1/auth/me"
NEW_SECRET_KEY = "a-new-secret-after-the-change-7Gs2Lp9Qx4"


def revoke_all(app: Flask, *more: str, stdin: str = "") -> Result:
    arguments = ["sessions", "revoke", "--all", *more]
    return app.test_cli_runner().invoke(args=arguments, input=stdin)


def code(client: JsonClient, path: str = ME) -> tuple[int, str | None]:
    answer = client.get(path)
    return answer.status_code, (answer.get_json() or {}).get("code")


def refresh(app: Flask, session: SignedInClient) -> tuple[int, str | None]:
    body = {"refresh_token": session.refresh_token}
    answer = JsonClient(app).post("/api/v1/auth/refresh", json=body)
    return answer.status_code, (answer.get_json() or {}).get("code")


def add_sessions(services: Services, user_id: str, count: int) -> None:
    """Add sessions past the log-in, which would take long."""
    now = services.clock.now()
    row = {"kind": "api", "generation": 1, "version": 1, "remember_me": False}
    moments = {"rotated_at": now, "created_at": now, "last_used_at": now}
    ends = now + services.sessions.idle_timeout
    table: Any = UserSession.__table__
    with transaction() as session:
        session.execute(
            insert(table),
            [
                row | moments | {"id": new_id(), "user_id": UUID(user_id), "expires_at": ends}
                for _ in range(count)
            ],
        )


@pytest.mark.both_databases
def test_every_session_ends_also_those_of_browsers(
    app: Flask, make_user: MakeUser, log_in: LogIn
) -> None:
    robin, ada = make_user("robin"), make_user("ada", roles=["superadmin"])
    sessions = [log_in(robin), log_in(robin, remember_me=True), log_in(ada)]
    page = PageReader(app)
    page.sign_in(robin)
    assert page.get("/sessions").status_code == 200
    assert [code(session)[0] for session in sessions] == [200] * 3

    result = revoke_all(app, "--yes")

    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "4 sessions have ended.")
    assert [code(session) for session in sessions] == [(401, "token_revoked")] * 3
    assert [refresh(app, session)[0] for session in sessions] == [401] * 3
    assert page.get("/sessions").status_code == 303
    assert code(log_in(robin)) == (200, None)


@pytest.mark.both_databases
def test_each_end_is_audited_and_published(app: Flask, make_user: MakeUser, log_in: LogIn) -> None:
    robin, ada = make_user("robin"), make_user("ada")
    ids = {log_in(robin).session_id, log_in(robin).session_id, log_in(ada).session_id}

    revoke_all(app, "--yes")

    rows = audit_rows(app, action="session.revoked")
    assert {row.target_id for row in rows} == ids
    assert {(row.actor_type, row.details["reason"]) for row in rows} == {("system", "revoked")}
    assert {row.details["user_id"] for row in rows} == {robin.id, ada.id}
    published = events(app, type_="session.revoked")
    assert {event.data["session_id"] for event in published} == ids
    assert {event.data["username"] for event in published} == {"robin", "ada"}
    assert {event.data["reason"] for event in published} == {"revoked"}


@pytest.mark.both_databases
def test_a_session_that_has_ended_does_not_end_again(
    app: Flask, make_user: MakeUser, log_in: LogIn, clock: ManualClock
) -> None:
    robin = make_user("robin")
    log_in(robin)
    clock.advance(days=8)
    log_in(robin).post("/api/v1/auth/logout")

    results = [revoke_all(app, "--yes") for _ in range(2)]

    assert [result.stdout.splitlines()[-1] for result in results] == ["0 sessions have ended."] * 2
    assert len(audit_rows(app, action="session.revoked")) == 1


def test_copies_in_redis_are_worth_nothing(
    make_app: Callable[..., Flask], make_user: MakeUser
) -> None:
    """The command runs in another process than the service, which has a fresh copy."""
    service, command = (make_app(SESSION_CACHE_SECONDS="300") for _ in range(2))
    robin = make_user("robin")
    body = {"username": robin.username, "password": robin.password}
    answer = JsonClient(service).post("/api/v1/auth/login", json=body).get_json()
    client = SignedInClient(service, answer)
    assert [code(client)[0] for _ in range(2)] == [200, 200]

    revoke_all(command, "--yes")

    assert code(client) == (401, "token_revoked")


@pytest.mark.both_databases
def test_it_asks_first(app: Flask, make_user: MakeUser, log_in: LogIn) -> None:
    session = log_in(make_user("robin"))

    declined = revoke_all(app, stdin="n\n")
    unanswered = revoke_all(app)

    assert (declined.exit_code, unanswered.exit_code) == (1, 1)
    assert "End all 1 sessions?" in declined.output
    assert code(session)[0] == 200
    assert revoke_all(app, stdin="y\n").exit_code == 0
    assert code(session)[0] == 401


def test_all_excludes_other_arguments(app: Flask, make_user: MakeUser, log_in: LogIn) -> None:
    session = log_in(make_user("robin"))

    refused = [revoke_all(app, "robin"), revoke_all(app, "--session", session.session_id)]

    assert [result.exit_code for result in refused] == [2, 2]
    assert code(session)[0] == 200


@pytest.mark.both_databases
def test_an_interrupted_run_can_be_repeated(
    app: Flask, services: Services, make_user: MakeUser
) -> None:
    with app.app_context():
        for name in ("ada", "bea", "cleo"):
            add_sessions(services, make_user(name).id, 700)
    batches: list[int] = []

    def interrupt(count: int) -> None:
        batches.append(count)
        raise KeyboardInterrupt

    with app.app_context():
        with pytest.raises(KeyboardInterrupt):
            services.log_out_everyone.end_all(actor=system_actor("tests"), progress=interrupt)
        left = services.sessions.count_live()
        ended = services.log_out_everyone.end_all(actor=system_actor("tests"))

    assert batches == [700]
    assert (left, ended) == (1400, 1400)
    assert len(audit_rows(app, action="session.revoked")) == 2100
    assert len(events(app, type_="session.revoked")) == 2100


@pytest.mark.thorough
def test_users_can_log_in_meanwhile(
    app: Flask, services: Services, make_user: MakeUser, log_in: LogIn
) -> None:
    people = [make_user(f"person{number}") for number in range(8)]
    former = [log_in(person) for person in people]
    with app.app_context():
        for person in people:
            add_sessions(services, person.id, 300)
    ended = threading.Event()
    statuses: list[int] = []

    def keep_logging_in(number: int) -> None:
        person = people[number]
        body = {"username": person.username, "password": person.password}
        for _ in range(200):
            if ended.is_set():
                return
            answer = JsonClient(app).post("/api/v1/auth/login", json=body)
            statuses.append(answer.status_code)

    with ThreadPoolExecutor(4) as pool:
        busy = [pool.submit(keep_logging_in, number) for number in range(4)]
        result = revoke_all(app, "--yes")
        ended.set()
        for future in busy:
            future.result()

    assert result.exit_code == 0, result.output
    assert set(statuses) <= {200}
    assert [code(session)[0] for session in former] == [401] * 8


@pytest.mark.both_databases
def test_a_new_secret_ends_what_it_signed_at_once(
    app: Flask, make_app: Callable[..., Flask], make_user: MakeUser, log_in: LogIn
) -> None:
    """Fault: cookies of the console went on working, also for writes. Access tokens live on."""
    robin = make_user("robin")
    session = log_in(robin)
    page = PageReader(app)
    page.sign_in(robin)
    boss = log_in(make_user("boss", roles=["admin"]))
    cursor = boss.get("/api/v1/users/?page_size=1").get_json()["next_cursor"]
    changed = make_app(SECRET_KEY=NEW_SECRET_KEY)

    later = PageReader(changed)
    later.browser.set_cookie("console", page.cookie or "")

    assert page.get("/sessions").status_code == 200
    assert later.get("/sessions").status_code == 303
    assert refresh(changed, session) == (401, "token_invalid")
    listed = JsonClient(changed, token=boss.access_token).get(
        f"/api/v1/users/?page_size=1&cursor={cursor}"
    )
    assert (listed.status_code, listed.get_json()["code"]) == (400, "invalid_cursor")
    assert code(JsonClient(changed, token=session.access_token)) == (200, None)
    assert revoke_all(changed, "--yes").exit_code == 0
    assert code(JsonClient(changed, token=session.access_token)) == (401, "token_revoked")
