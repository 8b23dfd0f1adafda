"""The import page and the dashboard."""

import io
import itertools
import re

import pytest
from flask import Flask

from tests.console.conftest import SignIn
from tests.support.client import JsonClient
from tests.support.pages import PageReader, words
from tests.support.users import LogIn, MakeUser
from userapi.clock import ManualClock
from userapi.wiring.services import Services

pytestmark = pytest.mark.both_databases

CSV = b"username,email,first_name\nada,ada@example.com,Ada\nbea,not-an-address,\n"


@pytest.fixture
def boss(sign_in: SignIn) -> PageReader:
    """Return the browser of an administrator."""
    return sign_in(roles=("admin",))


def upload(reader: PageReader, content: bytes, name: str = "people.csv", **fields: str) -> str:
    reader.get("/users/import")
    return words(reader.post("/users/import", file=(io.BytesIO(content), name), **fields))


def test_a_file_is_tried_first_and_then_meant(
    boss: PageReader, make_user: MakeUser, log_in: LogIn
) -> None:
    api = log_in(make_user("other", roles=["admin"]))
    tried = upload(boss, CSV)
    assert "1 would be created, 1 would be rejected. Nothing was changed." in tried
    assert api.get("/api/v1/users/?search=ada@").get_json()["total"] == 0

    # As browsers send a field of several lines.
    meant = boss.post(
        "/users/import",
        file_name="people.csv",
        carried=CSV.decode().replace("\n", "\r\n"),
        meant="yes",
    )

    assert "1 were created, 1 were rejected." in words(meant)
    assert "2 validation failed; email:" in words(meant)
    assert api.get("/api/v1/users/?search=ada@").get_json()["total"] == 1


def test_a_page_shows_the_progress_of_a_running_import(
    boss: PageReader, make_user: MakeUser, log_in: LogIn
) -> None:
    api = log_in(make_user("other", roles=["admin"]))
    boss.get("/users/import")
    lines = [f"new-{number:03},new-{number:03}@example.com" for number in range(600)]
    file = io.BytesIO("\n".join(["username,email", *lines]).encode())

    def taken_in() -> int:
        total: int = api.get("/api/v1/users/?search=new-").get_json()["total"]
        return total

    with boss.browser.post(
        "/console/users/import",
        data={"csrf_token": boss.token, "meant": "yes", "file": (file, "people.csv")},
        buffered=False,
    ) as answer:
        pieces = (piece.decode() for piece in answer.iter_encoded())
        begun = "".join(itertools.takewhile(lambda piece: piece != "250", pieces))
        first = taken_in()
        rest = "".join(pieces)

    assert "people.csv" not in begun and first == 250
    assert "500" in rest and "600 were created" in rest
    assert taken_in() == 600


def test_ndjson_is_recognized_by_its_file_name(boss: PageReader) -> None:
    line = b'{"username": "ada", "email": "ada@example.com"}\n'

    assert "1 were created, 0 were rejected." in upload(boss, line, "people.ndjson", meant="yes")


def test_an_upload_without_a_file_is_explained(boss: PageReader) -> None:
    boss.get("/users/import")

    assert "Choose a file first." in words(boss.post("/users/import"))
    assert "not UTF-8" in upload(boss, b"username,email\n\xff,x\n")


def test_a_file_beyond_the_limit_is_refused(boss: PageReader) -> None:
    boss.get("/users/import")

    answer = boss.browser.post(
        "/console/users/import",
        data=b"x" * 11 * 1024 * 1024,
        content_type="multipart/form-data; boundary=x",
    )

    assert answer.status_code == 413


def test_the_dashboard_counts_and_draws_each_day(
    app: Flask, boss: PageReader, make_user: MakeUser, clock: ManualClock
) -> None:
    make_user("robin")
    JsonClient(app).post("/api/v1/auth/login", json={"username": "robin", "password": "no-9"})

    clock.advance(minutes=1)  # Figures that were dear are kept for less.

    page = boss.get("/dashboard")

    assert page.text.count('class="bar-a"') == 4 * 30
    assert "2 users" in words(page) and "Database up" in words(page)
    assert "Failed log-ins a day 1 in 30 days 2 1 0" in words(page)
    assert "admin 1 moderator 0" in words(page)


def test_the_upper_edge_of_a_chart_is_a_round_number(
    boss: PageReader, make_user: MakeUser, log_in: LogIn, clock: ManualClock
) -> None:
    robin = make_user("robin")
    for _ in range(11):
        log_in(robin)

    clock.advance(minutes=1)

    page = words(boss.get("/dashboard"))

    assert "Log-ins a day 12 in 30 days 20 10 0" in page


def test_a_moderator_sees_figures_but_not_the_state_of_servers(sign_in: SignIn) -> None:
    page = words(sign_in(roles=("moderator",)).get("/dashboard"))

    assert "live sessions" in page and "Health" not in page


def test_a_plain_user_begins_with_the_own_profile(sign_in: SignIn) -> None:
    assert sign_in().get("/").location == "/console/profile"


def passwords(count: int) -> bytes:
    rows = [f"u{n:03},u{n:03}@example.com,marble-heron-58-lantern" for n in range(count)]
    return "\n".join(["username,email,password", *rows, "x,bad,"]).encode()


def test_a_file_with_many_passwords_is_imported_by_the_worker(
    app: Flask, services: Services, boss: PageReader
) -> None:
    boss.get("/users/import")
    answer = boss.post(
        "/users/import", file=(io.BytesIO(passwords(201)), "people.csv"), meant="yes"
    )
    assert answer.status_code == 303
    waiting = boss.follow(answer)
    assert "queued 0 of 202 rows are processed" in words(waiting)
    assert "The worker has not started yet. Cancel the remaining rows" in words(waiting)
    assert 'http-equiv="refresh"' in waiting.text and 'hx-trigger="every 2s"' in waiting.text

    with app.app_context():
        while services.import_runner.advance():
            pass

    done = boss.follow(answer)
    assert "done 202 of 202 rows are processed: 201 were created, 1 were rejected." in words(done)
    assert "202 validation failed; username:" in words(done)
    assert re.search(r"Started <time[^>]+>[^<]+</time>\.</p>\s*<p[^>]*>Finished <time", done.text)
    assert "refresh" not in done.text and "every 2s" not in done.text
    everything = boss.get(f"{answer.location.removeprefix('/console')}?all=yes")
    assert "Next rows" in words(everything) and ">created</a>" in everything.text
    assert "202 of 202, 1 rejected" in words(boss.get("/users/import"))


def test_an_import_of_the_worker_can_be_cancelled(boss: PageReader) -> None:
    boss.get("/users/import")
    answer = boss.post(
        "/users/import", file=(io.BytesIO(passwords(201)), "people.csv"), meant="yes"
    )
    page = answer.location.removeprefix("/console")
    boss.get(page)

    boss.follow(boss.post(f"{page}/cancel"))

    assert "cancelled 0 of 202 rows are processed" in words(boss.get(page))


def test_a_dry_run_with_many_passwords_finishes_in_the_request(boss: PageReader) -> None:
    tried = upload(boss, passwords(201))

    assert "201 would be created, 1 would be rejected. Nothing was changed." in tried
