"""If the log cannot be written, lines are lost, not requests."""

from pathlib import Path

import pytest

from tests.support.gunicorn import GunicornService
from tests.support.service_clients import PASSWORD, RecordingClient


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_the_service_continues_when_its_log_is_full() -> None:
    environment = {
        "ENVIRONMENT": "testing",
        "PASSWORD_HASH_ROUNDS": "4",
        "LOG_FILE": "/dev/full",
    }
    with GunicornService(environment) as service:
        client = RecordingClient(service.base_url)
        new = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}

        statuses = [
            client.once("GET", "/api/v1/health/ready").status,
            client.once("POST", "/api/v1/auth/register", new).status,
            client.once("GET", "/api/v1/users/").status,
        ]

        assert statuses == [200, 201, 401]
        assert service.stop() == 0
