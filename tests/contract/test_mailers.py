"""Both mailers, to files and through SMTP, and behaviour that needs a real server."""

import stat
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as default_policy
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.support.polling import least_seconds
from tests.support.proxy import FaultProxy
from tests.support.smtp import HOST, SmtpServer, write_certificate
from userapi.clock import ManualClock
from userapi.mail.mailer import (
    FileMailer,
    Mailer,
    MailRefused,
    MailServer,
    MailUnavailable,
    ServerUnavailable,
    SmtpMailer,
)
from userapi.mail.message import Message

pytestmark = pytest.mark.thorough

SENDER = "User Service <no-reply@example.com>"


def message(recipient: str = "robin@example.com", *, subject: str = "Hello") -> Message:
    return Message(
        recipient=recipient,
        language="en",
        subject=subject,
        plain="Plain.\n",
        html="<p>Rich.</p>",
    )


def send(mailer: Mailer, *messages: Message) -> None:
    with mailer.batch() as hand_over:
        for each in messages:
            hand_over(each)


class Bench(Protocol):
    """A mailer, and faults of its destination."""

    mailer: Mailer

    def take_away(self) -> None:
        """Make the destination unavailable."""

    def bring_back(self) -> None:
        """Make the destination available again."""

    def received(self) -> list[EmailMessage]:
        """Return what has arrived."""


class FileBench:
    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self.folder = folder
        self.mailer: Mailer = FileMailer(folder, sender=SENDER, clock=clock)

    def take_away(self) -> None:
        self.folder.write_text("a file stands where the folder should be")

    def bring_back(self) -> None:
        self.folder.unlink()

    def received(self) -> list[EmailMessage]:
        return [
            message_from_bytes(path.read_bytes(), policy=default_policy)
            for path in sorted(self.folder.glob("*.eml"))
        ]


class SmtpBench:
    def __init__(self, server: SmtpServer, mailer: Mailer) -> None:
        self.server = server
        self.mailer = mailer

    def take_away(self) -> None:
        self.server.stop()

    def bring_back(self) -> None:
        self.server.start()

    def received(self) -> list[EmailMessage]:
        return [delivered.mail for delivered in self.server.delivered]


MakeMailer = Callable[..., Mailer]


@pytest.fixture
def manual_clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def make_mailer(manual_clock: ManualClock) -> MakeMailer:
    """Return a function that builds a mailer for a port, an encryption and an account."""

    def make(port: int, *, tls: str = "none", **account: Any) -> Mailer:
        server = MailServer(host=HOST, port=port, tls=tls, **account)
        return SmtpMailer(server, sender=SENDER, clock=manual_clock)

    return make


@pytest.fixture
def server() -> Iterator[SmtpServer]:
    server = SmtpServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["files", "smtp"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, manual_clock: ManualClock) -> Bench:
    if request.param == "files":
        return FileBench(tmp_path / "mail", manual_clock)
    server: SmtpServer = request.getfixturevalue("server")
    make: MakeMailer = request.getfixturevalue("make_mailer")
    return SmtpBench(server, make(server.port))


# Every mailer


def test_a_mail_arrives_with_both_texts_and_its_headers(
    bench: Bench, manual_clock: ManualClock
) -> None:
    manual_clock.advance(hours=3)
    begun = manual_clock.now().replace(microsecond=0)
    send(bench.mailer, message(subject="Grüße"))

    (mail,) = bench.received()
    plain, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert plain is not None and plain.get_content().strip() == "Plain."
    assert html is not None and html.get_content().strip() == "<p>Rich.</p>"
    assert (mail["From"], mail["To"], mail["Subject"]) == (SENDER, "robin@example.com", "Grüße")
    assert begun <= mail["Date"].datetime <= manual_clock.now()
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"].endswith("@example.com>")


def test_a_batch_sends_one_mail_after_the_other(bench: Bench, manual_clock: ManualClock) -> None:
    with bench.mailer.batch() as hand_over:
        for name in ("ada", "robin", "zoe"):
            hand_over(message(f"{name}@example.com"))
            manual_clock.advance(seconds=1)

    assert [mail["To"] for mail in bench.received()] == [
        "ada@example.com",
        "robin@example.com",
        "zoe@example.com",
    ]


@pytest.mark.parametrize(
    "field", ["robin@example.com\r\nBcc: everybody@example.com", "robin@example.com\u2028Bcc: x"]
)
def test_no_text_adds_a_header(bench: Bench, field: str) -> None:
    with pytest.raises(ValueError):
        send(bench.mailer, message(field))
    with pytest.raises(ValueError):
        send(bench.mailer, message(subject=field))

    assert bench.received() == []


def test_an_international_domain_is_encoded_for_every_server(bench: Bench) -> None:
    """The header contained an encoded word instead of the domain, which no server can deliver."""
    send(bench.mailer, message("robin@bücher.example"))

    (mail,) = bench.received()
    assert mail["To"] == "robin@xn--bcher-kva.example"


def test_a_local_part_beyond_ascii_arrives_as_it_is(bench: Bench) -> None:
    send(bench.mailer, message("jürgen@bücher.example"))

    (mail,) = bench.received()
    assert mail["To"] == "jürgen@xn--bcher-kva.example"


def test_a_text_longer_than_a_line_arrives_complete(bench: Bench) -> None:
    long, beyond_ascii = "x" * 2000 + "\n", "Grüße\n"
    for plain in (long, beyond_ascii):
        with bench.mailer.batch() as hand_over:
            hand_over(
                Message(
                    recipient="robin@example.com",
                    language="en",
                    subject="",
                    plain=plain,
                    html=plain,
                )
            )

    texts = [part.get_content() for mail in bench.received() for part in mail.iter_parts()]
    assert [text.replace("\r\n", "\n") for text in texts] == [long] * 2 + [beyond_ascii] * 2


def test_a_recovered_server_is_used_in_the_same_batch(bench: Bench) -> None:
    with bench.mailer.batch() as hand_over:
        bench.take_away()
        with pytest.raises(ServerUnavailable):
            hand_over(message())
        bench.bring_back()
        hand_over(message())

    assert len(bench.received()) == 1


# Files


def test_a_file_is_whole_and_for_its_owner_alone(tmp_path: Path, manual_clock: ManualClock) -> None:
    send(FileMailer(tmp_path / "mail", sender=SENDER, clock=manual_clock), message())

    (path,) = (tmp_path / "mail").iterdir()
    assert path.suffix == ".eml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_file_contains_a_link_as_it_is_followed(
    tmp_path: Path, manual_clock: ManualClock
) -> None:
    """Links were longer than 78 characters, so each was broken in two and had =3D in it."""
    link = f"https://id.example.com/console/set-password#token={'a' * 43}"
    mailer = FileMailer(tmp_path / "mail", sender=SENDER, clock=manual_clock)
    html = f'<p><a href="{link}">{link}</a></p>\n'
    send(
        mailer,
        Message(
            recipient="robin@example.com", language="en", subject="", plain=f"{link}\n", html=html
        ),
    )

    (path,) = (tmp_path / "mail").iterdir()
    assert path.read_text("ascii").count(link) == 3


# SMTP


def test_a_batch_is_one_connection(server: SmtpServer, make_mailer: MakeMailer) -> None:
    mailer = make_mailer(server.port)

    send(mailer, message(), message(), message())
    send(mailer, message())

    connections = [delivered.connection for delivered in server.delivered]
    assert len(connections) == 4
    assert len(set(connections[:3])) == 1
    assert connections[3] != connections[0]


def test_an_empty_batch_opens_no_connection(make_mailer: MakeMailer) -> None:
    send(make_mailer(SmtpServer().port))


def test_a_refused_recipient_is_final_and_the_others_are_served(
    server: SmtpServer, make_mailer: MakeMailer
) -> None:
    server.refusals["gone@example.com"] = "550 no such user"

    with make_mailer(server.port).batch() as hand_over:
        with pytest.raises(MailRefused) as refused:
            hand_over(message("gone@example.com"))
        hand_over(message())

    assert str(refused.value) == "SMTPRecipientsRefused"
    assert [delivered.recipients for delivered in server.delivered] == [["robin@example.com"]]


@pytest.mark.parametrize("answer", ["450 try later", "421 too much at once"])
def test_a_temporarily_rejected_recipient_may_be_retried(
    server: SmtpServer, make_mailer: MakeMailer, answer: str
) -> None:
    server.refusals["busy@example.com"] = answer

    with make_mailer(server.port).batch() as hand_over:
        with pytest.raises(MailUnavailable) as put_off:
            hand_over(message("busy@example.com"))
        hand_over(message())

    assert not isinstance(put_off.value, ServerUnavailable)
    assert len(server.delivered) == 1


def test_the_reply_to_quit_is_ignored(server: SmtpServer, make_mailer: MakeMailer) -> None:
    """A server that replied to QUIT with an error received every mail again, up to twenty times."""
    server.answer_to_quit = "451 not yet"

    send(make_mailer(server.port), message())

    assert len(server.delivered) == 1


def test_a_lost_connection_is_reopened(server: SmtpServer, make_mailer: MakeMailer) -> None:
    with FaultProxy(HOST, server.port) as proxy, make_mailer(proxy.port).batch() as hand_over:
        hand_over(message())
        proxy.refuse()
        with pytest.raises(MailUnavailable):
            hand_over(message())
        proxy.pass_on()
        hand_over(message())

    assert len(server.delivered) == 2


def test_a_silent_server_costs_one_time_out(server: SmtpServer, make_mailer: MakeMailer) -> None:
    with FaultProxy(HOST, server.port) as proxy:
        proxy.black_hole()

        def fail() -> None:
            with pytest.raises(ServerUnavailable):
                send(make_mailer(proxy.port), message())

        assert 4 < least_seconds(fail, below=8) < 8


# STARTTLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return write_certificate(tmp_path)


@pytest.fixture
def encrypting(certificate: Path) -> Iterator[SmtpServer]:
    server = SmtpServer(certificate=certificate, credentials=("service", "mail-password"))
    server.start()
    yield server
    server.stop()


LOGGED_IN = {"tls": "starttls", "user": "service", "password": "mail-password"}


def test_mails_go_encrypted_to_a_server_that_is_trusted(
    encrypting: SmtpServer,
    make_mailer: MakeMailer,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    send(make_mailer(encrypting.port, **LOGGED_IN), message())

    assert [delivered.encrypted for delivered in encrypting.delivered] == [True]


def test_mails_go_encrypted_to_a_server_of_the_given_authority(
    encrypting: SmtpServer, make_mailer: MakeMailer, certificate: Path
) -> None:
    send(make_mailer(encrypting.port, **LOGGED_IN, ca_file=certificate), message())

    assert [delivered.encrypted for delivered in encrypting.delivered] == [True]


def test_a_server_that_is_not_trusted_sees_neither_password_nor_mail(
    encrypting: SmtpServer, make_mailer: MakeMailer
) -> None:
    """A machine in the middle with any certificate received the links and the password."""
    with pytest.raises(ServerUnavailable) as refused:
        send(make_mailer(encrypting.port, **LOGGED_IN), message())

    assert str(refused.value) == "SSLCertVerificationError"
    assert (encrypting.passwords_seen, encrypting.delivered) == ([], [])


def test_a_server_without_encryption_receives_nothing(
    server: SmtpServer, make_mailer: MakeMailer
) -> None:
    with pytest.raises(ServerUnavailable) as refused:
        send(make_mailer(server.port, tls="starttls"), message())

    assert str(refused.value) == "SMTPNotSupportedError"
    assert server.delivered == []


def test_a_wrong_password_sends_nothing_and_is_not_in_the_error(
    encrypting: SmtpServer,
    make_mailer: MakeMailer,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    wrong = {**LOGGED_IN, "password": "not-this-one"}

    with pytest.raises(ServerUnavailable) as refused:
        send(make_mailer(encrypting.port, **wrong), message())

    assert str(refused.value) == "SMTPAuthenticationError"
    assert encrypting.delivered == []


# Implicit TLS


@pytest.fixture
def encrypted_from_the_start(certificate: Path) -> Iterator[SmtpServer]:
    server = SmtpServer(
        certificate=certificate, implicit_tls=True, credentials=("service", "mail-password")
    )
    server.start()
    yield server
    server.stop()


IMPLICIT = {**LOGGED_IN, "tls": "implicit"}


def test_mails_go_to_a_server_that_is_encrypted_from_the_first_byte(
    encrypted_from_the_start: SmtpServer,
    make_mailer: MakeMailer,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On port 465 of many providers the service waited for a greeting that never came."""
    server = encrypted_from_the_start
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    send(make_mailer(server.port, **IMPLICIT), message())

    assert [delivered.encrypted for delivered in server.delivered] == [True]
    assert server.passwords_seen == ["mail-password"]


def test_an_untrusted_server_receives_nothing_under_implicit_tls(
    encrypted_from_the_start: SmtpServer, make_mailer: MakeMailer
) -> None:
    server = encrypted_from_the_start
    with pytest.raises(ServerUnavailable) as refused:
        send(make_mailer(server.port, **IMPLICIT), message())

    assert str(refused.value) == "SSLCertVerificationError"
    assert (server.passwords_seen, server.delivered) == ([], [])


def test_a_server_without_tls_receives_nothing_under_implicit_tls(
    server: SmtpServer, make_mailer: MakeMailer
) -> None:
    with pytest.raises(ServerUnavailable) as refused:
        send(make_mailer(server.port, tls="implicit"), message())

    assert str(refused.value) == "SSLError"
    assert server.delivered == []
