"""The service as shipped: Gunicorn over TCP, the tour of the README, and a power failure."""

import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.gunicorn import REPOSITORY, GunicornService, add_administrator
from tests.support.service_clients import PASSWORD, log_in
from userapi_client import Client, Unavailable

FAST = {"ENVIRONMENT": "testing", "PASSWORD_HASH_ROUNDS": "4"}


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
    tokens = log_in(embedded.base_url, "admin")

    code = embedded.stop()
    embedded.start()

    assert code == 0
    with Client(embedded.base_url, tokens) as client:
        assert client.auth.me().username == "admin"
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
        # Nothing is sent again.
        client = Client(service.base_url, log_in(service.base_url, "admin"), retries=0)
        acknowledged: list[str] = []

        def create(number: int) -> None:
            name = f"user{number}"
            try:
                made = client.users.create(
                    username=name, email=f"{name}@example.com", password=PASSWORD
                )
            except Unavailable:
                return  # Cut off: nothing was acknowledged.
            acknowledged.append(made.id)
            if len(acknowledged) == 20:
                service.kill()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(create, range(60)))
        service.start()

        assert len(acknowledged) >= 20
        for user_id in acknowledged:
            entries = client.audit.iter(target_id=user_id)
            assert [entry.action for entry in entries] == ["user.created"]
            assert client.users.get(user_id).id == user_id
        client.close()


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
