"""Pages of the audit log."""

import re
from html import unescape

import pytest
from flask import Flask
from sqlalchemy import func, insert, select
from werkzeug.test import TestResponse

from tests.console.conftest import SignIn
from tests.support.client import JsonClient
from tests.support.machines import OWN_KEYS, make_key, make_service
from tests.support.pages import PageReader, words
from tests.support.users import LogIn, MadeUser, MakeUser
from userapi.audit.models import AuditUnsealed
from userapi.clock import ManualClock
from userapi.infrastructure.database import new_id, transaction
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


def rows_of(answer: TestResponse) -> str:
    """Return the text of the rows that a page shows."""
    return words(answer).split("newest first")[1]


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

    assert "user.updated" in rows_of(by) and "user.created" not in rows_of(by)
    assert "user.updated" in rows_of(to) and "user.created" in rows_of(to)
    assert f'href="/console/users/{robin.id}">robin</a>' in to.text
    assert "user.updated" in downloaded.text and "user.created" not in downloaded.text
    assert "a deleted user" in words(deleted)


def test_service_accounts_keys_and_sessions_are_named_with_links_to_their_pages(
    boss: PageReader, robin: MadeUser, log_in: LogIn, make_user: MakeUser, app: Flask
) -> None:
    chief = log_in(make_user("chief", roles=["superadmin"]))
    service = make_service(chief, "media-worker")
    gone = make_service(chief, "old-worker")
    chief.delete(gone.path)
    own = make_key(log_in(robin), OWN_KEYS, name="laptop")
    chief.delete(f"/api/v1/users/{robin.id}/api-keys/{own.id}")
    JsonClient(app).as_user(own.text).get("/api/v1/auth/verify")
    chief.delete(f"/api/v1/users/{robin.id}/sessions")
    renewed = log_in(robin)
    renewed.post("/api/v1/auth/refresh", json={"refresh_token": renewed.refresh_token})
    refreshes = boss.get("/audit?action=auth.refresh")

    accounts, keys = boss.get("/audit?action=service_account.created"), boss.get("/audit")
    page = f'<a href="/console/service-accounts/{service.id}">'
    security = f'<a href="/console/users/{robin.id}/security">'

    assert f"{page}media-worker</a>" in accounts.text
    assert f"/audit?about={service.id}" in accounts.text
    assert "chief created the service account media-worker" in words(accounts)
    assert "chief created the service account old-worker" in words(accounts)
    assert f"API key {page}test of media-worker</a>" in keys.text
    assert "robin created the API key laptop api_key.created" in words(keys)
    assert f"API key {security}laptop of robin</a>" in keys.text
    assert "The API key laptop of robin was refused" in words(keys)
    assert f"session of {security}robin</a>" in keys.text
    assert f"session of {security}robin</a>" in refreshes.text
    assert (
        f'href="/console/audit?about={service.id}">Activity</a>'
        in boss.get(f"/service-accounts/{service.id}").text
    )


def test_a_visitor_is_named_in_words_and_a_user_name_keeps_its_letters(
    app: Flask, boss: PageReader
) -> None:
    JsonClient(app).post(
        "/api/v1/auth/register",
        json={
            "username": "robin.small",
            "email": "robin.small@example.com",
            "password": "granite-otter-57-teapot",
        },
    )

    page = words(boss.get("/audit?action=user.registered"))

    assert "robin.small signed up user.registered" in page
    assert "Robin.small" not in page
    assert " somebody " in page and "anonymous" not in page


def test_a_faulty_filter_is_marked(boss: PageReader) -> None:
    answer = boss.get("/audit?actor_id=me&since=yesterday")

    assert answer.status_code == 422
    assert "Actor: No user has this name or id." in words(answer)
    assert 'id="actor_id-error"' in answer.text and 'id="since-error"' in answer.text


def test_every_row_is_reached_by_links_in_both_directions(
    boss: PageReader, make_user: MakeUser, log_in: LogIn
) -> None:
    api = log_in(make_user("reader2", roles=["admin"]))
    for _ in range(55):
        api.get("/api/v1/audit-logs/?action=audit.read")

    page = boss.get("/audit?action=audit.read&page_size=25")
    seen = page.text.count("<summary>reader2 read")
    while 'rel="next"' in page.text:
        page = boss.get(address(page, 'rel="next"'))
        seen += page.text.count("<summary>reader2 read")
    assert seen == 55

    newer = boss.get(address(page, 'rel="prev"'))
    assert newer.text.count("<summary>") >= 25


def address(page: TestResponse, attribute: str) -> str:
    """Return the address of the link with an attribute."""
    found = re.search(rf'{attribute} href="/console([^"]+)"', page.text)
    assert found
    return unescape(found[1])


def test_what_happened_is_a_sentence_beside_its_code(boss: PageReader, robin: MadeUser) -> None:
    boss.get("/users")
    boss.post("/users/bulk/run", action="suspend", user_ids=[robin.id], reason="chargeback")

    page = words(boss.get("/audit?action=user.suspended"))

    assert "reader suspended robin: chargeback user.suspended" in page


def test_what_was_changed_and_filtered_is_named_as_on_pages(
    boss: PageReader, make_user: MakeUser, log_in: LogIn, robin: MadeUser
) -> None:
    """Sentences contained names of columns, such as `without_reads_of`."""
    admin = log_in(make_user("reader2", roles=["admin"]))
    admin.patch(f"/api/v1/users/{robin.id}", json={"first_name": "Rob", "metadata": {"a": 1}})
    admin.get("/api/v1/audit-logs/?action=auth.login&since=2026-01-01T00:00:00Z")
    boss.get("/audit")
    boss.get("/audit?action=user.created")

    changed = words(boss.get("/audit?action=user.updated"))
    read = words(boss.get("/audit?reads=own"))

    assert "reader2 changed the profile of robin: First name, Metadata user.updated" in changed
    assert "reader2 read the audit log: Action, From day audit.read" in read
    assert "reader read the audit log: Action audit.read" in read
    assert "reads of" not in read


def test_own_reads_are_hidden_until_they_are_requested(
    boss: PageReader, make_user: MakeUser, log_in: LogIn
) -> None:
    log_in(make_user("reader2", roles=["admin"])).get("/api/v1/audit-logs/")
    boss.get("/audit")

    hidden = boss.get("/audit")
    shown = boss.get("/audit?reads=own")

    assert "reader2 read the audit log" in words(hidden)
    assert "reader read the audit log" not in words(hidden)
    assert "your own reads are hidden. Show them" in words(hidden)
    assert "reader read the audit log" in words(shown)
    assert "your own reads are shown. Hide them" in words(shown)
    assert "reader read the audit log" not in boss.get("/audit/export?format=csv").text
    assert "audit.read" in boss.get("/audit/export?format=csv&reads=own").text


def test_the_trails_of_a_user_and_of_a_session_are_one_click_away(
    boss: PageReader, robin: MadeUser, log_in: LogIn
) -> None:
    first, second = log_in(robin), log_in(robin)
    first.patch("/api/v1/users/me", json={"first_name": "One"})
    second.patch("/api/v1/users/me", json={"first_name": "Two"})

    listed = boss.get("/audit?action=user.updated")
    user = boss.get(f"/audit?about={robin.id}")
    session = boss.get(f"/audit?actor_id={robin.id}&session_id={first.session_id}")

    assert f'href="/console/audit?about={robin.id}"' in listed.text
    assert f"session_id={first.session_id}" in listed.text
    assert "created robin" in words(user) and "One" in words(user) and "Two" in words(user)
    assert "One" in words(session) and "Two" not in words(session)
    alone = boss.get(f"/audit?session_id={first.session_id}")
    assert alone.status_code == 422 and "Enter the actor of the session, too." in words(alone)


def test_a_trail_can_be_limited_to_an_address(
    boss: PageReader, robin: MadeUser, log_in: LogIn
) -> None:
    log_in(robin)

    here = boss.get("/audit?about=robin&ip_address=127.0.0.1")
    elsewhere = boss.get("/audit?about=robin&ip_address=192.0.2.1")

    assert "robin logged in" in words(here) and "No rows match." in words(elsewhere)


def test_times_are_relative_and_exact_on_hover(
    boss: PageReader, robin: MadeUser, clock: ManualClock
) -> None:
    clock.advance(minutes=5)

    page = boss.get(f"/audit?target_id={robin.id}").text

    assert re.search(
        r'<time datetime="[^"]+" title="[A-Z][a-z]+ \d+, \d{4}, \d+:\d\d:\d\d\s[AP]M UTC">'
        r"5 minutes ago</time>",
        page,
    )


def test_the_state_of_the_seals_is_shown(boss: PageReader, app: Flask, services: Services) -> None:
    assert "No row is sealed yet" in words(boss.get("/audit"))
    with app.app_context():
        sealed = services.audit_seals.seal_due()

    page = words(boss.get("/audit"))

    assert "Seal 1 of" in page and f"covers {sealed} rows" in page


def test_very_many_rows_that_wait_for_a_seal_are_not_counted(boss: PageReader, app: Flask) -> None:
    """Counting 280 000 rows was half of the time of the page."""
    with app.app_context(), transaction() as session:
        waiting = session.execute(select(func.count()).select_from(AuditUnsealed)).scalar_one()
        rows = [{"audit_id": new_id()} for _ in range(10_000 - waiting)]
        session.execute(insert(AuditUnsealed), rows)

    exact = words(boss.get("/audit"))
    beyond = words(boss.get("/audit"))

    assert "No row is sealed yet; 10,000 are not sealed." in exact
    assert "No row is sealed yet; more than 10,000 are not sealed." in beyond


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
