"""Files in INSTANCE_DIR are readable by their owner only, including files of earlier releases."""

import logging
import os
import secrets
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import flask_migrate
import pytest
from flask import Flask

from tests.support.client import JsonClient
from tests.support.deployments import disconnect
from tests.support.polling import wait_until
from userapi import create_app
from userapi.accounts.new_users import NewUser
from userapi.actor import system_actor
from userapi.infrastructure.database import init_migrations
from userapi.private_files import make_file
from userapi.settings import Settings
from userapi.wiring.services import Services

OPEN_TO_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """Let new files be readable by everybody, as on most machines."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """Close the log of each test's application."""
    root = logging.getLogger()
    before = root.handlers
    yield
    for handler in root.handlers:
        if handler not in before:
            handler.close()
    root.handlers = before


def readable_by_others(folder: Path) -> list[str]:
    found = [folder, *folder.rglob("*")]
    assert len(found) > 5
    return [str(path) for path in found if path.stat().st_mode & OPEN_TO_OTHERS]


def serve(instance: Path) -> Flask:
    """Do something of each kind with the embedded default; return the application."""
    log_file = str(instance / "service.log")
    settings = Settings.from_env(
        {"JWT_ALGORITHM": "HS256", "LOG_FILE": log_file}, instance_dir=instance
    )
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.close()
    app = create_app(settings)
    init_migrations(app)
    services: Services = app.extensions["userapi"]
    with app.app_context():
        flask_migrate.upgrade()
        name = f"robin{secrets.token_hex(4)}"
        services.account_creation.create(
            NewUser(username=name, email=f"{name}@example.com"), actor=system_actor("tests")
        )
        assert services.mail_delivery.deliver_due() == 1
    client = JsonClient(app)
    assert client.get("/console/sign-in").status_code == 200
    assert client.get("/api/v1/health/ready").status_code == 200
    return app


@pytest.mark.thorough
def test_nothing_that_the_service_makes_can_be_read_by_others(tmp_path: Path) -> None:
    """The database of the embedded default was readable by every user of the machine."""
    app = serve(tmp_path / "instance")
    names = {path.name for path in (tmp_path / "instance").rglob("*")}

    assert readable_by_others(tmp_path / "instance") == []
    assert {"userapi.sqlite3", "userapi.sqlite3-wal", "userapi.sqlite3-shm"} <= names
    assert {"secrets.json", "mail", "service.log"} <= names
    disconnect(app)


@pytest.mark.thorough
def test_what_an_earlier_release_made_is_taken_away_from_others(tmp_path: Path) -> None:
    instance = tmp_path / "instance"
    disconnect(serve(instance))
    for path in [instance, *instance.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)

    app = serve(instance)

    assert readable_by_others(instance) == []
    disconnect(app)


@pytest.mark.thorough
def test_what_others_keep_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    """INSTANCE_DIR may name a folder by mistake that belongs to others as well."""
    instance = tmp_path / "instance"
    disconnect(serve(instance))
    instance.chmod(0o755)
    (instance / "notes.txt").write_text("of somebody else")
    (instance / "notes.txt").chmod(0o644)

    disconnect(serve(instance))

    assert stat.S_IMODE((instance / "notes.txt").stat().st_mode) == 0o644
    assert stat.S_IMODE(instance.stat().st_mode) == 0o755


@pytest.mark.thorough
def test_a_log_that_was_moved_is_created_again_readable_by_its_owner_only(tmp_path: Path) -> None:
    instance = tmp_path / "instance"
    app = serve(instance)
    log = instance / "service.log"
    log.rename(log.with_suffix(".1"))

    def is_there_again() -> bool:
        JsonClient(app).get("/api/v1/health/live")
        return log.exists() and log.stat().st_size > 0

    wait_until(is_there_again)

    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    disconnect(app)


def test_the_locks_of_a_database_stay_when_it_is_made_private(tmp_path: Path) -> None:
    """Another process treated a database in use as unused, and deleted its WAL."""
    path = tmp_path / "service.sqlite3"
    write = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('DELETE FROM t')"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("BEGIN EXCLUSIVE")

        make_file(path)

        other = subprocess.run(
            [sys.executable, "-c", write, str(path)], capture_output=True, text=True, check=False
        )
    assert "database is locked" in other.stderr
