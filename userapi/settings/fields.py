"""Every setting, one field for each environment variable of the same name in upper case.

The docstring of a field is its description in `docs/configuration.md` and `.env.example`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from userapi.settings import parsers as parse
from userapi.settings.database_urls import database_url as parse_database_url
from userapi.settings.database_urls import postgresql_url as parse_postgresql_url
from userapi.settings.mail_design import color, image_url
from userapi.settings.redis_urls import redis_url as parse_redis_url
from userapi.settings.relying_party import origins as parse_webauthn_origins
from userapi.settings.relying_party import rp_id as parse_rp_id

DEFAULT_INSTANCE_DIR = parse.PROJECT_ROOT / "instance"
JWT_ALGORITHMS = ("HS256", "ES256", "EdDSA", "RS256")

T = TypeVar("T")


def setting(parser: Callable[[str], T], default: T | None, *, secret: bool = False) -> T:
    """Declare a field: the parser of its text, its default, whether it is a secret.

    None as the default of a value means that it depends on other settings.
    """
    metadata = {"parse": parser, "secret": secret}
    # A traceback with local variables, or a line of a log, must not show secrets.
    declared: Any = field(default=default, repr=not secret, metadata=metadata)
    value: T = declared
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """All that an operator can set; see `.env.example` for the same list as a file."""

    # General
    app_name: str = setting(parse.visible_text(100), "User Management Service")
    """Name in mails and documents."""
    environment: str = setting(parse.choice("development", "testing", "production"), "development")
    """Environment: development, testing or production."""
    debug: bool = setting(parse.boolean, False)
    """Flask debug mode; rejected in production."""
    instance_dir: Path = setting(parse.path, DEFAULT_INSTANCE_DIR)
    """Folder of the embedded default: database, secrets, mails."""
    bind: str = setting(parse.text(200), "127.0.0.1:8000")
    """Address and port."""
    public_base_url: str = setting(parse.http_url, "http://localhost:8000")
    """Base URL of the links in mails; default: localhost with the port of BIND."""
    console_enabled: bool = setting(parse.boolean, True)
    """Serve the pages under /console/."""
    docs_enabled: bool = setting(parse.boolean, True)
    """Serve /docs, /redoc and /openapi.json."""
    trusted_hosts: tuple[str, ...] = setting(parse.trusted_hosts, ())
    """Accepted host names (.example.com includes subdomains); empty: all."""
    trusted_proxy_count: int = setting(parse.integer(0, 10), 0)
    """Number of proxies in front whose X-Forwarded-For is trusted."""
    cors_origins: tuple[str, ...] = setting(parse.origins, ())
    """Origins from which browsers may call the API."""
    security_contact: str = setting(parse.contact_uri, "mailto:security@localhost")
    """Contact in /.well-known/security.txt (RFC 9116)."""
    worker_embedded: bool = setting(parse.boolean, False)
    """Run the worker inside the service (always so in the embedded default)."""

    # Secrets
    secret_key: str = setting(parse.long_secret, "", secret=True)
    """Signs cursors, cookies and refresh tokens."""
    jwt_secret_key: str = setting(parse.long_secret, "", secret=True)
    """Signs access tokens with HS256."""
    password_pepper: str = setting(parse.long_secret, "", secret=True)
    """Key of the password pre-hash (HMAC)."""
    password_pepper_previous: tuple[str, ...] = setting(parse.long_secrets, (), secret=True)
    """Former peppers that still verify passwords, newest first."""
    encryption_key: str = setting(parse.long_secret, "", secret=True)
    """Encrypts secret values in the database."""
    encryption_key_previous: tuple[str, ...] = setting(parse.long_secrets, (), secret=True)
    """Former encryption keys that still decrypt, newest first."""
    audit_seal_key: str = setting(parse.long_secret, "", secret=True)
    """Key of the chain of audit seals; default: derived from ENCRYPTION_KEY."""
    audit_seal_key_previous: tuple[str, ...] = setting(parse.long_secrets, (), secret=True)
    """Former keys that still verify audit seals."""
    metrics_token: str = setting(parse.bearer_token, "", secret=True)
    """Bearer token that /metrics requires; empty: none."""

    # Tokens
    jwt_algorithm: str = setting(parse.choice(*JWT_ALGORITHMS), "")
    """Signature of access tokens; default: HS256 if JWT_SECRET_KEY is set, otherwise ES256."""
    jwt_private_key_file: Path | None = setting(parse.readable_file, None)
    """PEM key for ES256, EdDSA or RS256."""
    jwt_keys_dir: Path | None = setting(parse.path, None)
    """Folder of the keys that `flask keys` rotates; default: INSTANCE_DIR/keys."""
    jwt_issuer: str = setting(parse.text(200), "aima-user-service")
    """Claim iss."""
    jwt_audience: str = setting(parse.text(200), "aima")
    """Claim aud."""
    jwt_access_token_expire_minutes: int = setting(parse.integer(1, 1440), 30)
    """Lifetime of an access token, in minutes."""
    jwt_max_bytes: int = setting(parse.integer(256, 8000), 4096)
    """Maximum size of an access token; a larger one omits its permissions."""
    jwt_refresh_token_expire_days: int = setting(parse.integer(1, 365), 7)
    """Lifetime of a session without remember_me, in days."""
    refresh_reuse_grace_seconds: int = setting(parse.integer(0, 300), 10)
    """Grace period in which the previous refresh token still returns the same new one."""

    # Sessions
    session_absolute_lifetime_days: int = setting(parse.integer(1, 365), 30)
    """Lifetime of a session with remember_me, in days."""
    session_idle_timeout_days: int = setting(parse.integer(1, 365), 7)
    """A session ends after so many days without a refresh."""
    session_max_per_user: int = setting(parse.integer(1, 1000), 10)
    """Maximum number of sessions per user; a further one ends the oldest."""
    session_cache_seconds: int = setting(parse.integer(1, 300), 10)
    """Lifetime of a cached session in Redis, with its user's profile, in seconds."""

    # API keys
    api_key_prefix: str = setting(parse.key_prefix, "uak")
    """Beginning of new API keys: 2 to 10 of a-z and 0-9, first a letter."""
    api_key_default_days: int = setting(parse.integer(0, 3650), 365)
    """Lifetime of an API key whose request names no end, in days; 0: no end."""
    api_key_max_days: int = setting(parse.integer(0, 3650), 0)
    """Maximum lifetime of an API key, in days; 0: no limit."""
    api_key_max_per_owner: int = setting(parse.integer(1, 1000), 50)
    """Maximum number of active API keys per user or service account."""

    # Passwords and lockout
    password_hash_rounds: int = setting(parse.integer(4, 16), 12)
    """bcrypt cost; 4 to 9 only in testing."""
    password_hash_queue: int = setting(parse.integer(64, 10000), 64)
    """Maximum number of log-ins that wait for a hash in one worker process."""
    password_min_length: int = setting(parse.integer(8, 128), 8)
    """Minimum length of a password."""
    password_min_score: int = setting(parse.integer(0, 4), 2)
    """Minimum zxcvbn score."""
    password_require_uppercase: bool = setting(parse.boolean, False)
    """Require an upper-case letter."""
    password_require_lowercase: bool = setting(parse.boolean, False)
    """Require a lower-case letter."""
    password_require_numbers: bool = setting(parse.boolean, False)
    """Require a digit."""
    password_require_special: bool = setting(parse.boolean, False)
    """Require a special character."""
    lockout_threshold: int = setting(parse.integer(1, 1000), 5)
    """Consecutive failures that lock a user name."""
    lockout_base_seconds: int = setting(parse.integer(1, 86400), 60)
    """Duration of the first lock, in seconds."""
    lockout_max_seconds: int = setting(parse.integer(1, 604800), 900)
    """Maximum duration of a lock, in seconds."""

    # Features
    feature_user_registration: bool = setting(parse.boolean, True)
    """Allow self-registration."""
    feature_email_verification: bool = setting(parse.boolean, False)
    """A new account stays pending until its address is verified."""
    feature_mfa: bool = setting(parse.boolean, True)
    """Users may add authenticator apps."""
    feature_passkeys: bool = setting(parse.boolean, True)
    """Users may add passkeys, and sign in with them alone."""
    feature_personal_api_keys: bool = setting(parse.boolean, True)
    """Users may have API keys; if false, existing ones are rejected."""
    health_detailed_public: bool = setting(parse.boolean, False)
    """Show /api/v1/health/detailed without a token."""

    # Second factors
    mfa_issuer: str = setting(parse.issuer_name, "")
    """Name of the service in authenticator apps; default: APP_NAME."""
    mfa_required_roles: tuple[str, ...] = setting(parse.names, ())
    """Roles whose users must have a second factor, also those who inherit one of them."""
    mfa_token_seconds: int = setting(parse.integer(5, 900), 300)
    """Time for the second step of a sign-in, in seconds."""
    step_up_max_age_seconds: int = setting(parse.integer(5, 86400), 900)
    """Age of an authentication after which sensitive operations require another, in seconds."""
    step_up_permissions: tuple[str, ...] = setting(parse.permissions, ())
    """Permissions whose use requires a fresh authentication."""
    webauthn_rp_id: str = setting(parse_rp_id, "")
    """Domain that passkeys belong to; default: the host of PUBLIC_BASE_URL."""
    webauthn_rp_name: str = setting(parse.visible_text(64), "")
    """Name of the service in the dialogs of passkeys; default: APP_NAME."""
    webauthn_origins: tuple[str, ...] = setting(parse_webauthn_origins, ())
    """Origins whose pages and apps may use passkeys; default: the origin of PUBLIC_BASE_URL."""

    # Rate limits
    rate_limit_enabled: bool = setting(parse.boolean, True)
    """Enforce rate limits."""
    rate_limit_default: str = setting(parse.rate, "300/minute")
    """Requests per user, or per address if anonymous; also wrong client secrets per address."""
    rate_limit_login: str = setting(parse.rate, "20/minute")
    """Log-ins per address."""
    rate_limit_register: str = setting(parse.rate, "10/hour")
    """Registrations per address."""
    rate_limit_password_reset: str = setting(parse.rate, "5/hour")
    """Reset mails per address."""
    rate_limit_refresh: str = setting(parse.rate, "60/minute")
    """Refreshes per address."""
    rate_limit_email_change: str = setting(parse.rate, "5/hour")
    """E-mail changes per account."""
    rate_limit_password_strength: str = setting(parse.rate, "30/minute")
    """Strength checks per address."""
    rate_limit_service: str = setting(parse.rate, "6000/minute")
    """Requests per service account."""
    rate_limit_token: str = setting(parse.rate, "120/minute")
    """Requests for client tokens per client and address."""

    # Database
    database_url: str = setting(parse_database_url, "", secret=True)
    """postgresql://…, with one host or several, or sqlite:///…; default: SQLite in INSTANCE_DIR."""
    database_direct_url: str = setting(parse_postgresql_url, "", secret=True)
    """PostgreSQL without a pooler, for the worker and migrations; default: DATABASE_URL."""
    database_host: str = setting(parse.host, "")
    """Host, instead of DATABASE_URL."""
    database_port: int = setting(parse.integer(1, 65535), 5432)
    """Port."""
    database_name: str = setting(parse.database_name, "userapi")
    """Database."""
    database_user: str = setting(parse.text(63), "userapi")
    """User."""
    database_password: str = setting(parse.text(500), "", secret=True)
    """Password."""
    database_pool_size: int = setting(parse.integer(1, 200), 8)
    """Maximum number of connections per worker process."""
    clock_skew_seconds: int = setting(parse.integer(1, 60), 5)
    """Difference to the clock of PostgreSQL above which a warning is logged, in seconds."""

    # Redis
    redis_url: str = setting(parse_redis_url, "", secret=True)
    """redis://…, redis+sentinel://… or redis+cluster://…; default: no Redis."""
    redis_host: str = setting(parse.host, "")
    """Host, instead of REDIS_URL."""
    redis_port: int = setting(parse.integer(1, 65535), 6379)
    """Port."""
    redis_db: int = setting(parse.integer(0, 15), 0)
    """Database number."""
    redis_password: str = setting(parse.text(500), "", secret=True)
    """Password."""
    redis_sentinel_password: str = setting(parse.text(500), "", secret=True)
    """Password of the Sentinels in REDIS_URL."""

    # RabbitMQ
    rabbitmq_url: str = setting(parse.rabbitmq_url, "", secret=True)
    """amqp://n1,n2,n3/…; default: events stay in the outbox until they expire."""
    rabbitmq_host: str = setting(parse.host, "")
    """Host, instead of RABBITMQ_URL."""
    rabbitmq_port: int = setting(parse.integer(1, 65535), 5672)
    """Port."""
    rabbitmq_user: str = setting(parse.text(255), "guest")
    """User."""
    rabbitmq_password: str = setting(parse.text(500), "guest", secret=True)
    """Password."""
    rabbitmq_vhost: str = setting(parse.text(255), "/")
    """Virtual host."""
    rabbitmq_exchange: str = setting(parse.text(255), "user_events")
    """Topic exchange of the events."""
    outbox_retention_days: int = setting(parse.integer(1, 3650), 30)
    """Without RabbitMQ, events are deleted after so many days."""

    # TLS
    tls_ca_file: Path | None = setting(parse.ca_file, None)
    """CA certificates (PEM) of PostgreSQL, Redis, RabbitMQ and SMTP where their URLs name none."""

    # Mail
    smtp_host: str = setting(parse.host_without_brackets, "")
    """Mail server; default: .eml files in MAIL_DIR."""
    smtp_port: int = setting(parse.integer(1, 65535), None)
    """Port; default: 587, or 465 with SMTP_TLS=implicit."""
    smtp_user: str = setting(parse.text(255), "")
    """User."""
    smtp_password: str = setting(parse.text(500), "", secret=True)
    """Password."""
    smtp_tls: str = setting(parse.choice("none", "starttls", "implicit"), "starttls")
    """Encryption: none, starttls, or implicit (from the first byte)."""
    smtp_starttls: bool = setting(parse.boolean, None)
    """Deprecated: true means SMTP_TLS=starttls, false means none."""
    mail_from: str = setting(parse.sender, "no-reply@localhost.localdomain")
    """Sender of the mails."""
    mail_dir: Path | None = setting(parse.path, None)
    """Folder of the .eml files; default: INSTANCE_DIR/mail."""
    mail_logo_url: str = setting(image_url, "")
    """Logo above HTML mails, an https address; default: APP_NAME as text."""
    mail_color: str = setting(color, "#1f5fbf")
    """Color of buttons in HTML mails, as #rrggbb."""

    # Logs
    log_level: str = setting(parse.choice("DEBUG", "INFO", "WARNING", "ERROR"), "INFO")
    """Minimum log level."""
    log_format: str = setting(parse.choice("json", "console"), "")
    """json, or console (readable); default: console on a terminal, otherwise json."""
    log_file: Path | None = setting(parse.path, None)
    """Log file, instead of standard output."""
