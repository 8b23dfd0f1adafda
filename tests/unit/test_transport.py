"""Which URLs lead over a network without a verified certificate, and where this is reported."""

import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from tests.support.clusters.certificates import make_certificates
from userapi.diagnosis.configuration import VERIFIED_BY
from userapi.settings import Settings
from userapi.settings.transport import unverified_connections

VERIFIED = {
    "database_url": "postgresql://u@db/x?sslmode=verify-full",
    "redis_url": "rediss://cache/0",
    "rabbitmq_url": "amqps://broker/",
}
DATABASE, REDIS, RABBITMQ = VERIFIED_BY


def unverified(**urls: str) -> list[str]:
    return list(unverified_connections(**{**VERIFIED, **urls}))


@pytest.mark.parametrize(
    ("urls", "expected"),
    [
        ({}, []),
        ({"database_url": "sqlite:////data/x.sqlite3", "redis_url": "", "rabbitmq_url": ""}, []),
        ({"database_url": "postgresql://u@db/x"}, [DATABASE]),
        ({"database_url": "postgresql+psycopg2://u@db/x?sslmode=verify-ca"}, [DATABASE]),
        ({"database_url": "postgresql://u@127.0.0.1,db/x?sslmode=require"}, [DATABASE]),
        ({"database_url": "postgresql://u@/x?host=db1,db2"}, [DATABASE]),
        ({"database_url": "postgresql://u@localhost,[::1],127.0.0.9/x"}, []),
        ({"database_url": "postgresql:///x?host=/run/postgresql"}, []),
        ({"database_url": "postgresql://u@db/x?hostaddr=127.0.0.1"}, []),
        ({"redis_url": "redis://cache/0"}, [REDIS]),
        ({"redis_url": "redis://:pw@127.0.0.1/0"}, []),
        ({"redis_url": "unix:///run/redis.sock"}, []),
        ({"redis_url": "rediss://cache/0?ssl_cert_reqs=none"}, [REDIS]),
        ({"redis_url": "rediss://cache/0?ssl_check_hostname=no"}, [REDIS]),
        ({"redis_url": "redis+sentinel://127.0.0.1,s2/mymaster"}, [REDIS]),
        ({"redis_url": "rediss+sentinel://s1,s2/mymaster"}, []),
        ({"redis_url": "redis+cluster://:pw@n1,n2"}, [REDIS]),
        ({"redis_url": "rediss+cluster://n1,n2"}, []),
        ({"rabbitmq_url": "amqp://u:p@broker/"}, [RABBITMQ]),
        ({"rabbitmq_url": "amqp://u:p@127.0.0.1:5672/"}, []),
        ({"rabbitmq_url": "amqps://b1/;amqp://b2/"}, [RABBITMQ]),
    ],
)
def test_urls_without_a_verified_certificate(urls: dict[str, str], expected: list[str]) -> None:
    assert unverified(**urls) == expected


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ("postgresql://u:p@db/x", "verify-full"),
        ("postgresql://u:p@db1,db2/x", "verify-full"),
        ("postgresql://u:p@127.0.0.1/x", None),
        ("postgresql://u:p@db/x?sslmode=disable", "disable"),
        ("postgresql://u:p@db/x?sslmode=prefer", "prefer"),
    ],
)
def test_a_database_on_another_machine_is_verified_with_the_authorities(
    given: str, mode: str | None, tmp_path: Path
) -> None:
    """Without `sslmode`, libpq would use TLS if it is offered, and verify nothing."""
    file = make_certificates(tmp_path / "authority").authority
    variables = {"DATABASE_URL": given, "TLS_CA_FILE": str(file)}

    settings = Settings.from_env(variables, instance_dir=tmp_path)

    for url in (settings.database_url, settings.database_direct_url):
        assert ("sslrootcert=" in url) is (mode == "verify-full")
        assert (f"sslmode={mode}" in url) is (mode is not None)


PRODUCTION = {
    "ENVIRONMENT": "production",
    "SECRET_KEY": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "PASSWORD_PEPPER": "fd61a03af4f77d870fc21e05e7e80678095c92d808cfb3b5c279ee04c74aca13",
    "ENCRYPTION_KEY": "6b51d431df5d7f141cbececcf79edf3dd861c3b4069f0b11661a3eefacbba918",
    "JWT_SECRET_KEY": "a4e624d686e03ed2767c0abd85c14426b0b1157d2ce81d27bb4fe4f6f01d688a",
    "PASSWORD_HASH_ROUNDS": "12",
    "METRICS_TOKEN": "c1b7d4e2a9f3860b5d2e7c4f1a8b3d6e9c2f5a8d1b4e7c0f3a6d9b2e5c8f1a4d",
    "REDIS_URL": "redis://192.0.2.1/0",
}
REPORTED = re.compile('"settings.connection_not_verified".*"variable":"REDIS_URL"')


def test_doctor_names_each_url_in_production(make_app: Callable[..., Flask]) -> None:
    app = make_app(**PRODUCTION)

    output = app.test_cli_runner().invoke(args=["doctor"]).output

    assert "REDIS_URL leads over a network without a verified certificate" in output
    assert VERIFIED_BY["REDIS_URL"] in output
    assert "DATABASE_URL leads over a network" not in output


def test_the_start_names_each_url_in_production(
    make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str]
) -> None:
    make_app(**PRODUCTION)
    make_app(**{**PRODUCTION, "ENVIRONMENT": "development"})

    assert len(REPORTED.findall(capsys.readouterr().out)) == 1


def test_the_start_of_a_worker_names_each_url_in_production(
    make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str]
) -> None:
    """Before it connects or listens: here it ends, because its port is in use."""
    app = make_app(**PRODUCTION)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = str(listening.getsockname()[1])
        capsys.readouterr()

        result = app.test_cli_runner().invoke(args=["worker", "--metrics-port", port])

    assert result.exit_code != 0
    assert len(REPORTED.findall(capsys.readouterr().out)) == 1
