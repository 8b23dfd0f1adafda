"""Environment, files, defaults and instance folder → one frozen, checked `Settings`."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote

from userapi.settings.authorities import database_with, rabbitmq_with, redis_with
from userapi.settings.environment import parse_variables, read_environment
from userapi.settings.errors import SettingsError
from userapi.settings.fields import Fields
from userapi.settings.instance_secrets import GENERATED, instance_secrets
from userapi.settings.parsers import is_host
from userapi.settings.production_checks import production_faults
from userapi.settings.redis_urls import (
    is_sentinel_url,
    parse_sentinel_url,
    with_sentinel_password,
)
from userapi.settings.relying_party import fits, host_of, origin_of
from userapi.settings.transport import unverified_connections
from userapi.settings.variables import variables


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Fields):
    """The settings of a process, complete and checked, and what follows from them."""

    creates_signing_keys: bool = False
    """Whether to create a key pair at the start: in development, if no algorithm is chosen."""

    @classmethod
    def load(cls) -> "Settings":
        """Return the settings of this process. Raises SettingsError with every fault."""
        return cls.from_env(read_environment())

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str], *, instance_dir: Path | None = None
    ) -> "Settings":
        """Return the settings that `environ` describes.

        Outside production, missing secrets are generated once and stored in `instance_dir`.
        Raises SettingsError with every fault.
        """
        values, problems = parse_variables(environ, variables())
        given = frozenset(values)
        if instance_dir is not None:
            values["instance_dir"] = instance_dir
        settings = cls(**values)
        problems += _mail_contradictions(settings, given)
        if problems:
            raise SettingsError(problems)
        for complete in (
            _server_urls,
            _own_urls,
            _authorities,
            _signature,
            _mail_encryption,
            _second_factors,
        ):
            settings = replace(settings, **complete(settings, given))
        if not settings.is_production:
            settings = replace(settings, **_missing_secrets(settings))
        problems = _contradictions(settings) + _factor_contradictions(settings, given)
        if settings.is_production:
            problems += production_faults(settings, given)
        if problems:
            raise SettingsError(problems)
        return settings

    @property
    def embedded(self) -> bool:
        """Return whether the service needs no other servers: none is configured."""
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
    def adds_passkeys(self) -> bool:
        """Return whether users may add passkeys and sign in with them alone.

        Without an RP ID browsers know no passkeys of this service.
        """
        return self.feature_passkeys and bool(self.webauthn_rp_id)

    @property
    def local_url(self) -> str:
        """Return the URL at which this machine reaches the service."""
        return _local_url(self.bind)

    @property
    def mail_folder(self) -> Path:
        """Return the folder of the .eml files."""
        return self.mail_dir or self.instance_dir / "mail"

    @property
    def unverified_connections(self) -> tuple[str, ...]:
        """Return the variables whose servers are reached over a network without verified TLS."""
        return tuple(
            unverified_connections(
                database_url=self.database_url,
                redis_url=self.redis_url,
                rabbitmq_url=self.rabbitmq_url,
            )
        )

    @property
    def keys_folder(self) -> Path:
        """Return the folder of the keys that `flask keys` manages."""
        return self.jwt_keys_dir or self.instance_dir / "keys"


Completion = dict[str, Any]


def _server_urls(settings: Settings, given: Collection[str]) -> Completion:
    """Return the URLs of the servers that are given in parts."""
    urls = {}
    if "database_url" not in given and "database_host" in given:
        urls["database_url"] = (
            f"postgresql://{_quoted(settings.database_user)}:{_quoted(settings.database_password)}"
            f"@{settings.database_host}:{settings.database_port}/{settings.database_name}"
        )
    if "redis_url" not in given and "redis_host" in given:
        password = _quoted(settings.redis_password)
        urls["redis_url"] = (
            f"redis://{':' + password + '@' if password else ''}{settings.redis_host}"
            f":{settings.redis_port}/{settings.redis_db}"
        )
    if settings.redis_sentinel_password and is_sentinel_url(settings.redis_url):
        urls["redis_url"] = with_sentinel_password(
            settings.redis_url, settings.redis_sentinel_password
        )
    if "rabbitmq_url" not in given and "rabbitmq_host" in given:
        urls["rabbitmq_url"] = (
            f"amqp://{_quoted(settings.rabbitmq_user)}:{_quoted(settings.rabbitmq_password)}"
            f"@{settings.rabbitmq_host}:{settings.rabbitmq_port}"
            f"/{_quoted(settings.rabbitmq_vhost)}"
        )
    return urls


def _own_urls(settings: Settings, given: Collection[str]) -> Completion:
    """Return the URLs of the database as SQLAlchemy expects them, and the base URL."""
    url = settings.database_url
    if url.startswith(("postgresql://", "postgres://")):
        # SQLAlchemy 2.1 would use psycopg 3 for postgresql://.
        url = "postgresql+psycopg2://" + url.split("://", 1)[1]
    elif not url or url.startswith("sqlite:///"):
        # A relative path is relative to the instance folder, as in Flask-SQLAlchemy.
        file = url.removeprefix("sqlite:///") or "userapi.sqlite3"
        url = f"sqlite:///{settings.instance_dir / file}"
    base_url = settings.public_base_url if "public_base_url" in given else settings.local_url
    return {
        "database_url": url,
        "database_direct_url": settings.database_direct_url or url,
        "public_base_url": base_url,
    }


def _authorities(settings: Settings, _given: Collection[str]) -> Completion:
    """Return the URLs of the servers with TLS_CA_FILE."""
    file = settings.tls_ca_file
    if file is None:
        return {}
    return {
        "database_url": database_with(file, settings.database_url),
        "database_direct_url": database_with(file, settings.database_direct_url),
        "redis_url": redis_with(file, settings.redis_url),
        "rabbitmq_url": rabbitmq_with(file, settings.rabbitmq_url),
    }


def _signature(settings: Settings, given: Collection[str]) -> Completion:
    """Return HS256 if its secret is set, otherwise ES256, unless the operator has chosen."""
    if "jwt_algorithm" in given:
        return {}
    if "jwt_secret_key" in given:
        return {"jwt_algorithm": "HS256"}
    creates_keys = not settings.is_production and "jwt_private_key_file" not in given
    return {"jwt_algorithm": "ES256", "creates_signing_keys": creates_keys}


def _mail_encryption(settings: Settings, given: Collection[str]) -> Completion:
    """Return how mails are encrypted, by either of two variables, and the port for it."""
    tls = settings.smtp_tls
    if "smtp_tls" not in given and "smtp_starttls" in given and not settings.smtp_starttls:
        tls = "none"
    port = 465 if tls == "implicit" else 587
    return {
        "smtp_tls": tls,
        "smtp_starttls": tls == "starttls",
        "smtp_port": settings.smtp_port if "smtp_port" in given else port,
    }


def _second_factors(settings: Settings, given: Collection[str]) -> Completion:
    """Return how apps and passkeys name the service, and the RP ID with its origins.

    The RP ID stays empty if the service has an address that passkeys cannot belong to.
    """
    own = origin_of(settings.public_base_url)
    origins = settings.webauthn_origins
    if "webauthn_origins" not in given:
        origins = () if own is None else (own,)
    return {
        "mfa_issuer": settings.mfa_issuer or settings.app_name.replace(":", ""),
        "webauthn_rp_name": settings.webauthn_rp_name or settings.app_name,
        "webauthn_rp_id": settings.webauthn_rp_id or host_of(own or ""),
        "webauthn_origins": origins,
    }


def _missing_secrets(settings: Settings) -> Completion:
    """Return the secrets that are left out, from `secrets.json` of the instance."""
    missing = [name for name in GENERATED if not getattr(settings, name)]
    if settings.jwt_algorithm != "HS256" and "jwt_secret_key" in missing:
        missing.remove("jwt_secret_key")
    return instance_secrets(settings.instance_dir, missing) if missing else {}


def _mail_contradictions(settings: Settings, given: Collection[str]) -> list[str]:
    if "smtp_tls" not in given or "smtp_starttls" not in given:
        return []
    allowed = {"starttls"} if settings.smtp_starttls else {"none", "implicit"}
    if settings.smtp_tls in allowed:
        return []
    return ["SMTP_STARTTLS: contradicts SMTP_TLS; leave SMTP_STARTTLS out"]


def _contradictions(settings: Settings) -> list[str]:
    """Return the contradictions between settings, in any environment."""
    problems = []
    if settings.password_hash_rounds < 10 and settings.environment != "testing":
        problems.append("PASSWORD_HASH_ROUNDS: must be 10 to 16 outside ENVIRONMENT=testing")
    if settings.uses_sqlite and settings.database_direct_url != settings.database_url:
        problems.append("DATABASE_DIRECT_URL: leave it out with SQLite")
    if settings.lockout_max_seconds < settings.lockout_base_seconds:
        problems.append("LOCKOUT_MAX_SECONDS: must be at least LOCKOUT_BASE_SECONDS")
    if is_sentinel_url(settings.redis_url):
        credentials = parse_sentinel_url(settings.redis_url).sentinel_options
        if "username" in credentials and "password" not in credentials:
            problems.append("REDIS_SENTINEL_PASSWORD: must be set with sentinel_username")
    return problems


def _factor_contradictions(settings: Settings, given: Collection[str]) -> list[str]:
    """Return the contradictions between the settings of second factors."""
    problems = []
    if "webauthn_rp_id" in given and not fits(settings.webauthn_rp_id, settings.webauthn_origins):
        source = "WEBAUTHN_ORIGINS" if "webauthn_origins" in given else "PUBLIC_BASE_URL"
        problems.append(f"WEBAUTHN_RP_ID: must be the domain of an origin in {source}, or above it")
    if settings.mfa_required_roles and not (settings.feature_mfa or settings.adds_passkeys):
        problems.append("MFA_REQUIRED_ROLES: leave it out; users can add neither apps nor passkeys")
    return problems


def _quoted(part: str) -> str:
    return quote(part, safe="")


def _local_url(bind: str) -> str:
    """Return the URL at which this machine reaches a server that listens on an address."""
    host, _, port = bind.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port) or host.startswith("unix:"):
        return "http://localhost:8000"
    # Passkeys and cookies need a host name, and browsers resolve `localhost` to both families.
    if not is_host(host) or _is_unspecified_or_loopback(host):
        host = "localhost"
    return f"http://{host}:{port}"


def _is_unspecified_or_loopback(host: str) -> bool:
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return False
    return address.is_unspecified or address.is_loopback
