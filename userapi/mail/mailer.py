"""Sending mails: through SMTP, or as files without a mail server."""

import os
import secrets
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import default as default_policy
from email.utils import format_datetime, make_msgid
from pathlib import Path
from typing import NoReturn, Protocol

import idna

from userapi.clock import Clock
from userapi.infrastructure.deadlines import ends_within
from userapi.mail.message import Message
from userapi.private_files import make_folder

TIMEOUT_SECONDS = 5
MAX_LINE = 998  # RFC 5322 §2.1.1


class _MailFailed(Exception):
    """A mail was not sent. The text is the kind of failure, `reply` the reply of the server."""

    def __init__(self, reason: str, reply: str = "") -> None:
        super().__init__(reason)
        self.reply = reply


class MailRefused(_MailFailed):
    """The server rejects this mail permanently; it is not tried again."""


class MailUnavailable(_MailFailed):
    """The mail cannot be sent now. Unless this is a ServerUnavailable, others can."""


class ServerUnavailable(MailUnavailable):
    """No mail can be sent now. `broke_off`: the connection failed during this mail."""

    def __init__(self, reason: str, reply: str = "", *, broke_off: bool = False) -> None:
        super().__init__(reason, reply)
        self.broke_off = broke_off


Send = Callable[[Message], None]


class Mailer(Protocol):
    """Sends mails."""

    def batch(self) -> AbstractContextManager[Send]:
        """Yield a function that sends a mail, until the block ends.

        The function raises ServerUnavailable, MailUnavailable, MailRefused. The first mail opens
        the connection.
        """
        ...


class FileMailer:
    """Writes each mail as an .eml file that mail programs open."""

    def __init__(self, folder: Path, *, sender: str, clock: Clock) -> None:
        self._folder = folder
        self._sender = sender
        self._clock = clock

    @contextmanager
    def batch(self) -> Iterator[Send]:
        """Yield the function that writes a mail."""
        yield self._write

    def _write(self, message: Message) -> None:
        """Write the mail, whole or not at all."""
        content = bytes(_composed(message, self._sender, self._clock))
        name = f"{self._clock.now():%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}.eml"
        draft = self._folder / f".{name}"
        try:
            make_folder(self._folder)
            try:
                descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                os.replace(draft, self._folder / name)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as exc:
            raise ServerUnavailable(type(exc).__name__) from exc


class _Smtp(smtplib.SMTP):
    """A connection to a mail server with a time limit for each reply."""

    def cut(self) -> None:
        """Shut the socket down; the thread that waits for a reply gets an OSError."""
        try:
            if self.sock is not None:
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
        except OSError:
            return  # It is closed already.

    def getreply(self) -> tuple[int, bytes]:
        """Return the next reply. A time-out per read would allow one byte a second."""
        with ends_within(self, TIMEOUT_SECONDS):
            return super().getreply()


class _SmtpOverTls(_Smtp, smtplib.SMTP_SSL):
    """The same, encrypted from the first byte (RFC 8314 §3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServer:
    """A mail server, and how to encrypt the connection: `none`, `starttls` or `implicit`.

    `ca_file` has the authorities of its certificate; None means those of the system.
    """

    host: str
    port: int
    tls: str
    user: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None


class SmtpMailer:
    """Sends mails to a mail server, those of a batch in one connection."""

    def __init__(self, server: MailServer, *, sender: str, clock: Clock) -> None:
        self._server = server
        self._sender = sender
        self._clock = clock

    @contextmanager
    def batch(self) -> Iterator[Send]:
        """Yield the function that sends a mail."""
        connection = _SmtpConnection(self._server, sender=self._sender, clock=self._clock)
        try:
            yield connection.send
        finally:
            connection.close()


class _SmtpConnection:
    """A connection that is opened when needed, and again after a failure."""

    def __init__(self, server: MailServer, *, sender: str, clock: Clock) -> None:
        self._server = server
        self._sender = sender
        self._clock = clock
        self._connection: smtplib.SMTP | None = None

    def send(self, message: Message) -> None:
        """Send the mail."""
        mail = _composed(message, self._sender, self._clock)
        if self._connection is None or self._connection.sock is None:
            try:
                self._connection = connect(self._server)
            except (smtplib.SMTPException, OSError) as exc:
                raise ServerUnavailable(*_described(exc)) from exc
        try:
            self._connection.send_message(mail)
        except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError) as exc:
            self._reject(exc)
        except smtplib.SMTPNotSupportedError as exc:
            # The server does not support addresses beyond ASCII.
            raise MailRefused(*_described(exc)) from exc
        except smtplib.SMTPSenderRefused as exc:
            # The fault is MAIL_FROM, the login or the server's disk: it affects every mail.
            self.close()
            raise ServerUnavailable(*_described(exc)) from exc
        except (smtplib.SMTPException, OSError) as exc:
            self.close()
            raise ServerUnavailable(*_described(exc), broke_off=True) from exc

    def _reject(self, error: smtplib.SMTPRecipientsRefused | smtplib.SMTPDataError) -> NoReturn:
        """Raise MailRefused for a permanent rejection, and MailUnavailable for a temporary one."""
        if all(code >= 500 for code in _codes(error)):
            raise MailRefused(*_described(error)) from error
        raise MailUnavailable(*_described(error)) from error

    def close(self) -> None:
        """Close the connection. Errors are ignored: the server has accepted the mails."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(smtplib.SMTPException, OSError):
                connection.quit()
            connection.close()


def connect(server: MailServer) -> smtplib.SMTP:
    """Return a connection to the mail server, encrypted and logged in.

    Raises SMTPException, OSError. An invalid certificate is an error, because an attacker between
    the servers could otherwise read the links and the password.
    """
    context = ssl.create_default_context(cafile=server.ca_file)
    connection = (
        _SmtpOverTls(server.host, server.port, timeout=TIMEOUT_SECONDS, context=context)
        if server.tls == "implicit"
        else _Smtp(server.host, server.port, timeout=TIMEOUT_SECONDS)
    )
    with ExitStack() as unfinished:
        unfinished.callback(connection.close)
        if server.tls == "starttls":
            connection.starttls(context=context)
        if server.user:
            connection.login(server.user, server.password)
        unfinished.pop_all()
    return connection


def _codes(error: smtplib.SMTPRecipientsRefused | smtplib.SMTPDataError) -> list[int]:
    if isinstance(error, smtplib.SMTPDataError):
        return [error.smtp_code]
    return [code for code, _ in error.recipients.values()]


def _described(error: Exception) -> tuple[str, str]:
    """Return the kind of an error, and the server's reply as one printable line."""
    reply: object = ""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        reply = b", ".join(b"%d %s" % (code, text) for code, text in error.recipients.values())
    elif isinstance(error, smtplib.SMTPResponseException):
        text = error.smtp_error
        reply = b"%d %s" % (error.smtp_code, text.encode() if isinstance(text, str) else text)
    line = reply.decode("ascii", "replace") if isinstance(reply, bytes) else str(reply)
    return type(error).__name__, "".join(c if c.isprintable() else " " for c in line)[:400]


def _composed(message: Message, sender: str, clock: Clock) -> EmailMessage:
    recipient = _deliverable(message.recipient)
    # A local part beyond ASCII requires UTF-8 (RFC 6532); everything else stays 7 bits.
    mail = EmailMessage(default_policy.clone(utf8=not recipient.isascii()))
    mail["From"] = sender
    mail["To"] = recipient
    mail["Subject"] = message.subject
    mail["Date"] = format_datetime(clock.now())
    mail["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2].strip(">") or "localhost")
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office replies.
    mail.set_content(message.plain, cte=_encoding_of(message.plain))
    mail.add_alternative(message.html, subtype="html", cte=_encoding_of(message.html))
    mail["Content-Language"] = message.language  # Content headers set before would have moved.
    return mail


def _encoding_of(text: str) -> str | None:
    """Return the transfer encoding for a text that needs no encoding, or None.

    By default the library encodes lines above 78 characters. Links are longer, and would be broken
    in two for readers of the file.
    """
    readable = text.isascii() and max(map(len, text.splitlines()), default=0) <= MAX_LINE
    return "7bit" if readable else None


def _deliverable(address: str) -> str:
    """Return an address with an ASCII domain, which every mail server supports (RFC 5891)."""
    local, _, domain = address.rpartition("@")
    if domain.isascii():
        return address
    return f"{local}@{idna.encode(domain, uts46=True).decode()}"
