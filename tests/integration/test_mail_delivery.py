"""Mail delivery by the worker: what is sent, when, and how often."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Barrier, Thread

import pytest
from flask import Flask
from sqlalchemy import insert, text

from tests.support.client import JsonClient
from tests.support.facts import mails
from tests.support.mailbox import Mailbox, plain_text, tokens_in
from tests.support.polling import wait_until
from tests.support.smtp import HOST, SmtpServer
from tests.support.users import MadeUser, MakeUser
from userapi.clock import ManualClock
from userapi.infrastructure.database import db, new_id, transaction
from userapi.languages import LANGUAGES, reader_of
from userapi.mail.design import MailDesign
from userapi.mail.mailer import MAX_LINE, FileMailer, Send
from userapi.mail.message import Message
from userapi.mail.messages import Messages
from userapi.mail.models import MailKind, OutgoingMail
from userapi.passwords.mail_delivery import PURPOSE_OF, MailDelivery
from userapi.wiring.services import Services

MakeApp = Callable[..., Flask]


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


def ask_for_reset(app: Flask, email: str) -> None:
    answer = JsonClient(app).post("/api/v1/auth/reset-password", json={"email": email})
    assert answer.status_code == 202


def deliver(app: Flask, limit: int = 50) -> int:
    services: Services = app.extensions["userapi"]
    with app.app_context():
        return services.mail_delivery.deliver_due(limit)


def confirm(app: Flask, token: str) -> int:
    body = {"token": token, "new_password": "granite-otter-57-teapot"}
    return JsonClient(app).post("/api/v1/auth/reset-password/confirm", json=body).status_code


def open_tokens(app: Flask) -> int:
    query = "SELECT count(*) FROM one_time_tokens WHERE used_at IS NULL AND voided_at IS NULL"
    with app.app_context(), db.engine.connect() as connection:
        return int(connection.execute(text(query)).scalar_one())


def waits_for_a_lock(app: Flask) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with app.app_context(), db.engine.connect() as connection:
        connection.execute(text("SELECT pg_stat_clear_snapshot()"))
        return bool(connection.execute(text(query)).scalar_one())


def test_a_suspension_and_the_delivery_of_a_reset_do_not_deadlock(
    app: Flask, robin: MadeUser, mailbox: Mailbox
) -> None:
    """Sending took the mail and then the user, suspending the user and then the mail: PostgreSQL
    ended one of the two after a second, which could be the administrator's request.
    """
    ask_for_reset(app, robin.email)

    with ThreadPoolExecutor(1) as pool, app.app_context(), db.engine.begin() as suspending:
        suspending.execute(text("SELECT 1 FROM users WHERE username = 'robin' FOR UPDATE"))
        delivered = pool.submit(deliver, app)
        wait_until(lambda: waits_for_a_lock(app))
        suspending.execute(text("UPDATE users SET status = 'suspended' WHERE username = 'robin'"))
        suspending.execute(text("DELETE FROM outgoing_mails WHERE sent_at IS NULL"))
        suspending.commit()
        sent = delivered.result(10)

    assert sent == 0
    assert open_tokens(app) == 0


@pytest.mark.both_databases
def test_a_mail_of_an_unknown_kind_does_not_delay_others(
    app: Flask, clock: ManualClock, robin: MadeUser, mailbox: Mailbox
) -> None:
    """During an upgrade an old worker finds mails of a new release; it failed at each attempt."""
    with app.app_context(), transaction() as session:
        session.execute(
            insert(OutgoingMail).values(
                id=new_id(),
                kind="of_tomorrow",
                recipient=robin.email,
                data={},
                created_at=clock.now(),
                attempts=0,
                next_attempt_at=clock.now(),
            )
        )
    clock.advance(seconds=1)
    ask_for_reset(app, robin.email)

    assert [mail["Subject"] for mail in mailbox.deliver()] == ["Set a new password"]
    assert [(mail.kind, mail.attempts) for mail in mails(app)][0] == ("of_tomorrow", 0)


# A server that is away, refuses, or comes back


@pytest.fixture
def server() -> Iterator[SmtpServer]:
    server = SmtpServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def sending_app(make_app: MakeApp, server: SmtpServer) -> Flask:
    """Return the application with a mail server."""
    return make_app(SMTP_HOST=HOST, SMTP_PORT=str(server.port), SMTP_STARTTLS="false")


@pytest.mark.both_databases
def test_mails_go_through_the_mail_server(
    sending_app: Flask, server: SmtpServer, robin: MadeUser
) -> None:
    ask_for_reset(sending_app, robin.email)

    assert deliver(sending_app) == 1

    (delivered,) = server.delivered
    assert delivered.recipients == ["robin@example.com"]
    (token,) = tokens_in(plain_text(delivered.mail))
    assert confirm(sending_app, token) == 204
    reset, _changed = mails(sending_app)
    assert reset.sent_at is not None
    assert reset.last_error is None


@pytest.mark.thorough
def test_an_unavailable_server_ends_the_batch_and_gets_the_mails_later(
    sending_app: Flask, server: SmtpServer, make_user: MakeUser, clock: ManualClock
) -> None:
    """Each of fifty mails waited five seconds for a server that does not reply."""
    for name in ("ada", "robin", "zoe"):
        ask_for_reset(sending_app, make_user(name).email)
    server.stop()

    assert deliver(sending_app) == 0
    assert [mail.attempts for mail in mails(sending_app)] == [0, 0, 0]

    server.start()
    clock.advance(seconds=6)
    assert deliver(sending_app) == 3
    assert len(server.delivered) == 3


@contextmanager
def counted_and_closed(port: int) -> Iterator[list[object]]:
    """Listen in place of an unavailable server; yield the accepted and closed connections."""
    accepted: list[object] = []
    listener = socket.create_server((HOST, port))

    def accept() -> None:
        while True:
            try:
                connection, address = listener.accept()
            except OSError:
                return  # The listener was closed.
            accepted.append(address)
            connection.close()

    thread = Thread(target=accept)
    thread.start()
    try:
        yield accepted
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@pytest.mark.thorough
@pytest.mark.both_databases
def test_an_outage_of_a_day_is_not_a_failed_attempt_and_causes_few_connections(
    sending_app: Flask, server: SmtpServer, make_user: MakeUser, clock: ManualClock
) -> None:
    """After about six hours every mail was parked; the oldest was sent last."""
    for name in ("ada", "robin", "zoe"):
        ask_for_reset(sending_app, make_user(name).email)
        clock.advance(seconds=1)
    server.stop()

    with counted_and_closed(server.port) as connections:
        for _ in range(120):  # The worker comes by every second.
            assert deliver(sending_app, 3) == 0
            clock.advance(seconds=1)
        in_two_minutes = len(connections)
        for _ in range(24):
            clock.advance(hours=1)
            assert deliver(sending_app, 3) == 0
    waiting = mails(sending_app)
    server.start()
    clock.advance(seconds=31)

    assert deliver(sending_app) == 3
    assert 1 < in_two_minutes <= 7
    assert len(connections) == in_two_minutes + 24
    assert [(mail.attempts, mail.parked_at) for mail in waiting] == [(0, None)] * 3
    order = [delivered.recipients[0].split("@")[0] for delivered in server.delivered]
    assert order == ["ada", "robin", "zoe"]
    # Each link was made when its mail was sent.
    for delivered in server.delivered:
        assert confirm(sending_app, *tokens_in(plain_text(delivered.mail))) == 204


@pytest.mark.thorough
@pytest.mark.both_databases
def test_a_temporarily_rejected_mail_is_retried_without_end_at_growing_intervals(
    sending_app: Flask, server: SmtpServer, robin: MadeUser, clock: ManualClock
) -> None:
    """The twentieth 4xx, after some six hours, parked it."""
    server.refusals[robin.email] = "450 try later"
    ask_for_reset(sending_app, robin.email)

    waits = []
    for _ in range(25):
        assert deliver(sending_app) == 0
        (mail,) = mails(sending_app)
        waits.append(round((mail.next_attempt_at - clock.now()).total_seconds()))
        clock.set(mail.next_attempt_at)

    assert waits[:11] == [5, 10, 20, 40, 80, 160, 320, 640, 1280, 1800, 1800]
    assert mail.parked_at is None
    assert (mail.attempts, mail.last_error) == (25, "SMTPRecipientsRefused: 450 try later")
    del server.refusals[robin.email]
    clock.advance(minutes=31)
    assert deliver(sending_app) == 1


@pytest.mark.thorough
def test_many_temporary_rejections_in_a_row_start_a_pause(
    sending_app: Flask, server: SmtpServer, make_user: MakeUser, clock: ManualClock
) -> None:
    users = [make_user(f"robin{number}") for number in range(12)]
    for user in users:
        server.refusals[user.email] = "451 no room"
        ask_for_reset(sending_app, user.email)

    deliver(sending_app)
    deliver(sending_app)

    assert sorted(mail.attempts for mail in mails(sending_app)) == [0] * 2 + [1] * 10
    server.refusals.clear()
    clock.advance(minutes=1)
    assert deliver(sending_app) == 12


@pytest.mark.thorough
@pytest.mark.both_databases
def test_a_mail_that_breaks_the_connection_is_postponed(
    sending_app: Flask, server: SmtpServer, make_user: MakeUser, clock: ManualClock
) -> None:
    """If it stayed the first in the queue, no other mail would be sent."""
    for name in ("ada", "robin"):
        ask_for_reset(sending_app, make_user(name).email)
        clock.advance(seconds=1)
    server.breaks_off = {"ada@example.com"}

    assert deliver(sending_app) == 0
    clock.advance(seconds=6)
    for _ in range(3):
        deliver(sending_app)
        clock.advance(seconds=31)

    assert [delivered.recipients for delivered in server.delivered] == [["robin@example.com"]]
    ada = mails(sending_app)[0]
    assert (ada.parked_at, ada.last_error) == (None, "SMTPServerDisconnected")


@pytest.mark.thorough
def test_a_rejected_sender_parks_no_mail(
    sending_app: Flask, server: SmtpServer, robin: MadeUser, clock: ManualClock
) -> None:
    """MAIL_FROM is the same for all mails: one mistake in it would park every one."""
    server.answer_to_mail = "550 sender rejected"
    ask_for_reset(sending_app, robin.email)

    assert deliver(sending_app) == 0

    (mail,) = mails(sending_app)
    assert (mail.parked_at, mail.attempts) == (None, 0)
    assert mail.last_error == "SMTPSenderRefused: 550 sender rejected"
    server.answer_to_mail = None
    clock.advance(seconds=31)
    assert deliver(sending_app) == 1


@pytest.mark.thorough
@pytest.mark.both_databases
def test_the_address_of_a_sent_mail_is_not_kept(
    sending_app: Flask, server: SmtpServer, make_user: MakeUser
) -> None:
    client = JsonClient(sending_app)
    ask_for_reset(sending_app, make_user("robin").email)
    client.post("/api/v1/auth/reset-password", json={"email": "nobody@example.org"})

    assert deliver(sending_app) == 1

    with sending_app.app_context(), db.engine.connect() as connection:
        rows = connection.execute(text("SELECT * FROM outgoing_mails")).mappings().all()
    assert [row["sent_at"] is not None for row in rows] == [True]
    assert "@" not in str([dict(row) for row in rows])


@pytest.mark.thorough
@pytest.mark.both_databases
def test_a_permanently_rejected_mail_is_parked_and_does_not_delay_others(
    sending_app: Flask, server: SmtpServer, make_user: MakeUser, clock: ManualClock
) -> None:
    server.refusals["gone@example.com"] = "550 no such user"
    for name in ("gone", "robin"):
        ask_for_reset(sending_app, make_user(name).email)
        clock.advance(seconds=1)

    assert deliver(sending_app) == 1

    gone, robin = mails(sending_app)
    assert gone.sent_at is None
    assert gone.last_error == "SMTPRecipientsRefused: 550 no such user"
    assert gone.parked_at is not None
    assert robin.sent_at is not None


@pytest.mark.both_databases
def test_a_mail_that_cannot_be_rendered_does_not_delay_others(
    app: Flask, robin: MadeUser, clock: ManualClock, mailbox: Mailbox
) -> None:
    """Such a mail raised in the worker at each attempt, and was never parked."""
    with app.app_context(), transaction() as session:
        session.execute(
            insert(OutgoingMail).values(
                id=new_id(),
                kind=MailKind.ACCOUNT_EXISTS,
                recipient="robin@example.com\r\nBcc: everybody@example.com",
                data={},
                created_at=clock.now(),
                attempts=19,
                next_attempt_at=clock.now(),
            )
        )
    clock.advance(seconds=1)
    ask_for_reset(app, robin.email)

    assert [mail["Subject"] for mail in mailbox.deliver()] == ["Set a new password"]

    broken = mails(app)[0]
    assert broken.last_error == "ValueError"
    assert broken.parked_at is not None


# Several workers, and one that dies


def test_two_workers_send_each_mail_once(
    sending_app: Flask, server: SmtpServer, make_user: MakeUser
) -> None:
    for number in range(12):
        ask_for_reset(sending_app, make_user(f"robin{number}").email)
    barrier = Barrier(3)

    def work() -> int:
        barrier.wait(10)
        return deliver(sending_app)

    with ThreadPoolExecutor(3) as pool:
        sent = sum(future.result() for future in [pool.submit(work) for _ in range(3)])

    assert sent == 12
    assert len({str(delivered.mail["To"]) for delivered in server.delivered}) == 12
    assert len(server.delivered) == 12


class PowerCut(BaseException):
    """An exception that the worker does not catch, as if its process had stopped."""


class DyingMailer(FileMailer):
    """Sends a mail, and stops before that is recorded."""

    @contextmanager
    def batch(self) -> Iterator[Send]:
        with super().batch() as send:

            def send_and_die(message: Message) -> None:
                send(message)
                raise PowerCut()

            yield send_and_die


@pytest.mark.both_databases
def test_a_mail_whose_worker_stopped_is_sent_again_with_a_new_token(
    app: Flask, services: Services, robin: MadeUser, clock: ManualClock, mailbox: Mailbox
) -> None:
    settings = services.settings
    dying = MailDelivery(
        clock=clock,
        mailer=DyingMailer(settings.mail_folder, sender=settings.mail_from, clock=clock),
        messages=Messages(
            service_name="Service", base_url=settings.public_base_url, design=MailDesign()
        ),
        one_time_tokens=services.one_time_tokens,
    )
    ask_for_reset(app, robin.email)
    before = set(mailbox.folder.glob("*.eml"))
    with app.app_context(), pytest.raises(PowerCut):
        dying.deliver_due()
    (first_file,) = set(mailbox.folder.glob("*.eml")) - before
    (first,) = tokens_in(first_file.read_text())

    assert mailbox.deliver() == []  # It is still claimed.
    clock.advance(seconds=61)
    second = mailbox.token()

    assert confirm(app, first) == 400
    assert confirm(app, second) == 204


@pytest.mark.both_databases
def test_the_number_of_sent_mails_is_limited(
    app: Flask, make_user: MakeUser, mailbox: Mailbox
) -> None:
    for name in ("ada", "robin", "zoe"):
        ask_for_reset(app, make_user(name).email)

    assert [deliver(app, 2), deliver(app, 2), deliver(app, 2)] == [2, 1, 0]


# What the mails say


def test_links_start_with_the_public_address_whatever_the_request_says(
    make_app: MakeApp, robin: MadeUser
) -> None:
    app = make_app(PUBLIC_BASE_URL="https://accounts.example.com/")
    answer = JsonClient(app).post(
        "/api/v1/auth/reset-password",
        json={"email": robin.email},
        headers={"Host": "evil.example", "X-Forwarded-Host": "evil.example"},
    )
    assert answer.status_code == 202

    (mail,) = Mailbox(app).deliver()

    (token,) = tokens_in(plain_text(mail))
    assert f"https://accounts.example.com/console/set-password#token={token}" in plain_text(mail)
    assert "evil.example" not in mail.as_string()


def test_a_mail_is_in_the_language_and_the_zone_of_its_recipient(
    app: Flask, make_user: MakeUser, mailbox: Mailbox, clock: ManualClock
) -> None:
    clock.set(datetime(2026, 11, 28, 14, 5, tzinfo=UTC))
    ada = make_user("ada", locale="de-AT", timezone="Europe/Vienna")
    for _ in range(5):
        log_in = {"username": ada.username, "password": "wrong-password-12"}
        JsonClient(app).post("/api/v1/auth/login", json=log_in)
    ask_for_reset(app, ada.email)

    locked, reset = mailbox.deliver()

    assert locked["Subject"] == "Ihre Anmeldung ist vorübergehend gesperrt"
    assert "gesperrt bis 28. November 2026, 15:06 (Europe/Vienna)" in plain_text(locked)
    assert reset["Subject"] == "Neues Passwort festlegen"
    assert reset["Content-Language"] == "de"
    assert len(tokens_in(plain_text(reset))) == 1


@pytest.mark.parametrize("kind", list(MailKind))
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_kind_of_mail_has_a_text_and_a_safe_page(kind: MailKind, language: str) -> None:
    data = mail_data(factor="<b>Phone</b>\n\nA new paragraph")

    message = messages_of("<b>Ann & Co</b>").write(
        kind,
        recipient='"<b>"@example.com',
        reader=reader_of(language, "Europe/Berlin"),
        data=data,
    )

    assert message.subject and "\n" not in message.subject
    assert "<b>Ann & Co</b>" in message.plain
    assert "<b>" not in message.html
    assert "{{" not in message.plain + message.html
    assert "None" not in message.plain + message.html
    assert "\n\nA new paragraph" not in message.plain
    assert f'<html lang="{language}">' in message.html
    assert tokens_in(message.plain) == (["T" * 43] if kind in PURPOSE_OF else [])
    assert (f'href="{data["link"]}"' in message.html) == (kind in PURPOSE_OF)
    # Otherwise it would be encoded, and links in it broken in two.
    assert max(map(len, (message.plain + message.html).splitlines())) <= MAX_LINE


@pytest.mark.parametrize("kind", list(MailKind))
def test_the_english_and_the_german_mail_differ(kind: MailKind) -> None:
    english, german = (
        messages_of("Service").write(
            kind, recipient="robin@example.com", reader=reader_of(language, None), data=mail_data()
        )
        for language in ("en", "de")
    )

    assert english.subject != german.subject
    assert not set(english.plain.splitlines()) & set(german.plain.splitlines()) - {
        "",
        "-- ",
        "T" * 43,
        mail_data()["link"],
    }


@pytest.mark.parametrize(
    ("left", "text"),
    [(0, "Keiner ist mehr übrig"), (1, "1 Code ist noch übrig."), (2, "2 Codes sind noch übrig.")],
)
def test_the_number_of_recovery_codes_follows_the_grammar(left: int, text: str) -> None:
    message = messages_of("Service").write(
        MailKind.RECOVERY_CODE_USED,
        recipient="robin@example.com",
        reader=reader_of("de", None),
        data=mail_data(left=left),
    )

    assert text in message.plain


def test_html_mails_have_the_logo_and_the_color_of_the_operator(
    make_app: MakeApp, robin: MadeUser
) -> None:
    logo = "https://www.example.com/logo.png?a=1&b=2"
    app = make_app(MAIL_LOGO_URL=logo, MAIL_COLOR="#FFCC00", APP_NAME="Example & Sons")
    ask_for_reset(app, robin.email)

    (mail,) = Mailbox(app).deliver()

    page = mail.get_body(("html",))
    assert page is not None
    html = page.get_content()
    assert 'src="https://www.example.com/logo.png?a=1&amp;b=2" alt="Example &amp; Sons"' in html
    assert "background: #ffcc00; color: #000000" in html


@pytest.mark.parametrize(
    ("color", "text_color"),
    [
        ("#000000", "#ffffff"),
        ("#ffffff", "#000000"),
        ("#1f5fbf", "#ffffff"),
        ("#808080", "#000000"),
    ],
)
def test_the_label_of_a_button_can_be_read_on_its_color(color: str, text_color: str) -> None:
    assert MailDesign(color=color).text_color == text_color


def messages_of(service_name: str) -> Messages:
    return Messages(service_name=service_name, base_url="https://a.example", design=MailDesign())


def mail_data(**changes: object) -> dict[str, object]:
    """Return data with which every kind of mail can be written."""
    return {
        "username": "robin",
        "token": "T" * 43,
        "link": "https://a.example/console/verify-email#token=" + "T" * 43,
        "until": "2026-11-23T09:00:00Z",
        "factor": "Phone",
        "left": 3,
        "name": "production",
        "hint": "aB3x",
        "expires_at": "2026-11-30T09:00:00Z",
        **changes,
    }
