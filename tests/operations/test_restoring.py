"""Restoring a backup: the guide's commands on a new, empty PostgreSQL server."""

import subprocess
from collections.abc import Callable

import pytest

from tests.operations.stage import Stage
from tests.support.gunicorn import add_administrator
from tests.support.programs import POSTGRES
from tests.support.servers import PostgresServer, Server
from tests.support.service_clients import PASSWORD, ask, log_in


def back_up(stage: Stage) -> None:
    """Write backup.dump as the guide says that it is made."""
    url = stage.environment["DATABASE_URL"]
    pg_dump = POSTGRES.require().with_name("pg_dump")
    arguments = ["--format=custom", "--file=backup.dump", url]
    subprocess.run([pg_dump, *arguments], cwd=stage.folder, check=True, timeout=120)


@pytest.mark.slow
def test_a_backup_is_brought_back(
    stage: Stage, private_server: Callable[[type[Server]], Server]
) -> None:
    stage.service.start()
    add_administrator(stage.service, PASSWORD)
    before = log_in(stage.service.base_url, "admin").access_token
    assert stage.service.flask("audit", "seal").returncode == 0
    back_up(stage)
    assert ask(stage.service.base_url, "POST", "/api/v1/auth/logout", token=before)[0] == 204
    stage.service.stop()
    server = private_server(PostgresServer)
    stage.environment["DATABASE_URL"] = server.url.rpartition("/")[0] + "/userapi"

    output = stage.run("Restoring a backup")

    assert "The audit log verifies." in output
    stage.service.start()
    # Its session was revoked after the backup, which has it as a live one.
    status, body = ask(stage.service.base_url, "GET", "/api/v1/auth/me", token=before)
    assert (status, body["code"]) == (401, "token_revoked")
    token = log_in(stage.service.base_url, "admin").access_token
    assert ask(stage.service.base_url, "GET", "/api/v1/auth/me", token=token)[0] == 200
