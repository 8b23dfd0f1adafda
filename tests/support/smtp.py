"""A mail server that accepts, rejects or fails as a test demands."""

import asyncio
import datetime
import gc
import ipaddress
import ssl
import warnings
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as default_policy
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.ports import free_port

HOST = "127.0.0.1"


@dataclass(slots=True)
class Delivered:
    """A mail that the server has taken, and how it came."""

    recipients: list[str]
    mail: EmailMessage
    connection: int
    encrypted: bool


class _TidyController(Controller):
    """A server that closes its connections when it stops; the library's leaves them lying about."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._transports: list[Any] = []

    def factory(self) -> SMTP:
        """Return what serves one connection."""
        make: Any = super().factory  # It has no annotations.
        protocol: Any = make()
        take_over = protocol.connection_made

        def connection_made(transport: Any) -> None:
            # Of an encrypted connection there are two, and the inner one closes the socket.
            self._transports.append(transport)
            take_over(transport)

        protocol.connection_made = connection_made
        made: SMTP = protocol
        return made

    def stop(self, no_assert: bool = False) -> None:
        """End every connection, then the server."""
        asyncio.run_coroutine_threadsafe(self._close(), self.loop).result(10)
        super().stop(no_assert)
        # Asyncio forgets a connection that it takes while its server closes, and warns of it some
        # time later in whatever test is running then.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            self.server, self.smtpd = None, None
            self._transports.clear()
            gc.collect()

    async def _close(self) -> None:
        if self.server is not None:
            self.server.close()
        # A connection that was accepted a moment ago is still on its way to its protocol.
        until = asyncio.get_running_loop().time() + 5
        while True:
            for transport in self._transports:
                transport.abort()
            await asyncio.sleep(0.01)
            at_work = len(asyncio.all_tasks()) > 1
            if not at_work or asyncio.get_running_loop().time() > until:
                break
        # A transport closes its socket in one of the next rounds of the loop.
        for _ in range(5):
            await asyncio.sleep(0)


@dataclass(slots=True)
class SmtpServer:
    """A server on a port of its own; `refusals` are answers to RCPT by address, `answer_to_mail`
    is one to MAIL. It breaks the connection off at a recipient in `breaks_off`.
    """

    certificate: Path | None = None
    implicit_tls: bool = False
    credentials: tuple[str, str] | None = None
    refusals: dict[str, str] = field(default_factory=dict)
    breaks_off: set[str] = field(default_factory=set)
    answer_to_mail: str | None = None
    answer_to_quit: str = "221 Bye"
    delivered: list[Delivered] = field(default_factory=list)
    passwords_seen: list[str] = field(default_factory=list)
    port: int = field(default_factory=free_port)
    _controller: Any = None

    def start(self) -> "SmtpServer":
        """Listen, again or for the first time."""
        options: dict[str, Any] = {"enable_SMTPUTF8": True}
        if self.certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            if self.implicit_tls:
                # The library knows of no other encryption than STARTTLS when it offers AUTH.
                options |= {"ssl_context": context, "auth_require_tls": False}
            else:
                options |= {"tls_context": context, "require_starttls": True}
        if self.credentials is not None:
            options |= {"authenticator": self._authenticate, "auth_required": not self.implicit_tls}
        self._controller = _TidyController(self, hostname=HOST, port=self.port, **options)
        self._controller.start()
        return self

    def stop(self) -> None:
        """Listen no more; connections that are open end."""
        if self._controller is not None:
            self._controller.stop()
            self._controller = None

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        given = (data.login.decode(), data.password.decode())
        self.passwords_seen.append(given[1])
        return AuthResult(success=given == self.credentials, handled=False)

    async def handle_MAIL(  # noqa: N802
        self,
        server: SMTP,
        session: Session,
        envelope: Envelope,
        address: str,
        options: list[str],
    ) -> str:
        """Accept or reject a sender."""
        if self.answer_to_mail is not None:
            return self.answer_to_mail
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(  # noqa: N802 (the library's name)
        self,
        server: SMTP,
        session: Session,
        envelope: Envelope,
        address: str,
        options: list[str],
    ) -> str:
        """Accept or reject a recipient."""
        if address in self.breaks_off and isinstance(server.transport, asyncio.WriteTransport):
            server.transport.abort()
        if address in self.refusals:
            return self.refusals[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        """Accept a mail."""
        content = envelope.content
        assert isinstance(content, bytes)
        self.delivered.append(
            Delivered(
                recipients=[str(address) for address in envelope.rcpt_tos],
                mail=message_from_bytes(content, policy=default_policy),
                connection=int(session.peer[1]) if session.peer else 0,
                encrypted=self.implicit_tls or session.ssl is not None,
            )
        )
        return "250 OK"

    async def handle_QUIT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        """Answer a good-bye."""
        return self.answer_to_quit


def write_certificate(folder: Path) -> Path:
    """Write a certificate for the loopback address, signed by itself, with its key; return it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail server of the tests")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "mail-server.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path
