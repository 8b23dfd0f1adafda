"""flask doctor finds each thing that an operator can get wrong, and says how to fix it."""

import os
import re
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis
from click.testing import Result
from flask import Flask
from sqlalchemy import text

from tests.support.authenticator import Authenticator
from tests.support.clusters.certificates import make_certificates
from tests.support.databases import PostgresDatabase
from tests.support.machines import make_service
from tests.support.passkeys import add_passkey
from tests.support.ports import free_port
from tests.support.users import LogIn, MakeUser
from userapi.clock import ManualClock
from userapi.diagnosis import stored_secrets
from userapi.infrastructure.database import db, transaction
from userapi.infrastructure.heartbeat import WorkerHeartbeat
from userapi.mail.models import MailKind, OutgoingMail

pytestmark = pytest.mark.thorough

MakeApp = Callable[..., Flask]
# What a good production deployment says of itself; servers are those of the tests.
PRODUCTION = {
    "ENVIRONMENT": "production",
    "PASSWORD_HASH_ROUNDS": "10",
    "SECRET_KEY": "kP3vWm8sQz1xLr6tYb9nHd4gJf7cUa2e",
    "JWT_SECRET_KEY": "Tg5hNq0wEr8yUi3oPl6kJm9bVc2xZa1s",
    "PASSWORD_PEPPER": "Xd7fGh2jKl5zXc8vBn1mQw4eRt6yUi9o",
    "ENCRYPTION_KEY": "Zs3cFv6bGn8mHj1kLq4wEr7tYu9iOp2x",
    "METRICS_TOKEN": "Uy4tRe2wQa8sDf6gHj",
    "PUBLIC_BASE_URL": "https://id.acme.test",
    "JWT_ISSUER": "https://id.acme.test",
    "TRUSTED_HOSTS": "id.acme.test",
    "TRUSTED_PROXY_COUNT": "1",
    "RATE_LIMIT_ENABLED": "true",
    "FEATURE_EMAIL_VERIFICATION": "true",
    "SECURITY_CONTACT": "mailto:security@acme.test",
}


def doctor(app: Flask) -> Result:
    return app.test_cli_runner().invoke(args=["doctor"])


def finding(result: Result, text: str) -> tuple[str, str]:
    """Return the mark and the fix of the one finding whose text begins so."""
    found = re.findall(
        rf"^ (\S) (?:api )?\w+ +{re.escape(text)}[^\n]*\n(?: +→ ([^\n]+))?",
        result.output,
        re.MULTILINE,
    )
    assert len(found) == 1, result.output
    mark, fix = found[0]
    return mark, fix


SETTINGS = [
    ({"PUBLIC_BASE_URL": "http://id.acme.test"}, "PUBLIC_BASE_URL is not https", "Set it to the"),
    ({"TRUSTED_HOSTS": ""}, "TRUSTED_HOSTS is empty", "Set it to the host names"),
    ({"TRUSTED_PROXY_COUNT": "0"}, "a proxy terminates https", "Set TRUSTED_PROXY_COUNT"),
    (
        {"PUBLIC_BASE_URL": "http://localhost:8000", "TRUSTED_HOSTS": "localhost"},
        "TRUSTED_PROXY_COUNT is 1, but people reach the service directly",
        "Set it to 0",
    ),
    ({"REDIS_URL": ""}, "without Redis each process counts", "Set REDIS_URL"),
    ({}, "without RabbitMQ no other service receives", "Set RABBITMQ_URL"),
    ({"RATE_LIMIT_ENABLED": "false"}, "RATE_LIMIT_ENABLED is false", "Set it to true"),
    ({"LOCKOUT_THRESHOLD": "101"}, "LOCKOUT_THRESHOLD is 101", "Set it to 100"),
    ({"PASSWORD_MIN_SCORE": "0"}, "PASSWORD_MIN_SCORE is 0", "Set it to 2"),
    ({"METRICS_TOKEN": ""}, "METRICS_TOKEN is empty", "Set it, or let only Prometheus"),
    ({"HEALTH_DETAILED_PUBLIC": "true"}, "HEALTH_DETAILED_PUBLIC is true", "Set it to false"),
    (
        {"FEATURE_EMAIL_VERIFICATION": "false"},
        "people can register with addresses",
        "Set FEATURE_EMAIL_VERIFICATION",
    ),
    ({"LOG_LEVEL": "DEBUG"}, "LOG_LEVEL is DEBUG", "Set it to INFO"),
    ({"SECURITY_CONTACT": ""}, "SECURITY_CONTACT is not set", "Set it to an address"),
    (
        {"CORS_ORIGINS": "http://app.acme.test"},
        "CORS_ORIGINS lists an origin without https",
        "Serve that origin over https",
    ),
    (
        {"SESSION_IDLE_TIMEOUT_DAYS": "31", "SESSION_ABSOLUTE_LIFETIME_DAYS": "30"},
        "SESSION_IDLE_TIMEOUT_DAYS has no effect",
        "Set it to at most",
    ),
    (
        {"STEP_UP_PERMISSIONS": "users:*,user:delete,media:*"},
        "STEP_UP_PERMISSIONS names user:delete, media:*, which",
        "Correct the names",
    ),
    (
        {"PUBLIC_BASE_URL": "http://id.acme.test"},
        "nobody can add one: http://id.acme.test is neither https nor localhost",
        "Set PUBLIC_BASE_URL to an https address",
    ),
    (
        {"WEBAUTHN_RP_ID": "acme.test", "WEBAUTHN_ORIGINS": "https://www.acme.test"},
        "they do not work in the console: WEBAUTHN_ORIGINS lacks https://id.acme.test",
        "Add it to WEBAUTHN_ORIGINS",
    ),
    (
        {
            "WEBAUTHN_RP_ID": "acme.test",
            "WEBAUTHN_ORIGINS": "https://id.acme.test,https://acme.example",
        },
        "browsers read https://acme.test/.well-known/webauthn before they work at"
        " https://acme.example",
        "Forward that path",
    ),
    ({"JWT_ISSUER": "acme"}, "JWT_ISSUER is acme and not", "Set JWT_ISSUER to PUBLIC_BASE_URL."),
    ({}, "the service is a superuser of PostgreSQL", "Create a separate role"),
    ({}, "no mail is delivered", "Set SMTP_HOST"),
]


@pytest.mark.parametrize(("environment", "about", "fix"), SETTINGS)
def test_what_is_unwise_in_production_is_a_warning(
    make_app: MakeApp, environment: dict[str, str], about: str, fix: str
) -> None:
    result = doctor(make_app(**{**PRODUCTION, **environment}))

    mark, said = finding(result, about)
    assert (mark, result.exit_code) == ("!", 0)
    assert said.startswith(fix)


def test_a_good_deployment_has_little_to_think_about(make_app: MakeApp) -> None:
    result = doctor(make_app(**PRODUCTION))

    warned = re.findall(r"^ ! \w+ +(.{20})", result.output, re.MULTILINE)
    assert warned == [
        "without RabbitMQ no ",
        "the service is a sup",
        "has not been seen ye",
        "no mail is delivered",
    ]
    assert result.output.endswith("\n0 to fix, 4 to consider\n")


def test_everything_in_order_says_so(app: Flask) -> None:
    result = doctor(app)

    assert result.exit_code == 0
    assert "✗" not in result.output
    assert finding(result, "PostgreSQL answers, migrated to")[0] == "✓"
    assert finding(result, "answers")[0] == "✓"


def test_links_that_the_service_itself_refuses_are_a_fault(make_app: MakeApp) -> None:
    result = doctor(make_app(**{**PRODUCTION, "TRUSTED_HOSTS": "localhost,.other.test"}))

    mark, fix = finding(result, "links in mails lead to id.acme.test, which TRUSTED_HOSTS rejects")
    assert (mark, result.exit_code) == ("✗", 1)
    assert fix.startswith("Add id.acme.test to TRUSTED_HOSTS")


def test_a_host_that_is_trusted_with_its_subdomains_is_no_fault(make_app: MakeApp) -> None:
    assert doctor(make_app(**{**PRODUCTION, "TRUSTED_HOSTS": ".acme.test"})).exit_code == 0


def test_passkeys_of_another_rp_id_are_a_warning(
    make_app: MakeApp, make_user: MakeUser, log_in: LogIn
) -> None:
    add_passkey(log_in(make_user("robin")), Authenticator())

    before, after = doctor(make_app()), doctor(make_app(PUBLIC_BASE_URL="https://id.acme.test"))

    mark, fix = finding(after, "1 belong to another RP ID than id.acme.test")
    assert (mark, after.exit_code) == ("!", 0)
    assert fix.startswith("Set WEBAUTHN_RP_ID to the former domain")
    assert finding(before, "they belong to localhost and work at http://localhost:8000")[0] == "✓"
    assert "another RP ID" not in before.output


def test_keys_without_an_end_are_a_warning(app: Flask, make_user: MakeUser, log_in: LogIn) -> None:
    boss = log_in(make_user("boss", roles=["superadmin"]))
    make_service(boss)
    before = doctor(app)
    service = make_service(boss, "other", expires_at=None)

    after = doctor(app)
    boss.delete(service.key.path)

    assert finding(before, "every active API key expires")[0] == "✓"
    mark, fix = finding(after, "1 active API keys never expire")
    assert (mark, after.exit_code) == ("!", 0)
    assert fix.startswith("Rotate them with an end.")
    assert finding(doctor(app), "every active API key expires")[0] == "✓"


def test_origins_of_everybody_are_a_warning(make_app: MakeApp) -> None:
    mark, fix = finding(doctor(make_app(CORS_ORIGINS="*")), "CORS_ORIGINS is *")

    assert (mark, fix) == ("!", "List the origins of your own pages.")


@pytest.mark.parametrize(
    ("environment", "about"),
    [
        ({"SECRET_KEY": "change-me-" * 4}, "SECRET_KEY: must be a random value"),
        ({"METRICS_TOKEN": "changeme"}, "METRICS_TOKEN: must be a random value"),
        (
            {name: "Tg5hNq0wEr8yUi3oPl6kJm9bVc2xZa1s" for name in ("SECRET_KEY", "JWT_SECRET_KEY")},
            "SECRET_KEY, JWT_SECRET_KEY: must have different values",
        ),
    ],
)
def test_a_secret_of_no_worth_is_a_warning(
    make_app: MakeApp, environment: dict[str, str], about: str
) -> None:
    result = doctor(make_app(**environment))

    mark, fix = finding(result, about)
    assert mark == "!"
    assert "token_urlsafe" in fix
    assert not [value for value in environment.values() if value in result.output]


def test_files_of_secrets_that_others_can_read_are_a_fault(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, others = tmp_path / "own", tmp_path / "others"
    for file, mode in ((own, 0o600), (others, 0o644)):
        file.write_text("x" * 40)
        file.chmod(mode)
    monkeypatch.setenv("SECRET_KEY_FILE", str(others))
    monkeypatch.setenv("METRICS_TOKEN_FILE", str(own))

    result = doctor(make_app())

    assert finding(result, f"every user of this machine can read {others}") == (
        "✗",
        f"chmod 600 {others}",
    )
    assert str(own) not in result.output
    assert result.exit_code == 1


def test_a_key_that_others_can_read_is_a_fault(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app(JWT_ALGORITHM="ES256", JWT_KEYS_DIR=str(tmp_path))
    app.test_cli_runner().invoke(args=["keys", "generate"])
    key = next(tmp_path.glob("*.pem"))
    key.chmod(0o644)

    assert finding(doctor(app), f"every user of this machine can read {key}")[0] == "✗"


def test_an_algorithm_without_a_key_is_a_fault(make_app: MakeApp, tmp_path: Path) -> None:
    result = doctor(make_app(JWT_ALGORITHM="EdDSA", JWT_KEYS_DIR=str(tmp_path)))

    assert finding(result, "JWT_ALGORITHM: EdDSA needs a key")[1] == "Run `flask keys generate`."
    assert result.exit_code == 1


def test_an_old_key_is_a_warning(make_app: MakeApp, tmp_path: Path, clock: ManualClock) -> None:
    settings = {"JWT_ALGORITHM": "ES256", "JWT_KEYS_DIR": str(tmp_path)}
    make_app(**settings).test_cli_runner().invoke(args=["keys", "generate"])
    app = make_app(**settings)
    fresh = doctor(app)
    clock.advance(days=366)

    assert finding(fresh, "a key signs with ES256")[0] == "✓"
    assert "the key has signed since" not in fresh.output
    assert finding(doctor(app), "the key has signed since")[1] == "Run `flask keys rotate`."


def test_pending_migrations_are_a_fault(
    make_app: MakeApp, make_database: Callable[[str], PostgresDatabase]
) -> None:
    database = make_database("doctor_at_first_migration")
    app = make_app(DATABASE_URL=database.url)
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))

    result = doctor(app)

    mark, fix = finding(result, "PostgreSQL is at migration 0001, not")
    assert (mark, fix, result.exit_code) == ("✗", "Run `flask db upgrade`.", 1)


def test_a_database_that_is_ahead_is_in_order_until_this_release_does_not_work_with_it(
    make_app: MakeApp, make_database: Callable[[str], PostgresDatabase]
) -> None:
    app = make_app(DATABASE_URL=make_database("doctor_ahead").url)
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    ahead = doctor(app)
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(text("INSERT INTO schema_compatibility VALUES ('9999', '9998')"))

    incompatible = doctor(app)

    assert finding(ahead, "PostgreSQL answers, migrated to 9999, newer than this release")[0] == "✓"
    mark, fix = finding(incompatible, "PostgreSQL is at migration 9999, which this release")
    assert (mark, fix, incompatible.exit_code) == ("✗", "Use a newer release.", 1)


def test_authorities_that_the_database_does_not_use_are_a_warning(
    make_app: MakeApp, tmp_path: Path
) -> None:
    file = make_certificates(tmp_path).authority
    url = "postgresql://userapi:secret@database.invalid/userapi?sslmode=prefer"

    result = doctor(make_app(DATABASE_URL=url, TLS_CA_FILE=str(file)))

    mark, fix = finding(result, "TLS_CA_FILE does not protect the connection to PostgreSQL")
    assert (mark, fix) == ("!", "Add sslmode=verify-full to DATABASE_URL.")


def test_a_database_that_is_away_is_a_fault(make_app: MakeApp) -> None:
    result = doctor(make_app(DATABASE_URL="postgresql://u:kingfisher-79@127.0.0.1:1/x"))

    mark, fix = finding(result, "PostgreSQL does not answer")
    assert mark == "✗"
    assert "DATABASE_URL" in fix
    assert "kingfisher-79" not in result.output


@pytest.mark.parametrize(
    ("wrong", "about", "fix"),
    [
        ({"path": "/no-such-database"}, "has no such database or user", "Create it, or correct"),
        (
            {"netloc": "postgres:kingfisher-79@{host}"},
            "rejects the user or the password",
            "Correct",
        ),
        (
            {"netloc": "postgres@no.such.host.invalid"},
            "has a host name that does not resolve",
            "Corr",
        ),
        ({}, "was never migrated", "Run `flask db upgrade`."),
    ],
)
def test_the_reason_for_an_unavailable_database_is_reported(
    make_app: MakeApp, postgresql_url: str, wrong: dict[str, str], about: str, fix: str
) -> None:
    parts = urlsplit(postgresql_url)
    host = f"{parts.hostname}:{parts.port}"
    url = parts._replace(**{name: part.format(host=host) for name, part in wrong.items()}).geturl()

    result = doctor(make_app(DATABASE_URL=url))

    mark, given = finding(result, f"PostgreSQL {about}")
    assert (mark, result.exit_code) == ("✗", 1)
    assert given.startswith(fix)
    assert "kingfisher-79" not in result.output


def test_clocks_that_differ_are_a_warning(app: Flask, clock: ManualClock) -> None:
    clock.advance(seconds=90)

    mark, fix = finding(doctor(app), "the clocks of this machine and of PostgreSQL are 90 s apart")
    assert mark == "!"
    assert "NTP" in fix


def test_a_missing_extension_is_a_warning(
    make_app: MakeApp, make_database: Callable[[str], PostgresDatabase]
) -> None:
    database = make_database("doctor_without_trigrams")
    app = make_app(DATABASE_URL=database.url)
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(text("DROP EXTENSION pg_trgm CASCADE"))

    mark, fix = finding(doctor(app), "the extension pg_trgm is missing")
    assert mark == "!"
    assert "CREATE EXTENSION pg_trgm" in fix


@pytest.fixture
def small_redis(redis_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_url)
    before = client.config_get("maxmemory*")
    client.config_set("maxmemory", "512mb")
    yield client
    for name in ("maxmemory", "maxmemory-policy"):
        client.config_set(name, str(before[name]))
    client.close()


def test_a_redis_that_throws_sessions_away_is_a_warning(
    app: Flask, small_redis: redis.Redis
) -> None:
    small_redis.config_set("maxmemory-policy", "noeviction")
    kept = doctor(app)
    small_redis.config_set("maxmemory-policy", "allkeys-lru")

    assert "evicts" not in kept.output
    mark, fix = finding(doctor(app), "a full Redis evicts console sessions")
    assert mark == "!"
    assert "noeviction" in fix


def test_a_redis_that_is_away_is_a_fault(make_app: MakeApp) -> None:
    result = doctor(make_app(REDIS_URL=f"redis://127.0.0.1:{free_port()}/0"))

    assert finding(result, "does not answer (ConnectionError)")[1].startswith("Start Redis")
    assert result.exit_code == 1


def test_a_redis_that_refuses_the_password_is_a_fault(make_app: MakeApp, redis_url: str) -> None:
    parts = urlsplit(redis_url)
    url = urlunsplit(parts._replace(netloc=f"nobody:kingfisher-79@{parts.netloc}"))

    result = doctor(make_app(REDIS_URL=url))

    assert finding(result, "rejects the password") == ("✗", "Correct it in REDIS_URL.")
    assert "kingfisher-79" not in result.output


def test_a_rabbitmq_that_is_away_is_a_fault(make_app: MakeApp) -> None:
    result = doctor(make_app(RABBITMQ_URL=f"amqp://u:kingfisher-79@127.0.0.1:{free_port()}/"))

    mark, fix = finding(result, "accepts no events (ConnectionRefusedError)")
    assert mark == "✗"
    assert fix.startswith("Start RabbitMQ")
    assert "kingfisher-79" not in result.output


def test_a_rabbitmq_that_refuses_the_user_is_a_fault(make_app: MakeApp, rabbitmq_url: str) -> None:
    parts = urlsplit(rabbitmq_url)
    wrong = f"nobody:kingfisher-79@{parts.hostname}:{parts.port}"

    result = doctor(make_app(RABBITMQ_URL=urlunsplit(parts._replace(netloc=wrong))))

    mark, fix = finding(result, "accepts no events (AccessRefused)")
    assert mark == "✗"
    assert fix.startswith("Correct the user and password in RABBITMQ_URL")


def test_an_exchange_that_the_user_may_not_make_is_a_fault(
    make_app: MakeApp, rabbitmq_url: str
) -> None:
    """No user may create an exchange with this prefix."""
    result = doctor(make_app(RABBITMQ_URL=rabbitmq_url, RABBITMQ_EXCHANGE="amq.mine"))

    mark, fix = finding(result, "accepts no events (AccessRefused)")
    assert mark == "✗"
    assert "RABBITMQ_EXCHANGE" in fix


def test_an_exchange_of_another_type_is_a_fault(make_app: MakeApp, rabbitmq_url: str) -> None:
    result = doctor(make_app(RABBITMQ_URL=rabbitmq_url, RABBITMQ_EXCHANGE="amq.fanout"))

    mark, fix = finding(result, "accepts no events (PreconditionFailed)")
    assert mark == "✗"
    assert "another type" in fix


def test_a_rabbitmq_that_accepts_events_is_reported_as_ok(
    make_app: MakeApp, rabbitmq_url: str, rabbitmq_exchange: str
) -> None:
    result = doctor(make_app(RABBITMQ_URL=rabbitmq_url, RABBITMQ_EXCHANGE=rabbitmq_exchange))

    assert finding(result, f"accepts events on {rabbitmq_exchange}") == ("✓", "")
    assert result.exit_code == 0


def beat(app: Flask, clock: ManualClock, *, ago: timedelta) -> None:
    with app.app_context(), transaction() as session:
        session.add(WorkerHeartbeat(name="worker", last_seen_at=clock.now() - ago))


def test_a_worker_that_has_gone_silent_is_a_fault(app: Flask, clock: ManualClock) -> None:
    never = doctor(app)
    beat(app, clock, ago=timedelta(minutes=10))

    result = doctor(app)

    assert finding(never, "has not been seen yet")[0] == "!"
    mark, fix = finding(result, "was last seen 10 minutes ago")
    assert (mark, result.exit_code) == ("✗", 1)
    assert fix.startswith("Start `flask worker`")


def test_a_worker_that_is_at_work_is_in_order(app: Flask, clock: ManualClock) -> None:
    beat(app, clock, ago=timedelta(seconds=4))

    result = doctor(app)

    # The clock runs on while the command starts.
    seen = re.search(r"was seen (\d+) s ago", result.output)
    assert seen and int(seen[1]) >= 4
    assert finding(result, seen[0]) == ("✓", "")


def test_events_that_wait_too_long_are_a_warning(
    make_app: MakeApp,
    make_user: Callable[..., object],
    clock: ManualClock,
    rabbitmq_url: str,
    rabbitmq_exchange: str,
) -> None:
    make_user("robin")
    clock.advance(minutes=5)

    result = doctor(make_app(RABBITMQ_URL=rabbitmq_url, RABBITMQ_EXCHANGE=rabbitmq_exchange))

    mark, fix = finding(result, "1 events wait, the oldest for 5 minutes")
    assert mark == "!"
    assert "flask worker" in fix


def test_permanently_rejected_events_are_a_warning(
    app: Flask, make_user: Callable[..., object]
) -> None:
    make_user("robin")
    with app.app_context(), transaction() as session:
        session.execute(text("UPDATE outbox_events SET parked_at = occurred_at"))

    mark, fix = finding(doctor(app), "RabbitMQ has permanently rejected 1 events")
    assert mark == "!"
    assert "flask events replay --parked" in fix


@pytest.mark.both_databases
def test_mails_that_wait_too_long_or_were_refused_are_a_warning(
    app: Flask, clock: ManualClock
) -> None:
    for values in ({}, {"parked_at": clock.now()}):
        with app.app_context(), transaction() as session:
            session.add(
                OutgoingMail(
                    kind=MailKind.PASSWORD_CHANGED,
                    recipient="robin@example.com",
                    created_at=clock.now() - timedelta(hours=3),
                    next_attempt_at=clock.now(),
                    **values,
                )
            )

    result = doctor(app)

    assert finding(result, "1 mails wait, the oldest for 3 hours")[0] == "!"
    mark, fix = finding(result, "the mail server has permanently rejected 1 mails")
    assert mark == "!"
    assert "flask mails retry --parked" in fix


def test_a_mail_folder_that_cannot_be_written_is_a_fault(make_app: MakeApp, tmp_path: Path) -> None:
    (tmp_path / "in-the-way").write_text("")

    result = doctor(make_app(MAIL_DIR=str(tmp_path / "in-the-way")))

    mark, fix = finding(result, f"no file can be written to {tmp_path / 'in-the-way'}")
    assert (mark, result.exit_code) == ("✗", 1)
    assert "MAIL_DIR" in fix


def test_a_mail_server_that_is_away_is_a_fault(make_app: MakeApp) -> None:
    result = doctor(
        make_app(SMTP_HOST="127.0.0.1", SMTP_PORT=str(free_port()), MAIL_FROM="id@acme.test")
    )

    assert finding(result, "the mail server rejects the service (ConnectionRefusedError)")[0] == "✗"
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("environment", "about"),
    [
        ({"SMTP_HOST": "127.0.0.1"}, "MAIL_FROM is not a real address"),
        (
            {"SMTP_HOST": socket.gethostname(), "SMTP_TLS": "none"},
            "SMTP_TLS is none",
        ),
        (
            {"SMTP_HOST": socket.gethostname(), "SMTP_STARTTLS": "false"},
            "SMTP_TLS is none",
        ),
    ],
)
def test_a_mail_server_that_is_used_badly_is_a_warning(
    make_app: MakeApp, environment: dict[str, str], about: str
) -> None:
    result = doctor(make_app(SMTP_PORT=str(free_port()), **environment))

    assert finding(result, about)[0] == "!"


def test_what_a_container_engine_mounts_is_for_the_service_alone(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret_key"
    secret.write_text("x" * 40)
    os.chmod(secret, 0o444)
    monkeypatch.setenv("SECRET_KEY_FILE", str(secret))
    monkeypatch.setattr(stored_secrets, "MOUNTED_SECRETS", tmp_path)

    assert doctor(make_app()).exit_code == 0
