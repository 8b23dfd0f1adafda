"""Mail: whether the mail server accepts the service, and the mails that are not sent."""

import smtplib
import tempfile
from collections.abc import Iterator

from sqlalchemy import func, select

from userapi.clock import Clock
from userapi.diagnosis.configuration import LOCAL_HOSTS
from userapi.diagnosis.findings import Finding, Level, readable_duration, warnings
from userapi.infrastructure.database import reading
from userapi.mail.mailer import MailServer, connect
from userapi.mail.models import OutgoingMail
from userapi.private_files import make_folder
from userapi.settings import Settings

MAX_MAIL_AGE_SECONDS = 900


def findings(settings: Settings, server: MailServer | None) -> Iterator[Finding]:
    """Yield whether mails can be sent to the server, or written to the folder."""
    if server is None:
        yield from _folder(settings)
        return
    try:
        with connect(server) as connection:
            connection.noop()
    except (smtplib.SMTPException, OSError) as exc:
        yield Finding(
            "mail",
            Level.FAULT,
            f"the mail server rejects the service ({type(exc).__name__})",
            "Check SMTP_HOST, SMTP_PORT, SMTP_TLS, SMTP_USER and SMTP_PASSWORD.",
        )
    else:
        yield Finding("mail", Level.OK, f"{server.host} answers")
    yield from warnings(
        "mail",
        (
            settings.mail_from.endswith("@localhost.localdomain"),
            "MAIL_FROM is not a real address: other servers reject such mails",
            "Set it to an address of your domain.",
        ),
        (
            server.tls == "none" and server.host not in LOCAL_HOSTS,
            "SMTP_TLS is none: links that reset passwords can be read in transit",
            "Set it to starttls or implicit.",
        ),
        (
            server.tls == "starttls" and server.port == 465,
            "SMTP_TLS is starttls, but port 465 is for implicit TLS",
            "Set SMTP_TLS to implicit, or SMTP_PORT to 587.",
        ),
        (
            server.tls == "implicit" and server.port in (25, 587),
            f"SMTP_TLS is implicit, but port {server.port} is for STARTTLS",
            "Set SMTP_TLS to starttls, or SMTP_PORT to 465.",
        ),
    )


def unsent_findings(clock: Clock) -> Iterator[Finding]:
    """Yield whether mails wait too long, and how many the server has permanently rejected."""
    waits = OutgoingMail.parked_at.is_(None)
    query = select(
        func.count().filter(waits).label("waiting"),
        func.min(OutgoingMail.created_at).filter(waits).label("oldest"),
        func.count(OutgoingMail.parked_at).label("parked"),
    ).where(OutgoingMail.sent_at.is_(None))
    with reading() as connection:
        row = connection.execute(query).one()
    age = (clock.now() - row.oldest).total_seconds() if row.waiting else 0.0
    yield from warnings(
        "mail",
        (
            age > MAX_MAIL_AGE_SECONDS,
            f"{row.waiting} mails wait, the oldest for {readable_duration(age)}",
            "Check `flask mails list --state waiting`, and that `flask worker` runs.",
        ),
        (
            row.parked,
            f"the mail server has permanently rejected {row.parked} mails",
            "Check `flask mails list --state parked`; then run `flask mails retry --parked`.",
        ),
    )


def _folder(settings: Settings) -> Iterator[Finding]:
    folder = settings.mail_folder
    try:
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as exc:
        yield Finding(
            "mail",
            Level.FAULT,
            f"no file can be written to {folder} ({type(exc).__name__})",
            "Set SMTP_HOST, or MAIL_DIR to a folder that the service may write to.",
        )
        return
    yield Finding("mail", Level.OK, f"no SMTP_HOST: each mail is a file in {folder}")
    yield from warnings(
        "mail",
        (
            settings.is_production,
            "no mail is delivered: without SMTP_HOST they stay here",
            "Set SMTP_HOST.",
        ),
    )
