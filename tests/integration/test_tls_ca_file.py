"""TLS_CA_FILE with real servers whose certificates a private authority has signed."""

import os
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest

from tests.support.clusters.certificates import Certificates, make_certificates
from tests.support.clusters.redis_nodes import tls_options
from tests.support.ports import free_port
from tests.support.servers import (
    PostgresServer,
    RabbitmqServer,
    RedisServer,
    Server,
    redis_serves,
)
from userapi.diagnosis import rabbitmq, redis_server
from userapi.diagnosis.checks import Status, run_checks
from userapi.events.rabbitmq import AmqpPublisher
from userapi.infrastructure.database import connect_alone
from userapi.infrastructure.redis_client import Redis
from userapi.infrastructure.redis_commands import command
from userapi.settings import Settings

StartServer = Callable[[type[Server]], Server]


def certificates_of(server: Server) -> Certificates:
    is_named = not isinstance(server, Misnamed)
    return make_certificates(server.directory / "tls", for_this_machine=is_named)


class Misnamed:
    """A server whose certificate is that of another machine."""


class TlsPostgres(PostgresServer):
    """PostgreSQL that offers TLS."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.certificates = certificates_of(self)
        if self._account:
            os.chown(self.certificates.key, *self._account)
        self.certificates.key.chmod(0o600)

    @property
    def options(self) -> dict[str, str | int]:
        return super().options | {
            "ssl": "on",
            "ssl_cert_file": str(self.certificates.certificate),
            "ssl_key_file": str(self.certificates.key),
        }


class TlsRedis(RedisServer):
    """Redis that serves TLS alone."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.certificates = certificates_of(self)

    @property
    def url(self) -> str:
        return super().url.replace("redis://", "rediss://", 1)

    @property
    def options(self) -> dict[str, str]:
        return super().options | tls_options(self.port, self.certificates)

    def _serves(self) -> bool:
        authority = self.certificates.authority
        return redis_serves(f"{self.url}?ssl_ca_certs={authority}&ssl_check_hostname=no")


class TlsRabbitmq(RabbitmqServer):
    """RabbitMQ with a second port, for TLS."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.certificates = certificates_of(self)
        self._tls_port = free_port()

    @property
    def tls_url(self) -> str:
        return self.url.replace("amqp://", "amqps://").replace(
            f":{self.port}", f":{self._tls_port}"
        )

    def _write_configuration(self, home: Path) -> None:
        super()._write_configuration(home)
        with (home / "rabbitmq.conf").open("a", encoding="utf-8") as file:
            file.write(
                f"listeners.ssl.1 = 127.0.0.1:{self._tls_port}\n"
                f"ssl_options.cacertfile = {self.certificates.authority}\n"
                f"ssl_options.certfile = {self.certificates.certificate}\n"
                f"ssl_options.keyfile = {self.certificates.key}\n"
                "ssl_options.verify = verify_none\n"
            )


class MisnamedPostgres(Misnamed, TlsPostgres):
    """PostgreSQL with the certificate of another machine."""


class MisnamedRedis(Misnamed, TlsRedis):
    """Redis with the certificate of another machine."""


class MisnamedRabbitmq(Misnamed, TlsRabbitmq):
    """RabbitMQ with the certificate of another machine."""


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """Return an authority that has signed no server's certificate."""
    return make_certificates(tmp_path / "stranger").authority


def settings(ca_file: Path, folder: Path, **variables: str) -> Settings:
    return Settings.from_env({"TLS_CA_FILE": str(ca_file), **variables}, instance_dir=folder)


def test_postgresql(private_server: StartServer, tmp_path: Path, stranger: Path) -> None:
    server = private_server(TlsPostgres)
    assert isinstance(server, TlsPostgres)
    url = f"{server.url}?sslmode=require"

    trusting = settings(server.certificates.authority, tmp_path, DATABASE_URL=url)
    doubting = settings(stranger, tmp_path, DATABASE_URL=url)

    connection = connect_alone(trusting.database_url, "tests")
    with connection.cursor() as cursor:
        cursor.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert cursor.fetchone() == (True,)
    connection.close()
    with pytest.raises(psycopg2.OperationalError, match="certificate verify failed"):
        connect_alone(doubting.database_url, "tests")


def test_redis(private_server: StartServer, tmp_path: Path, stranger: Path) -> None:
    server = private_server(TlsRedis)
    assert isinstance(server, TlsRedis)

    trusting = settings(server.certificates.authority, tmp_path, REDIS_URL=server.url).redis_url
    doubting = settings(stranger, tmp_path, REDIS_URL=server.url).redis_url

    assert Redis(trusting, timeout_seconds=5).execute(command("PING")) == [b"PONG"]
    assert Redis(doubting, timeout_seconds=5).execute(command("PING")) is None
    checks = run_checks(
        {
            "trusting": lambda: redis_server.check(trusting),
            "doubting": lambda: redis_server.check(doubting),
        }
    )
    assert [check.status for check in checks.values()] == [Status.UP, Status.DOWN]


@pytest.mark.thorough
def test_rabbitmq(private_server: StartServer, tmp_path: Path, stranger: Path) -> None:
    server = private_server(TlsRabbitmq)
    assert isinstance(server, TlsRabbitmq)
    variables = {"RABBITMQ_URL": server.tls_url}

    trusting = settings(server.certificates.authority, tmp_path, **variables).rabbitmq_url
    doubting = settings(stranger, tmp_path, **variables).rabbitmq_url

    publisher = AmqpPublisher(trusting, exchange="tls")
    assert publisher.obstacle() is None
    publisher.close()
    assert AmqpPublisher(doubting, exchange="tls").obstacle() == "SSLCertVerificationError"
    checks = run_checks(
        {
            "trusting": lambda: rabbitmq.check(trusting),
            "doubting": lambda: rabbitmq.check(doubting),
        }
    )
    assert [check.status for check in checks.values()] == [Status.UP, Status.DOWN]


def test_postgresql_with_the_certificate_of_another_machine_is_refused(
    private_server: StartServer, tmp_path: Path
) -> None:
    server = private_server(MisnamedPostgres)
    assert isinstance(server, MisnamedPostgres)
    url = f"{server.url}?sslmode=require"

    url = settings(server.certificates.authority, tmp_path, DATABASE_URL=url).database_url

    with pytest.raises(psycopg2.OperationalError, match="does not match host name"):
        connect_alone(url, "tests")


def test_redis_with_the_certificate_of_another_machine_is_refused(
    private_server: StartServer, tmp_path: Path
) -> None:
    server = private_server(MisnamedRedis)
    assert isinstance(server, MisnamedRedis)

    url = settings(server.certificates.authority, tmp_path, REDIS_URL=server.url).redis_url

    assert Redis(url, timeout_seconds=5).execute(command("PING")) is None
    # The certificate is trusted: only the name is wrong.
    lenient = Redis(f"{url}&ssl_check_hostname=no", timeout_seconds=5)
    assert lenient.execute(command("PING")) == [b"PONG"]


@pytest.mark.thorough
def test_rabbitmq_with_the_certificate_of_another_machine_is_refused(
    private_server: StartServer, tmp_path: Path
) -> None:
    server = private_server(MisnamedRabbitmq)
    assert isinstance(server, MisnamedRabbitmq)
    ca_file = server.certificates.authority

    url = settings(ca_file, tmp_path, RABBITMQ_URL=server.tls_url).rabbitmq_url

    assert AmqpPublisher(url, exchange="tls").obstacle() == "SSLCertVerificationError"
