"""flask service-accounts and flask api-keys."""

import json
from collections.abc import Callable
from uuid import UUID

import pytest
from click.testing import Result
from flask import Flask

from tests.support.client import JsonClient
from tests.support.facts import audit_rows
from userapi.machines.key_text import parse_key

pytestmark = pytest.mark.both_databases
VERIFY = "/api/v1/auth/verify"
CREATE = ("api-keys", "create", "--service", "robot", "--name")
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


def test_a_new_id_and_a_new_key_are_alone_on_standard_output(flask: Callable[..., Result]) -> None:
    """Scripts read them: `KEY=$(flask api-keys create …)`."""
    account = flask("service-accounts", "create", "robot")
    made = flask("api-keys", "create", "--service", "robot", "--name", "ci", "--expires", "never")
    listed = json.loads(flask("api-keys", "list", "--service", "robot", "--json").stdout)["items"]
    rotated = flask("api-keys", "rotate", listed[0]["id"])
    others = [
        flask("service-accounts", "suspend", "robot"),
        flask("service-accounts", "activate", "robot"),
        flask("api-keys", "revoke", listed[0]["id"]),
        flask("service-accounts", "delete", "robot", "--yes"),
    ]

    assert account.stdout == f"{UUID(account.stdout.strip())}\n"
    for created in (made, rotated):
        assert parse_key(created.stdout.removesuffix("\n")) is not None
        assert created.stderr.startswith("Key ")
    assert listed[0]["expires_at"] is None
    assert {done.stdout for done in others} == {""}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("service-accounts", "create", "robot"), "This name is taken."),
        (("service-accounts", "create", "a b"), "name: Must be 3 to 64 characters"),
        (("service-accounts", "create", "r2d2", "--role", "none"), "This role does not exist."),
        (("service-accounts", "activate", "robot"), "The service account is active already."),
        (("service-accounts", "delete", "nobody", "--yes"), "does not exist"),
        (("service-accounts", "show", "\udcff"), "An argument is not UTF-8."),
        (("api-keys", "list", "--service", "nobody"), "does not exist"),
        (("api-keys", "rotate", str(UUID(int=1))), "This API key does not exist."),
        (("api-keys", "revoke", str(UUID(int=1))), "This API key does not exist."),
        ((*CREATE, "ci", "--permission", "users:read"), "permissions that you do not hold"),
        ((*CREATE, "ci", "--permission", "nothing"), "permissions.0: Must be"),
        ((*CREATE, "ci", "--network", "10.0.0.1/8"), "allowed_networks.0: Must be"),
        ((*CREATE, " "), "name: Must contain visible characters."),
    ],
)
def test_what_cannot_be_done_is_a_message_and_exit_code_1(
    flask: Callable[..., Result], arguments: tuple[str, ...], message: str
) -> None:
    flask("service-accounts", "create", "robot")

    refused = flask(*arguments, code=1)

    assert (refused.stdout, message in refused.stderr) == ("", True), refused.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("service-accounts", "create", "r2d2", "--description", "x" * 501),
        ("service-accounts", "suspend", "robot", "--reason", "x" * 501),
        ("service-accounts", "suspend", "robot", "--reason", "\x1b[2J"),
        (*CREATE, "x" * 101),
        (*CREATE, "a\nb"),
        ("api-keys", "list"),
        ("api-keys", "list", "--service", "robot", "--user", "robin"),
        ("api-keys", "rotate", "first"),
    ],
)
def test_an_unusable_option_is_exit_code_2(
    flask: Callable[..., Result], arguments: tuple[str, ...]
) -> None:
    """PostgreSQL rejected a long text, and the command said that the database cannot be used."""
    flask("service-accounts", "create", "robot")

    assert flask(*arguments, code=2).stdout == ""
