"""The database roles of the shipped deployments: what the service can and cannot do."""

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import flask_migrate
import psycopg2
import pytest
import yaml
from flask import Flask
from psycopg2.errors import InsufficientPrivilege

from tests.integration.test_doctor import PRODUCTION
from tests.support.client import JsonClient
from tests.support.deployments import ENVIRONMENT, build_app, disconnect
from tests.support.programs import POSTGRES
from tests.support.servers import PostgresServer, Server, started
from userapi.accounts.new_users import NewUser
from userapi.actor import system_actor
from userapi.clock import ManualClock
from userapi.wiring.services import Services
from userapi.worker import tasks_of

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "deploy" / "postgresql"
PASSWORD = "granite-otter-57-teapot"
OWNER_PASSWORD = "owner-password-1"
SERVICE_PASSWORD = "service-password-1"


@dataclass(frozen=True)
class Database:
    """A database with the roles, on a server of its own: roles belong to the whole server."""

    admin_url: str
    folder: Path

    def url(self, user: str, password: str) -> str:
        parts = urlsplit(self.admin_url)
        return f"postgresql://{user}:{password}@{parts.hostname}:{parts.port}/userapi"

    @property
    def owner_url(self) -> str:
        return self.url("userapi_owner", OWNER_PASSWORD)

    @property
    def service_url(self) -> str:
        return self.url("userapi", SERVICE_PASSWORD)

    def make_roles(self) -> None:
        """Run what the image of PostgreSQL runs, with its variables."""
        parts = urlsplit(self.admin_url)
        secrets = self.folder / "secrets"
        secrets.mkdir(exist_ok=True)
        (secrets / "database_owner_password").write_text(OWNER_PASSWORD)
        (secrets / "database_password").write_text(SERVICE_PASSWORD)
        environment = {
            "PATH": f"{POSTGRES.require().parent}:{os.environ['PATH']}",
            "PGHOST": str(parts.hostname),
            "PGPORT": str(parts.port),
            "PGPASSWORD": str(parts.password),
            "POSTGRES_USER": "postgres",
            "POSTGRES_DB": "userapi",
            "SECRETS_FOLDER": str(secrets),
            "ROLES_FILE": str(FOLDER / "roles.sql"),
        }
        run = subprocess.run(
            ["sh", str(FOLDER / "init.sh")],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stdout + run.stderr

    def app(self, url: str) -> Flask:
        return build_app(
            {**ENVIRONMENT, "DATABASE_URL": url}, clock=ManualClock(), instance_dir=self.folder
        )

    def migrate(self, url: str) -> None:
        app = self.app(url)
        with app.app_context():
            flask_migrate.upgrade()
        disconnect(app)


def empty_database(server: Server, folder: Path) -> Database:
    execute(server.url, "CREATE DATABASE userapi ENCODING 'UTF8' TEMPLATE template0")
    return Database(server.url, folder)


@pytest.fixture
def database(private_server: Callable[[type[Server]], Server], tmp_path: Path) -> Database:
    """Return an empty database without roles."""
    return empty_database(private_server(PostgresServer), tmp_path)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Return a database that its owner has migrated. Tests only use it as the service."""
    with started(PostgresServer) as server:
        database = empty_database(server, tmp_path_factory.mktemp("roles"))
        database.make_roles()
        database.migrate(database.owner_url)
        yield database


def execute(url: str, statement: str) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def use(app: Flask) -> None:
    """Use each kind of function of the service, its worker and its commands."""
    services: Services = app.extensions["userapi"]
    with app.app_context():
        services.account_creation.create(
            NewUser(
                username="chief",
                email="chief@example.com",
                password=PASSWORD,
                roles=["superadmin"],
            ),
            actor=system_actor("tests"),
        )
    client = JsonClient(app)
    body = {"username": "chief", "password": PASSWORD}
    answer = client.post("/api/v1/auth/login", json=body).get_json()
    headers = {"Authorization": f"Bearer {answer['access_token']}"}
    created = client.post(
        "/api/v1/users/",
        json={"username": "robin", "email": "robin@example.com", "roles": ["user"]},
        headers={**headers, "Idempotency-Key": "once"},
    )
    assert created.status_code == 201, created.text
    for path in ("/api/v1/users/?search=rob", "/api/v1/users/stats", "/api/v1/audit-logs/"):
        assert client.get(path, headers=headers).status_code == 200, path
    for path in ("/api/v1/health/ready", "/metrics"):
        assert client.get(path).status_code == 200, path
    deleted = client.delete(f"/api/v1/users/{created.get_json()['id']}", headers=headers)
    assert deleted.status_code == 204, deleted.text
    with app.app_context():
        for task in tasks_of(services):
            task.run()
            if task.close is not None:
                task.close()
    runner = app.test_cli_runner()
    for arguments in (
        ["audit", "verify"],
        ["audit", "prune", "--older-than", "1s", "--yes"],
        ["seed", "--users", "50"],
        ["sessions", "purge"],
        ["events", "list"],
        ["mails", "list"],
    ):
        result = runner.invoke(args=arguments)
        assert result.exit_code == 0, (arguments, result.output)


def test_the_service_needs_no_more_than_its_role_has(deployed: Database) -> None:
    """The compose file created it as a superuser, which no trigger restricts."""
    app = deployed.app(deployed.service_url)
    use(app)
    disconnect(app)


FORBIDDEN = [
    "ALTER TABLE audit_logs DISABLE TRIGGER ALL",
    "DROP TRIGGER audit_logs_unchangeable ON audit_logs",
    "CREATE OR REPLACE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql"
    " AS $$ BEGIN RETURN OLD; END $$",
    "SET session_replication_role = replica",
    "TRUNCATE audit_logs",
    "UPDATE audit_logs SET action = 'x'",
    "DELETE FROM audit_logs",
    "DROP TABLE audit_logs",
    "CREATE TABLE mine (id int)",
    "CREATE ROLE mine",
    "ALTER ROLE userapi SUPERUSER",
]


def test_the_service_cannot_switch_off_what_protects_the_audit_log(deployed: Database) -> None:
    execute(
        deployed.service_url,
        "INSERT INTO audit_logs (id, occurred_at, action, outcome, actor_type)"
        " VALUES (gen_random_uuid(), now(), 'user.updated', 'success', 'system')",
    )

    for statement in FORBIDDEN:
        with pytest.raises(InsufficientPrivilege):
            execute(deployed.service_url, statement)
    row = execute(
        deployed.service_url,
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolbypassrls,"
        " (SELECT count(*) FROM pg_class WHERE relowner = pg_roles.oid)"
        " FROM pg_roles WHERE rolname = current_user",
    )
    assert row == [(False, False, False, False, 0)]


@pytest.mark.thorough
def test_a_database_that_another_role_owns_is_handed_over(database: Database) -> None:
    database.migrate(database.url("postgres", str(urlsplit(database.admin_url).password)))

    database.make_roles()
    database.make_roles()  # Whatever interrupts it, it can be repeated.

    owners = execute(
        database.owner_url, "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
    )
    assert owners == [("userapi_owner",)]
    app = database.app(database.service_url)
    use(app)
    disconnect(app)


@pytest.mark.thorough
def test_the_owner_migrates_down_and_up(database: Database) -> None:
    database.make_roles()
    app = database.app(database.owner_url)
    with app.app_context():
        flask_migrate.upgrade()
        flask_migrate.downgrade(revision="base")
        flask_migrate.upgrade()
    disconnect(app)


def test_doctor_reports_a_role_that_owns_the_tables(deployed: Database) -> None:
    found = {}
    for url in (deployed.owner_url, deployed.service_url):
        app = build_app(
            {**PRODUCTION, "DATABASE_URL": url}, clock=ManualClock(), instance_dir=deployed.folder
        )
        found[url] = app.test_cli_runner().invoke(args=["doctor"]).output
        disconnect(app)

    assert "the service owns its tables" in found[deployed.owner_url]
    assert "deploy/postgresql/roles.sql" in found[deployed.owner_url]
    assert "the service owns its tables" not in found[deployed.service_url]


def test_only_the_migration_of_the_deployments_has_the_role_that_owns() -> None:
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text("utf-8"))
    users = {
        name: service["environment"]["DATABASE_USER"]
        for name, service in compose["services"].items()
        if "DATABASE_USER" in service.get("environment", {})
    }
    holders = {
        name
        for name, service in compose["services"].items()
        if {"database_owner_password", "database_admin_password"} & set(service.get("secrets", []))
    }
    manifests = {
        path.name: path.read_text("utf-8")
        for path in (REPOSITORY / "deploy" / "kubernetes").rglob("*.yaml")
    }

    assert users == {"migration": "userapi_owner", "service": "userapi", "worker": "userapi"}
    assert holders == {"migration", "postgresql"}
    assert compose["services"]["postgresql"]["environment"]["POSTGRES_USER"] == "postgres"
    assert [n for n, text in manifests.items() if "userapi-migration}" in text] == [
        "migration.yaml"
    ]
