"""How a mail leaves: through SMTP, or as a file where there is no mail server."""

import os
import secrets
import smtplib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from pathlib import Path
from typing import Protocol

from userapi.clock import Clock
from userapi.deadlines import ends_within
from userapi.mail.messages import Message
from userapi.settings import Settings

TIMEOUT_SECONDS = 5


class MailRefused(Exception):
    """The server does not want this mail; another attempt is of no use."""


class MailUnavailable(Exception):
    """The mail cannot be sent now."""


class Mailer(Protocol):
    """Sends mails."""

    def send(self, message: Message) -> None:
        """Send one mail. Raises MailUnavailable, MailRefused."""
        ...


class FileMailer:
    """Writes each mail as an .eml file that mail programs open."""

    def __init__(self, folder: Path, *, sender: str, clock: Clock) -> None:
        self._folder = folder
        self._sender = sender
        self._clock = clock

    def send(self, message: Message) -> None:
        """Write the mail, whole or not at all. Raises MailUnavailable."""
        now = self._clock.now()
        name = f"{now:%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}.eml"
        draft = self._folder / f".{name}"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(bytes(_composed(message, self._sender, self._clock)))
            os.replace(draft, self._folder / name)
        except OSError as exc:
            raise MailUnavailable(type(exc).__name__) from exc


class _Smtp(smtplib.SMTP):
    """A connection to a mail server that takes its time for each answer, but not more."""

    def cut(self) -> None:
        """Break the connection; who waits for an answer gets an OSError."""
        try:
            if self.sock is not None:
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
        except OSError:
            return  # It broke by itself.

    def getreply(self) -> tuple[int, bytes]:
        """Return the next answer. A time-out of each read would let one byte a second pass."""
        with ends_within(self, TIMEOUT_SECONDS):
            return super().getreply()


class SmtpMailer:
    """Hands each mail to a mail server, in a connection of its own."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    def send(self, message: Message) -> None:
        """Hand over the mail. Raises MailUnavailable, MailRefused."""
        try:
            with self._connected() as server:
                server.send_message(_composed(message, self._settings.mail_from, self._clock))
        except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError) as exc:
            codes = (
                [code for code, _ in exc.recipients.values()]
                if isinstance(exc, smtplib.SMTPRecipientsRefused)
                else [exc.smtp_code]
            )
            if all(500 <= code < 600 for code in codes):
                raise MailRefused(type(exc).__name__) from exc
            raise MailUnavailable(type(exc).__name__) from exc
        except (smtplib.SMTPException, OSError) as exc:
            raise MailUnavailable(type(exc).__name__) from exc

    @contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        settings = self._settings
        with _Smtp(settings.smtp_host, settings.smtp_port, timeout=TIMEOUT_SECONDS) as server:
            if settings.smtp_starttls:
                server.starttls()
            if settings.smtp_user:
                server.login(settings.smtp_user, settings.smtp_password)
            yield server


def build_mailer(settings: Settings, clock: Clock) -> Mailer:
    """Return what sends mails under these settings."""
    if settings.smtp_host:
        return SmtpMailer(settings, clock)
    return FileMailer(settings.mail_folder, sender=settings.mail_from, clock=clock)


def _composed(message: Message, sender: str, clock: Clock) -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = message.recipient
    mail["Subject"] = message.subject
    mail["Date"] = format_datetime(clock.now())
    mail["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2].strip(">") or "localhost")
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers, please.
    mail.set_content(message.plain)
    mail.add_alternative(message.html, subtype="html")
    return mail
