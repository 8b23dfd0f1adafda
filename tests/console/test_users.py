"""Pages of users: the list, one user, and bulk changes."""

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from flask import Flask

from tests.console.conftest import SignIn
from tests.support.client import JsonClient
from tests.support.mailbox import Mailbox
from tests.support.pages import CSRF, PageReader, words
from tests.support.users import LogIn, MadeUser, MakeUser

pytestmark = pytest.mark.both_databases


@pytest.fixture
def boss(sign_in: SignIn) -> PageReader:
    """Return the browser of an administrator."""
    return sign_in(roles=("admin",))


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    """Return a plain user."""
    return make_user("robin", first_name="Robin", last_name="Hood")


def names_in(page: str) -> list[str]:
    return re.findall(r'href="/console/users/[0-9a-f-]{36}">([^<]+)</a>', page)


def version_of(page: str) -> str:
    found = re.search(r"\?version=(\d+)", page)
    assert found
    return found[1]


def undo_in(page: str) -> tuple[str, dict[str, Any]]:
    """Return the address and the fields of the button that undoes a change."""
    form = re.search(r'<form method="post" action="/console([^"]+)">(?:(?!</form>).)*Undo', page)
    assert form
    fields: dict[str, list[str]] = {}
    for name, value in re.findall(r'name="([a-z]+)" value="([^"]*)"', form[0]):
        fields.setdefault(name, []).append(unescape(value))
    return unescape(form[1]), fields


def test_the_list_is_searched_filtered_and_sorted(boss: PageReader, make_user: MakeUser) -> None:
    for name in ("ada", "bea", "cleo"):
        make_user(name)

    found = boss.get("/users?search=EA&status=active&created_after=2020-01-01")
    sorted_by_name = boss.get("/users?sort=username")

    # "reader" is the user who views the page.
    assert sorted(names_in(found.text)) == ["bea", "reader"]
    assert names_in(sorted_by_name.text) == ["ada", "bea", "cleo", "reader"]
    assert 'aria-sort="ascending"' in sorted_by_name.text


def test_an_invalid_filter_is_explained_and_lists_no_user(boss: PageReader) -> None:
    answer = boss.get("/users?created_after=soon&sort=shoe_size")

    assert answer.status_code == 422
    assert 'id="created_after-error"' in answer.text and names_in(answer.text) == []


def test_names_of_people_are_text_and_never_markup(boss: PageReader, make_user: MakeUser) -> None:
    evil = make_user("mallory", first_name="<img src=x onerror=alert(1)>")

    listed, shown = boss.get("/users"), boss.get(f"/users/{evil.id}")

    assert "<img src=x" not in listed.text + shown.text
    assert "<img src=x onerror=alert(1)>" in words(listed)


def test_a_user_is_invited_sets_a_password_and_signs_in(app: Flask, boss: PageReader) -> None:
    boss.get("/users/new")
    answer = boss.post("/users/new", username="ada", email="ada@example.com", password="")
    assert "ada was invited by mail." in words(boss.follow(answer))
    token = Mailbox(app).token()

    ada = PageReader(app)
    ada.get("/set-password")
    ada.post("/set-password", token=token, new_password="granite-otter-57-teapot")
    signed_in = ada.post("/sign-in", username="ada", password="granite-otter-57-teapot")

    assert signed_in.status_code == 303


def test_a_user_with_more_permissions_than_others_is_created_after_a_question(
    boss: PageReader, log_in: LogIn
) -> None:
    form = {"username": "mod", "email": "mod@example.com", "roles": ["moderator"]}
    boss.get("/users/new")

    asked = boss.post("/users/new", **form, password="granite-otter-57-teapot")
    assert asked.status_code == 200
    assert "users:suspend Suspend and activate users." in words(asked)
    assert names_in(boss.get("/users?search=mod").text) == []
    # A password is never part of a page. An empty field would mean an invitation.
    assert "granite-otter" not in asked.text
    assert re.search(r'<input[^>]+name="password" type="password" required', asked.text)
    done = boss.post("/users/new", **form, password="granite-otter-57-teapot", confirmed="yes")

    assert "mod was created." in words(boss.follow(done))
    assert names_in(boss.get("/users?role=moderator").text) == ["mod"]


def test_a_name_in_use_is_explained_and_the_form_keeps_its_values(
    boss: PageReader, robin: MadeUser
) -> None:
    answer = boss.post("/users/new", username="robin", email="other@example.com")

    assert answer.status_code == 409
    assert "taken" in words(answer) and 'value="other@example.com"' in answer.text


def test_changing_fields_does_not_change_roles_and_status(
    boss: PageReader, make_user: MakeUser, log_in: LogIn
) -> None:
    mod = make_user("mod", roles=["moderator"], last_name="Old")
    page = boss.get(f"/users/{mod.id}/edit").text

    answer = boss.post(
        f"/users/{mod.id}?version={version_of(page)}",
        username="mod",
        email="mod@example.com",
        first_name="Mo",
        last_name="",
    )

    assert answer.status_code == 303
    me = log_in(mod).get("/api/v1/users/me").get_json()
    assert (me["first_name"], me["last_name"]) == ("Mo", None)
    assert (me["roles"], me["status"]) == (["moderator"], "active")


def test_the_former_address_gets_a_mail_when_an_administrator_changes_it(
    app: Flask, boss: PageReader, robin: MadeUser
) -> None:
    path = f"/users/{robin.id}"
    version = version_of(boss.get(f"{path}/edit").text)

    answer = boss.post(f"{path}?version={version}", username="robin", email="new@example.com")

    assert answer.status_code == 303
    (mail,) = Mailbox(app).deliver()
    assert mail["To"] == robin.email


def test_the_page_of_oneself_does_not_change_the_address(
    app: Flask, sign_in: SignIn, make_user: MakeUser
) -> None:
    boss = make_user("boss", roles=["superadmin"])
    reader = sign_in(boss)
    path = f"/users/{boss.id}"
    page = reader.get(f"{path}/edit")
    version = version_of(page.text)

    refused = reader.post(f"{path}?version={version}", username="boss", email="thief@example.com")
    saved = reader.post(f"{path}?version={version}", username="boss", first_name="Ada")

    assert 'name="email"' not in page.text and 'href="/console/email"' in page.text
    assert refused.status_code == 409
    assert "through /auth/change-email" in refused.text
    assert saved.status_code == 303
    assert "Ada" in reader.get(path).text and boss.email in reader.get(path).text


def test_a_concurrent_change_is_not_overwritten(
    boss: PageReader, robin: MadeUser, log_in: LogIn
) -> None:
    version = version_of(boss.get(f"/users/{robin.id}/edit").text)
    log_in(robin).patch("/api/v1/users/me", json={"first_name": "Elsewhere"})

    answer = boss.post(
        f"/users/{robin.id}?version={version}", username="robin", email=robin.email, first_name="X"
    )

    assert answer.status_code == 412 and "has changed since" in words(answer)


def test_a_suspension_ends_every_session_and_an_activation_allows_log_ins(
    boss: PageReader, robin: MadeUser, log_in: LogIn
) -> None:
    client = log_in(robin)
    boss.get(f"/users/{robin.id}")

    done = boss.follow(
        boss.post(f"/users/{robin.id}/suspend", reason="trial", until="2099-01-31T12:00")
    )
    assert "The user was suspended." in words(done)
    assert "Jan 31, 2099, 12:00 PM UTC" in words(done) and "trial" in words(done)
    assert client.get("/api/v1/auth/me").status_code == 401

    boss.post(f"/users/{robin.id}/activate")
    assert log_in(robin).get("/api/v1/auth/me").status_code == 200


def test_an_invalid_end_of_a_suspension_suspends_no_user(boss: PageReader, robin: MadeUser) -> None:
    boss.get(f"/users/{robin.id}")

    answer = boss.follow(boss.post(f"/users/{robin.id}/suspend", until="2001-01-01T00:00"))

    assert "in the future" in words(answer)
    assert "suspended" not in words(boss.get("/users?search=robin")).split("1 user")[1]


def test_a_locked_user_is_shown_and_unlocked(
    app: Flask, boss: PageReader, robin: MadeUser, log_in: LogIn
) -> None:
    for _ in range(5):
        JsonClient(app).post("/api/v1/auth/login", json={"username": "robin", "password": "no-9"})
    assert names_in(boss.get("/users?locked=true").text) == ["robin"]
    boss.get(f"/users/{robin.id}")

    boss.post(f"/users/{robin.id}/unlock")

    assert log_in(robin).get("/api/v1/auth/me").status_code == 200


def test_roles_that_grant_more_are_assigned_after_a_question_and_explained(
    boss: PageReader, robin: MadeUser, log_in: LogIn
) -> None:
    path = f"/users/{robin.id}/roles"
    version = version_of(boss.get(path).text)

    asked = boss.post(f"{path}?version={version}", roles=["moderator"])
    assert asked.status_code == 200
    assert "Give robin more permissions?" in words(asked)
    assert "users:suspend Suspend and activate users." in words(asked)
    assert log_in(robin).get("/api/v1/auth/me").get_json()["roles"] == ["user"]
    done = boss.post(f"{path}?version={version}", roles=["moderator"], confirmed="yes")

    assert done.status_code == 303
    assert "users:suspend moderator" in words(boss.follow(done))
    assert log_in(robin).get("/api/v1/auth/me").get_json()["roles"] == ["moderator"]


def test_roles_that_grant_more_than_the_administrator_has_are_named_and_not_offered(
    boss: PageReader, robin: MadeUser
) -> None:
    page = boss.get(f"/users/{robin.id}/roles")

    assert 'value="moderator"' in page.text and 'value="superadmin"' not in page.text
    assert "because they grant more than you have: superadmin." in words(page)


def test_roles_that_grant_less_are_assigned_at_once_and_the_change_can_be_undone(
    boss: PageReader, make_user: MakeUser, log_in: LogIn
) -> None:
    mod = make_user("mod", roles=["moderator"])
    path = f"/users/{mod.id}/roles"
    version = version_of(boss.get(path).text)

    done = boss.post(f"{path}?version={version}", roles=["user"])
    assert done.status_code == 303
    page = boss.follow(done).text
    assert log_in(mod).get("/api/v1/auth/me").get_json()["roles"] == ["user"]
    path, fields = undo_in(page)
    undone = boss.post(path, **fields)

    assert undone.status_code == 303
    assert log_in(mod).get("/api/v1/auth/me").get_json()["roles"] == ["moderator"]


def test_an_undo_does_not_overwrite_a_later_change(
    boss: PageReader, make_user: MakeUser, log_in: LogIn
) -> None:
    mod = make_user("mod", roles=["moderator"])
    path = f"/users/{mod.id}/roles"
    page = boss.follow(boss.post(f"{path}?version={version_of(boss.get(path).text)}", roles=[]))
    later = boss.post(f"{path}?version={version_of(page.text)}", roles=["user"], confirmed="yes")
    log_in(mod).patch("/api/v1/users/me", json={"first_name": "Mo"})

    path, fields = undo_in(page.text)
    undone = boss.post(path, **fields)

    assert later.status_code == 303
    assert "has changed since" in words(boss.follow(undone))
    assert log_in(mod).get("/api/v1/auth/me").get_json()["roles"] == ["user"]


def test_a_suspension_tells_what_it_ends_and_can_be_undone(
    boss: PageReader, robin: MadeUser, log_in: LogIn
) -> None:
    log_in(robin)
    log_in(robin)

    asked = words(boss.get(f"/users/{robin.id}/suspend"))
    done = boss.follow(boss.post(f"/users/{robin.id}/suspend", reason="trial"))
    path, fields = undo_in(done.text)
    boss.post(path, **fields)

    assert "2 sessions end now" in asked
    assert log_in(robin).get("/api/v1/auth/me").status_code == 200


@pytest.mark.parametrize("step", ["reset-password", "sessions/end", "delete"])
def test_what_ends_sessions_asks_first_and_tells_how_many(
    boss: PageReader, robin: MadeUser, log_in: LogIn, step: str
) -> None:
    client = log_in(robin)

    asked = words(boss.get(f"/users/{robin.id}/{step}"))

    assert "1 session ends now." in asked
    assert client.get("/api/v1/auth/me").status_code == 200


def test_the_activity_of_a_user_is_read_to_its_end(
    boss: PageReader, robin: MadeUser, log_in: LogIn
) -> None:
    for _ in range(26):
        log_in(robin)

    first = boss.get(f"/users/{robin.id}/activity")
    older = re.search(r'rel="next" href="/console([^"]+)"', first.text)
    assert older
    second = boss.get(unescape(older[1]))

    rows = [answer.text.count('<td data-label="When">') for answer in (first, second)]
    assert rows[0] == 25 and rows[1] >= 1
    assert 'rel="next"' not in second.text
    assert f"{robin.username} logged in" in words(first)


def test_a_picture_is_shown_only_from_the_address_of_the_service(
    make_app: Callable[..., Flask], make_user: MakeUser
) -> None:
    """Another server would learn who looks at which user."""
    own, foreign = "https://users.example.com/media/a.png", "https://users.example.com.evil.test/a"
    boss = make_user("boss", roles=["superadmin"])
    users = [
        make_user("ada", avatar_url=own),
        make_user("bea", avatar_url=foreign),
    ]
    app = make_app(PUBLIC_BASE_URL="https://users.example.com")
    browser = app.test_client()
    shown = browser.get("/console/sign-in", base_url="https://localhost")
    token = CSRF.search(shown.text)
    assert token is not None
    form = {"csrf_token": token[1], "username": "boss", "password": boss.password}
    browser.post("/console/sign-in", base_url="https://localhost", data=form)

    pages = [
        browser.get(f"/console/users/{user.id}", base_url="https://localhost").text
        for user in users
    ]

    assert [re.findall('<img class="avatar[^>]+src="([^"]+)"', page) for page in pages] == [
        [own],
        [],
    ]
    listed = browser.get("/console/users", base_url="https://localhost").text
    assert f'src="{own}"' in listed and foreign not in listed


def test_metadata_are_edited_as_json_and_mistakes_are_located(
    boss: PageReader, robin: MadeUser
) -> None:
    path = f"/users/{robin.id}"
    version = version_of(boss.get(f"{path}/edit").text)
    form = {"username": "robin", "email": robin.email}

    wrong = boss.post(f"{path}?version={version}", **form, metadata='{"team":\n oops}')
    twice = boss.post(f"{path}?version={version}", **form, metadata='{"a": 1, "a": 2}')
    listed = boss.post(f"{path}?version={version}", **form, metadata="[1]")
    saved = boss.post(f"{path}?version={version}", **form, metadata='{"team": "Köln"}')

    assert wrong.status_code == twice.status_code == listed.status_code == 422
    assert "Invalid JSON at line 2, column 2." in words(wrong) and "oops" in wrong.text
    assert "two members of the same name" in words(twice)
    assert 'id="metadata-error"' in listed.text
    assert saved.status_code == 303
    assert '"team": "Köln"' in words(boss.get(path))


def test_every_mistake_in_the_form_of_a_user_is_marked_at_once(
    boss: PageReader, robin: MadeUser
) -> None:
    """Metadata that are no JSON had hidden the other mistakes until they were corrected."""
    path = f"/users/{robin.id}"
    version = version_of(boss.get(f"{path}/edit").text)

    answer = boss.post(
        f"{path}?version={version}", username="robin", email="nope", metadata="[" * 9000
    )

    assert answer.status_code == 422
    assert 'id="email-error"' in answer.text and 'id="metadata-error"' in answer.text
    assert "The JSON is nested too deeply." in words(answer)


def test_the_language_and_the_time_zone_of_a_user_are_chosen_from_lists(
    boss: PageReader, make_user: MakeUser
) -> None:
    """They were fields for any text, other than those of the own profile."""
    ada = make_user("ada", locale="fr-CA", timezone="Europe/Berlin")

    page = boss.get(f"/users/{ada.id}/edit").text

    assert re.search(r'<option value="fr-CA" selected>', page)
    assert re.search(r'<option value="de">Deutsch</option>', page)
    assert re.search(r'name="timezone"[^>]+value="Europe/Berlin"[^>]+list="time-zones"', page)
    assert '<option value="Asia/Tokyo">' in page


def test_an_address_is_confirmed_by_an_administrator(boss: PageReader, robin: MadeUser) -> None:
    path = f"/users/{robin.id}"
    version = version_of(boss.get(f"{path}/edit").text)
    boss.post(f"{path}?version={version}", username="robin", email="new@example.com")
    assert "not confirmed" in words(boss.get(path))

    confirmed = words(boss.follow(boss.post(f"{path}/confirm-address")))

    assert "The address was confirmed." in confirmed
    assert "not confirmed" not in confirmed and "Confirm the address" not in confirmed


def test_an_invited_user_cannot_be_confirmed_without_the_link(boss: PageReader) -> None:
    """The account would be active without a password."""
    boss.get("/users/new")
    invited = boss.follow(boss.post("/users/new", username="ada", email="ada@example.com"))
    ada = re.findall(r"/console/users/([0-9a-f-]{36})/", invited.text)[0]
    assert "Resend the invitation" in words(invited)
    assert "Confirm the address" not in words(invited)

    refused = words(boss.follow(boss.post(f"/users/{ada}/confirm-address")))

    assert "confirms the address by the link" in refused
    assert "pending" in refused


def test_the_address_of_who_may_do_more_cannot_be_confirmed(
    boss: PageReader, make_user: MakeUser
) -> None:
    chief = make_user("chief", roles=["superadmin"])
    boss.get(f"/users/{chief.id}")

    refused = boss.follow(boss.post(f"/users/{chief.id}/confirm-address"))

    assert "The address was confirmed." not in words(refused)
    assert 'role="alert"' in refused.text


def test_an_invitation_is_mailed_again_and_the_earlier_link_is_void(
    app: Flask, boss: PageReader, reader: PageReader
) -> None:
    boss.get("/users/new")
    invited = boss.follow(boss.post("/users/new", username="ada", email="ada@example.com"))
    ada = re.findall(r"/console/users/([0-9a-f-]{36})/", invited.text)[0]
    first = Mailbox(app).token()

    again = boss.follow(boss.post(f"/users/{ada}/resend"))
    second = Mailbox(app).token()
    reader.get("/set-password")
    old = reader.post("/set-password", token=first, new_password="granite-otter-57-teapot")
    new = reader.post("/set-password", token=second, new_password="granite-otter-57-teapot")

    assert "The invitation was mailed again." in words(again)
    assert (old.status_code, new.status_code) == (400, 303)


def test_a_tab_that_the_caller_may_not_see_is_neither_linked_nor_served(
    sign_in: SignIn, robin: MadeUser
) -> None:
    moderator = sign_in(roles=("moderator",))
    page = moderator.get(f"/users/{robin.id}")

    assert page.status_code == 200 and "/activity" not in page.text
    assert moderator.get(f"/users/{robin.id}/activity").status_code == 403
    assert moderator.get(f"/users/{robin.id}/edit").status_code == 403


def test_sessions_are_ended_one_by_one_and_all_at_once(
    boss: PageReader, robin: MadeUser, log_in: LogIn
) -> None:
    first, second, third = (log_in(robin) for _ in range(3))
    boss.get(f"/users/{robin.id}")

    boss.post(f"/users/{robin.id}/sessions/{first.session_id}/end")
    states = [c.get("/api/v1/auth/me").status_code for c in (first, second, third)]
    assert states == [401, 200, 200]
    boss.post(f"/users/{robin.id}/sessions/end")

    assert [c.get("/api/v1/auth/me").status_code for c in (second, third)] == [401, 401]


def test_api_keys_of_a_user_are_listed_and_revoked(
    app: Flask, boss: PageReader, robin: MadeUser, log_in: LogIn
) -> None:
    made = log_in(robin).post("/api/v1/users/me/api-keys/", json={"name": "laptop"}).get_json()
    api = JsonClient(app, token=made["key"])
    assert api.get("/api/v1/users/me").status_code == 200

    listed = words(boss.get(f"/users/{robin.id}/security"))
    done = boss.follow(boss.post(f"/users/{robin.id}/api-keys/{made['id']}/revoke"))

    assert "laptop" in listed and made["key"] not in listed
    assert "The key was revoked." in words(done)
    assert api.get("/api/v1/users/me").status_code == 401


def test_api_keys_of_who_may_do_more_are_not_revoked(
    app: Flask, boss: PageReader, make_user: MakeUser, log_in: LogIn
) -> None:
    chief = make_user("chief", roles=["superadmin"])
    made = log_in(chief).post("/api/v1/users/me/api-keys/", json={"name": "laptop"}).get_json()
    boss.get(f"/users/{chief.id}/security")

    refused = boss.follow(boss.post(f"/users/{chief.id}/api-keys/{made['id']}/revoke"))

    assert 'role="alert"' in refused.text
    assert JsonClient(app, token=made["key"]).get("/api/v1/users/me").status_code == 200


def test_who_may_do_more_is_shown_and_cannot_be_touched(
    boss: PageReader, make_user: MakeUser, log_in: LogIn
) -> None:
    chief = make_user("chief", roles=["superadmin"])

    page = boss.get(f"/users/{chief.id}")
    refused = boss.follow(boss.post(f"/users/{chief.id}/suspend"))

    assert "cannot change this user" in words(page) and ">Suspend<" not in page.text
    assert 'role="alert"' in refused.text
    assert log_in(chief).get("/api/v1/auth/me").status_code == 200


def test_a_user_is_deleted_by_typing_the_name(boss: PageReader, robin: MadeUser) -> None:
    boss.get(f"/users/{robin.id}")
    kept = boss.follow(boss.post(f"/users/{robin.id}/delete", confirmed_name="rob"))
    assert "Nothing was deleted" in words(kept)

    gone = boss.follow(boss.post(f"/users/{robin.id}/delete", confirmed_name="robin"))

    assert "robin was deleted." in words(gone)
    assert boss.get(f"/users/{robin.id}").status_code == 404


def test_a_link_for_a_new_password_is_mailed(
    app: Flask, boss: PageReader, robin: MadeUser, log_in: LogIn
) -> None:
    client = log_in(robin)
    boss.get(f"/users/{robin.id}")

    boss.post(f"/users/{robin.id}/reset-password")

    assert Mailbox(app).token()
    assert client.get("/api/v1/auth/me").status_code == 401


def test_a_moderator_may_suspend_many_but_not_delete_them(
    sign_in: SignIn, make_user: MakeUser, robin: MadeUser
) -> None:
    moderator = sign_in(roles=("moderator",))
    page = moderator.get("/users")
    assert 'value="suspend"' in page.text and 'value="delete"' not in page.text

    for step in ("/users/bulk", "/users/bulk/run"):
        answer = moderator.post(step, action="delete", user_ids=[robin.id])
        assert answer.location == "/console/users"

    assert moderator.get(f"/users/{robin.id}").status_code == 200


def test_the_users_that_the_filters_leave_are_downloaded(boss: PageReader, robin: MadeUser) -> None:
    answer = boss.get("/users/export?format=csv&search=robin")

    assert answer.mimetype == "text/csv"
    assert len(answer.text.strip().splitlines()) == 2 and "robin@example.com" in answer.text
