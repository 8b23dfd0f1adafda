"""Actions in the rows of the list of users, which return to the list."""

import re
from urllib.parse import urlsplit

import pytest
from flask import Flask

from tests.console.conftest import SignIn
from tests.support.client import JsonClient
from tests.support.pages import PageReader, words
from tests.support.users import MadeUser, MakeUser

pytestmark = pytest.mark.both_databases
LIST = "/users?search=robin&sort=username"


@pytest.fixture
def boss(sign_in: SignIn) -> PageReader:
    """Return the browser of an administrator."""
    return sign_in(roles=("admin",))


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


def offered(reader: PageReader, name: str) -> list[str]:
    """Return the actions in the menu of a user's row."""
    page = reader.get(f"/users?search={name}").text
    label = f'aria-label="Actions for {name}"'
    row = next((row for row in page.split("<tr>") if label in row), "")
    return re.findall(r"/users/[0-9a-f-]{36}/([a-z-]+(?:/end)?)[?\"]", row)


def lock(app: Flask, user: MadeUser) -> None:
    for _ in range(5):
        log_in = {"username": user.username, "password": "wrong-password-12"}
        JsonClient(app).post("/api/v1/auth/login", json=log_in)


def test_the_actions_fit_the_state_of_the_user(
    app: Flask, boss: PageReader, robin: MadeUser
) -> None:
    usual = ["suspend", "reset-password", "sessions/end", "delete"]
    assert offered(boss, "robin") == usual

    lock(app, robin)
    assert offered(boss, "robin") == ["unlock", *usual]

    boss.get(LIST)
    boss.post(f"/users/{robin.id}/suspend")
    assert offered(boss, "robin") == [
        *("unlock", "activate", "reset-password", "sessions/end", "delete")
    ]


def test_there_are_none_on_oneself_and_on_higher_ranks(
    boss: PageReader, make_user: MakeUser
) -> None:
    make_user("chief", roles=["superadmin"])

    assert offered(boss, "chief") == []
    assert offered(boss, "reader") == []


def test_an_action_needs_its_permission(
    sign_in: SignIn, make_user: MakeUser, robin: MadeUser
) -> None:
    moderator = sign_in(make_user("helper", roles=["moderator"]))

    assert offered(moderator, "robin") == ["suspend"]


def test_an_action_at_once_leads_back_to_the_list(
    app: Flask, boss: PageReader, robin: MadeUser
) -> None:
    lock(app, robin)
    page = boss.get(LIST)
    # The buttons are outside of their form, which names it.
    assert f'form="row-action" formaction="/console/users/{robin.id}/unlock"' in page.text
    assert '<form method="post" id="row-action">' in page.text

    answer = boss.post(f"/users/{robin.id}/unlock", back="list")
    shown = boss.follow(answer)

    assert urlsplit(shown.request.url).query == "search=robin&sort=username"
    assert "The user was unlocked and can sign in again." in words(shown)
    assert "locked" not in offered(boss, "robin")


def test_an_action_that_ends_something_asks_and_leads_back_to_the_list(
    boss: PageReader, robin: MadeUser
) -> None:
    boss.get(LIST)

    question = boss.get(f"/users/{robin.id}/suspend?back=list")
    assert "Suspend robin?" in words(question)
    assert 'href="/console/users/last-list">Cancel</a>' in question.text
    assert '<input type="hidden" name="back" value="list">' in question.text
    shown = boss.follow(boss.post(f"/users/{robin.id}/suspend", back="list"))

    assert urlsplit(shown.request.url).query == "search=robin&sort=username"
    assert '<input type="hidden" name="back" value="list">' in shown.text
    undone = boss.follow(
        boss.post(f"/users/{robin.id}/activate", reason="suspension undone", back="list")
    )
    assert urlsplit(undone.request.url).query == "search=robin&sort=username"
    assert "suspend" in offered(boss, "robin")


def test_a_refused_action_leads_back_to_the_list_with_the_reason(
    boss: PageReader, make_user: MakeUser
) -> None:
    chief = make_user("chief", roles=["superadmin"])
    boss.get(LIST)

    shown = boss.follow(boss.post(f"/users/{chief.id}/sessions/end", back="list"))

    assert urlsplit(shown.request.url).query == "search=robin&sort=username"
    assert 'role="alert"' in shown.text


def test_without_the_list_an_action_leads_to_the_page_of_the_user(
    boss: PageReader, robin: MadeUser
) -> None:
    boss.get(LIST)

    answer = boss.post(f"/users/{robin.id}/suspend", back="https://example.com/")

    assert answer.location == f"/console/users/{robin.id}"
