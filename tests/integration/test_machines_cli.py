"""flask service-accounts and flask api-keys."""

import json
from collections.abc import Callable

import pytest
from click.testing import Result
from flask import Flask

from tests.support.client import JsonClient
from tests.support.facts import audit_rows

pytestmark = pytest.mark.both_databases
VERIFY = "/api/v1/auth/verify"
VECTOR = "uaks_031SDlhm3cXd0fqoDweMV7003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf2ZGeM9"


@pytest.fixture
def flask(app: Flask) -> Callable[..., Result]:
    runner = app.test_cli_runner()

    def run(*arguments: str, stdin: str | None = None, code: int = 0) -> Result:
        result = runner.invoke(args=arguments, input=stdin)
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.mark.thorough
def test_the_life_of_a_service_account(
    app: Flask, flask: Callable[..., Result], client: JsonClient
) -> None:
    flask("service-accounts", "create", "robot", "--role", "moderator", "--role", "user")
    made = flask(
        *("api-keys", "create", "--service", "robot", "--name", "ci", "--expires", "90d"),
        *("--permission", "users:read", "--network", "127.0.0.1", "--network", "::1"),
    )
    key = made.stdout.strip()
    holder = client.as_user(key)

    assert "\n" not in key
    assert holder.get(VERIFY).get_json()["permissions"] == ["users:read"]
    shown = json.loads(flask("service-accounts", "show", "robot", "--json").stdout)
    assert (shown["name"], shown["roles"], shown["key_count"]) == (
        "robot",
        ["moderator", "user"],
        1,
    )
    listed = json.loads(flask("service-accounts", "list", "--json").stdout)["items"]
    assert [account["name"] for account in listed] == ["robot"]
    assert "robot" in flask("service-accounts", "list").stdout
    (item,) = json.loads(flask("api-keys", "list", "--service", "robot", "--json").stdout)["items"]
    assert item["allowed_networks"] == ["127.0.0.1", "::1"]
    assert key not in flask("api-keys", "list", "--service", "robot").stdout

    flask("service-accounts", "suspend", "robot", "--reason", "noise")
    assert holder.get(VERIFY).status_code == 401
    flask("service-accounts", "activate", "robot")
    assert holder.get(VERIFY).status_code == 200
    new = flask("api-keys", "rotate", item["id"], "--overlap-seconds", "0").stdout.strip()
    assert [client.as_user(text).get(VERIFY).status_code for text in (key, new)] == [401, 200]
    listed = json.loads(flask("api-keys", "list", "--service", "robot", "--json").stdout)["items"]
    flask("api-keys", "revoke", listed[0]["id"])
    assert client.as_user(new).get(VERIFY).status_code == 401
    flask("service-accounts", "delete", "robot", "--yes")
    flask("service-accounts", "show", "robot", code=1)
    assert {row.actor_type for row in audit_rows(app) if row.action.startswith("api_key")} == {
        "system"
    }


def test_a_key_is_checked_offline(flask: Callable[..., Result]) -> None:
    assert "service key" in flask("api-keys", "check", stdin=f"{VECTOR}\n").stdout
    flask("api-keys", "check", stdin=VECTOR[:-1] + "0", code=1)
    flask("api-keys", "check", stdin="", code=1)


@pytest.mark.parametrize("expires", ["90", "0d", "soon", "5w"])
def test_an_unclear_end_is_rejected(flask: Callable[..., Result], expires: str) -> None:
    flask("service-accounts", "create", "robot")

    flask(
        *("api-keys", "create", "--service", "robot", "--name", "x", "--expires", expires), code=2
    )
