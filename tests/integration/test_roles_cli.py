"""`flask roles`, and synchronising roles with a file."""

from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask

from tests.support.facts import audit_rows
from tests.support.users import MakeUser
from userapi.actor import system_actor
from userapi.roles.definitions import RoleDefinition
from userapi.wiring.services import Services

FILE = """
roles:
  media-editor:
    description: Looks after what people upload.
    permissions: [media:upload]
    parents: [media-viewer]
  media-viewer:
    permissions: [media:view]
    parents: [user]
"""


def run(app: Flask, *arguments: str | Path, answer: str | None = None) -> Result:
    return app.test_cli_runner().invoke(
        args=["roles", *map(str, arguments)], input=answer, catch_exceptions=False
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "roles.yaml"
    path.write_text(FILE, "utf-8")
    return path


def names(app: Flask, services: Services) -> list[str]:
    with app.app_context():
        return [role.name for role in services.roles.all() if not role.builtin]


@pytest.mark.both_databases
def test_the_roles_become_what_the_file_says(app: Flask, services: Services, file: Path) -> None:
    with app.app_context():
        services.role_editor.create(RoleDefinition(name="obsolete"), actor=system_actor("tests"))

    result = run(app, "sync", file, "--yes")

    assert result.exit_code == 0
    assert "+ media-editor" in result.output
    assert "    + permissions: media:upload" in result.output
    assert "- obsolete" in result.output
    assert names(app, services) == ["media-editor", "media-viewer"]
    rows = audit_rows(app, action="role.created")
    assert {row.actor_type for row in rows if row.target_id != "obsolete"} == {"system"}


def test_a_second_time_there_is_nothing_to_do(app: Flask, file: Path) -> None:
    run(app, "sync", file, "--yes")

    assert run(app, "sync", file).output == "The roles match the file.\n"


def test_a_change_shows_old_and_new(app: Flask, file: Path) -> None:
    run(app, "sync", file, "--yes")
    file.write_text(FILE.replace("[media:upload]", "[media:share]"), "utf-8")

    output = run(app, "sync", file, "--dry-run").output

    assert output == (
        "~ media-editor\n    - permissions: media:upload\n    + permissions: media:share\n"
    )


@pytest.mark.parametrize("arguments", [["--dry-run"], []])
def test_without_a_yes_nothing_changes(
    app: Flask, services: Services, file: Path, arguments: list[str]
) -> None:
    run(app, "sync", file, *arguments, answer="n\n")

    assert names(app, services) == []


def test_a_role_that_a_user_has_prevents_all_changes(
    app: Flask, services: Services, file: Path, make_user: MakeUser
) -> None:
    with app.app_context():
        services.role_editor.create(RoleDefinition(name="held"), actor=system_actor("tests"))
    make_user("robin", roles=["held"])

    result = run(app, "sync", file, "--yes")

    assert result.exit_code == 1
    assert "Users have this role." in result.output
    assert names(app, services) == ["held"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("roles: {aa: {}, aa: {}}", "aa is repeated"),
        ("roles: {user: {}}", "Built in: user."),
        ("roles: {aa: {color: red}}", "roles.aa: allowed keys are"),
        ("roles: {aa: {parents: user}}", "roles.aa.parents: must be a list of strings."),
        ("roles: {aa: {parents: [bb]}, bb: {parents: [aa]}}", "cannot inherit from itself"),
        ("roles: {aa: {parents: [wizard]}}", "There is no role wizard."),
        ("roles: {aa: {permissions: [nonsense]}}", "Must be resource:action"),
        ("users: {}", "must contain only `roles:`"),
        ("roles: [", "cannot be read"),
    ],
)
def test_a_bad_file_is_refused_with_a_reason(
    app: Flask, services: Services, file: Path, text: str, message: str
) -> None:
    file.write_text(text, "utf-8")

    result = run(app, "sync", file, "--yes")

    assert result.exit_code == 1
    assert message in result.output
    assert names(app, services) == []
