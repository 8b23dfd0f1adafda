"""flask … --json, users create, invite and delete, and names next to ids."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import Result
from flask import Flask

from tests.support.facts import audit_rows
from tests.support.gunicorn import REPOSITORY, service_environment
from tests.support.mailbox import Mailbox
from tests.support.users import PASSWORD, LogIn, MakeUser
from userapi.accounts.models import UserStatus
from userapi.wiring.services import Services

pytestmark = pytest.mark.both_databases


def flask(app: Flask, *arguments: str, stdin: str | None = None) -> Result:
    return app.test_cli_runner().invoke(args=list(arguments), input=stdin)


def document(app: Flask, *arguments: str) -> Any:
    result = flask(app, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_a_user_is_created_with_a_password_from_standard_input(
    app: Flask, services: Services, log_in: LogIn, make_user: MakeUser
) -> None:
    result = flask(
        app,
        *("users", "create", "--username", "ada", "--email", "ada@example.com"),
        *("--role", "moderator", "--password-stdin"),
        stdin=PASSWORD + "\n",
    )

    assert result.exit_code == 0, result.output
    with app.app_context():
        user = services.accounts.get_by_name("ada")
    assert (user.status, list(user.roles)) == (UserStatus.ACTIVE, ["moderator"])
    (row,) = [row for row in audit_rows(app) if row.action == "user.created"]
    assert (row.actor_type, row.target_id) == ("system", str(user.id))


def test_a_made_password_is_shown_once_and_works(app: Flask, services: Services) -> None:
    result = flask(app, "users", "create", "ada", "--email", "ada@example.com", "--generate")

    (password,) = [line.strip() for line in result.output.splitlines() if line.startswith("    ")]
    answer = app.test_client().post(
        "/api/v1/auth/login", json={"username": "ada", "password": password}
    )
    assert answer.status_code == 200


def test_a_password_is_never_an_argument(app: Flask) -> None:
    result = flask(app, "users", "create", "ada", "--email", "a@example.com", "--password", "x")

    assert result.exit_code == 2
    assert "No such option" in result.output


def test_an_invited_user_is_pending_and_gets_a_mail(app: Flask, mailbox: Mailbox) -> None:
    result = flask(app, "users", "invite", "ada", "--email", "ada@example.com")

    assert result.exit_code == 0, result.output
    assert document(app, "users", "show", "ada")["status"] == "pending"
    assert "ada@example.com" in str(mailbox.deliver()[0]["To"])


def test_a_deleted_user_is_gone_after_a_question(app: Flask, make_user: MakeUser) -> None:
    ada = make_user("ada")

    refused = flask(app, "users", "delete", "ada", stdin="n\n")
    deleted = flask(app, "users", "delete", ada.id, "--yes")

    assert "Delete ada <ada@example.com> permanently?" in refused.output
    assert (refused.exit_code, deleted.exit_code) == (1, 0)
    assert flask(app, "users", "show", "ada").exit_code == 1
    assert ("user.deleted", "system") in [(r.action, r.actor_type) for r in audit_rows(app)]


def test_lists_are_json_documents(app: Flask, make_user: MakeUser, log_in: LogIn) -> None:
    ada = make_user("ada", roles=["superadmin"])
    log_in(ada)

    users = document(app, "users", "list")
    assert (users["total"], users["items"][0]["username"]) == (1, "ada")
    assert users["items"][0]["created_at"].endswith("Z")
    (session,) = document(app, "sessions", "list")["items"]
    assert (session["user_id"], session["username"]) == (ada.id, "ada")
    assert str(UUID(session["id"])) == session["id"]
    assert "superadmin" in [role["name"] for role in document(app, "roles", "list")["items"]]
    (event,) = document(app, "events", "list", "--type", "user.created")["items"]
    assert (event["state"], event["data"]["username"]) == ("waiting", "ada")
    assert document(app, "mails", "list")["items"] == []
    assert document(app, "users", "stats")["total"] == 1
    created = document(app, "audit", "list", "--action", "user.created")["items"]
    assert [row["target_username"] for row in created] == ["ada"]


def test_doctor_prints_findings_as_json_with_the_same_exit_code(app: Flask) -> None:
    text, as_json = flask(app, "doctor"), flask(app, "doctor", "--json")

    findings = json.loads(as_json.output)
    assert as_json.exit_code == text.exit_code
    assert f"{findings['faults']} to fix" in text.output
    assert {finding["level"] for finding in findings["items"]} <= {"ok", "warning", "fault"}
    (mail,) = [f for f in findings["items"] if (f["subject"], f["level"]) == ("mail", "ok")]
    assert "no SMTP_HOST" in mail["text"] and mail["fix"] is None


def test_names_are_shown_next_to_ids_and_accepted_as_filters(
    app: Flask, make_user: MakeUser, log_in: LogIn
) -> None:
    ada, bob = make_user("ada"), make_user("bob")
    log_in(ada)
    log_in(bob)

    sessions = flask(app, "sessions", "list", "ada").output
    by_name = flask(app, "audit", "list", "--actor", "ada").output
    about = flask(app, "audit", "list", "--target", "bob@example.com").output

    assert "ada" in sessions and ada.id in sessions and bob.id not in sessions
    assert flask(app, "sessions", "list", ada.id).output == sessions
    assert ada.id in by_name and "auth.login" in by_name and bob.id not in by_name
    assert "user bob" in about and bob.id in about and ada.id not in about


def test_flask_offers_no_command_that_does_nothing_here(tmp_path: Any) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "flask", "--help"],
        cwd=REPOSITORY,
        env=service_environment({"INSTANCE_DIR": str(tmp_path)}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    commands = {line.split()[0] for line in run.stdout.split("Commands:")[1].splitlines()[1:]}
    assert {"users", "doctor", "db"} <= commands
    assert not {"limiter", "openapi"} & commands


# Libraries that most commands do not use. Each takes between 10 and 200 milliseconds to import.
NOT_FOR_COMMANDS = set(
    "alembic amqp apispec argon2 babel bcrypt cryptography email_validator faker "
    "flask_jwt_extended flask_migrate flask_smorest gunicorn jwt kombu marshmallow phonenumbers "
    "prometheus_client redis ua_parser webargs yaml zxcvbn zxcvbn_rs_py".split()
)
# Commands, and those of them that each uses. Mails use babel. cryptography loads bcrypt for keys
# of OpenSSH.
USED = {
    "audit list": "cryptography",
    "db current": "alembic flask_migrate",
    "doctor": "bcrypt cryptography jwt",
    "events list": "",
    "keys list": "bcrypt cryptography jwt",
    "mails list": "",
    "roles list": "yaml",
    "sessions list": "",
    "users list": "",
    "users show nobody": "",
    "users stats": "",
    "users suspend nobody": "",
}


@pytest.mark.thorough
@pytest.mark.parametrize("command", USED)
def test_a_command_loads_only_what_it_uses(command: str, tmp_path: Path) -> None:
    """Each command loaded all endpoints and services first, and every library that they use."""
    loaded = modules_loaded_by(command.split(), tmp_path)

    assert "userapi.wiring.groups" in loaded
    of_all = {"userapi.api", "userapi.console", "userapi.wiring.services"}
    assert (of_all | NOT_FOR_COMMANDS) & loaded == set(USED[command].split())


# The most modules of the service that a command imports, rounded up. All are more than 400.
MAX_MODULES = {
    "audit list": 90,
    "db current": 45,
    "doctor": 115,
    "encryption rotate": 60,
    "events list": 50,
    "keys list": 50,
    "mails list": 50,
    "mfa status": 100,
    "roles list": 100,
    "service-accounts list": 150,
    "sessions list": 90,
    "users list": 70,
    "users show nobody": 100,
    "users stats": 110,
}


@pytest.mark.thorough
@pytest.mark.parametrize("command", MAX_MODULES)
def test_a_command_loads_few_modules(command: str, tmp_path: Path) -> None:
    """`flask doctor` built services that it did not use: 174 modules, half of its time."""
    loaded = modules_loaded_by(command.split(), tmp_path)

    own = [name for name in loaded if name.startswith("userapi.")]
    assert "userapi.wiring.groups" in own
    assert len(own) <= MAX_MODULES[command]


@pytest.mark.thorough
@pytest.mark.parametrize("command", ["db current", "doctor", "events list", "keys list"])
def test_a_command_that_does_not_use_redis_does_not_load_it(command: str, tmp_path: Path) -> None:
    """The check of REDIS_URL loaded redis-py for every command."""
    loaded = modules_loaded_by(command.split(), tmp_path, REDIS_URL="redis://:secret@127.0.0.1:1/0")

    assert "userapi.wiring.groups" in loaded
    assert ("redis" in loaded) is (command == "doctor")


@pytest.mark.thorough
@pytest.mark.parametrize("command", [["--help"], ["no-such-command"]], ids=" ".join)
def test_a_list_of_commands_builds_no_service(command: list[str], tmp_path: Any) -> None:
    """`flask --help` loaded the module of every command, and all libraries of all of them."""
    loaded = modules_loaded_by(command, tmp_path)

    assert "userapi.cli" in loaded
    assert not {"userapi.wiring", "userapi.cli.users", "sqlalchemy"} & loaded


def test_a_command_excludes_its_modules_from_garbage_collection(tmp_path: Path) -> None:
    """Collections of objects that stay took a fifth of the time of every command."""
    program = (
        "import atexit, gc, flask.cli;"
        "atexit.register(lambda: print(gc.get_freeze_count() > 50_000, gc.isenabled()));"
        "flask.cli.main()"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, "mails", "--help"],
        cwd=REPOSITORY,
        env=service_environment({"INSTANCE_DIR": str(tmp_path)}),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert run.stdout.endswith("True True\n")


def modules_loaded_by(command: list[str], instance: Path, **environment: str) -> set[str]:
    """Run a command of `flask` and return the names of the modules that it imports."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "flask", *command],
        cwd=REPOSITORY,
        env=service_environment({"INSTANCE_DIR": str(instance), **environment}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return {line.rsplit("|", 1)[1].strip() for line in run.stderr.splitlines() if "|" in line}


@pytest.mark.thorough
def test_flasks_own_commands_still_find_the_endpoints(tmp_path: Any) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "flask", "routes"],
        cwd=REPOSITORY,
        env=service_environment({"INSTANCE_DIR": str(tmp_path)}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert "/api/v1/auth/login" in run.stdout
