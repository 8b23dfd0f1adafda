"""The only reader of the environment: variables → one frozen, checked `Settings`.

Each field is one variable of the same name in upper case. A secret `X` may come from the file that
`X_FILE` names. All faults are reported together, each in one line that names the variable and the
valid values, never the value itself.
"""

import fcntl
import json
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import Field, dataclass, field, fields
from email.utils import parseaddr
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import psycopg2
import psycopg2.extensions
import redis
from dotenv import dotenv_values

from userapi.characters import is_blank
from userapi.private_files import make_folder

PROJECT_ROOT = Path(__file__).resolve().parent.parent
DEFAULT_INSTANCE_DIR = PROJECT_ROOT / "instance"
MINIMUM_SECRET_BYTES = 32
HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,253}[A-Za-z0-9_])?\.?", re.ASCII)
# Made once where development and testing leave them out.
SECRETS_OF_THE_INSTANCE = ("secret_key", "jwt_secret_key", "password_pepper", "encryption_key")
JWT_ALGORITHMS = ("HS256", "ES256", "EdDSA", "RS256")
SAME_WORDS_AS_AN_EXAMPLE = re.compile(
    r"change.?(me|this|it)|your.?(secret|key|password)|example|placeholder|insecure|"
    r"dev.?secret|default|replace.?(me|this)|password123|not.?secret",
    re.IGNORECASE,
)


class SettingsError(Exception):
    """The environment does not make a service; `problems` has one line for each fault."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@contextmanager
def faults_end_the_process() -> Iterator[None]:
    """End the process with exit code 1 and one line for each fault, and no traceback."""
    try:
        yield
    except SettingsError as exc:
        for problem in exc.problems:
            print(f"userapi: {problem}", file=sys.stderr)
        sys.exit(1)


Parser = Callable[[str], Any]


def _text(maximum: int = 2000) -> Parser:
    def parse(raw: str) -> str:
        if not raw or len(raw) > maximum or any(ord(c) < 32 for c in raw):
            raise ValueError(f"must have 1 to {maximum} printable characters")
        return raw

    return parse


def _name(maximum: int) -> Parser:
    def parse(raw: str) -> str:
        if is_blank(raw):
            raise ValueError(f"must have 1 to {maximum} characters, one of them visible")
        return str(_text(maximum)(raw))

    return parse


def _integer(minimum: int, maximum: int) -> Parser:
    def parse(raw: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,12}", raw) or not minimum <= int(raw) <= maximum:
            raise ValueError(f"must be a whole number from {minimum} to {maximum}")
        return int(raw)

    return parse


def _boolean(raw: str) -> bool:
    lowered = raw.lower()
    if lowered in {"true", "1", "yes", "on"}:
        return True
    if lowered in {"false", "0", "no", "off"}:
        return False
    raise ValueError("must be true or false")


def _choice(*options: str) -> Parser:
    def parse(raw: str) -> str:
        for option in options:
            if raw.lower() == option.lower():
                return option
        raise ValueError(f"must be one of {', '.join(options)}")

    return parse


def _list(raw: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in raw.split(",") if part.strip())


def _is_host(text: str) -> bool:
    if HOST_NAME.fullmatch(text):
        return True
    try:
        return bool(IPv6Address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        return False


def _host(raw: str) -> str:
    if not _is_host(raw):
        raise ValueError("must be a host name or an IP address, without a port")
    return _bracketed(raw)


def _bracketed(host: str) -> str:
    """Return the host as URLs write it."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _plain_host(raw: str) -> str:
    return _host(raw).strip("[]")


def _trusted_hosts(raw: str) -> tuple[str, ...]:
    hosts = _list(raw)
    if not all(_is_host(host.removeprefix(".")) for host in hosts):
        raise ValueError("must be host names such as id.example.com, separated by commas, no ports")
    return tuple(_bracketed(host) for host in hosts)


def _origins(raw: str) -> tuple[str, ...]:
    origins = _list(raw)
    for origin in origins:
        if origin != "*" and not _is_http_url(origin, with_path=False):
            raise ValueError("must be origins such as https://app.example.com, separated by commas")
    return origins


def _is_http_url(text: str, *, with_path: bool) -> bool:
    try:
        parts = urlsplit(text)
        fits = parts.scheme in {"http", "https"} and (parts.port or 1) > 0
    except ValueError:
        return False
    more = (parts.query, parts.fragment, parts.username, "" if with_path else parts.path)
    return fits and _is_host(parts.hostname or "") and not any(more) and not re.search(r"\s", text)


def _url(*schemes: str) -> Parser:
    def parse(raw: str) -> str:
        try:
            parts = urlsplit(raw)
            fits = parts.scheme in schemes and (parts.port or 1) > 0
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"must be a URL that begins with {' or '.join(s + '://' for s in schemes)}"
            )
        return raw

    return parse


def _http_url(raw: str) -> str:
    if not _is_http_url(_url("http", "https")(raw), with_path=True):
        raise ValueError("must be an address such as https://id.example.com")
    return raw.rstrip("/")


def _database_url(raw: str) -> str:
    _url("postgresql", "postgres", "postgresql+psycopg2", "sqlite")(raw)
    scheme, _, rest = raw.partition("://")
    if scheme == "sqlite":
        if rest.removeprefix("/") in {"", ":memory:"} or not rest.startswith("/"):
            raise ValueError("must be sqlite:/// with the path of a file, not :memory:")
        return raw
    try:
        # Looked at as libpq will: an option that it does not know would fail each request.
        psycopg2.extensions.parse_dsn(f"postgresql://{rest}")
    except psycopg2.Error as exc:
        raise ValueError("must be a URL such as postgresql://user:password@host:5432/name") from exc
    return raw


def _database_name(raw: str) -> str:
    if not re.fullmatch(r"[^\s/?#%]{1,63}", raw):
        raise ValueError("must have 1 to 63 characters, without spaces and / ? # %")
    return raw


def _redis_url(raw: str) -> str:
    parts = urlsplit(_url("redis", "rediss", "unix")(raw))
    try:
        # Made without connecting: an option that it does not know would fail each request.
        redis.ConnectionPool.from_url(raw).make_connection()
    except (TypeError, ValueError) as exc:
        raise ValueError("must be a URL such as redis://:password@host:6379/0") from exc
    if parts.scheme != "unix" and not re.fullmatch(r"/?|/[0-9]{1,5}", parts.path):
        raise ValueError("must have the number of a database as its path, such as redis://host/0")
    return raw


def _sender(raw: str) -> str:
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", parseaddr(_text(320)(raw))[1]):
        raise ValueError("must be an address such as User Service <no-reply@example.com>")
    return raw


def _contact(raw: str) -> str:
    if not re.fullmatch(r"(mailto:|https://|tel:)[!-~]{1,290}", raw):
        raise ValueError("must be a URI that begins with mailto: or https:// or tel:")
    return raw


def _bearer(raw: str) -> str:
    if not re.fullmatch(r"[!-~]{1,500}", raw):
        raise ValueError("must have 1 to 500 visible ASCII characters, as a header requires")
    return raw


def _rate(raw: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,8}/(second|minute|hour|day)", raw):
        raise ValueError("must be a rate such as 20/minute (second, minute, hour or day)")
    return raw


def _secret(raw: str) -> str:
    if len(raw.encode()) < MINIMUM_SECRET_BYTES:
        raise ValueError(f"must be a secret of at least {MINIMUM_SECRET_BYTES} bytes")
    return raw


def _former_secrets(raw: str) -> tuple[str, ...]:
    return tuple(_secret(part) for part in _list(raw))


def _path(raw: str) -> Path:
    if "\0" in raw:
        raise ValueError("must be a path")
    # As `.env` stands there, wherever the command was called.
    return PROJECT_ROOT / raw


def _readable_file(raw: str) -> Path:
    path = _path(raw)
    if not path.is_file() or not os.access(path, os.R_OK):
        raise ValueError("must be the path of a readable file")
    return path


def _setting(parse: Parser, default: Any, about: str, *, secret: bool = False) -> Any:
    """Declare a field: how its text is parsed, its default and what it is for."""
    metadata = {"parse": parse, "about": about, "secret": secret}
    # A traceback with local variables, or a line of a log, must not show secrets.
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that an operator can choose; see `.env.example` for the same list as a file."""

    # General
    app_name: str = _setting(_name(100), "User Management Service", "Name in mails and documents")
    environment: str = _setting(
        _choice("development", "testing", "production"),
        "development",
        "Environment: development, testing or production",
    )
    debug: bool = _setting(_boolean, False, "Flask debug mode; rejected in production")
    instance_dir: Path = _setting(
        _path, DEFAULT_INSTANCE_DIR, "Folder of the embedded default: database, secrets, mails"
    )
    bind: str = _setting(_text(200), "127.0.0.1:8000", "Address and port")
    public_base_url: str = _setting(
        _http_url,
        "http://localhost:8000",
        "Base URL of the links in mails; default: localhost with the port of BIND",
    )
    console_enabled: bool = _setting(_boolean, True, "Serve the pages under /console/")
    docs_enabled: bool = _setting(_boolean, True, "Serve /docs, /redoc and /openapi.json")
    trusted_hosts: tuple[str, ...] = _setting(
        _trusted_hosts,
        (),
        "Accepted host names (.example.com includes subdomains); empty: all",
    )
    trusted_proxy_count: int = _setting(
        _integer(0, 10), 0, "Number of proxies in front whose X-Forwarded-For is trusted"
    )
    cors_origins: tuple[str, ...] = _setting(
        _origins, (), "Origins from which browsers may call the API"
    )
    security_contact: str = _setting(
        _contact, "mailto:security@localhost", "Contact in /.well-known/security.txt (RFC 9116)"
    )
    worker_embedded: bool = _setting(
        _boolean, False, "Run the worker inside the service (always so in the embedded default)"
    )

    # Secrets
    secret_key: str = _setting(
        _secret, "", "Signs cursors, cookies and refresh tokens", secret=True
    )
    jwt_secret_key: str = _setting(_secret, "", "Signs access tokens with HS256", secret=True)
    password_pepper: str = _setting(_secret, "", "Key of the password pre-hash (HMAC)", secret=True)
    password_pepper_previous: tuple[str, ...] = _setting(
        _former_secrets, (), "Former peppers that still verify passwords, newest first", secret=True
    )
    encryption_key: str = _setting(
        _secret, "", "Encrypts secret values in the database", secret=True
    )
    encryption_key_previous: tuple[str, ...] = _setting(
        _former_secrets, (), "Former encryption keys that still decrypt, newest first", secret=True
    )
    audit_seal_key: str = _setting(
        _secret,
        "",
        "Key of the chain of audit seals; default: derived from ENCRYPTION_KEY",
        secret=True,
    )
    audit_seal_key_previous: tuple[str, ...] = _setting(
        _former_secrets, (), "Former keys that still verify audit seals", secret=True
    )
    metrics_token: str = _setting(
        _bearer, "", "Bearer token that /metrics requires; empty: none", secret=True
    )

    # Tokens
    jwt_algorithm: str = _setting(
        _choice(*JWT_ALGORITHMS),
        "",
        "Signature of access tokens; default: HS256 if JWT_SECRET_KEY is set, otherwise ES256",
    )
    jwt_private_key_file: Path | None = _setting(
        _readable_file, None, "PEM key for ES256, EdDSA or RS256"
    )
    jwt_keys_dir: Path | None = _setting(
        _path, None, "Folder of the keys that `flask keys` rotates; default: INSTANCE_DIR/keys"
    )
    jwt_issuer: str = _setting(_text(200), "aima-user-service", "Claim iss")
    jwt_audience: str = _setting(_text(200), "aima", "Claim aud")
    jwt_access_token_expire_minutes: int = _setting(
        _integer(1, 1440), 30, "Lifetime of an access token, in minutes"
    )
    jwt_max_bytes: int = _setting(
        _integer(256, 8000),
        4096,
        "Maximum size of an access token; a larger one omits its permissions",
    )
    jwt_refresh_token_expire_days: int = _setting(
        _integer(1, 365), 7, "Lifetime of a session without remember_me, in days"
    )
    refresh_reuse_grace_seconds: int = _setting(
        _integer(0, 300),
        10,
        "Grace period in which the previous refresh token still returns the same new one",
    )

    # Sessions
    session_absolute_lifetime_days: int = _setting(
        _integer(1, 365), 30, "Lifetime of a session with remember_me, in days"
    )
    session_idle_timeout_days: int = _setting(
        _integer(1, 365), 7, "A session ends after so many days without a refresh"
    )
    session_max_per_user: int = _setting(
        _integer(1, 1000), 10, "Maximum number of sessions per user; a further one ends the oldest"
    )
    session_cache_seconds: int = _setting(
        _integer(1, 300),
        10,
        "Lifetime of a cached session in Redis, with its user's profile, in seconds",
    )

    # Passwords and lockout
    password_hash_rounds: int = _setting(_integer(4, 16), 12, "bcrypt cost; 4 to 9 only in testing")
    password_hash_queue: int = _setting(
        _integer(64, 10000),
        64,
        "Maximum number of log-ins that wait for a hash in one worker process",
    )
    password_min_length: int = _setting(_integer(8, 128), 8, "Minimum length of a password")
    password_min_score: int = _setting(_integer(0, 4), 2, "Minimum zxcvbn score")
    password_require_uppercase: bool = _setting(_boolean, False, "Require an upper-case letter")
    password_require_lowercase: bool = _setting(_boolean, False, "Require a lower-case letter")
    password_require_numbers: bool = _setting(_boolean, False, "Require a digit")
    password_require_special: bool = _setting(_boolean, False, "Require a special character")
    lockout_threshold: int = _setting(
        _integer(1, 1000), 5, "Consecutive failures that lock a user name"
    )
    lockout_base_seconds: int = _setting(
        _integer(1, 86400), 60, "Duration of the first lock, in seconds"
    )
    lockout_max_seconds: int = _setting(
        _integer(1, 604800), 900, "Maximum duration of a lock, in seconds"
    )

    # Features
    feature_user_registration: bool = _setting(_boolean, True, "Allow self-registration")
    feature_email_verification: bool = _setting(
        _boolean, False, "A new account stays pending until its address is verified"
    )
    health_detailed_public: bool = _setting(
        _boolean, False, "Show /api/v1/health/detailed without a token"
    )

    # Rate limits
    rate_limit_enabled: bool = _setting(_boolean, True, "Enforce rate limits")
    rate_limit_default: str = _setting(
        _rate, "300/minute", "Requests per user, or per address if anonymous"
    )
    rate_limit_login: str = _setting(_rate, "20/minute", "Log-ins per address")
    rate_limit_register: str = _setting(_rate, "10/hour", "Registrations per address")
    rate_limit_password_reset: str = _setting(_rate, "5/hour", "Reset mails per address")
    rate_limit_refresh: str = _setting(_rate, "60/minute", "Refreshes per address")
    rate_limit_email_change: str = _setting(_rate, "5/hour", "E-mail changes per account")
    rate_limit_password_strength: str = _setting(_rate, "30/minute", "Strength checks per address")

    # Database
    database_url: str = _setting(
        _database_url,
        "",
        "postgresql://… or sqlite:///…; default: SQLite in INSTANCE_DIR",
        secret=True,
    )
    database_host: str = _setting(_host, "", "Host, instead of DATABASE_URL")
    database_port: int = _setting(_integer(1, 65535), 5432, "Port")
    database_name: str = _setting(_database_name, "userapi", "Database")
    database_user: str = _setting(_text(63), "userapi", "User")
    database_password: str = _setting(_text(500), "", "Password", secret=True)
    database_pool_size: int = _setting(
        _integer(1, 200), 8, "Maximum number of connections per worker process"
    )

    # Redis
    redis_url: str = _setting(_redis_url, "", "redis://…; default: no Redis", secret=True)
    redis_host: str = _setting(_host, "", "Host, instead of REDIS_URL")
    redis_port: int = _setting(_integer(1, 65535), 6379, "Port")
    redis_db: int = _setting(_integer(0, 15), 0, "Database number")
    redis_password: str = _setting(_text(500), "", "Password", secret=True)

    # RabbitMQ
    rabbitmq_url: str = _setting(
        _url("amqp", "amqps"),
        "",
        "amqp://…; default: events stay in the outbox until they expire",
        secret=True,
    )
    rabbitmq_host: str = _setting(_host, "", "Host, instead of RABBITMQ_URL")
    rabbitmq_port: int = _setting(_integer(1, 65535), 5672, "Port")
    rabbitmq_user: str = _setting(_text(255), "guest", "User")
    rabbitmq_password: str = _setting(_text(500), "guest", "Password", secret=True)
    rabbitmq_vhost: str = _setting(_text(255), "/", "Virtual host")
    rabbitmq_exchange: str = _setting(_text(255), "user_events", "Topic exchange of the events")
    outbox_retention_days: int = _setting(
        _integer(1, 3650), 30, "Without RabbitMQ, events are deleted after so many days"
    )

    # Mail
    smtp_host: str = _setting(_plain_host, "", "Mail server; default: .eml files in MAIL_DIR")
    smtp_port: int = _setting(
        _integer(1, 65535), None, "Port; default: 587, or 465 with SMTP_TLS=implicit"
    )
    smtp_user: str = _setting(_text(255), "", "User")
    smtp_password: str = _setting(_text(500), "", "Password", secret=True)
    smtp_tls: str = _setting(
        _choice("none", "starttls", "implicit"),
        "starttls",
        "Encryption: none, starttls, or implicit (from the first byte)",
    )
    smtp_starttls: bool = _setting(
        _boolean, None, "Deprecated: true means SMTP_TLS=starttls, false means none"
    )
    mail_from: str = _setting(_sender, "no-reply@localhost.localdomain", "Sender of the mails")
    mail_dir: Path | None = _setting(
        _path, None, "Folder of the .eml files; default: INSTANCE_DIR/mail"
    )

    # Logs
    log_level: str = _setting(
        _choice("DEBUG", "INFO", "WARNING", "ERROR"), "INFO", "Minimum log level"
    )
    log_format: str = _setting(
        _choice("json", "console"),
        "",
        "json, or console (readable); default: console on a terminal, otherwise json",
    )
    log_file: Path | None = _setting(_path, None, "Log file, instead of standard output")

    # Derived, no variable: development creates the key pair of a signature that nobody chose.
    creates_signing_keys: bool = False

    @property
    def embedded(self) -> bool:
        """Return whether the service runs by itself: no server beside it is configured."""
        return self.uses_sqlite and not self.redis_url and not self.rabbitmq_url

    @property
    def uses_sqlite(self) -> bool:
        """Return whether the database is a SQLite file."""
        return self.database_url.startswith("sqlite")

    @property
    def runs_worker_inside(self) -> bool:
        """Return whether the worker runs inside the service."""
        return self.embedded or self.worker_embedded

    @property
    def is_production(self) -> bool:
        """Return whether this is a production deployment."""
        return self.environment == "production"

    @property
    def is_https(self) -> bool:
        """Return whether people reach the service over https."""
        return self.public_base_url.startswith("https://")

    @property
    def local_url(self) -> str:
        """Return the URL at which this machine reaches the service."""
        return _local_url(self.bind)

    @property
    def mail_folder(self) -> Path:
        """Return the folder that takes the .eml files."""
        return self.mail_dir or self.instance_dir / "mail"

    @property
    def keys_folder(self) -> Path:
        """Return the folder that `flask keys` works on."""
        return self.jwt_keys_dir or self.instance_dir / "keys"

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str], *, instance_dir: Path | None = None
    ) -> "Settings":
        """Return the settings that `environ` describes.

        Outside production, secrets that are left out are made once and kept in `instance_dir`.
        Raises SettingsError with every fault.
        """
        reader = _Reader(environ)
        values = {item.name: reader.read(item.name, item.metadata) for item in _declared()}
        values = {name: value for name, value in values.items() if value is not None}
        if instance_dir is not None:
            values["instance_dir"] = instance_dir
        _complete_urls(values, reader.given)
        _choose_signature(values)
        problems = reader.problems + _choose_mail_encryption(values)
        production = values.get("environment") == "production"
        if not production and not problems:
            _complete_secrets(values)
        if not problems:
            problems += _contradictions(values)
            if production:
                problems += _production_faults(values, reader.given)
        if problems:
            raise SettingsError(problems)
        values.setdefault("public_base_url", _local_url(values.get("bind", "")))
        values.setdefault("database_url", f"sqlite:///{_instance(values) / 'userapi.sqlite3'}")
        return cls(**values)

    @classmethod
    def load(cls) -> "Settings":
        """Return the settings of this process: its environment over the file `.env`."""
        return cls.from_env(read_environment())


def _declared() -> list[Field[Any]]:
    """Return the fields that are read from a variable."""
    return [item for item in fields(Settings) if "parse" in item.metadata]


def read_environment() -> dict[str, str]:
    """Return the variables of this process over those of the file `.env`."""
    in_file = {k: v for k, v in dotenv_values(PROJECT_ROOT / ".env").items() if v is not None}
    return {**in_file, **os.environ}


def files_with_secrets() -> list[Path]:
    """Return the files that the environment of this process takes secrets from."""
    environ = read_environment()
    named = [environ.get(f"{variable.name}_FILE") for variable in variables() if variable.secret]
    files = [PROJECT_ROOT / ".env", *(Path(name) for name in named if name)]
    return [file for file in files if file.is_file()]


@dataclass(frozen=True, slots=True)
class Variable:
    """What the documents say of one variable."""

    name: str
    default: str
    about: str
    secret: bool


def variables() -> list[Variable]:
    """Return every variable that is read, in the order of the file `.env.example`."""
    return [
        Variable(
            item.name.upper(), _shown(item.default), item.metadata["about"], item.metadata["secret"]
        )
        for item in _declared()
    ]


def _shown(default: Any) -> str:
    if default is None or default == ():
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, Path):
        return default.name
    return str(default)


class _Reader:
    """Parses variables one by one and collects what is wrong with them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[str] = []
        self.given: set[str] = set()

    def read(self, name: str, metadata: Mapping[str, Any]) -> Any:
        """Return the parsed value, or None where the variable is left out or wrong."""
        variable = name.upper()
        raw = self._environ.get(variable, "")
        if metadata["secret"] and self._environ.get(f"{variable}_FILE"):
            if raw:
                self.problems.append(f"{variable}: set it or {variable}_FILE, not both")
                return None
            try:
                raw = Path(self._environ[f"{variable}_FILE"]).read_text("utf-8").strip()
            except (OSError, ValueError):
                self.problems.append(f"{variable}_FILE: must be the path of a readable file")
                return None
        if raw == "":
            return None
        try:
            value = metadata["parse"](raw) if _is_utf8(raw) else None
        except ValueError as exc:
            self.problems.append(f"{variable}: {exc}")
            return None
        if value is None:
            self.problems.append(f"{variable}: must be text in UTF-8")
            return None
        self.given.add(name)
        return value


def _is_utf8(text: str) -> bool:
    """Return whether the bytes were UTF-8; others come as halves of characters (PEP 383)."""
    return not re.search("[\ud800-\udfff]", text)


def _instance(values: Mapping[str, Any]) -> Path:
    return Path(values.get("instance_dir", DEFAULT_INSTANCE_DIR))


def _complete_urls(values: dict[str, Any], given: set[str]) -> None:
    """Build the URLs that are given in parts, and name the driver that is installed."""
    if "database_url" not in values and "database_host" in given:
        user = quote(values.get("database_user", "userapi"), safe="")
        password = quote(values.get("database_password", ""), safe="")
        values["database_url"] = (
            f"postgresql://{user}:{password}@{values['database_host']}"
            f":{values.get('database_port', 5432)}/{values.get('database_name', 'userapi')}"
        )
    # SQLAlchemy 2.1 takes a bare postgresql:// for psycopg 3.
    url = values.get("database_url", "")
    if url.startswith(("postgresql://", "postgres://")):
        values["database_url"] = "postgresql+psycopg2://" + url.split("://", 1)[1]
    if url.startswith("sqlite:///"):
        # As Flask-SQLAlchemy reads a path that does not begin at the root.
        values["database_url"] = f"sqlite:///{_instance(values) / url.removeprefix('sqlite:///')}"
    if "redis_url" not in values and "redis_host" in given:
        password = quote(values.get("redis_password", ""), safe="")
        values["redis_url"] = (
            f"redis://{':' + password + '@' if password else ''}{values['redis_host']}"
            f":{values.get('redis_port', 6379)}/{values.get('redis_db', 0)}"
        )
    if "rabbitmq_url" not in values and "rabbitmq_host" in given:
        values["rabbitmq_url"] = (
            f"amqp://{quote(values.get('rabbitmq_user', 'guest'), safe='')}"
            f":{quote(values.get('rabbitmq_password', 'guest'), safe='')}"
            f"@{values['rabbitmq_host']}:{values.get('rabbitmq_port', 5672)}"
            f"/{quote(values.get('rabbitmq_vhost', '/'), safe='')}"
        )


def _local_url(bind: str) -> str:
    """Return the URL at which this machine reaches what listens on an address."""
    host, _, port = bind.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port) or host.startswith("unix:"):
        return "http://localhost:8000"
    # Passkeys and cookies want a name: browsers know `localhost`, and both answer.
    if not _is_host(host) or _is_every_or_loopback_address(host):
        host = "localhost"
    return f"http://{host}:{port}"


def _is_every_or_loopback_address(host: str) -> bool:
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return False
    return address.is_unspecified or address.is_loopback


def _choose_signature(values: dict[str, Any]) -> None:
    """Choose HS256 where its secret is set, otherwise ES256, unless the operator has chosen."""
    if values.get("jwt_algorithm"):
        return
    if values.get("jwt_secret_key"):
        values["jwt_algorithm"] = "HS256"
    else:
        values["jwt_algorithm"] = "ES256"
        values["creates_signing_keys"] = (
            values.get("environment") != "production" and "jwt_private_key_file" not in values
        )


def _complete_secrets(values: dict[str, Any]) -> None:
    """Read the secrets that are left out from `secrets.json` of the instance; make them once."""
    missing = [name for name in SECRETS_OF_THE_INSTANCE if not values.get(name)]
    if values["jwt_algorithm"] != "HS256" and "jwt_secret_key" in missing:
        missing.remove("jwt_secret_key")
    if not missing:
        return
    path = _instance(values) / "secrets.json"
    try:
        kept = _kept_secrets(path)
        if any(name not in kept for name in missing):
            kept = _make_missing_secrets(path)
    except (OSError, ValueError) as exc:
        raise SettingsError(
            [f"INSTANCE_DIR: must be a writable folder ({type(exc).__name__})"]
        ) from exc
    for name in missing:
        values[name] = kept[name]


def _kept_secrets(path: Path) -> dict[str, str]:
    """Return the content of `secrets.json`; empty where there is none. Raises ValueError."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    if not isinstance(document, dict):
        raise ValueError("not a document of secrets")
    return document


def _make_missing_secrets(path: Path) -> dict[str, str]:
    """Complete `secrets.json`, which an earlier release may have made with fewer secrets.

    The lock makes two workers that start at once agree on one file. The file is replaced as a
    whole, so a reader never sees half of it.
    """
    make_folder(path.parent)
    lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = _kept_secrets(path)
        made = {n: secrets.token_urlsafe(48) for n in SECRETS_OF_THE_INSTANCE if not kept.get(n)}
        if made:
            kept |= made
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(json.dumps(kept, indent=2))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        return kept
    finally:
        os.close(lock)
        with suppress(OSError):
            draft.unlink()


def _choose_mail_encryption(values: dict[str, Any]) -> list[str]:
    """Complete how mails are encrypted, and the port for it; return what contradicts itself."""
    starttls, tls = values.get("smtp_starttls"), values.get("smtp_tls")
    if tls is None:
        tls = "none" if starttls is False else "starttls"
    elif (
        starttls is not None and starttls != (tls == "starttls") and (starttls or tls != "implicit")
    ):
        return ["SMTP_STARTTLS: contradicts SMTP_TLS; leave SMTP_STARTTLS out"]
    values["smtp_tls"], values["smtp_starttls"] = tls, tls == "starttls"
    values.setdefault("smtp_port", 465 if tls == "implicit" else 587)
    return []


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    """Return what does not fit together in any environment."""
    problems = []
    rounds = values.get("password_hash_rounds", 12)
    if rounds < 10 and values.get("environment") != "testing":
        problems.append("PASSWORD_HASH_ROUNDS: must be 10 to 16 outside ENVIRONMENT=testing")
    if values.get("lockout_max_seconds", 900) < values.get("lockout_base_seconds", 60):
        problems.append("LOCKOUT_MAX_SECONDS: must be at least LOCKOUT_BASE_SECONDS")
    return problems


def _production_faults(values: Mapping[str, Any], given: set[str]) -> list[str]:
    """Return what must not go into production: weak secrets, open doors, no database."""
    problems = _secret_faults(values, given)
    if values.get("debug"):
        problems.append("DEBUG: must be false in production")
    if "*" in values.get("cors_origins", ()):
        problems.append("CORS_ORIGINS: must be named origins in production, not *")
    if not values.get("database_url"):
        problems.append("DATABASE_URL: must be the URL of the database in production")
    broker = urlsplit(values.get("rabbitmq_url", ""))
    if unquote(broker.username or "") == "guest" and unquote(broker.password or "") == "guest":
        problems.append("RABBITMQ_URL: must have a user other than guest:guest in production")
    return problems


def _secret_faults(values: Mapping[str, Any], given: set[str]) -> list[str]:
    """Return which secrets are missing, and which are weak."""
    problems = []
    needed = {"secret_key", "password_pepper", "encryption_key"}
    if values["jwt_algorithm"] == "HS256":
        needed.add("jwt_secret_key")
    for name in sorted(needed - given):
        problems.append(
            f"{name.upper()}: must be a secret of at least {MINIMUM_SECRET_BYTES} bytes in"
            " production"
        )
    return problems + weak_secrets({name: values.get(name) for name in given})


def weak_secrets(values: Mapping[str, Any]) -> list[str]:
    """Return which secrets look like an example, or stand in two variables, in a line each."""
    problems = []
    by_value: dict[str, list[str]] = {}
    for item in _declared():
        if not item.metadata["secret"] or item.name.endswith("_url"):
            continue
        value = values.get(item.name)
        if isinstance(value, str) and value:
            by_value.setdefault(value, []).append(item.name.upper())
            if SAME_WORDS_AS_AN_EXAMPLE.search(value) or len(set(value)) < min(8, len(value)):
                problems.append(f"{item.name.upper()}: must be a random value, not an example")
    for names in by_value.values():
        if len(names) > 1:
            problems.append(f"{', '.join(names)}: must have different values")
    return problems
