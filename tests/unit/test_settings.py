"""Settings: which values stop the start, and with which message, which never contains the value."""

import ast
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.clusters.certificates import make_certificates
from userapi.settings import PROJECT_ROOT, Settings, SettingsError, variables
from userapi.settings.redis_urls import parse_sentinel_url

SECRETS = {
    "SECRET_KEY": "kP3vWm8sQz1xLr6tYb9nHd4gJf7cUa2e",
    "JWT_SECRET_KEY": "Tg5hNq0wEr8yUi3oPl6kJm9bVc2xZa1s",
    "PASSWORD_PEPPER": "Xd7fGh2jKl5zXc8vBn1mQw4eRt6yUi9o",
    "ENCRYPTION_KEY": "Zs3cFv6bGn8mHj1kLq4wEr7tYu9iOp2x",
}
PRODUCTION = {
    "ENVIRONMENT": "production",
    "DATABASE_URL": "postgresql://userapi:pa55@db.internal/userapi",
    **SECRETS,
}


def problems(environ: Mapping[str, str], tmp_path: Path) -> list[str]:
    """Return what is wrong with the variables; one with an empty value is left out."""
    given = {name: value for name, value in environ.items() if value}
    try:
        Settings.from_env(given, instance_dir=tmp_path)
    except SettingsError as exc:
        return exc.problems
    return []


def test_a_complete_production_environment_is_accepted(tmp_path: Path) -> None:
    assert problems(PRODUCTION, tmp_path) == []


BAD_VALUES = [
    ("APP_NAME", "a\nb", "must have 1 to 100 printable characters"),
    ("APP_NAME", " \u200b\u3164", "must have 1 to 100 characters, one of them visible"),
    ("ENVIRONMENT", "staging", "must be one of development, testing, production"),
    ("DEBUG", "perhaps", "must be true or false"),
    (
        "PUBLIC_BASE_URL",
        "ftp://files.example",
        "must be a URL that begins with http:// or https://",
    ),
    ("TRUSTED_PROXY_COUNT", "11", "must be a whole number from 0 to 10"),
    ("TRUSTED_PROXY_COUNT", "-1", "must be a whole number from 0 to 10"),
    ("TRUSTED_PROXY_COUNT", "٣", "must be a whole number from 0 to 10"),
    (
        "CORS_ORIGINS",
        "https://app.example/path",
        "must be origins such as https://app.example.com, ",
    ),
    ("CORS_ORIGINS", "app.example", "must be origins such as https://app.example.com, "),
    ("SECRET_KEY", "thirty-one-bytes-are-not-enough", "must be a secret of at least 32 bytes"),
    ("JWT_SECRET_KEY", "short-one", "must be a secret of at least 32 bytes"),
    ("PASSWORD_PEPPER", "short-one", "must be a secret of at least 32 bytes"),
    ("PASSWORD_PEPPER_PREVIOUS", "short-one", "must be a secret of at least 32 bytes"),
    ("ENCRYPTION_KEY", "short-one", "must be a secret of at least 32 bytes"),
    ("ENCRYPTION_KEY_PREVIOUS", "short-one", "must be a secret of at least 32 bytes"),
    ("AUDIT_SEAL_KEY", "short-one", "must be a secret of at least 32 bytes"),
    ("AUDIT_SEAL_KEY_PREVIOUS", "short-one", "must be a secret of at least 32 bytes"),
    ("JWT_ALGORITHM", "none", "must be one of HS256, ES256, EdDSA, RS256"),
    ("JWT_PRIVATE_KEY_FILE", "/nowhere/key.pem", "must be the path of a readable file"),
    ("PASSWORD_HASH_ROUNDS", "3", "must be a whole number from 4 to 16"),
    ("PASSWORD_HASH_QUEUE", "63", "must be a whole number from 64 to 10000"),
    ("PASSWORD_MIN_LENGTH", "7", "must be a whole number from 8 to 128"),
    ("PASSWORD_MIN_SCORE", "5", "must be a whole number from 0 to 4"),
    ("LOCKOUT_THRESHOLD", "0", "must be a whole number from 1 to 1000"),
    ("MFA_ISSUER", "Acme: ID", "must have 1 to 64 characters without a colon"),
    ("MFA_ISSUER", "\u200b", "must have 1 to 64 characters, one of them visible"),
    ("MFA_REQUIRED_ROLES", "admin," + "r" * 65, "must have 1 to 64 printable characters"),
    ("MFA_TOKEN_SECONDS", "4", "must be a whole number from 5 to 900"),
    ("MFA_TOKEN_SECONDS", "901", "must be a whole number from 5 to 900"),
    ("STEP_UP_MAX_AGE_SECONDS", "4", "must be a whole number from 5 to 86400"),
    ("STEP_UP_MAX_AGE_SECONDS", "86401", "must be a whole number from 5 to 86400"),
    ("STEP_UP_PERMISSIONS", "users:delete,Users", "must be permissions such as users:delete"),
    ("WEBAUTHN_RP_ID", "https://id.example", "must be a domain name such as id.example.com, not"),
    ("WEBAUTHN_RP_ID", "192.0.2.1", "must be a domain name such as id.example.com, not"),
    ("WEBAUTHN_RP_ID", "id.example.", "must be a domain name such as id.example.com, not"),
    ("WEBAUTHN_RP_NAME", "n" * 65, "must have 1 to 64 printable characters"),
    ("WEBAUTHN_ORIGINS", "http://id.example", "must be origins such as https://id.example.com"),
    ("WEBAUTHN_ORIGINS", "https://id.example/x", "must be origins such as https://id.example.com"),
    ("WEBAUTHN_ORIGINS", "https://192.0.2.1", "must be origins such as https://id.example.com"),
    ("WEBAUTHN_ORIGINS", "https://a:99999", "must be origins such as https://id.example.com"),
    ("WEBAUTHN_ORIGINS", "https://u@id.example", "must be origins such as https://id.example.com"),
    ("WEBAUTHN_ORIGINS", "android:apk-key-hash:x", "must be origins such as https://id.example"),
    (
        "RATE_LIMIT_LOGIN",
        "twenty",
        "must be a rate such as 20/minute (second, minute, hour or day)",
    ),
    ("RATE_LIMIT_LOGIN", "0/minute", "must be a rate such as 20/minute"),
    ("DATABASE_URL", "mysql://db.internal/x", "must be a URL that begins with postgresql://"),
    ("DATABASE_URL", "postgresql://db.internal:99999/x", "must have ports from 1 to 65535"),
    ("DATABASE_URL", "postgresql://a:5432,b:99999/x", "must have ports from 1 to 65535"),
    ("DATABASE_URL", "postgresql:///x?host=a,b,c&port=1,2", "must have ports from 1 to 65535"),
    ("DATABASE_URL", "postgresql://u:p@/x?host=a&host=b", "must have host= once"),
    ("DATABASE_URL", "postgresql://u:p@a/x?host=a:5432", "must have ports in port=, not in host="),
    ("DATABASE_URL", "postgresql://a,b/x?hostaddr=::1", "must have an address in hostaddr= for "),
    ("DATABASE_DIRECT_URL", "sqlite:///x.db", "must be a URL that begins with postgresql://"),
    ("DATABASE_DIRECT_URL", "postgresql://db.internal/x", "leave it out with SQLite"),
    ("DATABASE_PORT", "65536", "must be a whole number from 1 to 65535"),
    ("REDIS_URL", "http://cache.internal", "must be a URL that begins with redis://"),
    ("RABBITMQ_URL", "redis://broker.internal", "must be a URL that begins with amqp://"),
    ("PUBLIC_BASE_URL", "https://", "must be an address such as https://id.example.com"),
    ("PUBLIC_BASE_URL", "https://id example", "must be an address such as https://id.example.com"),
    ("CORS_ORIGINS", "https://app example", "must be origins such as https://app.example.com, "),
    (
        "TRUSTED_HOSTS",
        "https://id.example",
        "must be host names such as id.example.com, separated ",
    ),
    ("TRUSTED_HOSTS", "id.example:8000", "must be host names such as id.example.com, separated by"),
    (
        "SECURITY_CONTACT",
        "security@acme.test",
        "must be a URI that begins with mailto: or https://",
    ),
    ("METRICS_TOKEN", "two words", "must have 1 to 500 visible ASCII characters"),
    ("SECRET_KEY", "\udcff" * 40, "must be text in UTF-8"),
    ("DATABASE_URL", "sqlite:///:memory:", "must be sqlite:/// with the path of a file"),
    (
        "DATABASE_URL",
        "postgresql://u:p@db.internal/x?ssl=yes",
        "must be a URL such as postgresql://",
    ),
    ("DATABASE_URL", "postgresql://u:p%@db.internal/x", "must be a URL such as postgresql://"),
    ("DATABASE_HOST", "db.internal:5432", "must be a host name or an IP address, without a port"),
    ("DATABASE_HOST", "db1,db2", "must be a host name or an IP address, without a port"),
    ("REDIS_HOST", "cache1,cache2", "must be a host name or an IP address, without a port"),
    ("RABBITMQ_HOST", "mq1,mq2", "must be a host name or an IP address, without a port"),
    ("DATABASE_HOST", "a\nb", "must be a host name or an IP address, without a port"),
    ("DATABASE_NAME", "a/b?c", "must have 1 to 63 characters, without spaces and / ? # %"),
    (
        "REDIS_HOST",
        "redis://cache.internal",
        "must be a host name or an IP address, without a port",
    ),
    ("REDIS_URL", "redis://cache.internal/first", "must have the number of a database as its path"),
    (
        "REDIS_URL",
        "redis://cache.internal?db=x",
        "must be a URL such as redis://:password@host:6379",
    ),
    ("REDIS_URL", "redis://cache.internal?colour=red", "must be a URL such as redis://:password@"),
    ("RABBITMQ_URL", "amqp://h1,,h2/", "must have addresses such as h1:5672,h2:5672"),
    ("RABBITMQ_URL", "amqp://h 1/", "must have host names or IP addresses between amqp:// and /"),
    ("RABBITMQ_URL", "amqps://h1/?cafile=/x", "must have no option after ? except ssl_ca_certs"),
    ("RABBITMQ_URL", "amqps://h1/?ssl_ca_certs=/x", "must be the path of a readable file"),
    ("REDIS_URL", "redis+cluster://n1:6379,", "must be a URL such as redis+cluster://:password@"),
    ("REDIS_URL", "redis+cluster://n1:6379/1", "must be a URL such as redis+cluster://:password@"),
    ("REDIS_URL", "redis+cluster://n1:6379?db=1", "must not have db: a Redis Cluster has one"),
    ("REDIS_URL", "redis+cluster://n1:0,n2", "must be a URL such as redis+cluster://:password@"),
    ("REDIS_URL", "redis+cluster://n1?colour=red", "must be a URL such as redis+cluster://"),
    ("REDIS_URL", "redis+cluster://n1?ssl_ca_certs=x", "must be a URL such as redis+cluster://"),
    ("REDIS_URL", "redis+sentinel://s1:26379,s2:26379", "must be a URL such as redis+sentinel://"),
    ("REDIS_URL", "redis+sentinel://s1/mymaster/first", "must be a URL such as redis+sentinel://"),
    ("REDIS_URL", "redis+sentinel://s1,/mymaster", "must be a URL such as redis+sentinel://"),
    ("REDIS_URL", "redis+sentinel://s1:0/mymaster", "must be a URL such as redis+sentinel://"),
    ("REDIS_URL", "redis+sentinel://s1:99999/mymaster", "must be a URL such as redis+sentinel://"),
    ("REDIS_URL", "redis+sentinel://s1/mymaster?colour=red", "must be a URL such as"),
    ("REDIS_URL", "redis+sentinel://s1/m?ssl_ca_certs=x", "must be a URL such as"),
    (
        "REDIS_URL",
        "redis+sentinel://s1/mymaster?sentinel_password=x",
        "must not have sentinel_password; set REDIS_SENTINEL_PASSWORD",
    ),
    ("RABBITMQ_HOST", "a\nb", "must be a host name or an IP address, without a port"),
    ("SMTP_HOST", "smtp.internal:25", "must be a host name or an IP address, without a port"),
    ("MAIL_FROM", "nobody", "must be an address such as User Service <no-reply@example.com>"),
    ("MAIL_COLOR", "blue", "must be a color such as #1f5fbf"),
    ("MAIL_COLOR", "#1f5fbf; x: y", "must be a color such as #1f5fbf"),
    ("MAIL_LOGO_URL", "http://a.example/logo.png", "must be an address such as https://www"),
    ("MAIL_LOGO_URL", "https:///logo.png", "must be an address such as https://www"),
    ("MAIL_LOGO_URL", "https://a.example/lo go.png", "must be an address such as https://www"),
    ("MAIL_LOGO_URL", "https://a.example:x/", "must be an address such as https://www"),
    ("API_KEY_PREFIX", "a", "must have 2 to 10 characters of a-z and 0-9, and begin with a let"),
    ("API_KEY_PREFIX", "a1234567890", "must have 2 to 10 characters of a-z and 0-9, and begin"),
    ("API_KEY_PREFIX", "1ab", "must have 2 to 10 characters of a-z and 0-9, and begin with a"),
    ("API_KEY_PREFIX", "Uak", "must have 2 to 10 characters of a-z and 0-9, and begin with a"),
    ("API_KEY_PREFIX", "u_k", "must have 2 to 10 characters of a-z and 0-9, and begin with a"),
    ("LOG_LEVEL", "LOUD", "must be one of DEBUG, INFO, WARNING, ERROR"),
    ("LOG_FORMAT", "xml", "must be one of json, console"),
]


@pytest.mark.parametrize(("variable", "value", "message"), BAD_VALUES)
def test_an_invalid_value_is_reported_by_name_and_never_by_value(
    variable: str, value: str, message: str, tmp_path: Path
) -> None:
    (line,) = problems({variable: value}, tmp_path)

    assert line.startswith(f"{variable}: {message}")
    assert value not in line.removeprefix(f"{variable}: {message}")
    assert "\n" not in line


def test_a_relative_path_is_relative_to_the_folder_of_the_service(tmp_path: Path) -> None:
    """INSTANCE_DIR with the value of the example ended in a traceback."""
    given = {"LOG_FILE": "logs/service.log", "MAIL_DIR": str(tmp_path / "mail")}
    settings = Settings.from_env(given, instance_dir=tmp_path)

    assert settings.log_file == PROJECT_ROOT / "logs" / "service.log"
    assert settings.mail_dir == tmp_path / "mail"
    production = Settings.from_env({**PRODUCTION, "INSTANCE_DIR": "instance"})
    assert production.instance_dir == PROJECT_ROOT / "instance"


def test_an_ipv6_address_is_a_host(tmp_path: Path) -> None:
    given = {"DATABASE_HOST": "2001:db8::1", "REDIS_HOST": "[2001:db8::2]", "SMTP_HOST": "[::1]"}
    settings = Settings.from_env(given, instance_dir=tmp_path)

    assert "@[2001:db8::1]:5432/" in settings.database_url
    assert settings.redis_url == "redis://[2001:db8::2]:6379/0"
    assert settings.smtp_host == "::1"


def test_all_faults_are_reported_together(tmp_path: Path) -> None:
    lines = problems({"SMTP_PORT": "many", "DEBUG": "perhaps", "LOG_FORMAT": "xml"}, tmp_path)

    assert sorted(line.partition(":")[0] for line in lines) == ["DEBUG", "LOG_FORMAT", "SMTP_PORT"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"SECRET_KEY": ""}, "SECRET_KEY: must be a secret of at least 32 bytes in production"),
        (
            {"JWT_SECRET_KEY": "", "JWT_ALGORITHM": "HS256"},
            "JWT_SECRET_KEY: must be a secret of at least 32 bytes",
        ),
        ({"PASSWORD_PEPPER": ""}, "PASSWORD_PEPPER: must be a secret of at least 32 bytes"),
        ({"ENCRYPTION_KEY": ""}, "ENCRYPTION_KEY: must be a secret of at least 32 bytes"),
        (
            {"ENCRYPTION_KEY": SECRETS["PASSWORD_PEPPER"]},
            "PASSWORD_PEPPER, ENCRYPTION_KEY: must have different values",
        ),
        ({"SECRET_KEY": "change-me-" * 4}, "SECRET_KEY: must be a random value, not an example"),
        ({"SECRET_KEY": "ab" * 20}, "SECRET_KEY: must be a random value, not an example"),
        ({"METRICS_TOKEN": "changeme"}, "METRICS_TOKEN: must be a random value, not an example"),
        (
            {"JWT_SECRET_KEY": SECRETS["SECRET_KEY"]},
            "SECRET_KEY, JWT_SECRET_KEY: must have different values",
        ),
        (
            {"PASSWORD_PEPPER": SECRETS["SECRET_KEY"], "AUDIT_SEAL_KEY": SECRETS["SECRET_KEY"]},
            "SECRET_KEY, PASSWORD_PEPPER, AUDIT_SEAL_KEY: must have different values",
        ),
        ({"DEBUG": "true"}, "DEBUG: must be false in production"),
        ({"CORS_ORIGINS": "*"}, "CORS_ORIGINS: must be named origins in production, not *"),
        (
            {"CORS_ORIGINS": "https://app.example,*"},
            "CORS_ORIGINS: must be named origins in production, not *",
        ),
        ({"DATABASE_URL": ""}, "DATABASE_URL: must be the URL of the database in production"),
        (
            {"RABBITMQ_URL": "amqp://guest:guest@broker/"},
            "RABBITMQ_URL: must have a user other than",
        ),
        ({"RABBITMQ_HOST": "broker"}, "RABBITMQ_URL: must have a user other than guest:guest"),
        (
            {"RABBITMQ_URL": "amqp://u:p@h1/;amqp://guest:guest@h2/"},
            "RABBITMQ_URL: must have a user",
        ),
        ({"RABBITMQ_URL": "amqp://gues%74:guest@broker/"}, "RABBITMQ_URL: must have a user other"),
        ({"PASSWORD_HASH_ROUNDS": "9"}, "PASSWORD_HASH_ROUNDS: must be 10 to 16 outside"),
    ],
)
def test_production_refuses(given: dict[str, str], expected: str, tmp_path: Path) -> None:
    lines = problems({**PRODUCTION, **given}, tmp_path)

    assert [line for line in lines if line.startswith(expected)]
    text = "\n".join(lines)
    assert not [
        secret for secret in {**SECRETS, **given}.values() if len(secret) > 8 and secret in text
    ]


def test_production_generates_no_secret(tmp_path: Path) -> None:
    assert problems({**PRODUCTION, "SECRET_KEY": ""}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_algorithm_needs_no_shared_key(tmp_path: Path) -> None:
    given = {**PRODUCTION, "JWT_SECRET_KEY": "", "JWT_ALGORITHM": "ES256"}

    assert problems(given, tmp_path) == []


@pytest.mark.parametrize(
    ("given", "algorithm"),
    [
        ({}, "ES256"),
        ({"JWT_SECRET_KEY": SECRETS["JWT_SECRET_KEY"]}, "HS256"),
        ({"JWT_ALGORITHM": "EdDSA", "JWT_SECRET_KEY": SECRETS["JWT_SECRET_KEY"]}, "EdDSA"),
        ({"JWT_ALGORITHM": "HS256"}, "HS256"),
        ({**PRODUCTION, "JWT_SECRET_KEY": ""}, "ES256"),
        (PRODUCTION, "HS256"),
    ],
)
def test_the_signature_is_es256_unless_a_shared_secret_is_set(
    given: dict[str, str], algorithm: str, tmp_path: Path
) -> None:
    assert Settings.from_env(given, instance_dir=tmp_path).jwt_algorithm == algorithm


@pytest.mark.parametrize(
    ("bind", "url"),
    [
        ("", "http://localhost:8000"),
        ("127.0.0.1:8123", "http://localhost:8123"),
        ("0.0.0.0:9000", "http://localhost:9000"),
        ("[::]:9000", "http://localhost:9000"),
        (":9000", "http://localhost:9000"),
        ("192.0.2.7:9000", "http://192.0.2.7:9000"),
        ("unix:/run/userapi.sock", "http://localhost:8000"),
        ("127.0.0.1:none", "http://localhost:8000"),
    ],
)
def test_links_in_mails_follow_the_port_that_is_served(bind: str, url: str, tmp_path: Path) -> None:
    given = {"BIND": bind, "PUBLIC_BASE_URL": "https://id.example.com"}

    left_out = Settings.from_env({"BIND": bind}, instance_dir=tmp_path)
    chosen = Settings.from_env(given, instance_dir=tmp_path)

    assert left_out.public_base_url == url
    assert chosen.public_base_url == "https://id.example.com"


def test_the_first_lock_is_not_longer_than_the_longest(tmp_path: Path) -> None:
    given = {"LOCKOUT_BASE_SECONDS": "60", "LOCKOUT_MAX_SECONDS": "59"}

    assert problems(given, tmp_path) == [
        "LOCKOUT_MAX_SECONDS: must be at least LOCKOUT_BASE_SECONDS"
    ]


ANDROID = "android:apk-key-hash:" + "a" * 43


@pytest.mark.parametrize(
    ("given", "rp_id", "origins"),
    [
        ({}, "localhost", ("http://localhost:8000",)),
        ({"BIND": "0.0.0.0:9000"}, "localhost", ("http://localhost:9000",)),
        ({"PUBLIC_BASE_URL": "http://127.0.0.1:8000"}, "localhost", ("http://localhost:8000",)),
        ({"PUBLIC_BASE_URL": "http://[::1]"}, "localhost", ("http://localhost",)),
        (
            {"PUBLIC_BASE_URL": "https://ID.example.com:443/users"},
            "id.example.com",
            ("https://id.example.com",),
        ),
        (
            {"PUBLIC_BASE_URL": "https://id.example.com:8443"},
            "id.example.com",
            ("https://id.example.com:8443",),
        ),
        ({"PUBLIC_BASE_URL": "http://id.example.com"}, "", ()),
        ({"PUBLIC_BASE_URL": "https://192.0.2.1"}, "", ()),
        ({"PUBLIC_BASE_URL": "https://[2001:db8::1]"}, "", ()),
        (
            {"PUBLIC_BASE_URL": "https://id.example.com", "WEBAUTHN_RP_ID": "Example.com"},
            "example.com",
            ("https://id.example.com",),
        ),
        (
            {
                "PUBLIC_BASE_URL": "https://id.example.com",
                "WEBAUTHN_ORIGINS": "https://id.example.com, https://APP.example.org:443",
            },
            "id.example.com",
            ("https://id.example.com", "https://app.example.org"),
        ),
        (
            {
                "PUBLIC_BASE_URL": "http://id.internal",
                "WEBAUTHN_RP_ID": "example.com",
                "WEBAUTHN_ORIGINS": f"https://id.example.com,{ANDROID}",
            },
            "example.com",
            ("https://id.example.com", ANDROID),
        ),
    ],
)
def test_passkeys_belong_to_the_host_of_the_service(
    given: dict[str, str], rp_id: str, origins: tuple[str, ...], tmp_path: Path
) -> None:
    settings = Settings.from_env(given, instance_dir=tmp_path)

    assert (settings.webauthn_rp_id, settings.webauthn_origins) == (rp_id, origins)
    assert settings.adds_passkeys == bool(rp_id)


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ({"PUBLIC_BASE_URL": "https://id.example.com"}, "PUBLIC_BASE_URL"),
        ({"PUBLIC_BASE_URL": "http://example.org"}, "PUBLIC_BASE_URL"),
        ({"WEBAUTHN_ORIGINS": "https://org,https://example.org.uk"}, "WEBAUTHN_ORIGINS"),
        ({"WEBAUTHN_ORIGINS": "https://notexample.org"}, "WEBAUTHN_ORIGINS"),
        ({"WEBAUTHN_ORIGINS": ANDROID}, "WEBAUTHN_ORIGINS"),
    ],
)
def test_an_rp_id_that_fits_no_origin_is_rejected(
    given: dict[str, str], source: str, tmp_path: Path
) -> None:
    assert problems({"WEBAUTHN_RP_ID": "example.org", **given}, tmp_path) == [
        f"WEBAUTHN_RP_ID: must be the domain of an origin in {source}, or above it"
    ]


@pytest.mark.parametrize(
    ("given", "accepted"),
    [
        ({}, True),
        ({"FEATURE_MFA": "false"}, True),
        ({"FEATURE_PASSKEYS": "false"}, True),
        ({"FEATURE_MFA": "false", "FEATURE_PASSKEYS": "false"}, False),
        ({"FEATURE_MFA": "false", "PUBLIC_BASE_URL": "http://id.example.com"}, False),
    ],
)
def test_a_demand_for_factors_needs_a_way_to_add_them(
    given: dict[str, str], accepted: bool, tmp_path: Path
) -> None:
    found = problems({"MFA_REQUIRED_ROLES": "admin", **given}, tmp_path)

    assert [problem.split(":")[0] for problem in found] == (
        [] if accepted else ["MFA_REQUIRED_ROLES"]
    )


def test_lists_of_roles_and_permissions_are_separated_by_commas(tmp_path: Path) -> None:
    given = {
        "MFA_REQUIRED_ROLES": "admin, Of Nobody,admin",
        "STEP_UP_PERMISSIONS": "users:delete, roles:*",
    }

    settings = Settings.from_env(given, instance_dir=tmp_path)

    assert settings.mfa_required_roles == ("admin", "Of Nobody")
    assert settings.step_up_permissions == ("users:delete", "roles:*")


def test_second_factors_are_named_like_the_service(tmp_path: Path) -> None:
    settings = Settings.from_env({"APP_NAME": "Acme: Accounts"}, instance_dir=tmp_path)
    named = Settings.from_env(
        {"MFA_ISSUER": "Acme", "WEBAUTHN_RP_NAME": "Acme: ID"}, instance_dir=tmp_path
    )

    assert (settings.mfa_issuer, settings.webauthn_rp_name) == ("Acme Accounts", "Acme: Accounts")
    assert (named.mfa_issuer, named.webauthn_rp_name) == ("Acme", "Acme: ID")


def test_the_parts_of_a_url_of_sentinels(tmp_path: Path) -> None:
    given = {
        "REDIS_URL": "rediss+sentinel://robin:p%40ss@s1,10.0.0.2:26380/mymaster/2"
        "?ssl_ca_certs=/ca.pem&sentinel_username=watcher",
        "REDIS_SENTINEL_PASSWORD": "a&b=c/d",
    }
    settings = Settings.from_env(given, instance_dir=tmp_path)

    url = parse_sentinel_url(settings.redis_url)
    assert url.sentinels == (("s1", 26379), ("10.0.0.2", 26380))
    assert (url.master, url.uses_tls) == ("mymaster", True)
    assert url.server_options == {
        "username": "robin",
        "password": "p@ss",
        "db": 2,
        "ssl_ca_certs": "/ca.pem",
    }
    assert url.sentinel_options == {
        "username": "watcher",
        "password": "a&b=c/d",
        "ssl_ca_certs": "/ca.pem",
    }
    assert "p@ss" not in repr(url) and "a&b" not in repr(url)


@pytest.mark.parametrize(
    ("hosts", "sentinels"),
    [
        ("s1", (("s1", 26379),)),
        (":secret@s1:1,s2:2,s3:3", (("s1", 1), ("s2", 2), ("s3", 3))),
        ("[::1]:26380,[2001:db8::2]", (("::1", 26380), ("2001:db8::2", 26379))),
    ],
)
def test_the_hosts_of_a_url_of_sentinels(
    hosts: str, sentinels: tuple[tuple[str, int], ...], tmp_path: Path
) -> None:
    given = {"REDIS_URL": f"redis+sentinel://{hosts}/mymaster"}

    url = parse_sentinel_url(Settings.from_env(given, instance_dir=tmp_path).redis_url)

    assert url.sentinels == sentinels
    assert url.sentinel_options == {}


def test_a_user_of_the_sentinels_needs_a_password(tmp_path: Path) -> None:
    given = {"REDIS_URL": "redis+sentinel://s1/mymaster?sentinel_username=watcher"}

    assert problems(given, tmp_path) == [
        "REDIS_SENTINEL_PASSWORD: must be set with sentinel_username"
    ]


@pytest.mark.parametrize("secret", [v.name for v in variables() if v.secret])
def test_every_secret_may_come_from_a_file(secret: str, tmp_path: Path) -> None:
    value = {
        "DATABASE_URL": "postgresql://u:p@db.internal/x",
        "DATABASE_DIRECT_URL": "postgresql://u:p@db.internal/x",
        "REDIS_URL": "redis://cache.internal/0",
        "RABBITMQ_URL": "amqp://u:p@broker.internal/",
    }.get(secret, SECRETS["SECRET_KEY"])
    file = tmp_path / "secret"
    file.write_text(value + "\n")

    others = {} if secret == "DATABASE_URL" else {"DATABASE_URL": "postgresql://u:p@db.internal/x"}
    settings = Settings.from_env({**others, f"{secret}_FILE": str(file)}, instance_dir=tmp_path)
    directly = Settings.from_env({**others, secret: value}, instance_dir=tmp_path)

    assert getattr(settings, secret.lower()) == getattr(directly, secret.lower())
    assert getattr(settings, secret.lower())


def test_a_secret_is_set_in_one_place_only(tmp_path: Path) -> None:
    given = {"SECRET_KEY": SECRETS["SECRET_KEY"], "SECRET_KEY_FILE": str(tmp_path / "none")}

    assert problems(given, tmp_path) == ["SECRET_KEY: set it or SECRET_KEY_FILE, not both"]


def test_an_unreadable_secret_file_is_reported_by_its_variable(tmp_path: Path) -> None:
    file = tmp_path / "none"

    lines = problems({"SECRET_KEY_FILE": str(file)}, tmp_path)

    assert lines == ["SECRET_KEY_FILE: must be the path of a readable file"]


def test_secrets_are_generated_once_and_only_their_owner_can_read_them(tmp_path: Path) -> None:
    first = Settings.from_env({}, instance_dir=tmp_path)
    second = Settings.from_env({}, instance_dir=tmp_path)

    assert first == second
    assert len({first.secret_key, first.password_pepper, first.encryption_key}) == 3
    hs256 = Settings.from_env({"JWT_ALGORITHM": "HS256"}, instance_dir=tmp_path)
    made = {hs256.secret_key, hs256.jwt_secret_key, hs256.password_pepper, hs256.encryption_key}
    assert len(made) == 4
    assert os.stat(tmp_path / "secrets.json").st_mode & 0o077 == 0


def test_secrets_of_an_earlier_release_are_kept_and_completed(tmp_path: Path) -> None:
    """A `secrets.json` without the newest secret neither stops the start nor loses a secret."""
    file = tmp_path / "secrets.json"
    earlier = {name.lower(): SECRETS[name] for name in SECRETS if name != "ENCRYPTION_KEY"}
    file.write_text(json.dumps(earlier))
    file.chmod(0o600)

    settings = Settings.from_env({}, instance_dir=tmp_path)

    kept = json.loads(file.read_text())
    assert settings.secret_key == SECRETS["SECRET_KEY"]
    assert kept == {**earlier, "encryption_key": settings.encryption_key}
    assert Settings.from_env({}, instance_dir=tmp_path) == settings
    assert os.stat(file).st_mode & 0o077 == 0


@pytest.mark.parametrize("earlier", [{}, {"secret_key": SECRETS["SECRET_KEY"]}])
def test_processes_that_start_together_agree_on_the_secrets(
    earlier: dict[str, str], tmp_path: Path
) -> None:
    if earlier:
        (tmp_path / "secrets.json").write_text(json.dumps(earlier))

    with ThreadPoolExecutor(16) as pool:
        starts = [pool.submit(Settings.from_env, {}, instance_dir=tmp_path) for _ in range(16)]
        made = {start.result() for start in starts}

    assert len(made) == 1
    assert not list(tmp_path.glob(".secrets.json.[0-9]*"))


def test_a_password_in_parts_may_hold_any_character(tmp_path: Path) -> None:
    given = {
        "DATABASE_HOST": "db.internal",
        "DATABASE_PASSWORD": "p@ss/w:rd#?",
        "REDIS_HOST": "cache.internal",
        "REDIS_PASSWORD": "a/b@c",
        "RABBITMQ_HOST": "broker.internal",
        "RABBITMQ_VHOST": "/",
    }
    settings = Settings.from_env(given, instance_dir=tmp_path)

    password = "p%40ss%2Fw%3Ard%23%3F"
    url = f"postgresql+psycopg2://userapi:{password}@db.internal:5432/userapi"
    assert settings.database_url == url
    assert settings.redis_url == "redis://:a%2Fb%40c@cache.internal:6379/0"
    assert settings.rabbitmq_url == "amqp://guest:guest@broker.internal:5672/%2F"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            "postgresql://u:p@a:5432,b:5433/x",
            "postgresql+psycopg2://u:p@a:5432,b:5433/x?target_session_attrs=read-write",
        ),
        (
            "postgresql://u:p@/x?host=a,b&port=5432,5433",
            "postgresql+psycopg2://u:p@/x?host=a,b&port=5432,5433&target_session_attrs=read-write",
        ),
        (
            "postgres://u:p@[::1]:5432,[::2]:5432/x?sslmode=verify-full",
            "postgresql+psycopg2://u:p@[::1]:5432,[::2]:5432/x?sslmode=verify-full"
            "&target_session_attrs=read-write",
        ),
        (
            "postgresql://u:p@a,b/x?target_session_attrs=any",
            "postgresql+psycopg2://u:p@a,b/x?target_session_attrs=any",
        ),
        (
            "postgresql://u:p@/x?hostaddr=10.0.0.1,10.0.0.2&port=5432",
            "postgresql+psycopg2://u:p@/x?hostaddr=10.0.0.1,10.0.0.2&port=5432"
            "&target_session_attrs=read-write",
        ),
        ("postgresql://u:p@pooler:6432/x", "postgresql+psycopg2://u:p@pooler:6432/x"),
        (
            "postgresql://u:p@db/x?sslmode=verify-full&sslrootcert=/ca.pem&channel_binding=require",
            "postgresql+psycopg2://u:p@db/x"
            "?sslmode=verify-full&sslrootcert=/ca.pem&channel_binding=require",
        ),
    ],
)
def test_of_several_hosts_the_one_that_accepts_changes_is_used(
    given: str, expected: str, tmp_path: Path
) -> None:
    """A single host may be a pooler, which may report wrongly whether it accepts changes."""
    settings = Settings.from_env({"DATABASE_URL": given}, instance_dir=tmp_path)

    assert settings.database_url == expected


@pytest.mark.parametrize(
    ("given", "tls", "port"),
    [
        ({}, "starttls", 587),
        ({"SMTP_TLS": "none"}, "none", 587),
        ({"SMTP_TLS": "implicit"}, "implicit", 465),
        ({"SMTP_TLS": "Implicit", "SMTP_PORT": "2465"}, "implicit", 2465),
        ({"SMTP_STARTTLS": "true"}, "starttls", 587),
        ({"SMTP_STARTTLS": "false"}, "none", 587),
        ({"SMTP_STARTTLS": "true", "SMTP_TLS": "starttls"}, "starttls", 587),
        ({"SMTP_STARTTLS": "false", "SMTP_TLS": "none"}, "none", 587),
        ({"SMTP_STARTTLS": "false", "SMTP_TLS": "implicit"}, "implicit", 465),
    ],
)
def test_mails_are_encrypted_as_either_spelling_says(
    given: dict[str, str], tls: str, port: int, tmp_path: Path
) -> None:
    settings = Settings.from_env(given, instance_dir=tmp_path)

    assert (settings.smtp_tls, settings.smtp_port) == (tls, port)


@pytest.mark.parametrize(
    ("starttls", "tls"), [("true", "none"), ("true", "implicit"), ("false", "starttls")]
)
def test_two_spellings_that_contradict_each_other_are_rejected(
    starttls: str, tls: str, tmp_path: Path
) -> None:
    given = {"SMTP_STARTTLS": starttls, "SMTP_TLS": tls}

    assert problems(given, tmp_path) == [
        "SMTP_STARTTLS: contradicts SMTP_TLS; leave SMTP_STARTTLS out"
    ]


def test_nothing_else_reads_the_environment() -> None:
    package = PROJECT_ROOT / "userapi"
    readers = {
        module.relative_to(package).as_posix()
        for module in package.rglob("*.py")
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in {"environ", "environb", "getenv", "getenvb", "dotenv_values"}
        and isinstance(node.value, ast.Name)
        and node.value.id in {"dotenv", "os"}
    }

    assert readers == {"settings/environment.py"}


SUBJECTS = (
    "accounts",
    "audit",
    "authentication",
    "events",
    "lockout",
    "mail",
    "passwords",
    "roles",
    "sessions",
)


def test_subjects_receive_values_and_not_the_settings() -> None:
    package = PROJECT_ROOT / "userapi"
    readers = [
        module.relative_to(package).as_posix()
        for subject in SUBJECTS
        for module in (package / subject).rglob("*.py")
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.ImportFrom)
        and node.module == "userapi.settings"
        and {imported.name for imported in node.names} != {"SettingsError"}
    ]

    assert readers == []


@pytest.mark.parametrize(
    ("variable", "given", "expected"),
    [
        (
            "DATABASE_URL",
            "postgresql://u:p@h1,h2/x?sslmode=require&connect_timeout=3",
            "postgresql+psycopg2://u:p@h1,h2/x"
            "?sslmode=verify-full&connect_timeout=3&target_session_attrs=read-write"
            "&sslrootcert={file}",
        ),
        (
            "DATABASE_URL",
            "postgresql://u:p@h1/x?sslmode=verify-full&sslrootcert=/etc/ca.pem",
            "postgresql+psycopg2://u:p@h1/x?sslmode=verify-full&sslrootcert=/etc/ca.pem",
        ),
        (
            "DATABASE_URL",
            "postgresql://u:p@h1/x",
            "postgresql+psycopg2://u:p@h1/x?sslmode=verify-full&sslrootcert={file}",
        ),
        (
            "DATABASE_URL",
            "postgresql://u:p@h1/x?sslmode=prefer",
            "postgresql+psycopg2://u:p@h1/x?sslmode=prefer",
        ),
        (
            "DATABASE_DIRECT_URL",
            "postgresql://u:p@h1/x?sslmode=verify-ca",
            "postgresql://u:p@h1/x?sslmode=verify-full&sslrootcert={file}",
        ),
        ("REDIS_URL", "rediss://h1/0", "rediss://h1/0?ssl_ca_certs={file}"),
        ("REDIS_URL", "redis://h1/0", "redis://h1/0"),
        (
            "REDIS_URL",
            "rediss+sentinel://h1:1,h2/mymaster",
            "rediss+sentinel://h1:1,h2/mymaster?ssl_ca_certs={file}",
        ),
        ("REDIS_URL", "rediss://h1?ssl_ca_certs=/x", "rediss://h1?ssl_ca_certs=/x"),
        (
            "RABBITMQ_URL",
            "amqps://h1,h2/;amqp://h3/",
            "amqps://h1,h2/?ssl_ca_certs={file};amqp://h3/",
        ),
    ],
)
def test_the_authorities_are_used_wherever_tls_is_required(
    variable: str, given: str, expected: str, tmp_path: Path
) -> None:
    file = make_certificates(tmp_path / "authority, ours").authority
    variables = {
        "DATABASE_URL": "postgresql://u:p@pooler/x",
        variable: given,
        "TLS_CA_FILE": str(file),
    }

    settings = Settings.from_env(variables, instance_dir=tmp_path)

    found = getattr(settings, variable.lower())
    assert found == expected.replace("{file}", quote(str(file)))


def test_a_file_without_certificates_is_no_file_of_authorities(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("not a certificate")

    (line,) = problems({"TLS_CA_FILE": str(file)}, tmp_path)

    assert line == "TLS_CA_FILE: must be the path of a file with CA certificates in PEM form"
