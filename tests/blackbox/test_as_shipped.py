"""The service as a stranger finds it: Gunicorn over TCP, the tour of the README, a power cut."""

import http.client
import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.gunicorn import REPOSITORY, GunicornService, add_administrator

PASSWORD = "violet-harbour-93-lantern"
FAST = {"ENVIRONMENT": "testing", "PASSWORD_HASH_ROUNDS": "4"}


def call(
    service: GunicornService, method: str, path: str, body: Any = None, token: str | None = None
) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(
        service.base_url + path,
        method=method,
        headers=headers,
        data=None if body is None else json.dumps(body).encode(),
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read() or "null")
    except urllib.error.HTTPError as exc:
        return exc.code, json.loads(exc.read())


def log_in(service: GunicornService) -> str:
    status, body = call(
        service, "POST", "/api/v1/auth/login", {"username": "admin", "password": PASSWORD}
    )
    assert status == 200
    return str(body["access_token"])


@pytest.fixture
def embedded() -> Iterator[GunicornService]:
    with GunicornService({**FAST, "RATE_LIMIT_ENABLED": "false"}) as service:
        add_administrator(service, PASSWORD)
        yield service


def test_the_tour_of_the_readme_works_as_pasted(embedded: GunicornService) -> None:
    readme = (REPOSITORY / "README.md").read_text()
    tour = readme[readme.index("## A tour") : readme.index("## With real servers")]
    given, script = re.findall(r"```sh\n(.*?)```", tour, re.DOTALL)
    assert given.startswith("PASSWORD=")
    script = script.replace("http://127.0.0.1:8000", embedded.base_url)

    # Pasted twice: the second time, the kept answer of its Idempotency-Key was a deleted user.
    for _ in range(2):
        run = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"PASSWORD={PASSWORD}\n{script}"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

        listed, suspended, audit, pair, deleted = run.stdout.splitlines()
        assert json.loads(listed)["items"][0]["username"] == "ada"
        assert json.loads(suspended)["status"] == "suspended"
        actions = [row["action"] for row in json.loads(audit)["items"]]
        assert actions == ["user.suspended", "user.created"]
        assert json.loads(pair)["token_type"] == "bearer"
        assert deleted == "204"


def test_data_and_tokens_outlive_a_restart(embedded: GunicornService) -> None:
    token = log_in(embedded)

    code = embedded.stop()
    embedded.start()

    assert code == 0
    assert call(embedded, "GET", "/api/v1/auth/me", token=token)[0] == 200
    assert "Traceback" not in embedded.log


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_power_cut_loses_nothing_that_was_acknowledged(
    database: str, request: pytest.FixtureRequest
) -> None:
    environment = {**FAST, "RATE_LIMIT_ENABLED": "false"}
    if database == "postgresql":
        make_database = request.getfixturevalue("make_database")
        environment["DATABASE_URL"] = make_database("powercut").url
    with GunicornService(environment) as service:
        add_administrator(service, PASSWORD)
        token = log_in(service)
        acknowledged: list[str] = []

        def create(number: int) -> None:
            body = {
                "username": f"user{number}",
                "email": f"user{number}@example.com",
                "password": PASSWORD,
            }
            try:
                status, answer = call(service, "POST", "/api/v1/users/", body, token)
            except (OSError, http.client.HTTPException):
                return  # Cut off: nothing was acknowledged.
            if status == 201:
                acknowledged.append(answer["id"])
            if len(acknowledged) == 20:
                service.kill()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(create, range(60)))
        service.start()

        assert len(acknowledged) >= 20
        for user_id in acknowledged:
            status, rows = call(
                service, "GET", f"/api/v1/audit-logs/?target_id={user_id}", token=token
            )
            assert [row["action"] for row in rows["items"]] == ["user.created"]
            assert call(service, "GET", f"/api/v1/users/{user_id}", token=token)[0] == 200


def test_bad_settings_end_the_master_with_a_line_each() -> None:
    service = GunicornService({"SMTP_PORT": "many", "JWT_SECRET_KEY": "short-secret"})
    try:
        code = service.launch().wait(60)
        lines = service.log.splitlines()
    finally:
        service.__exit__()

    assert code != 0
    assert lines == [
        "userapi: JWT_SECRET_KEY: must be a secret of at least 32 bytes",
        "userapi: SMTP_PORT: must be a whole number from 1 to 65535",
    ]
