"""Pages of the audit log."""

import pytest
from flask import Flask

from tests.console.conftest import SignIn
from tests.support.pages import PageReader, words
from tests.support.users import LogIn, MadeUser, MakeUser
from userapi.wiring.services import Services

pytestmark = pytest.mark.both_databases


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    """Return a user with a hostile name."""
    return make_user("robin", first_name="<script>alert(1)</script>")


@pytest.fixture
def boss(sign_in: SignIn) -> PageReader:
    """Return the browser of an administrator."""
    return sign_in(roles=("admin",))


def test_a_change_is_shown_with_before_and_after_and_escaped(
    boss: PageReader, robin: MadeUser, log_in: LogIn
) -> None:
    log_in(robin).patch("/api/v1/users/me", json={"first_name": "<i>New</i>"})

    page = boss.get(f"/audit?target_id={robin.id}&action=user.updated")

    assert "<script>alert" not in page.text and "<i>New" not in page.text
    assert "first_name <script>alert(1)</script> → <i>New</i>" in words(page)
    assert "1 row, newest first" in words(page)


def test_filters_combine_and_days_are_whole_days(boss: PageReader, robin: MadeUser) -> None:
    today = boss.get("/audit?action=user.created&since=2020-01-01&until=2099-12-31")
    never = boss.get("/audit?action=user.created&since=2020-01-01&until=2020-01-02")

    assert "No rows match." not in words(today)
    assert "No rows match." in words(never)


def test_people_are_named_and_found_by_their_user_names(
    boss: PageReader, robin: MadeUser, log_in: LogIn, make_user: MakeUser
) -> None:
    log_in(robin).patch("/api/v1/users/me", json={"first_name": "New"})
    gone = make_user("gone")
    log_in(make_user("chief", roles=["superadmin"])).delete(f"/api/v1/users/{gone.id}")

    by, to = boss.get("/audit?actor_id=Robin"), boss.get("/audit?target_id=robin")
    downloaded = boss.get("/audit/export?format=csv&actor_id=robin")
    deleted = boss.get("/audit?action=user.deleted")

    assert "user.updated" in words(by) and "user.created" not in words(by).split("newest")[1]
    assert "user.updated" in words(to) and "user.created" in words(to).split("newest")[1]
    assert f'href="/console/users/{robin.id}">robin</a>' in to.text
    assert "user.updated" in downloaded.text and "user.created" not in downloaded.text
    assert "a deleted user" in words(deleted)


def test_a_faulty_filter_is_marked(boss: PageReader) -> None:
    answer = boss.get("/audit?actor_id=me&since=yesterday")

    assert answer.status_code == 422
    assert "by: No user has this name or id." in words(answer)
    assert 'id="actor_id-error"' in answer.text and 'id="since-error"' in answer.text


def test_older_rows_are_reached_by_their_link(
    boss: PageReader, make_user: MakeUser, log_in: LogIn
) -> None:
    api = log_in(make_user("reader2", roles=["admin"]))
    for _ in range(55):
        api.get("/api/v1/audit-logs/?action=audit.read")

    first = boss.get("/audit?action=audit.read")
    older = first.text.split('href="/console/audit?cursor=')[1].split('"')[0]
    second = boss.get("/audit?cursor=" + older.replace("&amp;", "&"))

    assert second.status_code == 200
    assert first.text.count("<details>") == 50
    assert 5 <= second.text.count("<details>") < 50


def test_the_state_of_the_seals_is_shown(boss: PageReader, app: Flask, services: Services) -> None:
    assert "No row is sealed yet" in words(boss.get("/audit"))
    with app.app_context():
        sealed = services.audit_seals.seal_due()

    page = words(boss.get("/audit"))

    assert "Seal 1 of" in page and f"covers {sealed} rows" in page


def test_the_log_can_be_downloaded(boss: PageReader, robin: MadeUser) -> None:
    answer = boss.get(f"/audit/export?format=csv&target_id={robin.id}")

    assert answer.mimetype == "text/csv"
    lines = answer.text.strip().splitlines()
    assert lines[0].startswith("\N{ZERO WIDTH NO-BREAK SPACE}id,occurred_at,action")
    assert "user.created" in lines[1]


def test_viewing_the_page_is_recorded_and_needs_the_permission(
    boss: PageReader, sign_in: SignIn, make_user: MakeUser
) -> None:
    boss.get("/audit?ip_address=192.0.2.9")
    page = words(boss.get("/audit?action=audit.read"))

    assert "ip_address 192.0.2.9" in page
    assert sign_in(make_user("robin", roles=["moderator"])).get("/audit").status_code == 403


def test_the_address_is_found_however_it_is_written(boss: PageReader) -> None:
    found = boss.get("/audit?ip_address=::ffff:127.0.0.1")
    refused = boss.get("/audit?ip_address=not-an-ip")

    assert (found.status_code, "auth.login" in words(found)) == (200, True)
    assert (refused.status_code, "Must be an IP address" in words(refused)) == (422, True)
