"""What can be wrong with an installation that starts all the same.

A bad setting ends the start with a line of its own; here is what fits together badly, what a server
beside the service lacks, and what nobody notices until it is needed.
"""

import smtplib
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import redis
from sqlalchemy import func, select, text

from userapi.authentication.key_folder import KeyState
from userapi.events.rabbitmq import AmqpPublisher
from userapi.health import Check, Status, head_revision
from userapi.infrastructure.database import SESSION_SETTINGS, connect_alone, db, has_pooler, reading
from userapi.infrastructure.redis_client import require_writable
from userapi.mail.mailer import MailServer, connect
from userapi.mail.models import OutgoingMail
from userapi.passwords.peppers import COUNTED_UP_TO
from userapi.private_files import make_folder
from userapi.settings import Settings, SettingsError, files_with_secrets, weak_secrets
from userapi.wiring import Services

LOCAL_HOSTS = {"127.0.0.1", "localhost", "::1"}
# What verifiers of tokens allow, too.
LARGEST_SKEW_SECONDS = 10
WORKER_SEEN_SECONDS = 60
OLDEST_EVENT_SECONDS = 60
OLDEST_MAIL_SECONDS = 900
OLDEST_KEY = timedelta(days=365)
MIN_POSTGRESQL = 130000
REDIS_TIMEOUT_SECONDS = 2
# What deploy/pgbouncer/role.sql sets.
SETTINGS_OF_ROLE = (
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "timezone",
)
# A container engine mounts secrets here, for nobody but the service to read.
MOUNTED_SECRETS = Path("/run/secrets")


class Level(StrEnum):
    """How bad a finding is."""

    FAULT = "fault"
    OK = "ok"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    level: Level
    text: str
    mend: str | None = None


def diagnose(services: Services) -> Iterator[Finding]:
    """Yield what there is to say about the installation, part by part."""
    settings = services.settings
    components = services.health.detailed()["components"]
    yield Finding("settings", Level.OK, f"{settings.environment}, all valid")
    yield from _addresses(settings)
    if settings.is_production:
        yield from _open_doors(settings)
    yield from _secrets(settings)
    yield from _keys(services)
    yield from _database(services, components["database"])
    yield from _redis(settings)
    yield from _rabbitmq(settings)
    if components["database"].status is Status.UP:
        yield from _worker(services, components["database"])
        yield from _unsent_mails(services)
        yield from _peppers(services, components["database"])
        yield from _audit(services)
    yield from _mail(settings, services.mail_server)


def _warnings(subject: str, *cases: tuple[object, str, str]) -> Iterator[Finding]:
    """Yield a warning for each case that is given: (whether, text, mend)."""
    for applies, about, mend in cases:
        if applies:
            yield Finding(subject, Level.WARNING, about, mend)


def _addresses(settings: Settings) -> Iterator[Finding]:
    """Look at how the service is reached: hosts, proxies, origins."""
    host = urlsplit(settings.public_base_url).hostname or ""
    trusted = [name.lower() for name in settings.trusted_hosts]
    if trusted and not any(
        host == name or (name.startswith(".") and host.endswith(name)) for name in trusted
    ):
        yield Finding(
            "settings",
            Level.FAULT,
            f"links in mails lead to {host}, which TRUSTED_HOSTS rejects",
            f"Add {host} to TRUSTED_HOSTS, or correct PUBLIC_BASE_URL.",
        )
    yield from _warnings(
        "settings",
        (
            settings.is_https and not settings.trusted_proxy_count,
            "a proxy terminates https, but no proxy is trusted: all callers"
            " have the proxy's address and share its limits",
            "Set TRUSTED_PROXY_COUNT to the number of proxies in front, often 1.",
        ),
        (
            settings.trusted_proxy_count and host in LOCAL_HOSTS,
            f"TRUSTED_PROXY_COUNT is {settings.trusted_proxy_count}, but people reach the service"
            f" directly at {host}: any client can forge its address",
            "Set it to 0 without proxies, or PUBLIC_BASE_URL to the proxy's address.",
        ),
        (
            "*" in settings.cors_origins,
            "CORS_ORIGINS is *: pages of all origins may call the API",
            "List the origins of your own pages.",
        ),
        (
            settings.is_https and any(o.startswith("http://") for o in settings.cors_origins),
            "CORS_ORIGINS lists an origin without https, whose pages can be altered in transit",
            "Serve that origin over https, or remove it.",
        ),
        (
            settings.session_idle_timeout_days > settings.session_absolute_lifetime_days,
            "SESSION_IDLE_TIMEOUT_DAYS has no effect: sessions end earlier",
            "Set it to at most SESSION_ABSOLUTE_LIFETIME_DAYS.",
        ),
    )


def _open_doors(settings: Settings) -> Iterator[Finding]:
    """Look at what is allowed in production and seldom meant."""
    yield from _warnings(
        "settings",
        (
            not settings.is_https,
            "PUBLIC_BASE_URL is not https: links in mails and tokens can be read in transit",
            "Set it to the https address of the service.",
        ),
        (
            not settings.trusted_hosts,
            "TRUSTED_HOSTS is empty: any Host header is accepted",
            "Set it to the host names of the service.",
        ),
        (
            not settings.redis_url,
            "without Redis each process counts its own rate limits",
            "Set REDIS_URL if more than one worker process runs.",
        ),
        (
            not settings.rabbitmq_url,
            "without RabbitMQ no other service receives events",
            "Set RABBITMQ_URL; events wait in the outbox until then.",
        ),
        (
            not settings.rate_limit_enabled,
            "RATE_LIMIT_ENABLED is false: passwords can be guessed as fast as they are hashed",
            "Set it to true.",
        ),
        (
            settings.lockout_threshold > 100,
            f"LOCKOUT_THRESHOLD is {settings.lockout_threshold}: NIST SP 800-63B allows 100",
            "Set it to 100 or less.",
        ),
        (
            settings.password_min_score == 0,
            "PASSWORD_MIN_SCORE is 0: guessable passwords are accepted",
            "Set it to 2 or more.",
        ),
        (
            not settings.metrics_token,
            "METRICS_TOKEN is empty: any client that reaches /metrics can read it",
            "Set it, or let only Prometheus reach the path.",
        ),
        (
            settings.health_detailed_public,
            "HEALTH_DETAILED_PUBLIC is true: anyone can read the state of your servers",
            "Set it to false; users with system:read can still read it.",
        ),
        (
            settings.feature_user_registration and not settings.feature_email_verification,
            "people can register with addresses that are not theirs",
            "Set FEATURE_EMAIL_VERIFICATION to true, or FEATURE_USER_REGISTRATION to false.",
        ),
        (
            settings.log_level == "DEBUG",
            "LOG_LEVEL is DEBUG: libraries log a lot and slow the service down",
            "Set it to INFO.",
        ),
        (
            settings.security_contact.endswith("@localhost"),
            "SECURITY_CONTACT is not set: nobody can report a vulnerability",
            "Set it to an address, such as mailto:security@example.com.",
        ),
        (
            settings.uses_sqlite,
            "SQLite supports one machine and one writer at a time",
            "Set DATABASE_URL to PostgreSQL.",
        ),
    )


def _secrets(settings: Settings) -> Iterator[Finding]:
    """Look at how good the secrets are, and who can read them."""
    values = {item.name: getattr(settings, item.name) for item in fields(settings)}
    given = {item.name for item in fields(settings) if values[item.name] != item.default}
    for problem in weak_secrets({name: values[name] for name in given}):
        yield Finding(
            "secrets",
            Level.WARNING,
            f"{problem}; production would reject it",
            "Generate one: python -c 'import secrets; print(secrets.token_urlsafe(48))'",
        )
    files = [*files_with_secrets(), settings.instance_dir / "secrets.json"]
    if settings.jwt_private_key_file is not None:
        files.append(settings.jwt_private_key_file)
    files += sorted(settings.keys_folder.glob("*.pem"))
    open_files = [file for file in files if _others_read(file)]
    for file in open_files:
        yield Finding(
            "secrets",
            Level.FAULT,
            f"every user of this machine can read {file}",
            f"chmod 600 {file}",
        )
    if not open_files:
        yield Finding("secrets", Level.OK, "no file with secrets is readable by others")


def _others_read(file: Path) -> bool:
    if not file.is_file() or file.is_relative_to(MOUNTED_SECRETS):
        return False
    return bool(file.stat().st_mode & stat.S_IROTH)


def _keys(services: Services) -> Iterator[Finding]:
    """Look for a key that signs, one that is to follow, and their age."""
    settings = services.settings
    if settings.jwt_algorithm == "HS256":
        yield Finding("keys", Level.OK, "HS256: other services cannot verify tokens locally")
        return
    try:
        services.keys.require_active()
        records = services.key_folder.usable()
    except SettingsError as exc:
        for problem in exc.problems:
            yield Finding("keys", Level.FAULT, problem, "Run `flask keys generate`.")
        return
    yield Finding("keys", Level.OK, f"a key signs with {settings.jwt_algorithm}")
    if settings.jwt_private_key_file is not None:
        return
    active = next(record for record in records if record.state is KeyState.ACTIVE)
    yield from _warnings(
        "keys",
        (
            all(record.state is not KeyState.NEXT for record in records),
            "there is no next key: verifiers cannot fetch it before it signs",
            "Run `flask keys generate`.",
        ),
        (
            datetime.fromisoformat(active.since) + OLDEST_KEY < services.clock.now(),
            f"the key has signed since {active.since[:10]}",
            "Run `flask keys rotate`.",
        ),
    )


def _database(services: Services, check: Check) -> Iterator[Finding]:
    """Look at the database: whether it answers, is migrated, and fits the service."""
    kind = "SQLite" if services.settings.uses_sqlite else "PostgreSQL"
    if check.status is Status.UP:
        yield Finding("database", Level.OK, f"{kind} answers, migrated to {check.migration}")
        if not services.settings.uses_sqlite:
            yield from _postgresql(services)
    elif check.encoding is not None:
        yield Finding(
            "database",
            Level.FAULT,
            f"{kind} has a database with the encoding {check.encoding}, which cannot store every"
            " name",
            "Create one with ENCODING 'UTF8' TEMPLATE template0, move the data there by pg_dump and"
            " psql, and name it in DATABASE_URL.",
        )
    elif check.migration is not None:
        yield Finding(
            "database",
            Level.FAULT,
            f"{kind} is at migration {check.migration}, not {head_revision()}",
            "Run `flask db upgrade`.",
        )
    else:
        about, mend = _obstacle(services.settings)
        yield Finding("database", Level.FAULT, f"{kind} {about}", mend)


# What PostgreSQL, its driver or a pooler says → what that means, and the mend.
_DATABASE_OBSTACLES = (
    (
        "unsupported startup parameter",
        "is behind a PgBouncer that rejects the startup options of the service",
        "Set `ignore_startup_parameters = options` there, and run deploy/pgbouncer/role.sql.",
    ),
    (
        "authentication failed",
        "rejects the user or the password",
        "Correct them in DATABASE_URL, or DATABASE_USER and DATABASE_PASSWORD.",
    ),
    ("no password supplied", "requires a password", "Set it in DATABASE_URL or DATABASE_PASSWORD."),
    ("does not exist", "has no such database or user", "Create it, or correct DATABASE_URL."),
    (
        "could not translate host name",
        "has a host name that does not resolve",
        "Correct DATABASE_URL.",
    ),
    (
        "too many c",
        "has no connection left",
        "Raise max_connections, lower DATABASE_POOL_SIZE, or put PgBouncer in between.",
    ),
)


def _obstacle(settings: Settings) -> tuple[str, str]:
    """Return why the database cannot be asked, and the mend."""
    if settings.uses_sqlite:
        return "was never migrated, or cannot be opened", "Run `flask db upgrade`."
    try:
        connect_alone(settings.database_url, "userapi-doctor").close()
    except psycopg2.Error as exc:
        for words, about, mend in _DATABASE_OBSTACLES:
            if words in str(exc):
                return about, mend
        return "does not answer", "Start it, or correct DATABASE_URL."
    return "was never migrated", "Run `flask db upgrade`."


def _pooler(services: Services) -> Iterator[Finding]:
    """Look at what a pooler in between keeps from PostgreSQL."""
    driver_connection: Any = db.session.connection().connection.dbapi_connection
    if not has_pooler(driver_connection):
        return
    yield Finding(
        "database",
        Level.OK,
        "connected through a pooler: fine for the service, not for the worker and `flask db`",
    )
    if services.settings.runs_worker_inside:
        yield Finding(
            "database",
            Level.FAULT,
            "the embedded worker connects through the pooler: two workers may publish at once",
            "Set WORKER_EMBEDDED to false, and run `flask worker` with PostgreSQL's own address.",
        )
    settings = db.session.execute(text("SELECT name, setting, unit FROM pg_settings"))
    present = {row.name.lower(): row.setting + (row.unit or "") for row in settings}
    lost = [name for name in SETTINGS_OF_ROLE if present[name] != SESSION_SETTINGS[name]]
    yield from _warnings(
        "database",
        (
            lost,
            f"the pooler drops session settings of the service: {', '.join(lost)}",
            "Run deploy/pgbouncer/role.sql on the database, then RECONNECT in PgBouncer.",
        ),
    )


def _postgresql(services: Services) -> Iterator[Finding]:
    yield from _pooler(services)
    row = db.session.execute(
        text(
            "SELECT clock_timestamp() AS now,"
            " current_setting('server_version_num')::int AS version,"
            " EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm') AS has_trgm,"
            " (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS is_superuser,"
            " EXISTS (SELECT FROM pg_tables WHERE tableowner = current_user"
            " AND tablename = 'audit_logs') AS is_owner"
        )
    ).one()
    skew = abs((services.clock.now() - row.now).total_seconds())
    yield from _warnings(
        "database",
        (
            skew > LARGEST_SKEW_SECONDS,
            f"the clocks of this machine and of PostgreSQL are {skew:.0f} s apart",
            "Synchronise both machines with NTP.",
        ),
        (
            row.version < MIN_POSTGRESQL,
            f"PostgreSQL is version {row.version // 10000}; 13 is the oldest tested version",
            "Upgrade PostgreSQL.",
        ),
        (
            not row.has_trgm,
            "the extension pg_trgm is missing: a search reads the whole table",
            "As its owner: CREATE EXTENSION pg_trgm; then recreate the index of migration 0004.",
        ),
        (
            row.is_superuser and services.settings.is_production,
            "the service is a superuser of PostgreSQL and could alter the audit log",
            "Create a separate role: see deploy/postgresql/roles.sql.",
        ),
        (
            row.is_owner and not row.is_superuser and services.settings.is_production,
            "the service owns its tables and could disable the protection of the audit log",
            "Transfer them to another role: see deploy/postgresql/roles.sql.",
        ),
    )


# What a Redis says that answers and accepts no writes → what that means, and the mend.
_REFUSED_WRITES = (
    (
        "used memory",
        "is full and rejects writes (OOM)",
        "Raise maxmemory, or find what fills it: redis-cli --bigkeys.",
    ),
    (
        "read only replica",
        "is a replica and rejects writes (READONLY)",
        "Set REDIS_URL to the primary.",
    ),
    (
        "MISCONF",
        "cannot save its data to disk and rejects writes (MISCONF)",
        "Free disk space or correct the permissions; its log has the cause.",
    ),
    (
        "NOREPLICAS",
        "has too few replicas and rejects writes (NOREPLICAS)",
        "Restore the replicas, or lower min-replicas-to-write.",
    ),
)


def _refused_writes(error: redis.ResponseError) -> tuple[str, str] | None:
    """Return what it means that Redis refused a write, and the mend; None for another refusal."""
    for words, about, mend in _REFUSED_WRITES:
        if words in str(error):
            return about, mend
    return None


def _redis(settings: Settings) -> Iterator[Finding]:
    """Look at Redis: whether it answers, and what it throws away when it is full."""
    if not settings.redis_url:
        yield Finding(
            "redis",
            Level.OK,
            "not configured: sessions are checked in the database, limits count per process",
        )
        return
    client = redis.Redis.from_url(
        settings.redis_url,
        socket_timeout=REDIS_TIMEOUT_SECONDS,
        socket_connect_timeout=REDIS_TIMEOUT_SECONDS,
        retry=None,
    )
    try:
        require_writable(client)
        memory = client.info("memory")
    except redis.AuthenticationError:
        yield Finding("redis", Level.FAULT, "rejects the password", "Correct it in REDIS_URL.")
    except redis.ResponseError as exc:
        refused = _refused_writes(exc)
        if refused is not None:
            yield Finding("redis", Level.FAULT, *refused)
            return
        yield Finding(
            "redis",
            Level.WARNING,
            f"answers, but not to INFO ({type(exc).__name__})",
            "Allow its user to call INFO, or check maxmemory-policy yourself.",
        )
    except (redis.RedisError, OSError) as exc:
        yield Finding(
            "redis",
            Level.FAULT,
            f"does not answer ({type(exc).__name__})",
            "Start Redis, or correct REDIS_URL.",
        )
    else:
        yield Finding("redis", Level.OK, "answers")
        policy = str(memory.get("maxmemory_policy", "noeviction"))
        yield from _warnings(
            "redis",
            (
                memory.get("maxmemory") and policy != "noeviction",
                f"a full Redis evicts console sessions and rate-limit counters ({policy})",
                "Set maxmemory-policy to noeviction; the service works without Redis.",
            ),
        )
    finally:
        client.close()


_BROKER_MENDS = {
    "AccessRefused": "Correct the user and password in RABBITMQ_URL, and allow the user"
    " to configure and write RABBITMQ_EXCHANGE.",
    "NotAllowed": "Create the virtual host of RABBITMQ_URL, and grant the user access to it.",
    "PreconditionFailed": "RABBITMQ_EXCHANGE exists with another type: delete it, or set"
    " another one.",
}


def _rabbitmq(settings: Settings) -> Iterator[Finding]:
    """Look at RabbitMQ as the worker does: connect, and declare the exchange."""
    if not settings.rabbitmq_url:
        days = settings.outbox_retention_days
        yield Finding(
            "rabbitmq", Level.OK, f"not configured: events stay in the outbox for {days} days"
        )
        return
    publisher = AmqpPublisher(settings.rabbitmq_url, exchange=settings.rabbitmq_exchange)
    obstacle = publisher.obstacle()
    publisher.close()
    if obstacle is None:
        yield Finding("rabbitmq", Level.OK, f"accepts events on {settings.rabbitmq_exchange}")
        return
    mend = _BROKER_MENDS.get(obstacle, "Start RabbitMQ, or correct RABBITMQ_URL.")
    yield Finding(
        "rabbitmq",
        Level.FAULT,
        f"accepts no events ({obstacle})",
        f"{mend} No event is lost meanwhile.",
    )


def _worker(services: Services, check: Check) -> Iterator[Finding]:
    """Look for a sign of life of the worker, and for what waits for it."""
    settings, seen = services.settings, check.worker_seen
    where = (
        "It runs inside the service: start the service."
        if settings.runs_worker_inside
        else ("Start `flask worker`: it sends mails and events, and ends suspensions.")
    )
    if seen is None:
        yield Finding("worker", Level.WARNING, "has not been seen yet", where)
    elif (silent := (services.clock.now() - seen).total_seconds()) > WORKER_SEEN_SECONDS:
        level = Level.WARNING if settings.runs_worker_inside else Level.FAULT
        yield Finding("worker", level, f"was last seen {_span(silent)} ago", where)
    else:
        yield Finding("worker", Level.OK, f"was seen {_span(silent)} ago")
    late = bool(settings.rabbitmq_url) and (check.oldest_seconds or 0) > OLDEST_EVENT_SECONDS
    yield Finding(
        "outbox",
        Level.WARNING if late else Level.OK,
        f"{check.pending} events wait, the oldest for {_span(check.oldest_seconds or 0)}",
        "Check that `flask worker` runs and RabbitMQ answers." if late else None,
    )
    parked = db.session.scalar(
        text("SELECT COUNT(*) FROM outbox_events WHERE parked_at IS NOT NULL")
    )
    yield from _warnings(
        "outbox",
        (
            parked,
            f"RabbitMQ has permanently rejected {parked} events",
            "Check `flask events list --state parked`; then run `flask events replay --parked`.",
        ),
    )


def _unsent_mails(services: Services) -> Iterator[Finding]:
    """Look at the mails that wait, and at those that the mail server has refused for good."""
    row = db.session.execute(
        select(
            func.count().filter(OutgoingMail.parked_at.is_(None)).label("waiting"),
            func.min(OutgoingMail.created_at)
            .filter(OutgoingMail.parked_at.is_(None))
            .label("oldest"),
            func.count(OutgoingMail.parked_at).label("parked"),
        ).where(OutgoingMail.sent_at.is_(None))
    ).one()
    age = (services.clock.now() - row.oldest).total_seconds() if row.waiting else 0.0
    yield from _warnings(
        "mail",
        (
            age > OLDEST_MAIL_SECONDS,
            f"{row.waiting} mails wait, the oldest for {_span(age)}",
            "Check `flask mails list --state waiting`, and that `flask worker` runs.",
        ),
        (
            row.parked,
            f"the mail server has permanently rejected {row.parked} mails",
            "Check `flask mails list --state parked`; then run `flask mails retry --parked`.",
        ),
    )


def _peppers(services: Services, check: Check) -> Iterator[Finding]:
    """Look for the peppers that the hashes of passwords need."""
    if check.missing_peppers:
        yield Finding(
            "passwords",
            Level.FAULT,
            "hashes need a pepper that is not configured"
            f" ({', '.join(check.missing_peppers)}): their users cannot log in",
            "Set PASSWORD_PEPPER to its former value, or add that value to"
            " PASSWORD_PEPPER_PREVIOUS.",
        )
        return
    yield Finding("passwords", Level.OK, "the peppers of all hashes are configured")
    former = set(services.peppers.by_id) - {services.peppers.current_id}
    if not former:
        return
    with reading() as connection:
        counts = services.peppers.counts(connection)
    for pepper in sorted(former):
        more = "or more " if counts[pepper] == COUNTED_UP_TO else ""
        unused = "" if counts[pepper] else ": you can remove it from PASSWORD_PEPPER_PREVIOUS"
        yield Finding(
            "passwords",
            Level.OK,
            f"{counts[pepper]} {more}hashes need the former pepper {pepper}{unused}",
        )


def _audit(services: Services) -> Iterator[Finding]:
    """Look for the keys that the seals of the audit log need."""
    with reading() as connection:
        missing = services.audit_seals.missing_keys(connection)
    if not missing:
        yield Finding("audit", Level.OK, "the keys of all seals are configured")
        return
    yield Finding(
        "audit",
        Level.FAULT,
        f"seals were made with a key that is not here ({', '.join(missing)}): nothing is sealed"
        " under a chain that cannot be checked",
        "Set AUDIT_SEAL_KEY_PREVIOUS or ENCRYPTION_KEY_PREVIOUS to the former key, or"
        " AUDIT_SEAL_KEY_PREVIOUS to the former SECRET_KEY for an `unnamed` one. If it is lost:"
        " `flask audit anchor --reason TEXT`.",
    )


def _span(seconds: float) -> str:
    """Return a length of time as people say it."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _mail(settings: Settings, server: MailServer | None) -> Iterator[Finding]:
    """Look at where mails go: to a server, or into a folder."""
    if server is None:
        yield from _mail_folder(settings)
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
        yield Finding("mail", Level.OK, f"{settings.smtp_host} answers")
    yield from _warnings(
        "mail",
        (
            settings.mail_from.endswith("@localhost.localdomain"),
            "MAIL_FROM is not a real address: other servers reject such mails",
            "Set it to an address of your domain.",
        ),
        (
            settings.smtp_tls == "none" and settings.smtp_host not in LOCAL_HOSTS,
            "SMTP_TLS is none: links that reset passwords can be read in transit",
            "Set it to starttls or implicit.",
        ),
        (
            settings.smtp_tls == "starttls" and settings.smtp_port == 465,
            "SMTP_TLS is starttls, but port 465 is for implicit TLS",
            "Set SMTP_TLS to implicit, or SMTP_PORT to 587.",
        ),
        (
            settings.smtp_tls == "implicit" and settings.smtp_port in (25, 587),
            f"SMTP_TLS is implicit, but port {settings.smtp_port} is for STARTTLS",
            "Set SMTP_TLS to starttls, or SMTP_PORT to 465.",
        ),
    )


def _mail_folder(settings: Settings) -> Iterator[Finding]:
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
    yield from _warnings(
        "mail",
        (
            settings.is_production,
            "no mail is delivered: without SMTP_HOST they stay here",
            "Set SMTP_HOST.",
        ),
    )
