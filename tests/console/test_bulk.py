"""Bulk changes: selected users at once, and all users that match by the worker."""

import re
from html import unescape
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import select

from tests.console.conftest import SignIn
from tests.support.facts import audit_rows
from tests.support.pages import PageReader, words
from tests.support.users import LogIn, MadeUser, MakeUser
from userapi.accounts.bulk_actions import BulkAction
from userapi.accounts.bulk_jobs.models import batches_table, jobs_table
from userapi.actor import system_actor
from userapi.clock import ManualClock
from userapi.console.bulk_words import bulk_result
from userapi.infrastructure.database import reading, transaction
from userapi.wiring.services import Services

pytestmark = pytest.mark.both_databases


@pytest.fixture
def boss(sign_in: SignIn) -> PageReader:
    """Return the browser of an administrator."""
    return sign_in(roles=("admin",))


@pytest.fixture
def crowd(make_user: MakeUser) -> list[MadeUser]:
    """Return more users than one batch of the worker has."""
    return [make_user(f"user-{number:02}") for number in range(60)]


def run_worker(app: Flask, services: Services) -> None:
    with app.app_context():
        while services.bulk_runner.advance():
            pass


def start(boss: PageReader, action: str, *, filters: str, expected: int, **more: str) -> str:
    """Start a job for all users that match, and return its path."""
    boss.get("/users")
    answer = boss.post(
        "/users/bulk/run",
        action=action,
        selected="all",
        filters=filters,
        expected=str(expected),
        **more,
    )
    assert answer.status_code == 303, words(answer)
    return str(answer.location.removeprefix("/console"))


def test_selected_users_are_changed_after_a_question_and_failures_come_first(
    boss: PageReader, make_user: MakeUser, log_in: LogIn
) -> None:
    ada, chief = make_user("ada"), make_user("chief", roles=["superadmin"])
    held = make_user("held")
    boss.get("/users")
    boss.post("/users/bulk/run", action="suspend", user_ids=[held.id])
    ticked = {"action": "suspend", "user_ids": [ada.id, chief.id, held.id]}

    asked = boss.post("/users/bulk", **ticked)
    assert "This changes 3 users . They cannot sign in" in words(asked)
    assert "ada chief held" in words(asked) and 'name="role"' not in asked.text
    assert log_in(ada).get("/api/v1/auth/me").status_code == 200
    done = boss.post("/users/bulk/run", **ticked, reason="clean-up")

    told = words(done)
    assert "1 of 3 users were changed. 2 were not changed." in told
    assert "chief not changed has a rank that is not below yours" in told
    assert "held not changed was already suspended" in told
    assert "ada changed was suspended" in told
    assert told.index("held not changed") < told.index("ada changed")


def test_users_that_failed_can_be_tried_again(boss: PageReader, make_user: MakeUser) -> None:
    chief = make_user("chief", roles=["superadmin"])
    ada = make_user("ada")
    boss.get("/users")
    done = boss.post(
        "/users/bulk/run",
        action="assign_role",
        role="moderator",
        reason="new team",
        user_ids=[ada.id, chief.id],
    )
    form = done.text.split("<form", 2)[2] if "Try 1 user again" in done.text else ""
    retried = dict(re.findall(r'name="(action|user_ids|role|reason)" value="([^"]*)"', form))
    assert retried == {
        "action": "assign_role",
        "role": "moderator",
        "reason": "new team",
        "user_ids": str(chief.id),
    }

    again = boss.post("/users/bulk", **retried)

    assert "chief" in words(again) and '<option value="moderator" selected>' in again.text


def test_only_an_action_with_a_role_asks_for_one(boss: PageReader, make_user: MakeUser) -> None:
    ada = make_user("ada")
    boss.get("/users")

    unlock = boss.post("/users/bulk", action="unlock", user_ids=[ada.id])
    assign = boss.post("/users/bulk", action="assign_role", user_ids=[ada.id])
    without = boss.post("/users/bulk/run", action="assign_role", user_ids=[ada.id])

    assert 'id="role"' not in unlock.text and 'id="role"' in assign.text
    assert without.status_code == 422 and 'id="role-error"' in without.text


def test_nothing_selected_is_explained_and_the_filters_stay(boss: PageReader) -> None:
    boss.get("/users?search=a")

    answer = boss.post("/users/bulk", action="suspend", filters="search=a")

    assert answer.location == "/console/users?search=a"
    assert "Select at least one user first." in words(boss.follow(answer))
    unknown = boss.follow(boss.post("/users/bulk", action="promote"))
    assert "Choose one of the actions." in words(unknown)


@pytest.mark.thorough
def test_all_that_match_stay_selected_on_every_page_and_in_every_order(
    boss: PageReader, crowd: list[MadeUser]
) -> None:
    page = boss.get("/users?search=user-&page_size=10").text
    assert "Select all 60 that match" in page
    selected = unescape(re.findall(r'href="/console([^"]+)">Select all 60', page)[0])

    chosen = boss.get(selected + "&page_size=10").text
    following = boss.get(unescape(re.findall(r'rel="next" href="/console([^"]+)"', chosen)[0])).text
    sorted_by_name = boss.get(
        unescape(re.findall(r'href="/console([^"]+)">User</a>', chosen)[0])
    ).text
    filtered_again = boss.get("/users?search=user-1").text

    for page in (chosen, following, sorted_by_name):
        assert "All 60 users</strong> that match are selected, on every page" in page
        assert 'name="selected" value="all"' in page
    assert "are selected" not in filtered_again


def test_all_that_match_are_changed_by_the_worker(
    app: Flask, services: Services, boss: PageReader, crowd: list[MadeUser], make_user: MakeUser
) -> None:
    make_user("user-chief", roles=["superadmin"])
    boss.get("/users")
    asked = boss.post("/users/bulk", action="suspend", selected="all", filters="search=user-")
    assert "This changes 61 users, which match your filters, on every page." in words(asked)
    assert 'name="expected" value="61"' in asked.text

    path = start(boss, "suspend", filters="search=user-", expected=61, reason="trial")
    waiting = boss.get(path)
    assert "queued 0 of 61 users are processed." in words(waiting)
    assert 'http-equiv="refresh"' in waiting.text and 'hx-trigger="every 2s"' in waiting.text
    run_worker(app, services)

    done = boss.get(path)
    assert "done 61 of 61 users are processed. 60 were changed. 1 was not changed." in words(done)
    assert "user-chief has a rank that is not below yours" in words(done)
    assert "every 2s" not in done.text and "Try 1 user again" in done.text
    rows = audit_rows(app, action="user.suspended")
    assert len(rows) == 60
    assert {row.actor_username for row in rows} == {"reader"}
    assert {row.details["reason"] for row in rows} == {"trial"}
    (denied,) = audit_rows(app, action="auth.permission_denied")
    assert denied.details["refused"] == 1
    assert "done 61 of 61 1 reader" in words(boss.get("/users/bulk/jobs"))


@pytest.mark.thorough
def test_a_job_tries_only_failed_users_again(
    app: Flask, services: Services, boss: PageReader, crowd: list[MadeUser], make_user: MakeUser
) -> None:
    make_user("user-chief", roles=["superadmin"])
    path = start(boss, "suspend", filters="search=user-", expected=61)
    run_worker(app, services)
    boss.get(path)

    answer = boss.post(f"{path}/retry")
    run_worker(app, services)

    assert "1 of 1 user is processed. 0 were changed. 1 was not changed." in words(
        boss.follow(answer)
    )
    empty = start(boss, "unlock", filters="search=user-0", expected=10)
    run_worker(app, services)
    boss.get(empty)
    nothing = boss.follow(boss.post(f"{empty}/retry"))
    assert "No user matches. Nothing was changed." in words(nothing)


def test_a_number_that_has_changed_is_confirmed_again(
    app: Flask, boss: PageReader, make_user: MakeUser
) -> None:
    make_user("user-1")
    boss.get("/users")
    boss.post("/users/bulk", action="delete", selected="all", filters="search=user-")
    make_user("user-2")

    answer = boss.post(
        "/users/bulk/run", action="delete", selected="all", filters="search=user-", expected="1"
    )

    assert answer.status_code == 409
    assert "The number of users that match has changed to 2. Confirm again." in words(answer)
    assert 'name="expected" value="2"' in answer.text
    with app.app_context(), reading() as connection:
        assert connection.execute(select(jobs_table)).all() == []


@pytest.mark.thorough
def test_a_job_can_be_cancelled_and_its_changes_stay(
    app: Flask, services: Services, boss: PageReader, crowd: list[MadeUser]
) -> None:
    path = start(boss, "suspend", filters="search=user-", expected=60)
    with app.app_context():
        assert services.bulk_runner.advance() == 50
    boss.get(path)

    boss.follow(boss.post(f"{path}/cancel"))
    run_worker(app, services)

    page = words(boss.get(path))
    assert "cancelled 50 of 60 users are processed" in page and "10 users were not tried." in page
    assert len(audit_rows(app, action="user.suspended")) == 50
    (cancelled,) = audit_rows(app, action="bulk.cancelled")
    assert cancelled.details == {"action": "suspend", "users": 60, "done": 50}
    with app.app_context(), reading() as connection:
        assert connection.execute(select(batches_table)).all() == []


@pytest.mark.thorough
def test_a_batch_that_was_interrupted_is_repeated_and_counts_each_user_once(
    app: Flask, services: Services, boss: PageReader, crowd: list[MadeUser]
) -> None:
    """A worker that ended after its changes and before their count must not report failures."""
    path = start(boss, "suspend", filters="search=user-", expected=60)
    with app.app_context():
        services.bulk_runner.advance()
        with transaction() as session:
            session.execute(jobs_table.update().values(attempts=1, claimed_by="ended", done=50))
        with reading() as connection:
            (remaining,) = connection.scalars(select(batches_table.c.user_ids))
        for user_id in remaining:
            services.account_suspension.suspend(UUID(user_id), actor=system_actor("test"))
    run_worker(app, services)

    assert "60 of 60 users are processed. 60 were changed. 0 were not changed." in words(
        boss.get(path)
    )


@pytest.mark.thorough
def test_a_job_ends_when_its_creator_loses_the_permission(
    app: Flask,
    services: Services,
    sign_in: SignIn,
    make_user: MakeUser,
    log_in: LogIn,
    crowd: list[MadeUser],
) -> None:
    moderator = make_user("mod", roles=["moderator"])
    browser = sign_in(moderator)
    path = start(browser, "suspend", filters="search=user-", expected=60)
    with app.app_context():
        services.bulk_runner.advance()
    chief = log_in(make_user("chief", roles=["superadmin"]))
    chief.put(f"/api/v1/users/{moderator.id}/roles", json={"roles": ["user"]})

    run_worker(app, services)

    admin = sign_in(make_user("boss", roles=["admin"]))
    page = words(admin.get(path))
    assert "failed 60 of 60 users are processed. 50 were changed. 10 were not changed." in page
    assert "this needs a permission that you do not hold" in page
    assert browser.get(path).status_code == 403


def test_a_moderator_starts_no_job_that_deletes(sign_in: SignIn, crowd: list[MadeUser]) -> None:
    moderator = sign_in(roles=("moderator",))
    page = moderator.get("/users").text
    assert 'value="suspend"' in page and 'value="delete"' not in page

    answer = moderator.post(
        "/users/bulk/run", action="delete", selected="all", filters="", expected="61"
    )

    assert answer.location == "/console/users"
    assert "No bulk change yet" in words(moderator.get("/users/bulk/jobs"))


def test_old_jobs_are_deleted(
    app: Flask, services: Services, boss: PageReader, make_user: MakeUser, clock: ManualClock
) -> None:
    make_user("user-chief", roles=["superadmin"])
    path = start(boss, "suspend", filters="search=user-", expected=1)
    run_worker(app, services)

    clock.advance(days=31)
    with app.app_context():
        while services.clean_up.delete_due():
            pass
        with reading() as connection:
            assert connection.execute(select(jobs_table)).all() == []
    assert path


@pytest.mark.parametrize("action", BulkAction)
def test_every_result_is_a_sentence(action: BulkAction) -> None:
    codes = (
        None,
        "insufficient_rank",
        "internal_error",
        "invalid_status_transition",
        "last_superadmin",
        "not_found",
        "permission_denied",
        "permission_escalation",
        "self_action_refused",
        "service_unavailable",
        "something_new",
        "too_many_roles",
        "unknown_role",
    )
    told = [bulk_result(code, action, "media-editor") for code in codes]

    assert not any("_" in text or "{" in text for text in told)


def test_the_question_names_the_filters_in_the_language_of_the_viewer(
    sign_in: SignIn, make_user: MakeUser
) -> None:
    boss = sign_in(make_user("boss", roles=["admin"], locale="de"))
    boss.get("/users")

    question = boss.post(
        "/users/bulk",
        action="suspend",
        selected="all",
        filters="mfa_enabled=false&status=active&search=boss&sort=username",
    )

    shown = words(question)
    assert "Zweiter Faktor: aus" in shown and "Status: aktiv" in shown
    assert "E-Mail suchen: boss" in shown
    assert "mfa" not in shown and "sort" not in shown
