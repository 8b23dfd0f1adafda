"""flask mails: listing, retrying and discarding mails that are not sent."""

import json
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from click.testing import Result
from flask import Flask

from tests.support.client import JsonClient
from tests.support.facts import mails
from tests.support.smtp import HOST, SmtpServer
from tests.support.users import MakeUser
from userapi.clock import ManualClock
from userapi.wiring.services import Services


@pytest.fixture
def server() -> Iterator[SmtpServer]:
    server = SmtpServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def sending_app(make_app: Callable[..., Flask], server: SmtpServer) -> Flask:
    """Return the application as it is with a mail server."""
    return make_app(SMTP_HOST=HOST, SMTP_PORT=str(server.port), SMTP_STARTTLS="false")


def flask(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(args=list(arguments))


def listed(app: Flask, *arguments: str) -> list[dict[str, object]]:
    result = flask(app, "mails", "list", "--json", *arguments)
    assert result.exit_code == 0, result.output
    items: list[dict[str, object]] = json.loads(result.output)["items"]
    return items


def deliver(app: Flask) -> int:
    services: Services = app.extensions["userapi"]
    with app.app_context():
        return services.mail_delivery.deliver_due()


@pytest.fixture
def undelivered(
    sending_app: Flask, server: SmtpServer, make_user: MakeUser, clock: ManualClock
) -> Flask:
    """Return the application with two mails that are parked and one that waits."""
    for name, answer in (("ada", "550 unknown"), ("robin", "554 blocked"), ("zoe", "450 later")):
        email = make_user(name).email
        server.refusals[email] = answer
        JsonClient(sending_app).post("/api/v1/auth/reset-password", json={"email": email})
        clock.advance(seconds=1)
    assert deliver(sending_app) == 0
    server.refusals.clear()
    return sending_app


@pytest.mark.thorough
@pytest.mark.both_databases
def test_mails_are_listed_by_state_with_what_the_server_said(undelivered: Flask) -> None:
    everything = listed(undelivered)
    table = flask(undelivered, "mails", "list", "--state", "parked").output

    assert [(m["recipient"], m["state"], m["attempts"], m["last_error"]) for m in everything] == [
        ("ada@example.com", "parked", 1, "SMTPRecipientsRefused: 550 unknown"),
        ("robin@example.com", "parked", 1, "SMTPRecipientsRefused: 554 blocked"),
        ("zoe@example.com", "waiting", 1, "SMTPRecipientsRefused: 450 later"),
    ]
    assert str(everything[0]["created_at"]).endswith("Z")
    assert listed(undelivered, "--state", "waiting") == everything[2:]
    assert listed(undelivered, "--state", "parked") == everything[:2]
    assert "550 unknown" in table and str(everything[1]["id"]) in table
    assert "zoe@example.com" not in table


@pytest.mark.thorough
@pytest.mark.both_databases
def test_parked_mails_are_sent_again(undelivered: Flask, server: SmtpServer) -> None:
    result = flask(undelivered, "mails", "retry", "--parked")

    assert (result.exit_code, result.output) == (0, "2 mails will be sent now.\n")
    assert deliver(undelivered) == 2
    assert [d.recipients for d in server.delivered] == [["ada@example.com"], ["robin@example.com"]]


@pytest.mark.thorough
@pytest.mark.both_databases
def test_one_mail_is_sent_again_and_another_discarded(
    undelivered: Flask, server: SmtpServer
) -> None:
    ada, robin, zoe = (str(mail["id"]) for mail in listed(undelivered))

    assert flask(undelivered, "mails", "discard", ada).exit_code == 0
    assert flask(undelivered, "mails", "retry", robin).exit_code == 0

    assert deliver(undelivered) == 1
    assert [delivered.recipients for delivered in server.delivered] == [["robin@example.com"]]
    assert [mail["id"] for mail in listed(undelivered)] == [zoe]


@pytest.mark.thorough
@pytest.mark.both_databases
def test_what_waits_is_sent_without_its_pause(undelivered: Flask, server: SmtpServer) -> None:
    assert flask(undelivered, "mails", "retry").output == "1 mails will be sent now.\n"

    assert deliver(undelivered) == 1
    assert [delivered.recipients for delivered in server.delivered] == [["zoe@example.com"]]


@pytest.mark.thorough
@pytest.mark.both_databases
def test_a_mail_that_is_gone_or_sent_cannot_be_retried_or_discarded(undelivered: Flask) -> None:
    flask(undelivered, "mails", "retry", "--parked")
    deliver(undelivered)
    sent = str(next(mail.id for mail in mails(undelivered) if mail.sent_at is not None))

    for command in ("retry", "discard"):
        for mail_id in (sent, str(uuid4())):
            result = flask(undelivered, "mails", command, mail_id)
            assert result.exit_code == 1
            assert "No waiting or parked mail has this id." in result.output
    assert flask(undelivered, "mails", "retry", sent, "--parked").exit_code == 2
