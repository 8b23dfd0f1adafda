"""Waiting and rejected mails: the guide's commands list them and send them again."""

import psycopg2
import pytest

from tests.operations.stage import Stage
from tests.support.gunicorn import add_administrator
from tests.support.ports import free_port
from tests.support.service_clients import PASSWORD, ask

BODY = {"email": "admin@example.com"}


def ask_for_a_mail(stage: Stage) -> None:
    """Start with a mail server that is away, and make one mail wait for it."""
    stage.environment |= {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(free_port())}
    stage.service.start()
    add_administrator(stage.service, PASSWORD)
    assert ask(stage.service.base_url, "POST", "/api/v1/auth/reset-password", BODY)[0] == 202


@pytest.mark.slow
def test_mails_that_wait_are_shown_with_the_reason(stage: Stage) -> None:
    ask_for_a_mail(stage)

    output = stage.run("MailsDelayed", exit_code=1)  # as `flask doctor` ends for a fault

    assert "admin@example.com" in output
    assert "the mail server" in output


@pytest.mark.slow
def test_parked_mails_are_sent_again(stage: Stage) -> None:
    ask_for_a_mail(stage)
    with psycopg2.connect(stage.environment["DATABASE_URL"]) as connection:
        connection.cursor().execute("UPDATE outgoing_mails SET parked_at = created_at")
    connection.close()

    output = stage.run("MailsParked")

    assert "admin@example.com" in output
    waiting = stage.service.command("mails", "list", "--state", "waiting").stdout
    assert "admin@example.com" in waiting
