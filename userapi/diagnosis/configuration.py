"""The settings: how the service is reached, and what production should not allow."""

from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from userapi.diagnosis.findings import Finding, Level, warnings
from userapi.permissions import OWN_PERMISSIONS, PermissionSet
from userapi.settings import Settings

LOCAL_HOSTS = {"127.0.0.1", "localhost", "::1"}
VERIFIED_BY = {
    "DATABASE_URL": "Add sslmode=verify-full, and set TLS_CA_FILE for an authority of your own.",
    "REDIS_URL": "Use rediss://, and set TLS_CA_FILE for an authority of your own.",
    "RABBITMQ_URL": "Use amqps://, and set TLS_CA_FILE for an authority of your own.",
}


def findings(settings: Settings) -> Iterator[Finding]:
    """Yield which settings do not fit together, and in production which are insecure."""
    yield Finding("settings", Level.OK, f"{settings.environment}, all valid")
    yield from _addresses(settings)
    ineffective = _without_effect(settings.step_up_permissions)
    yield from warnings(
        "settings",
        (
            settings.tls_ca_file and "DATABASE_URL" in settings.unverified_connections,
            "TLS_CA_FILE does not protect the connection to PostgreSQL: DATABASE_URL allows"
            " connections without TLS",
            "Add sslmode=verify-full to DATABASE_URL.",
        ),
        (
            ineffective,
            f"STEP_UP_PERMISSIONS names {', '.join(ineffective)}, which no endpoint of this service"
            " requires",
            "Correct the names; other services ask for a step-up themselves.",
        ),
    )
    if settings.is_production:
        yield from _production(settings)


def _without_effect(names: Iterable[str]) -> list[str]:
    """Return the permissions that include none of this service."""
    return [
        name for name in names if not any(own in PermissionSet([name]) for own in OWN_PERMISSIONS)
    ]


def _addresses(settings: Settings) -> Iterator[Finding]:
    """Yield what is wrong with hosts, proxies and origins."""
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
    yield from warnings(
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


def _production(settings: Settings) -> Iterator[Finding]:
    """Yield what production allows and should not."""
    for variable in settings.unverified_connections:
        yield Finding(
            "settings",
            Level.WARNING,
            f"{variable} leads over a network without a verified certificate: whoever controls the"
            " network can read and change what is sent",
            VERIFIED_BY[variable],
        )
    yield from warnings(
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
            "SECURITY_CONTACT is not set: people cannot report vulnerabilities",
            "Set it to an address, such as mailto:security@example.com.",
        ),
        (
            settings.uses_sqlite,
            "SQLite supports one machine and one writer at a time",
            "Set DATABASE_URL to PostgreSQL.",
        ),
    )
