"""Signing in with a second factor on pages, and what users do with their own factors."""

import re
from collections.abc import Callable

import pytest
from flask import Flask

from tests.support.facts import audit_rows
from tests.support.pages import PageReader, words
from tests.support.second_factors import App, add_app, begin_step, code_of, wrong_code
from tests.support.users import LogIn, MadeUser, MakeUser
from userapi.clock import ManualClock

pytestmark = pytest.mark.both_databases
SECOND_STEP = "/sign-in/second-step"


@pytest.fixture
def robin(make_user: MakeUser) -> MadeUser:
    return make_user("robin")


@pytest.fixture
def phone(robin: MadeUser, log_in: LogIn, clock: ManualClock) -> App:
    """Return an app of Robin, at the beginning of a step whose code is unused."""
    added = add_app(log_in(robin), clock)
    begin_step(clock)
    return added


def first_step(reader: PageReader, user: MadeUser, onward: str = "") -> None:
    reader.get("/sign-in")
    answer = reader.post(
        f"/sign-in{onward}", username=user.username, password=user.password, remember_me="true"
    )
    assert answer.status_code == 303
    assert answer.location == f"/console{SECOND_STEP}{onward}"
    reader.get(f"{SECOND_STEP}{onward}")


def test_a_code_completes_the_sign_in_and_leads_on(
    reader: PageReader, robin: MadeUser, phone: App
) -> None:
    first_step(reader, robin, "?onward=/console/sessions")
    pending = reader.cookie

    answer = reader.post(f"{SECOND_STEP}?onward=/console/sessions", code=phone.code())

    assert answer.location == "/console/sessions"
    assert "this one" in words(reader.follow(answer))
    assert reader.cookie != pending


def test_the_token_of_the_sign_in_is_in_no_page_cookie_or_url(
    reader: PageReader, robin: MadeUser, phone: App
) -> None:
    """The cookie of visitors is signed, but everybody can read it."""
    reader.get("/sign-in")
    before = reader.browser.get_cookie("console-visitor")
    assert before is not None

    answer = reader.post("/sign-in", username=robin.username, password=robin.password)

    cookies = {
        header.partition("=")[0]: header.partition("=")[2].partition(";")[0]
        for header in answer.headers.getlist("Set-Cookie")
    }
    assert cookies["console-visitor"] == ""
    assert re.fullmatch(r"[\w-]{43}", cookies["console"])
    assert "mfa_token" not in answer.text + answer.location


def test_a_password_alone_opens_no_page(reader: PageReader, robin: MadeUser, phone: App) -> None:
    first_step(reader, robin)

    answer = reader.get("/profile")

    assert answer.location.startswith("/console/sign-in?")


def test_a_wrong_code_says_how_many_tries_are_left(
    reader: PageReader, robin: MadeUser, phone: App, clock: ManualClock
) -> None:
    first_step(reader, robin)
    wrong = wrong_code(phone.secret, clock)

    answers = [reader.post(SECOND_STEP, code=wrong) for _ in range(5)]

    assert [answer.status_code for answer in answers] == [401, 401, 401, 401, 303]
    assert "4 tries are left" in words(answers[0])
    assert answers[4].location == "/console/sign-in"
    assert "Start again with your password" in words(reader.follow(answers[4]))


def test_a_recovery_code_signs_in_and_says_how_many_are_left(
    reader: PageReader, robin: MadeUser, phone: App
) -> None:
    first_step(reader, robin)

    answer = reader.follow(reader.post(SECOND_STEP, code=phone.recovery_codes[0]))

    assert "9 are left" in words(answer)


def test_the_page_without_a_password_leads_to_the_sign_in(reader: PageReader) -> None:
    assert reader.get(SECOND_STEP).location == "/console/sign-in"


def test_few_recovery_codes_are_on_every_page(
    app: Flask, robin: MadeUser, phone: App, clock: ManualClock
) -> None:
    for code in phone.recovery_codes[:6]:
        reader = PageReader(app)
        first_step(reader, robin)
        assert reader.post(SECOND_STEP, code=code).status_code == 303
    four_left = words(reader.get("/profile"))
    reader = PageReader(app)
    first_step(reader, robin)
    reader.post(SECOND_STEP, code=phone.recovery_codes[6])

    reader.get("/security")

    assert "recovery codes are left" not in four_left
    assert "3 recovery codes are left. Create new ones" in words(reader.get("/profile"))


def add_by_pages(reader: PageReader, clock: ManualClock) -> tuple[str, str]:
    """Add an app, and return its secret and the page that follows."""
    reader.get("/security")
    shown = reader.post("/security/apps", name="Phone")
    assert shown.status_code == 200, shown.text
    [secret] = re.findall(r'data-copy="([A-Z2-7]{32})"', shown.text)
    [action] = re.findall(r'action="/console(/security/apps/[^"]+/confirm)"', shown.text)
    return secret, words(reader.post(action, code=code_of(secret, clock)))


def test_an_app_is_added_and_its_recovery_codes_are_shown_once(
    app: Flask, reader: PageReader, robin: MadeUser, clock: ManualClock
) -> None:
    reader.sign_in(robin)

    _, page = add_by_pages(reader, clock)

    codes = re.findall(r"\b[0-9a-z]{4}(?:-[0-9a-z]{4}){3}\b", page)
    assert len(set(codes)) == 10
    listed = words(reader.get("/security"))
    assert "Phone authenticator app" in listed
    assert "10 recovery codes are left" in listed
    assert codes[0] not in listed
    assert len(audit_rows(app, action="mfa.factor_added")) == 1


def test_a_wrong_code_adds_no_app_and_asks_again(
    reader: PageReader, robin: MadeUser, clock: ManualClock
) -> None:
    reader.sign_in(robin)
    reader.get("/security")
    shown = reader.post("/security/apps")
    [secret] = re.findall(r'data-copy="([A-Z2-7]{32})"', shown.text)
    [action] = re.findall(r'action="/console(/security/apps/[^"]+/confirm)"', shown.text)

    refused = reader.post(action, code=wrong_code(secret, clock))
    accepted = reader.post(action, code=code_of(secret, clock))

    assert refused.status_code == 401
    assert "Wait for the next code" in words(refused)
    assert "Recovery codes" in words(accepted)


@pytest.mark.parametrize("code", ["wrong", ""])
def test_after_a_wrong_code_the_same_secret_is_shown_again(
    reader: PageReader, robin: MadeUser, code: str
) -> None:
    """The page had no QR code any more, and users who had not scanned it had to start again."""
    reader.sign_in(robin)
    reader.get("/security")
    shown = reader.post("/security/apps").text

    action = re.findall(r'action="/console(/security/apps/[^"]+/confirm)"', shown)[0]
    again = reader.post(action, code=code).text

    pictures = [re.findall(r'<div class="qr".*?</div>', text, re.DOTALL) for text in (shown, again)]
    secrets = [re.findall(r'data-copy="([A-Z2-7]{32})"', text) for text in (shown, again)]
    assert pictures[0] == pictures[1] != []
    assert secrets[0] == secrets[1] != []


def test_a_session_that_is_no_longer_fresh_sees_the_secret_no_more(
    reader: PageReader, make_app: Callable[..., Flask], robin: MadeUser, clock: ManualClock
) -> None:
    """Otherwise a stale session could add another person's app."""
    reader = PageReader(make_app(STEP_UP_MAX_AGE_SECONDS="300"))
    reader.sign_in(robin)
    reader.get("/security")
    shown = reader.post("/security/apps").text
    [secret] = re.findall(r'data-copy="([A-Z2-7]{32})"', shown)
    [action] = re.findall(r'action="/console(/security/apps/[^"]+/confirm)"', shown)
    clock.advance(seconds=301)

    refused = reader.post(action, code="wrong")
    accepted = reader.post(action, code=code_of(secret, clock))

    assert refused.status_code == 401
    assert secret not in refused.text
    assert 'class="qr"' not in refused.text
    assert "Recovery codes" in words(accepted)


def test_an_app_that_has_expired_leads_back_to_the_factors(
    reader: PageReader, robin: MadeUser, clock: ManualClock
) -> None:
    reader.sign_in(robin)
    reader.get("/security")
    shown = reader.post("/security/apps").text
    [action] = re.findall(r'action="/console(/security/apps/[^"]+/confirm)"', shown)
    clock.advance(seconds=601)

    answer = reader.post(action, code="wrong")

    assert answer.location == "/console/security"
    assert "No second factor yet" in words(reader.follow(answer))


def test_factors_are_renamed_and_removed(
    reader: PageReader, robin: MadeUser, clock: ManualClock
) -> None:
    reader.sign_in(robin)
    add_by_pages(reader, clock)
    page = reader.get("/security")
    [path] = set(re.findall(r'action="/console(/security/factors/[^"/]+)/rename"', page.text))

    reader.post(f"{path}/rename", name="Work phone")
    renamed = words(reader.get("/security"))
    removed = words(reader.follow(reader.post(f"{path}/remove")))

    assert "Work phone" in renamed
    assert "No second factor yet" in removed


def test_what_needs_a_fresh_session_leads_to_the_confirmation_and_back(
    reader: PageReader, robin: MadeUser, phone: App, clock: ManualClock
) -> None:
    first_step(reader, robin)
    reader.post(SECOND_STEP, code=phone.code())
    clock.advance(seconds=901)
    reader.get("/security")

    refused = reader.post("/security/recovery-codes")
    asked = reader.follow(refused)
    begin_step(clock)
    confirmed = reader.post("/confirm?onward=/console/security", code=phone.code())
    reader.follow(confirmed)
    repeated = words(reader.post("/security/recovery-codes"))

    assert refused.location == "/console/confirm?onward=/console/security"
    assert "Nothing was changed yet" in words(asked)
    assert confirmed.location == "/console/security"
    assert "Keep these codes" in repeated


def test_a_reload_replaces_no_recovery_codes(
    reader: PageReader, robin: MadeUser, clock: ManualClock
) -> None:
    reader.sign_in(robin)
    add_by_pages(reader, clock)
    found = re.search(r'name="form_number" value="([^"]+)"', reader.get("/security").text)
    assert found

    first = reader.post("/security/recovery-codes", form_number=found[1])
    again = reader.post("/security/recovery-codes", form_number=found[1])

    assert "Keep these codes" in words(first)
    assert again.location == "/console/security"
    assert "This form was already sent." in words(reader.follow(again))


def test_without_a_factor_the_password_confirms(
    reader: PageReader, robin: MadeUser, clock: ManualClock
) -> None:
    reader.sign_in(robin)
    clock.advance(seconds=901)
    reader.get("/confirm?onward=/console/security")

    wrong = reader.post("/confirm?onward=/console/security", password="x" * 20)
    right = reader.post("/confirm?onward=/console/security", password=robin.password)

    assert wrong.status_code == 401
    assert right.location == "/console/security"
    assert reader.get("/security").status_code == 200


@pytest.mark.parametrize("onward", ["https://evil.example/", "//evil.example", "/api/v1/users/"])
def test_the_confirmation_leads_to_pages_of_the_console_only(
    reader: PageReader, robin: MadeUser, onward: str
) -> None:
    reader.sign_in(robin)
    reader.get("/confirm")
    answer = reader.browser.post(
        "/console/confirm",
        query_string={"onward": onward},
        data={"csrf_token": reader.token, "password": robin.password},
    )

    assert answer.location == "/console/security"


def test_a_role_that_demands_a_factor_leads_every_page_to_adding_one(
    make_app: Callable[..., Flask], make_user: MakeUser, clock: ManualClock
) -> None:
    reader = PageReader(make_app(MFA_REQUIRED_ROLES="admin"))
    reader.sign_in(make_user("ada", roles=["admin"]))

    led = [reader.get(path).location for path in ("/users", "/profile", "/dashboard", "/sessions")]
    page = words(reader.get("/security"))
    add_by_pages(reader, clock)

    assert led == ["/console/security"] * 4
    assert "Your role requires a second factor" in page
    assert reader.get("/users").status_code == 200


def test_an_administrator_sees_and_resets_the_factors_of_a_user(
    app: Flask, make_user: MakeUser, robin: MadeUser, phone: App
) -> None:
    reader = PageReader(app)
    reader.sign_in(make_user("boss", roles=["superadmin"]))
    shown = words(reader.get(f"/users/{robin.id}/security"))

    asked = words(reader.get(f"/users/{robin.id}/reset-mfa"))
    answer = reader.follow(reader.post(f"/users/{robin.id}/reset-mfa"))

    assert "authenticator app" in shown
    assert "Remove all second factors of robin?" in asked
    assert "The second factors were removed" in words(answer)
    assert "No second factor" in words(reader.get(f"/users/{robin.id}/security"))
    assert len(audit_rows(app, action="mfa.reset")) == 1


def test_the_list_filters_by_second_factor_and_the_dashboard_counts(
    app: Flask, make_user: MakeUser, robin: MadeUser, phone: App
) -> None:
    reader = PageReader(app)
    reader.sign_in(make_user("boss", roles=["superadmin"]))

    with_one = reader.get("/users?mfa_enabled=true")
    without = reader.get("/users?mfa_enabled=false")

    assert "robin" in words(with_one) and "boss@" not in words(with_one)
    assert "robin@" not in words(without)
    assert "1 with a second factor (50%)" in words(reader.get("/dashboard"))


def test_another_sign_in_ends_the_session_that_the_browser_had(
    reader: PageReader, make_user: MakeUser, log_in: LogIn, robin: MadeUser, phone: App
) -> None:
    wren = make_user("wren")
    reader.sign_in(wren)

    reader.post("/sign-in", username=robin.username, password=robin.password)

    own = log_in(wren).get("/api/v1/auth/sessions").get_json()["items"]
    assert [session["current"] for session in own] == [True]
