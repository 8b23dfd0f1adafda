"""Pages of the account of the viewer, and the pages that mails link to."""

import json
import re

import pytest
from flask import Flask

from tests.console.conftest import SignIn
from tests.support.mailbox import Mailbox
from tests.support.pages import PageReader, words
from tests.support.users import PASSWORD, LogIn, MakeUser

PHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15"
    " (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1"
)
DESK = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"

pytestmark = pytest.mark.both_databases

NEW_PASSWORD = "granite-otter-57-teapot"


def test_the_profile_is_changed_and_emptied_field_by_field(
    sign_in: SignIn, make_user: MakeUser, log_in: LogIn
) -> None:
    robin = make_user("robin", first_name="Robin", phone="+41446681800")
    browser = sign_in(robin)
    version = browser.get("/profile").text.split("/profile?version=")[1].split('"')[0]
    fields = {name: "" for name in ("last_name", "phone", "locale", "timezone", "avatar_url")}

    answer = browser.post(f"/profile?version={version}", first_name="<b>R", **fields)

    assert answer.status_code == 303
    me = log_in(robin).get("/api/v1/users/me").get_json()
    assert (me["first_name"], me["phone"]) == ("<b>R", None)
    assert "<b>R" not in browser.get("/profile").text


def test_a_profile_that_has_changed_in_between_is_not_overwritten(
    sign_in: SignIn, make_user: MakeUser, log_in: LogIn
) -> None:
    robin = make_user("robin")
    browser = sign_in(robin)
    version = browser.get("/profile").text.split("/profile?version=")[1].split('"')[0]
    api = log_in(robin)
    api.patch("/api/v1/users/me", json={"first_name": "Elsewhere"})

    answer = browser.post(f"/profile?version={version}", first_name="Here")

    assert answer.status_code == 412
    assert "has changed since" in words(answer)
    assert api.get("/api/v1/users/me").get_json()["first_name"] == "Elsewhere"


def test_a_faulty_field_is_marked_and_what_was_typed_stays(sign_in: SignIn) -> None:
    browser = sign_in()
    version = browser.get("/profile").text.split("/profile?version=")[1].split('"')[0]

    answer = browser.post(f"/profile?version={version}", timezone="Moon/Base", first_name="Zoe")

    assert answer.status_code == 422
    assert 'id="timezone-error"' in answer.text
    assert 'value="Zoe"' in answer.text and 'value="Moon/Base"' in answer.text


def test_a_password_change_ends_all_other_sessions(
    app: Flask, sign_in: SignIn, make_user: MakeUser
) -> None:
    robin = make_user("robin")
    browser, other = sign_in(robin), sign_in(robin)
    before = browser.cookie

    answer = browser.post("/password", current_password=PASSWORD, new_password=NEW_PASSWORD)

    assert answer.status_code == 303
    assert browser.cookie != before
    assert browser.get("/profile").status_code == 200
    assert other.get("/profile").status_code == 303


def test_a_wrong_current_password_changes_nothing(sign_in: SignIn) -> None:
    browser = sign_in()

    answer = browser.post("/password", current_password="wrong-one-1", new_password=NEW_PASSWORD)

    assert answer.status_code == 401
    assert "incorrect" in words(answer)


def test_the_strength_of_a_password_is_shown_while_it_is_typed(reader: PageReader) -> None:
    reader.get("/sign-up")

    weak = words(reader.post("/password-strength", password="password1"))
    good = words(reader.post("/password-strength", password=NEW_PASSWORD))

    assert "not accepted" in weak and "too common" in weak
    assert "not accepted" not in good and "Strong" in good


def test_the_strength_of_a_password_is_a_bar_of_five_steps(reader: PageReader) -> None:
    reader.get("/sign-up")

    weak = reader.post("/password-strength", password="password1").text
    good = reader.post("/password-strength", password=NEW_PASSWORD).text

    assert 'role="meter"' in weak and 'aria-valuenow="1"' in weak
    assert (weak.count('<span class="on">'), good.count('<span class="on">')) == (1, 5)


def test_sessions_are_grouped_by_device_and_the_own_device_is_first(
    app: Flask, make_user: MakeUser
) -> None:
    robin = make_user("robin")
    for program in (PHONE, PHONE, DESK):
        reader = PageReader(app)
        reader.browser.environ_base["HTTP_USER_AGENT"] = program
        reader.sign_in(robin)

    page = words(reader.get("/sessions"))

    assert "Firefox on Linux 127.0.0.1 this one" in page
    assert "Mobile Safari on iOS · 2 sessions" in page
    assert page.index("Firefox on Linux") < page.index("Mobile Safari on iOS")


def test_other_sessions_are_ended_one_by_one_and_all_at_once(
    sign_in: SignIn, make_user: MakeUser
) -> None:
    robin = make_user("robin")
    browser, second, third, fourth = (sign_in(robin) for _ in range(4))
    ids = re.findall(r'action="/console/sessions/([^"/]+)/end"', browser.get("/sessions").text)
    assert len(ids) == 3

    browser.post(f"/sessions/{ids[0]}/end")
    alive = [r.get("/profile").status_code for r in (browser, second, third, fourth)]
    assert sorted(alive) == [200, 200, 200, 303] and alive[0] == 200
    browser.post("/sessions/end-others")

    assert [r.get("/profile").status_code for r in (browser, second, third, fourth)] == [
        200,
        303,
        303,
        303,
    ]


def test_a_new_address_is_used_after_its_confirmation(
    app: Flask, sign_in: SignIn, make_user: MakeUser
) -> None:
    browser = sign_in(make_user("robin"))
    browser.post("/email", new_email="new@example.org", current_password=PASSWORD)
    token = Mailbox(app).token()
    assert "robin@example.com" in words(browser.get("/profile"))

    reader = PageReader(app)
    reader.get("/verify-email")
    assert reader.post("/verify-email", token=token).status_code == 303

    assert "new@example.org" in words(browser.get("/profile"))


def test_a_forgotten_password_is_set_by_the_link_of_a_mail(
    app: Flask, reader: PageReader, make_user: MakeUser
) -> None:
    robin = make_user("robin")
    reader.get("/forgot-password")
    known = reader.post("/forgot-password", email="robin@example.com")
    unknown = reader.post("/forgot-password", email="nobody@example.com")
    assert words(known) == words(unknown)
    token = Mailbox(app).token()
    reader.get("/set-password")

    weak = reader.post("/set-password", token=token, new_password="password1")
    done = reader.post("/set-password", token=token, new_password=NEW_PASSWORD)
    again = reader.post("/set-password", token=token, new_password=NEW_PASSWORD)

    assert (weak.status_code, done.status_code, again.status_code) == (422, 303, 400)
    answer = reader.post("/sign-in", username=robin.username, password=NEW_PASSWORD)
    assert answer.status_code == 303


def test_users_can_download_their_data(sign_in: SignIn) -> None:
    answer = sign_in().get("/my-data/export")

    held = json.loads(answer.data)
    assert held["profile"]["username"] == "reader"
    assert {row["kind"] for row in held["sessions"]} == {"browser"}
    assert "attachment" in answer.headers["Content-Disposition"]


def test_users_can_delete_their_account_with_their_password(
    sign_in: SignIn, make_user: MakeUser, reader: PageReader
) -> None:
    robin = make_user("robin")
    browser = sign_in(robin)

    refused = browser.post("/my-data/delete", current_password="wrong-one-1")
    gone = browser.post("/my-data/delete", current_password=PASSWORD)

    assert (refused.status_code, gone.location) == (401, "/console/sign-in")
    assert reader.sign_in(robin).status_code == 401


@pytest.mark.parametrize(
    "pasted",
    [
        " {token}\n",
        "{base}/console/set-password#token={token}",
        "\u00a0<{base}/console/set-password#token={token}>",
        "https://links.example/?url=https%3A%2F%2Fid.example%2Fset-password%23token%3D{token}&x=1",
    ],
)
def test_a_whole_link_can_be_pasted_in_place_of_its_code(
    reader: PageReader, make_user: MakeUser, app: Flask, pasted: str
) -> None:
    """People copy the link of an invitation, and some mail programs wrap it in one of theirs."""
    robin = make_user("robin")
    reader.get("/forgot-password")
    reader.post("/forgot-password", email=f" {robin.email} ")
    code = pasted.format(base="http://127.0.0.1:8000", token=Mailbox(app).token())
    reader.get("/set-password")

    done = reader.post("/set-password", token=code, new_password=NEW_PASSWORD)

    assert done.status_code == 303
    answer = reader.post("/sign-in", username=" robin ", password=NEW_PASSWORD)
    assert answer.status_code == 303


def test_a_link_that_is_no_longer_good_is_refused_like_its_code(reader: PageReader) -> None:
    reader.get("/verify-email")

    answer = reader.post("/verify-email", token="https://id.example/console/x#token=" + "a" * 43)

    assert answer.status_code == 400
