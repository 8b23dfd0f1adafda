"""Pages of imports: the check of a file, the import of its rows, and the refused ones."""

import io

import pytest
from flask import Flask
from sqlalchemy import select

from tests.console.conftest import SignIn
from tests.support.pages import PageReader, words
from tests.support.users import LogIn, MakeUser, SignedInClient
from userapi.accounts.imports.job_models import batches_table, results_table
from userapi.clock import ManualClock
from userapi.infrastructure.database import reading
from userapi.wiring.services import Services

pytestmark = pytest.mark.both_databases

CSV = b"username,email,first_name\nada,ada@example.com,Ada\nbea,not-an-address,=1+1\n"


@pytest.fixture
def boss(sign_in: SignIn) -> PageReader:
    """Return the browser of an administrator."""
    return sign_in(roles=("admin",))


@pytest.fixture
def api(make_user: MakeUser, log_in: LogIn) -> SignedInClient:
    """Return a client of the API."""
    return log_in(make_user("other", roles=["admin"]))


def check(reader: PageReader, content: bytes, name: str = "people.csv", **fields: str) -> str:
    """Send a file to be checked, and return the path of its page."""
    reader.get("/users/import")
    answer = reader.post("/users/import", file=(io.BytesIO(content), name), **fields)
    assert answer.status_code == 303, words(answer)
    return str(answer.location.removeprefix("/console"))


def run_worker(app: Flask, services: Services) -> None:
    with app.app_context():
        while services.import_runner.advance():
            pass


def number_of(api: SignedInClient, search: str) -> int:
    total: int = api.get(f"/api/v1/users/?search={search}").get_json()["total"]
    return total


def test_a_file_is_checked_first_and_then_imported(
    app: Flask, services: Services, boss: PageReader, api: SignedInClient
) -> None:
    path = check(boss, CSV)
    waiting = boss.get(path)
    assert "Check of a file" in words(waiting) and "queued 0 of 2 rows" in words(waiting)
    assert 'http-equiv="refresh"' in waiting.text and 'hx-trigger="every 2s"' in waiting.text
    assert "Import 1 row" not in waiting.text
    run_worker(app, services)

    checked = boss.get(path)
    told = words(checked)
    assert "1 would be created, 1 would be refused. Nothing was changed." in told
    assert "Import 1 row" in told and "every 2s" not in checked.text
    assert number_of(api, "ada@") == 0

    answer = boss.post(f"{path}/import")
    run_worker(app, services)

    done = words(boss.follow(answer))
    assert "done 2 of 2 rows are processed: 1 were created, 1 were refused." in done
    assert number_of(api, "ada@") == 1
    assert "Import 1 row" not in boss.get(path).text
    assert "Show the newest users" in done and "Show the newest users" not in told


def test_the_rows_of_a_check_are_imported_once(
    app: Flask, services: Services, boss: PageReader
) -> None:
    path = check(boss, CSV)
    run_worker(app, services)
    boss.get(path)
    boss.post(f"{path}/import")

    again = boss.follow(boss.post(f"{path}/import"))

    assert "were imported already, or were deleted an hour after the check" in words(again)


def test_the_rows_of_a_check_are_deleted_after_an_hour(
    app: Flask, services: Services, boss: PageReader, clock: ManualClock
) -> None:
    path = check(boss, CSV)
    run_worker(app, services)
    with app.app_context():
        services.clean_up.delete_due()
        with reading() as connection:
            assert len(connection.execute(select(batches_table)).all()) == 1

    clock.advance(minutes=61)
    with app.app_context():
        services.clean_up.delete_due()

    page = boss.get(path)
    assert "Import 1 row" not in page.text and "1 would be refused" in words(page)
    late = boss.follow(boss.post(f"{path}/import"))
    assert "Choose the file again." in words(late)


def test_a_refused_row_is_shown_with_its_content_and_column(
    app: Flask, services: Services, boss: PageReader
) -> None:
    path = check(boss, CSV)
    run_worker(app, services)

    page = words(boss.get(path))

    assert "2 username bea email not-an-address first_name =1+1 email" in page


def test_the_column_of_a_refused_row_is_one_of_the_file(
    app: Flask, services: Services, boss: PageReader
) -> None:
    """The column was `roles.0` for a role that does not exist."""
    path = check(boss, b"username,email,roles\nbea,bea@example.com,hero\nreader,c@example.com,\n")
    run_worker(app, services)

    page = boss.get(path).text

    assert "<code>roles</code>" in page and "roles.0" not in page
    assert "<code>username</code>" in page


def test_refused_rows_are_downloaded_corrected_and_imported(
    app: Flask, services: Services, boss: PageReader, api: SignedInClient
) -> None:
    path = check(boss, CSV)
    run_worker(app, services)

    file = boss.get(f"{path}/refused.csv")

    assert file.mimetype == "text/csv"
    lines = file.text.strip().splitlines()
    assert lines[0].endswith(
        "refused_row,refused_because,username,email,first_name,last_name,roles,status"
    )
    # The apostrophe prevents a formula.
    assert lines[1].startswith("2,") and ",bea,not-an-address,'=1+1,,," in lines[1]
    assert len(lines) == 2
    corrected = check(boss, file.text.replace("not-an-address", "bea@example.com").encode())
    run_worker(app, services)
    page = words(boss.get(corrected))
    assert "1 would be created, 0 would be refused" in page
    assert "Ignored columns: refused_row, refused_because" in page
    boss.post(f"{corrected}/import")
    run_worker(app, services)
    bea = api.get("/api/v1/users/?search=bea@").get_json()["items"][0]
    assert bea["first_name"] == "=1+1"


def test_no_password_of_a_refused_row_is_stored_or_shown(
    app: Flask, services: Services, boss: PageReader
) -> None:
    secret = "marble-heron-58-lantern"
    lines = f"username,email,password\nada,not-an-address,{secret}\nx,x@example.com,short\n"
    path = check(boss, lines.encode())
    run_worker(app, services)

    with app.app_context(), reading() as connection:
        stored = [row.content for row in connection.execute(select(results_table))]
    assert stored == [
        {"username": "ada", "email": "not-an-address"},
        {"username": "x", "email": "x@example.com"},
    ]
    assert secret not in boss.get(path).text + boss.get(f"{path}/refused.csv").text


def test_what_a_refused_row_contains_is_text_and_short(
    app: Flask, services: Services, boss: PageReader
) -> None:
    line = b'{"username": "<b>x</b>", "email": 7, "roles": [1, "a\\ud800"], "first_name": "%s"}\n'
    path = check(boss, line % (b"y" * 5000), "people.ndjson")
    run_worker(app, services)

    page = boss.get(path)

    assert page.status_code == 200 and "<b>x</b>" not in page.text
    assert "y" * 320 in page.text and "y" * 321 not in page.text


def test_many_rows_are_imported_by_the_worker_and_listed(
    app: Flask, services: Services, boss: PageReader
) -> None:
    rows = [f"new-{n:03},new-{n:03}@example.com" for n in range(120)]
    path = check(boss, "\n".join(["username,email", *rows, "x,bad"]).encode())
    run_worker(app, services)
    boss.get(path)
    assert "Import these 120 rows" in words(boss.get(path))

    answer = boss.post(f"{path}/import")
    run_worker(app, services)

    everything = boss.get(f"{answer.location.removeprefix('/console')}?all=yes")
    assert ">created</a>" in everything.text and 'rel="next"' in everything.text
    latest = words(boss.get("/users/import"))
    assert "import done 121 of 121, 1 refused" in latest
    assert "check done 121 of 121, 1 refused" in latest


def test_a_check_can_be_cancelled(boss: PageReader) -> None:
    path = check(boss, CSV)
    boss.get(path)

    boss.follow(boss.post(f"{path}/cancel"))

    page = words(boss.get(path))
    assert "cancelled 0 of 2 rows are processed" in page and "Import 1 row" not in page


def test_ndjson_is_recognized_by_its_file_name(
    app: Flask, services: Services, boss: PageReader
) -> None:
    path = check(boss, b'{"username": "ada", "email": "ada@example.com"}\n', "people.ndjson")
    run_worker(app, services)

    assert "1 would be created, 0 would be refused." in words(boss.get(path))


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_a_template_can_be_downloaded_and_imported(
    app: Flask, services: Services, boss: PageReader, form: str
) -> None:
    assert f"/console/users/import/template.{form}" in boss.get("/users/import").text

    template = boss.get(f"/users/import/template.{form}")
    path = check(boss, template.data, f"people.{form}")
    run_worker(app, services)

    assert "2 would be created, 0 would be refused." in words(boss.get(path))
    assert boss.get("/users/import/template.xlsx").status_code == 404


def test_an_upload_without_a_file_is_explained(boss: PageReader) -> None:
    boss.get("/users/import")

    assert "Choose a file first." in words(boss.post("/users/import"))
    wrong = boss.post("/users/import", file=(io.BytesIO(b"username,email\n\xff,x\n"), "x.csv"))
    assert "not UTF-8" in words(wrong)


def test_a_file_beyond_the_limit_is_refused(boss: PageReader) -> None:
    boss.get("/users/import")

    answer = boss.browser.post(
        "/console/users/import",
        data=b"x" * 11 * 1024 * 1024,
        content_type="multipart/form-data; boundary=x",
    )

    assert answer.status_code == 413
