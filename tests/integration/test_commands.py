"""The `flask` commands: what operators type, and what they get to see."""

import json
import re

import pytest
from click.testing import Result
from flask import Flask

from tests.support.client import JsonClient
from tests.support.facts import audit_rows
from tests.support.users import LogIn, MakeUser

PASSWORD = "violet-harbour-93-lantern"
pytestmark = pytest.mark.both_databases


def flask(app: Flask, *arguments: str, stdin: str | None = None) -> Result:
    return app.test_cli_runner().invoke(args=list(arguments), input=stdin)


def can_log_in(app: Flask, username: str, password: str) -> bool:
    answer = JsonClient(app).post(
        "/api/v1/auth/login", json={"username": username, "password": password}
    )
    return answer.status_code == 200


def test_the_first_administrator_is_made_once(app: Flask) -> None:
    arguments = [
        "users",
        "create-admin",
        "--username",
        "admin",
        "--email",
        "admin@example.com",
        "--if-none",
        "--generate",
    ]

    first, second = flask(app, *arguments), flask(app, *arguments)

    shown = re.search(r"^ {4}(\S+)$", first.output, re.MULTILINE)
    assert shown is not None
    assert can_log_in(app, "admin", shown[1])
    assert (second.exit_code, second.output) == (0, "")
    (row,) = audit_rows(app, action="user.created")
    assert (row.actor_type, row.actor_username) == ("system", "cli")


def test_a_password_comes_from_standard_input(app: Flask) -> None:
    made = flask(
        app,
        "users",
        "create-admin",
        "--username",
        "boss",
        "--email",
        "boss@example.com",
        "--password-stdin",
        stdin=PASSWORD + "\n",
    )

    assert made.exit_code == 0
    assert PASSWORD not in made.output
    assert can_log_in(app, "boss", PASSWORD)


def test_a_weak_password_is_refused_with_its_reasons(app: Flask) -> None:
    refused = flask(
        app,
        "users",
        "create-admin",
        "--username",
        "boss",
        "--email",
        "boss@example.com",
        "--password-stdin",
        stdin="password1\n",
    )

    assert refused.exit_code == 1
    assert "too common" in refused.output
    assert "Traceback" not in refused.output


def test_users_are_listed_and_shown(app: Flask, make_user: MakeUser) -> None:
    make_user("robin", first_name="Robin")

    listed, shown = flask(app, "users", "list"), flask(app, "users", "show", "robin@example.com")

    assert "robin" in listed.output
    assert "1 of 1 shown" in listed.output
    assert re.search(r"first_name: +Robin", shown.output)
    assert "password" not in shown.output.replace("must_change_password", "")


def test_an_unknown_name_is_an_error(app: Flask) -> None:
    for command in (["show", "nobody"], ["suspend", "nobody"], ["set-role", "nobody", "admin"]):
        result = flask(app, "users", *command)
        assert result.exit_code == 1
        assert "This user does not exist." in result.output


def test_a_user_is_suspended_and_activated(app: Flask, make_user: MakeUser, log_in: LogIn) -> None:
    client = log_in(make_user("robin"))

    assert flask(app, "users", "suspend", "robin", "--reason", "a trial").exit_code == 0
    assert client.get("/api/v1/auth/me").status_code == 401
    assert flask(app, "users", "suspend", "robin").exit_code == 1
    assert flask(app, "users", "activate", "robin").exit_code == 0

    assert can_log_in(app, "robin", "heron-marble-94-lantern")
    assert audit_rows(app, action="user.suspended")[0].details == {"reason": "a trial"}


def test_a_new_password_ends_every_session(app: Flask, make_user: MakeUser, log_in: LogIn) -> None:
    client = log_in(make_user("robin"))

    result = flask(app, "users", "set-password", "robin", "--password-stdin", stdin=PASSWORD + "\n")

    assert result.exit_code == 0
    assert client.get("/api/v1/auth/me").status_code == 401
    assert can_log_in(app, "robin", PASSWORD)


def test_a_role_is_set_and_a_user_unlocked(app: Flask, make_user: MakeUser) -> None:
    robin = make_user("robin")
    for _ in range(6):
        can_log_in(app, "robin", "wrong-password-1")

    assert not can_log_in(app, "robin", robin.password)
    assert flask(app, "users", "unlock", "robin").exit_code == 0
    assert flask(app, "users", "set-role", "robin", "moderator").exit_code == 0

    assert can_log_in(app, "robin", robin.password)
    assert "moderator" in flask(app, "users", "list", "--role", "moderator").output


def test_the_last_superadmin_stays_on_the_command_line_too(app: Flask, make_user: MakeUser) -> None:
    make_user("chief", roles=["superadmin"])

    for command in (["set-role", "chief", "user"], ["suspend", "chief"]):
        result = flask(app, "users", *command)
        assert result.exit_code == 1
        assert "last active superadmin" in result.output


def test_seeded_people_are_found_in_lists_searches_and_the_log(
    app: Flask, make_user: MakeUser, log_in: LogIn
) -> None:
    seeded = flask(
        app, "seed", "--users", "300", "--fixed", "--password-stdin", stdin=PASSWORD + "\n"
    )

    assert seeded.exit_code == 0
    assert "Created 300 users." in seeded.output
    boss = log_in(make_user("boss", roles=["admin"]))
    page = boss.get("/api/v1/users/?status=active&role=user").get_json()
    assert page["total"] > 200
    someone = next(user for user in page["items"] if not user["mfa_enabled"])
    assert can_log_in(app, someone["username"], PASSWORD)
    found = boss.get(f"/api/v1/users/?search={someone['last_name']}").get_json()
    assert someone["id"] in {user["id"] for user in found["items"]} or found["total"] > 20
    log = boss.get(f"/api/v1/audit-logs/?target_id={someone['id']}").get_json()
    assert "user.registered" in {row["action"] for row in log["items"]}


def test_seeding_twice_adds_people(app: Flask) -> None:
    for _ in range(2):
        assert flask(app, "seed", "--users", "50").exit_code == 0

    assert "100" in flask(app, "users", "list", "--limit", "1").output


def test_seeded_service_accounts_have_a_key_that_works(app: Flask) -> None:
    output = flask(app, "seed", "--users", "1", "--service-accounts", "8", "--fixed").output
    found = re.search(r"^ {4}([0-9a-f-]{36})\n {4}(seeds_\w{71})$", output, re.MULTILINE)
    assert found is not None

    verified = JsonClient(app, token=found[2]).get("/api/v1/auth/verify").get_json()
    listed = json.loads(flask(app, "service-accounts", "list", "--json").output)["items"]
    statuses = set()
    for account in listed:
        keys = flask(app, "api-keys", "list", "--service", account["name"], "--json").output
        statuses |= {key["status"] for key in json.loads(keys)["items"]}

    assert (verified["user_id"], verified["roles"]) == (found[1], ["moderator"])
    assert {account["status"] for account in listed} == {"active", "suspended"}
    assert statuses == {"active", "expired", "revoked"}
    assert (
        "service accounts"
        not in flask(app, "seed", "--users", "1", "--service-accounts", "0").output
    )


def test_the_doctor_finds_nothing_wrong_here(app: Flask) -> None:
    result = flask(app, "doctor")

    assert result.exit_code == 0, result.output
    assert "✗" not in result.output


def test_roles_are_listed(app: Flask) -> None:
    assert "superadmin" in flask(app, "roles", "list").output


def test_there_are_no_keys_under_hs256(app: Flask) -> None:
    result = flask(app, "keys", "list")

    assert result.exit_code == 1
    assert "JWT_ALGORITHM is HS256" in result.output


def test_names_from_elsewhere_do_not_steer_the_terminal(app: Flask, make_user: MakeUser) -> None:
    """A name can hold the override that turns what follows it round."""
    make_user("robin", first_name="a\u202egnp.exe", last_name="\u2066x\u2069")

    shown = app.test_cli_runner().invoke(args=["users", "show", "robin"])
    refused = app.test_cli_runner().invoke(args=["users", "set-role", "robin", "no\x9b31m\u202e"])

    assert "a?gnp.exe" in shown.output and "?x?" in shown.output
    assert not [c for c in shown.output + refused.output if c in "\u202e\u2066\u2069\x9b"]


def test_a_pasted_name_finds_its_user(app: Flask, make_user: MakeUser) -> None:
    make_user("robin")

    shown = app.test_cli_runner().invoke(args=["users", "show", "\u00a0robin@example.com\u200b"])

    assert (shown.exit_code, "robin" in shown.output) == (0, True)


def test_a_pasted_name_makes_its_user(app: Flask) -> None:
    options = ["--username", "\u00a0Boss ", "--email", " boss@example.com\u200b", "--generate"]

    made = app.test_cli_runner().invoke(args=["users", "create-admin", *options])

    assert "Created the superadmin boss <boss@example.com>." in made.output
