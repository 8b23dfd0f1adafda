"""Processes of a release serve on a database that a newer release has migrated already."""

from collections.abc import Callable
from typing import Any

import flask_migrate
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from flask import Flask
from sqlalchemy import text

from tests.support.client import JsonClient
from tests.support.users import LogIn, MakeUser
from userapi.infrastructure.database import db, init_migrations, transaction
from userapi.infrastructure.migration_steps import allow_every_release, require_release
from userapi.infrastructure.schema_compatibility import OLDEST_REVISIONS, head_revision

pytestmark = pytest.mark.both_databases

READY = "/api/v1/health/ready"
SERVING = "/api/v1/health/serving"
AHEAD = "9999"


@pytest.fixture
def migrated(app: Flask) -> Callable[[str], None]:
    """Return what sets the migration of the database."""

    def migrate(revision: str) -> None:
        with app.app_context(), transaction() as session:
            session.execute(
                text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision}
            )

    return migrate


def require(app: Flask, oldest: str, *, at: str = AHEAD) -> None:
    with app.app_context(), transaction() as session:
        session.execute(
            text("INSERT INTO schema_compatibility VALUES (:at, :oldest)"),
            {"at": at, "oldest": oldest},
        )


def component(boss: JsonClient) -> Any:
    return boss.get("/api/v1/health/detailed").get_json()["components"]["database"]


def test_a_schema_that_is_ahead_is_ready(
    client: JsonClient, migrated: Callable[[str], None], make_user: MakeUser, log_in: LogIn
) -> None:
    """Each upgrade made all processes of the previous release not ready at once."""
    boss = log_in(make_user("boss", roles=["admin"]))
    assert component(boss)["schema"] == "current"

    migrated(AHEAD)

    ready = client.get(READY)
    assert (ready.status_code, ready.get_json()["checks"]["database"]) == (200, "up")
    shown = component(boss)
    assert (shown["status"], shown["migration"], shown["schema"]) == ("up", AHEAD, "ahead")


def test_a_schema_that_is_behind_is_not_ready(
    client: JsonClient, migrated: Callable[[str], None]
) -> None:
    migrated("0017")

    assert client.get(READY).status_code == 503


def test_a_schema_whose_oldest_release_is_this_one_is_ready(
    app: Flask, client: JsonClient, migrated: Callable[[str], None]
) -> None:
    migrated(AHEAD)
    require(app, head_revision())

    assert client.get(READY).status_code == 200


def test_a_schema_that_removed_what_this_release_needs_is_not_ready(
    app: Flask,
    client: JsonClient,
    migrated: Callable[[str], None],
    make_user: MakeUser,
    log_in: LogIn,
) -> None:
    boss = log_in(make_user("boss", roles=["admin"]))
    migrated(AHEAD)
    # A later migration only added something.
    require(app, "9997", at="9998")

    ready = client.get(READY)

    assert ready.status_code == 503
    assert component(boss)["schema"] == "incompatible"


def test_the_requirement_of_a_migration_is_stored_once_and_removed(app: Flask) -> None:
    with app.app_context(), db.engine.begin() as connection:
        with Operations.context(MigrationContext.configure(connection)):
            require_release("0017", at=AHEAD)
            require_release("0018", at=AHEAD)
            assert connection.execute(text(OLDEST_REVISIONS)).all() == [("0018",)]

            allow_every_release(at=AHEAD)

        assert connection.execute(text(OLDEST_REVISIONS)).all() == []


def test_serving_does_not_depend_on_the_database(make_app: Callable[..., Flask]) -> None:
    client = JsonClient(make_app(DATABASE_URL="sqlite:////nonexistent/none.sqlite3"))

    answer = client.get(SERVING)

    assert client.get(READY).status_code == 503
    assert (answer.status_code, answer.get_json()) == (200, {"status": "serving"})


def test_an_upgrade_to_a_release_that_the_database_is_ahead_of_does_nothing(
    app: Flask, migrated: Callable[[str], None]
) -> None:
    """The way back to the previous image ended where its migration job failed."""
    migrated(AHEAD)

    with app.app_context():
        init_migrations(app)
        flask_migrate.upgrade()

        with db.engine.connect() as connection:
            assert connection.scalar(text("SELECT version_num FROM alembic_version")) == AHEAD


def test_an_upgrade_to_a_release_that_no_longer_works_fails(
    app: Flask, migrated: Callable[[str], None]
) -> None:
    migrated(AHEAD)
    require(app, AHEAD)

    with app.app_context():
        init_migrations(app)
        with pytest.raises(SystemExit):
            flask_migrate.upgrade()
