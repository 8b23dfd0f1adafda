"""flask events and flask sessions: what operators type, and what they get to see."""

import json
import threading
from collections.abc import Callable
from uuid import UUID

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import text

from tests.support.deployments import Backend
from tests.support.facts import audit_rows, events
from tests.support.users import LogIn, MakeUser
from userapi.cli.events import _from_broker
from userapi.clock import ManualClock
from userapi.events.publisher import Message
from userapi.events.rabbitmq import AmqpPublisher
from userapi.infrastructure.database import transaction


def flask(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(args=list(arguments))


def mark_all(app: Flask, change: str) -> None:
    with app.app_context(), transaction() as session:
        session.execute(text(f"UPDATE outbox_events SET {change}"))


SENT = "sent_at = occurred_at"
PARKED = "parked_at = occurred_at, attempts = 10, last_error = 'refused by the broker'"


@pytest.mark.both_databases
def test_events_are_listed_by_state_and_type(app: Flask, make_user: MakeUser) -> None:
    ada = make_user("ada")

    waiting = flask(app, "events", "list", "--state", "waiting")
    sent = flask(app, "events", "list", "--state", "sent")
    of_type = flask(app, "events", "list", "--type", "user.deleted")

    assert ada.id in waiting.output
    assert ada.id not in sent.output + of_type.output


@pytest.mark.both_databases
def test_parked_events_are_shown_with_their_fault(app: Flask, make_user: MakeUser) -> None:
    make_user("ada")
    mark_all(app, PARKED)

    shown = flask(app, "events", "list", "--state", "parked").output

    assert "refused by the broker" in shown
    assert flask(app, "events", "list", "--state", "waiting").output.count("user.created") == 0


@pytest.mark.parametrize("backend", [Backend.SQLITE], indirect=True)
def test_an_event_that_is_no_json_can_be_seen(app: Flask, make_user: MakeUser) -> None:
    make_user("ada")
    mark_all(app, "data = '{\"broken'")

    assert "user.created" in flask(app, "events", "list").output


@pytest.mark.both_databases
def test_parked_events_go_out_again(app: Flask, make_user: MakeUser) -> None:
    make_user("ada")
    mark_all(app, PARKED)

    answer = flask(app, "events", "replay", "--parked")

    assert answer.exit_code == 0
    (row,) = events(app)
    assert (row.parked_at, row.sent_at, row.attempts, row.last_error) == (None, None, 0, None)


@pytest.mark.both_databases
def test_one_event_goes_out_again_by_its_id(app: Flask, make_user: MakeUser) -> None:
    make_user("ada")
    make_user("bob")
    mark_all(app, SENT)
    first, second = events(app)

    flask(app, "events", "replay", str(first.id))

    assert [row.sent_at is None for row in events(app)] == [True, False]
    assert second.id != first.id


@pytest.mark.both_databases
def test_events_since_a_moment_go_out_again(
    app: Flask, make_user: MakeUser, clock: ManualClock
) -> None:
    make_user("ada")
    clock.advance(days=2)
    make_user("bob")
    mark_all(app, SENT)

    flask(app, "events", "replay", "--since", clock.now().strftime("%Y-%m-%d"))

    assert [row.sent_at is None for row in events(app)] == [False, True]


@pytest.mark.both_databases
def test_an_unknown_id_sends_nothing_again(app: Flask, make_user: MakeUser) -> None:
    make_user("ada")
    mark_all(app, SENT)
    (row,) = events(app)

    answer = flask(app, "events", "replay", str(row.id), "019a2f6e-3c1d-7b52-9d3e-5f0a4c7b8e21")

    assert answer.exit_code == 1
    assert "No event in the outbox" in answer.output
    assert events(app)[0].sent_at is not None


@pytest.mark.both_databases
@pytest.mark.parametrize("arguments", [(), ("--parked", "--since", "2026-01-01")])
def test_replay_asks_what_is_meant(app: Flask, arguments: tuple[str, ...]) -> None:
    assert flask(app, "events", "replay", *arguments).exit_code == 2


@pytest.mark.both_databases
def test_the_last_events_are_shown_the_oldest_first(app: Flask, make_user: MakeUser) -> None:
    users = [make_user(name) for name in ("ada", "bob", "cleo")]

    shown = flask(app, "events", "tail", "--no-follow", "--lines", "2").output

    assert [user.id in shown for user in users] == [False, True, True]
    assert shown.index(users[1].id) < shown.index(users[2].id)


@pytest.mark.both_databases
def test_sessions_of_one_user_or_of_all_are_listed(
    app: Flask, make_user: MakeUser, log_in: LogIn
) -> None:
    ada, bob = (log_in(make_user(name)) for name in ("ada", "bob"))

    of_ada = flask(app, "sessions", "list", "ada").output
    of_all = flask(app, "sessions", "list").output

    assert ada.session_id in of_ada and bob.session_id not in of_ada
    assert ada.session_id in of_all and bob.session_id in of_all


@pytest.mark.both_databases
def test_one_session_is_ended_by_its_id(app: Flask, make_user: MakeUser, log_in: LogIn) -> None:
    ada = make_user("ada")
    first, second = log_in(ada), log_in(ada)

    answer = flask(app, "sessions", "revoke", "--session", first.session_id)

    assert answer.exit_code == 0
    assert first.get("/api/v1/auth/verify").status_code == 401
    assert second.get("/api/v1/auth/verify").status_code == 200
    (row,) = audit_rows(app, action="session.revoked")
    assert (row.actor_type, row.target_id) == ("system", str(UUID(first.session_id)))


@pytest.mark.both_databases
def test_all_sessions_of_a_user_are_ended(app: Flask, make_user: MakeUser, log_in: LogIn) -> None:
    ada, bob = make_user("ada"), make_user("bob")
    clients = [log_in(ada), log_in(ada), log_in(bob)]

    answer = flask(app, "sessions", "revoke", "ada")

    assert "2 sessions of ada have ended" in answer.output
    statuses = [client.get("/api/v1/auth/verify").status_code for client in clients]
    assert statuses == [401, 401, 200]


@pytest.mark.both_databases
@pytest.mark.parametrize(
    "arguments", [("--session", "019a2f6e-3c1d-7b52-9d3e-5f0a4c7b8e21"), ("nobody",)]
)
def test_ending_what_is_not_there_is_an_error(app: Flask, arguments: tuple[str, ...]) -> None:
    answer = flask(app, "sessions", "revoke", *arguments)

    assert answer.exit_code == 1
    assert "does not exist" in answer.output


@pytest.mark.both_databases
def test_revoking_asks_what_is_meant(app: Flask) -> None:
    assert flask(app, "sessions", "revoke").exit_code == 2


@pytest.mark.both_databases
def test_purging_leaves_what_is_live(
    app: Flask, make_user: MakeUser, log_in: LogIn, clock: ManualClock
) -> None:
    ada = make_user("ada")
    log_in(ada).post("/api/v1/auth/logout")
    clock.advance(days=31)
    live = log_in(ada)

    answer = flask(app, "sessions", "purge")

    assert answer.exit_code == 0
    assert live.get("/api/v1/auth/verify").status_code == 200
    assert flask(app, "sessions", "purge").output == "0 rows deleted.\n"


@pytest.mark.parametrize("backend", [Backend.POSTGRESQL], indirect=True)
def test_what_rabbitmq_hands_out_can_be_followed(
    make_app: Callable[..., Flask], rabbitmq_url: str, rabbitmq_exchange: str
) -> None:
    app = make_app(RABBITMQ_URL=rabbitmq_url, RABBITMQ_EXCHANGE=rabbitmq_exchange)
    publisher = AmqpPublisher(rabbitmq_url, exchange=rabbitmq_exchange)
    told = threading.Event()

    def keep_telling() -> None:
        while not told.wait(0.1):
            publisher.publish([Message(id="1", routing_key="user.created", body=b'{"id":"1"}')])

    thread = threading.Thread(target=keep_telling)
    thread.start()
    try:
        with app.app_context():
            line = next(_from_broker())
    finally:
        told.set()
        thread.join()
        publisher.close()

    assert json.loads(line) == {"id": "1"}
