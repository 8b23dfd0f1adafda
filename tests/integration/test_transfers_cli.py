"""`flask users import` and `flask users export`."""

import json
import os
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask

from tests.support.facts import audit_rows
from tests.support.users import MakeUser
from userapi.accounts.imports.importing import batches_of
from userapi.accounts.imports.rows import Row
from userapi.wiring.services import Services

pytestmark = pytest.mark.both_databases


def run(app: Flask, *arguments: str | Path) -> Result:
    return app.test_cli_runner().invoke(
        args=["users", *map(str, arguments)], catch_exceptions=False
    )


def write(path: Path, *names: str) -> Path:
    rows = [json.dumps({"username": n, "email": f"{n}@example.com"}) for n in names]
    path.write_text("\n".join(rows) + "\n", "utf-8")
    return path


def test_a_file_is_imported(app: Flask, services: Services, tmp_path: Path) -> None:
    file = tmp_path / "users.csv"
    file.write_text("username,email,roles\nada,ada@example.com,admin;user\n", "utf-8")

    result = run(app, "import", file)

    assert result.exit_code == 0
    assert "1 created, 0 skipped because they exist, 0 rejected." in result.output
    with app.app_context():
        assert services.accounts.get_by_name("ada").roles == ["admin", "user"]
    (row,) = audit_rows(app, action="user.imported")
    assert row.actor_type == "system"


def test_an_interrupted_import_is_resumed_by_running_it_again(app: Flask, tmp_path: Path) -> None:
    run(app, "import", write(tmp_path / "part.ndjson", "ada", "bob"))

    result = run(app, "import", write(tmp_path / "all.ndjson", "ada", "bob", "cleo"))

    assert result.exit_code == 0
    assert "1 created, 2 skipped because they exist, 0 rejected." in result.output
    assert len(audit_rows(app, action="user.imported")) == 3


def test_a_name_of_a_user_with_another_address_is_rejected(
    app: Flask, tmp_path: Path, make_user: MakeUser
) -> None:
    make_user("ada", email="elsewhere@example.com")

    result = run(app, "import", write(tmp_path / "users.ndjson", "ada", "bob"))

    assert result.exit_code == 1
    assert "row 1: username_taken" in result.output
    assert "1 created, 0 skipped because they exist, 1 rejected." in result.output


def test_a_dry_run_changes_nothing(app: Flask, tmp_path: Path) -> None:
    result = run(app, "import", write(tmp_path / "users.ndjson", "ada"), "--dry-run")

    assert "1 would be created" in result.output
    assert audit_rows(app, action="user.imported") == []


def test_a_broken_file_changes_nothing(app: Flask, tmp_path: Path) -> None:
    file = tmp_path / "users.csv"
    file.write_bytes(b"username,email\nada,ada@example.com\n\xff,x\n")

    result = run(app, "import", file)

    assert result.exit_code == 1
    assert "not UTF-8" in result.output
    assert audit_rows(app, action="user.imported") == []


def test_a_pipe_is_rejected_because_it_cannot_be_read_twice(app: Flask, tmp_path: Path) -> None:
    pipe = tmp_path / "users.csv"
    os.mkfifo(pipe)

    result = run(app, "import", pipe)

    assert result.exit_code == 1
    assert "must be a regular file, because it is read twice" in result.output


def test_a_file_of_unknown_format_needs_the_format_option(app: Flask, tmp_path: Path) -> None:
    file = write(tmp_path / "users.txt", "ada")

    assert run(app, "import", file).exit_code == 2
    assert run(app, "import", file, "--format", "ndjson").exit_code == 0


def test_only_the_owner_can_read_an_exported_file(
    app: Flask, tmp_path: Path, make_user: MakeUser
) -> None:
    make_user("ada", first_name="Ada")
    file = tmp_path / "users.ndjson"

    result = run(app, "export", file)

    assert result.exit_code == 0
    (ada,) = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert (ada["username"], ada["first_name"]) == ("ada", "Ada")
    assert file.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == [file]
    assert len(audit_rows(app, action="user.exported")) == 1


def test_an_export_goes_to_standard_output(app: Flask, make_user: MakeUser) -> None:
    make_user("ada")
    make_user("bob")

    output = run(app, "export", "--format", "csv", "--search", "ada").output

    assert output.startswith("id,username,email,")
    assert output.count("\n") == 2


def test_hundreds_of_plain_passwords_are_imported_with_a_progress_bar(
    app: Flask, services: Services, tmp_path: Path
) -> None:
    rows = [
        {"username": f"u{n:03}", "email": f"u{n:03}@example.com", "password": "marble-heron-58"}
        for n in range(205)
    ]
    file = tmp_path / "users.ndjson"
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")

    result = run(app, "import", file)

    assert "205 created, 0 skipped because they exist, 0 rejected." in result.output
    with app.app_context():
        batches = [len(batch) for batch in batches_of(Row(n, row) for n, row in enumerate(rows))]
    assert batches == [10] * 20 + [5]


def test_rows_without_passwords_are_imported_in_large_batches() -> None:
    rows = [Row(number, {"username": "x"}) for number in range(600)]

    assert [len(batch) for batch in batches_of(rows)] == [250, 250, 100]


def test_an_export_to_a_missing_folder_is_a_one_line_error(app: Flask, tmp_path: Path) -> None:
    file = tmp_path / "missing" / "users.csv"

    result = app.test_cli_runner().invoke(args=["users", "export", str(file)])

    assert result.exit_code == 1
    assert result.output == f"Error: {file} cannot be written: No such file or directory.\n"


def test_an_export_for_a_spreadsheet_begins_with_a_byte_order_mark(
    app: Flask, tmp_path: Path
) -> None:
    users, log = tmp_path / "users.csv", tmp_path / "log.csv"

    run(app, "export", users, "--bom")
    arguments = ["audit", "export", "--format", "csv", "--bom", "--output", str(log)]
    app.test_cli_runner().invoke(args=arguments, catch_exceptions=False)

    assert users.read_bytes().startswith(b"\xef\xbb\xbfid,")
    assert log.read_bytes().startswith(b"\xef\xbb\xbfid,")


def test_a_file_in_a_stated_encoding_is_imported(
    app: Flask, services: Services, tmp_path: Path
) -> None:
    file = tmp_path / "users.csv"
    file.write_bytes("username,email,first_name\nada,ada@example.com,Zoë\n".encode("cp1252"))

    assert run(app, "import", file).exit_code == 1
    assert run(app, "import", file, "--encoding", "windows-1252").exit_code == 0

    with app.app_context():
        assert services.accounts.get_by_name("ada").first_name == "Zoë"


def test_a_workbook_is_rejected_with_advice_to_save_it_as_csv(app: Flask, tmp_path: Path) -> None:
    file = tmp_path / "users.xlsx"
    file.write_bytes(b"PK\x03\x04")

    result = run(app, "import", file)

    assert result.exit_code == 2
    assert "Save it as CSV, and import that file." in result.output
