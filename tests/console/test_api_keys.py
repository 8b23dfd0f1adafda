"""Pages of service accounts and API keys."""

import re

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.console.conftest import SignIn
from tests.support.client import JsonClient
from tests.support.pages import PageReader, words
from tests.support.users import MakeUser

pytestmark = pytest.mark.both_databases
VERIFY = "/api/v1/auth/verify"


@pytest.fixture
def boss(sign_in: SignIn) -> PageReader:
    """Return the browser of a superadmin."""
    return sign_in(roles=("superadmin",))


def key_in(answer: TestResponse) -> str:
    assert answer.status_code == 200, answer.text
    found = re.search(r'id="new-key"[^>]*value="([^"]+)"', answer.text)
    assert found, answer.text
    return found[1]


def action_in(answer: TestResponse, name: str) -> str:
    found = re.search(rf'action="/console(/[^"]*/{name}[^"]*)"', answer.text)
    assert found, answer.text
    return found[1]


def accepted(app: Flask, key: str) -> bool:
    return JsonClient(app, token=key).get(VERIFY).status_code == 200


def test_own_keys_are_created_rotated_and_revoked(app: Flask, sign_in: SignIn) -> None:
    reader = sign_in(roles=("moderator",))

    created = reader.post(
        "/api-keys", name="laptop", permissions="users:read", allowed_networks="127.0.0.0/8"
    )
    key = key_in(created)
    listed = reader.get("/api-keys")
    assert key not in listed.text
    assert "laptop" in words(listed) and "127.0.0.0/8" in words(listed)
    rotated = reader.post(action_in(listed, "rotate"))
    new = key_in(rotated)
    assert [accepted(app, text) for text in (key, new)] == [True, True]
    revoked = reader.follow(reader.post(action_in(reader.get("/api-keys"), "revoke")))
    assert "The key was revoked." in words(revoked)
    assert not accepted(app, new)


def number_in(answer: TestResponse, action: str) -> str:
    """Return the number of the form of an action."""
    form = answer.text[answer.text.index(f'action="/console{action}"') :]
    found = re.search(r'name="form_number" value="([^"]+)"', form[: form.index("</form>")])
    assert found, form
    return found[1]


def test_a_reload_creates_no_second_key(boss: PageReader) -> None:
    created = boss.post("/service-accounts/new", name="robot", roles=["moderator"])
    account = (created.location or "").removeprefix("/console")
    for page in ("/api-keys", account):
        action = f"{account}/api-keys" if page == account else page
        form = {"name": "laptop", "form_number": number_in(boss.get(page), action)}
        wrong = boss.post(action, **{**form, "allowed_networks": "10.0.0.1/8"})
        assert wrong.status_code == 422
        key_in(boss.post(action, **form))

        again = boss.post(action, **form)

        assert (again.status_code, again.location) == (303, f"/console{page}")
        shown = boss.follow(again)
        assert "This form was already sent." in words(shown)
        assert "1 key" in words(shown)
        rotate = action_in(shown, "rotate")
        form = {"form_number": number_in(shown, rotate)}
        key_in(boss.post(rotate, **form))
        assert "This form was already sent." in words(boss.follow(boss.post(rotate, **form)))
        assert "2 keys" in words(boss.get(page))


def test_the_form_shows_what_is_wrong(sign_in: SignIn) -> None:
    reader = sign_in(roles=("moderator",))

    answer = reader.post("/api-keys", name="x", allowed_networks="10.0.0.1/8")

    assert answer.status_code == 422
    assert "without host bits" in words(answer)
    denied = reader.post("/api-keys", name="x", permissions="users:delete")
    assert denied.status_code == 403
    assert "You cannot grant permissions that you do not hold." in words(denied)


def test_disabled_personal_keys_have_no_form(
    make_user: MakeUser, make_app: object, sign_in: SignIn
) -> None:
    disabled: Flask = make_app(FEATURE_PERSONAL_API_KEYS="false")  # type: ignore[operator]
    reader = PageReader(disabled)
    reader.sign_in(make_user("robin"))

    shown = reader.get("/api-keys")

    assert shown.status_code == 200 and "Create the key" not in shown.text


def test_a_service_account_is_managed(app: Flask, boss: PageReader) -> None:
    boss.get("/service-accounts/new")
    created = boss.post(
        "/service-accounts/new", name="robot", description="Converts", roles=["moderator"]
    )
    path = (created.location or "").removeprefix("/console")
    shown = boss.follow(created)
    assert "robot" in words(shown) and "moderator" in words(shown)
    assert "robot" in words(boss.get("/service-accounts", query_string={"search": "rob"}))
    key = key_in(boss.post(f"{path}/api-keys", name="production"))
    assert accepted(app, key)

    page = boss.get(path)
    boss.post(action_in(page, "suspend"), reason="noise")
    assert not accepted(app, key)
    boss.post(action_in(boss.get(path), "activate"))
    assert accepted(app, key)
    version = re.search(r"\?version=(\d+)", boss.get(path).text)
    assert version
    saved = boss.follow(boss.post(f"{path}?version={version[1]}", description="New"))
    assert "saved" in words(saved) and "New" in words(saved)
    stale = boss.post(f"{path}?version={version[1]}", description="Newer")
    assert stale.status_code == 412
    new = key_in(boss.post(action_in(boss.get(path), "rotate")))
    boss.post(action_in(boss.get(path), "revoke"))
    assert not accepted(app, new)
    deleted = boss.follow(boss.post(action_in(boss.get(path), "delete")))
    assert "deleted" in words(deleted)
    assert not accepted(app, key)


def test_a_taken_name_is_shown_at_the_form(boss: PageReader) -> None:
    for _ in range(2):
        answer = boss.post("/service-accounts/new", name="robot")

    assert answer.status_code == 409
    assert "This name is taken." in words(answer)


def test_readers_see_no_forms(sign_in: SignIn, boss: PageReader, make_user: MakeUser) -> None:
    path = (boss.post("/service-accounts/new", name="robot").location or "").removeprefix(
        "/console"
    )
    boss.post("/roles/new", name="watcher", others="service_accounts:read")
    watcher = sign_in(make_user("watcher", roles=["watcher"]))

    shown = watcher.get(path)

    assert shown.status_code == 200
    assert "Create the key" not in shown.text and "Suspend" not in shown.text
    assert watcher.post(f"{path}/suspend").status_code == 403
