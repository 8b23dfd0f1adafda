"""flask doctor: what is wrong with this installation, and how to mend it."""

import smtplib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import click

from userapi.health import Status, head_revision
from userapi.mail.mailer import connect
from userapi.settings import Settings

from .support import safely, services

OK, WARNING, FAULT = "ok", "warning", "fault"
_COLOURS = {OK: "green", WARNING: "yellow", FAULT: "red"}
_MARKS = {OK: "✓", WARNING: "!", FAULT: "✗"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    level: str
    text: str
    mend: str | None = None


@click.command("doctor", help="Check settings, database, migrations, Redis, RabbitMQ and mail.")
@safely
def command() -> None:
    """Print every finding; exit with 1 where anything that is configured is down."""
    findings = list(_findings(services().settings))
    for finding in findings:
        mark = click.style(_MARKS[finding.level], fg=_COLOURS[finding.level], bold=True)
        click.echo(f" {mark} {finding.subject:12} {finding.text}")
        if finding.mend:
            click.echo(f"                → {finding.mend}")
    if any(finding.level == FAULT for finding in findings):
        raise SystemExit(1)


def _findings(settings: Settings) -> Iterator[Finding]:
    yield Finding("settings", OK, f"{settings.environment}, no faults")
    yield from _settings_warnings(settings)
    components = services().health.detailed()["components"]
    yield from _database(settings, components["database"])
    yield from _server(
        "redis",
        components["redis"].status,
        without="sessions are checked in the database, limits count per process",
        mend="Start Redis, or correct REDIS_URL.",
    )
    yield from _server(
        "rabbitmq",
        components["rabbitmq"].status,
        without="events stay in the outbox",
        mend="Start RabbitMQ, or correct RABBITMQ_URL. Nothing is lost meanwhile.",
    )
    pending = components["outbox"]["pending"]
    if pending is not None:
        oldest = components["outbox"]["oldest_seconds"]
        late = bool(settings.rabbitmq_url) and oldest > 60
        yield Finding(
            "outbox",
            WARNING if late else OK,
            f"{pending} events wait, the oldest for {oldest:.0f} s",
            "Is `flask worker` running?" if late else None,
        )
    yield from _mail(settings)


def _settings_warnings(settings: Settings) -> Iterator[Finding]:
    if settings.is_production and not settings.is_https:
        yield Finding(
            "settings",
            WARNING,
            "PUBLIC_BASE_URL is not https",
            "Set it to the address that people use; links in mails and HSTS depend on it.",
        )
    if settings.is_production and not settings.trusted_hosts:
        yield Finding(
            "settings",
            WARNING,
            "TRUSTED_HOSTS is empty: any Host header is answered",
            "Set it to the names that the service is reached by.",
        )
    if settings.is_production and not settings.redis_url:
        yield Finding(
            "settings",
            WARNING,
            "no Redis: rate limits count per process",
            "Set REDIS_URL where more than one worker runs.",
        )
    if time.timezone != 0:
        yield Finding("settings", OK, "the machine is not in UTC; all times are kept in UTC anyway")


def _database(settings: Settings, check: object) -> Iterator[Finding]:
    status = getattr(check, "status", Status.DOWN)
    migration = getattr(check, "migration", None)
    kind = "SQLite" if settings.uses_sqlite else "PostgreSQL"
    if status is Status.UP:
        yield Finding("database", OK, f"{kind} answers, migrated to {migration}")
    elif migration is not None:
        yield Finding(
            "database",
            FAULT,
            f"{kind} is at migration {migration}, not {head_revision()}",
            "Run `flask db upgrade`.",
        )
    else:
        yield Finding(
            "database",
            FAULT,
            f"{kind} does not answer, or was never migrated",
            "Start it, correct DATABASE_URL, then run `flask db upgrade`.",
        )


def _server(subject: str, status: Status, *, without: str, mend: str) -> Iterator[Finding]:
    if status is Status.UP:
        yield Finding(subject, OK, "answers")
    elif status is Status.DISABLED:
        yield Finding(subject, OK, f"not configured: {without}")
    else:
        yield Finding(subject, FAULT, "does not answer", mend)


def _mail(settings: Settings) -> Iterator[Finding]:
    if not settings.smtp_host:
        yield Finding("mail", OK, f"no SMTP_HOST: each mail is a file in {settings.mail_folder}")
        return
    try:
        with connect(settings) as server:
            server.noop()
    except (smtplib.SMTPException, OSError) as exc:
        yield Finding(
            "mail",
            FAULT,
            f"the mail server refuses ({type(exc).__name__})",
            "Check SMTP_HOST, SMTP_PORT, SMTP_STARTTLS, SMTP_USER and SMTP_PASSWORD.",
        )
    else:
        yield Finding("mail", OK, f"{settings.smtp_host} answers")
