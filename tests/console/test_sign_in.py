"""Signing in and out on pages, by the rules of the API."""

from collections.abc import Callable

import pytest
from flask import Flask

from tests.console.conftest import SignIn
from tests.support.client import JsonClient
from tests.support.mailbox import Mailbox
from tests.support.pages import CSRF, PageReader, words
from tests.support.servers import RedisServer
from tests.support.users import LogIn, MakeUser
from userapi.clock import ManualClock

pytestmark = pytest.mark.both_databases


def test_the_sign_in_returns_to_the_requested_page(reader: PageReader, make_user: MakeUser) -> None:
    robin = make_user("robin")

    asked = reader.get("/sessions")
    assert asked.status_code == 303
    assert asked.location == "/console/sign-in?onward=/console/sessions"
    reader.follow(asked)
    answer = reader.browser.post(
        asked.location,
        data={
            "csrf_token": reader.token,
            "username": robin.username,
            "password": robin.password,
        },
    )

    assert answer.location == "/console/sessions"
    assert "this one" in words(reader.follow(answer))


@pytest.mark.parametrize(
    "onward",
    [
        "https://evil.example/console/",
        "//evil.example/console/",
        "/\\evil.example/console/",
        "///console/profile",
        "/\t/console/profile",
        "/api/v1/users/",
        "javascript:alert(1)",
        "/console/../api",
    ],
)
def test_the_sign_in_never_redirects_to_another_host(
    reader: PageReader, make_user: MakeUser, onward: str
) -> None:
    robin = make_user("robin")
    reader.get("/sign-in")

    answer = reader.browser.post(
        "/console/sign-in",
        query_string={"onward": onward},
        data={"csrf_token": reader.token, "username": "robin", "password": robin.password},
    )

    assert (answer.status_code, answer.location) == (303, "/console/")


def test_a_wrong_password_and_an_unknown_name_get_the_same_page(
    reader: PageReader, make_user: MakeUser
) -> None:
    make_user("robin")
    reader.get("/sign-in")

    wrong = reader.post("/sign-in", username="robin", password="not-the-password-7")
    unknown = reader.post("/sign-in", username="nobody", password="not-the-password-7")

    assert wrong.status_code == unknown.status_code == 401
    assert words(wrong) == words(unknown)
    assert "The user name or password is incorrect." in words(wrong)


def test_failures_in_console_and_api_count_together(
    app: Flask, reader: PageReader, make_user: MakeUser
) -> None:
    robin = make_user("robin")
    api = JsonClient(app)
    reader.get("/sign-in")
    for _ in range(3):
        api.post("/api/v1/auth/login", json={"username": "robin", "password": "not-this-one-7"})
    for _ in range(2):
        reader.post("/sign-in", username="robin", password="not-this-one-7")

    answer = reader.post("/sign-in", username="robin", password=robin.password)

    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0


def test_the_cookie_has_every_guard_and_another_value_after_signing_in(
    reader: PageReader, make_user: MakeUser
) -> None:
    robin = make_user("robin")
    reader.get("/sign-in")
    before = reader.cookie

    answer = reader.post("/sign-in", username="robin", password=robin.password)

    headers = answer.headers.getlist("Set-Cookie")
    assert [header.partition("=")[0] for header in headers] == ["console", "console-visitor"]
    for header in headers:
        assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(header.split("; "))
        assert "Domain" not in header
    # No session can be fixated: none exists before the sign-in.
    assert before is None and reader.cookie
    before = reader.cookie
    reader.get("/profile")
    reader.post("/sign-in", username="robin", password=robin.password)
    assert reader.cookie != before
    planted = PageReader(reader.browser.application)
    planted.browser.set_cookie("console", before)
    assert planted.get("/profile").status_code == 303


def test_the_cookie_is_bound_to_host_and_https_where_there_is_https(
    make_app: Callable[..., Flask], make_user: MakeUser
) -> None:
    robin = make_user("robin")
    browser = make_app(PUBLIC_BASE_URL="https://users.example.com").test_client()

    shown = browser.get("/console/sign-in", base_url="https://localhost")
    token = CSRF.search(shown.text)
    assert token is not None
    form = {"csrf_token": token[1], "username": "robin", "password": robin.password}
    signed_in = browser.post("/console/sign-in", base_url="https://localhost", data=form)

    headers = shown.headers.getlist("Set-Cookie") + signed_in.headers.getlist("Set-Cookie")
    assert [header.partition("=")[0] for header in headers] == [
        "__Host-console-visitor",
        "__Host-console",
        "__Host-console-visitor",
    ]
    for header in headers:
        assert {"Secure", "HttpOnly", "Path=/"} <= set(header.split("; "))


def test_a_form_of_another_site_is_refused(reader: PageReader, make_user: MakeUser) -> None:
    robin = make_user("robin")
    reader.get("/sign-in")
    reader.token = "forged"

    answer = reader.post("/sign-in", username="robin", password=robin.password)

    assert (answer.status_code, answer.location) == (303, "/console/sign-in")
    assert reader.get("/profile").status_code == 303


def test_a_form_that_was_open_for_too_long_still_leads_onward(reader: PageReader) -> None:
    answer = reader.browser.post("/console/sign-in?onward=/console/sessions", data={})

    assert answer.location == "/console/sign-in?onward=/console/sessions"
    assert "open for too long" in words(reader.follow(answer))


def test_signing_in_again_ends_the_former_session_of_the_browser(
    app: Flask, make_user: MakeUser, log_in: LogIn
) -> None:
    robin = make_user("robin")
    reader = PageReader(app)
    for _ in range(2):
        reader.get("/forgot-password")
        reader.post("/sign-in", username="robin", password=robin.password)

    items = log_in(robin).get("/api/v1/auth/sessions").get_json()["items"]

    assert len(items) == 2


def test_the_session_is_listed_and_its_end_ends_the_browser(
    sign_in: SignIn, make_user: MakeUser, log_in: LogIn
) -> None:
    robin = make_user("robin")
    browser, api = sign_in(robin), log_in(robin)
    sessions = api.get("/api/v1/auth/sessions").get_json()["items"]
    (other,) = [item for item in sessions if not item["current"]]
    assert browser.get("/profile").status_code == 200

    assert api.delete(f"/api/v1/auth/sessions/{other['id']}").status_code == 204

    assert browser.get("/profile").location.startswith("/console/sign-in")


def test_a_suspension_counts_from_the_next_page_on(
    sign_in: SignIn, make_user: MakeUser, log_in: LogIn
) -> None:
    robin, boss = make_user("robin"), make_user("boss", roles=["admin"])
    browser = sign_in(robin)

    log_in(boss).post(f"/api/v1/users/{robin.id}/suspend", json={"reason": "trial"})

    assert browser.get("/profile").location.startswith("/console/sign-in")


def test_signing_out_ends_the_session_in_the_database(
    sign_in: SignIn, make_user: MakeUser, log_in: LogIn
) -> None:
    robin = make_user("robin")
    browser = sign_in(robin)
    stolen = PageReader(browser.browser.application)
    stolen.browser.set_cookie("console", browser.cookie or "")
    assert stolen.get("/profile").status_code == 200

    assert browser.follow(browser.post("/sign-out")).status_code == 200

    assert stolen.get("/profile").status_code == 303
    items = log_in(robin).get("/api/v1/auth/sessions").get_json()["items"]
    assert len(items) == 1


def test_a_browser_that_is_used_stays_signed_in_to_the_absolute_end(
    sign_in: SignIn, make_user: MakeUser, app: Flask, clock: ManualClock
) -> None:
    browser = PageReader(app)
    browser.sign_in(make_user("robin"), remember_me="on")
    for _ in range(5):
        clock.advance(days=5)
        assert browser.get("/profile").status_code == 200

    clock.advance(days=5, minutes=1)

    assert browser.get("/profile").status_code == 303


def test_an_idle_session_ends(app: Flask, make_user: MakeUser, clock: ManualClock) -> None:
    browser = PageReader(app)
    browser.sign_in(make_user("robin"), remember_me="on")

    clock.advance(days=7, minutes=1)

    assert browser.get("/profile").status_code == 303


def test_who_must_change_the_password_can_do_nothing_else(
    sign_in: SignIn, make_user: MakeUser
) -> None:
    browser = sign_in(make_user("robin", must_change_password=True))

    led = browser.get("/sessions")

    assert led.location == "/console/password"
    assert 'href="/console/sessions"' not in browser.follow(led).text
    changed = browser.post(
        "/password",
        current_password="heron-marble-94-lantern",
        new_password="granite-otter-57-teapot",
    )
    assert changed.status_code == 303
    assert browser.get("/sessions").status_code == 200


def test_signing_in_is_limited_by_address_like_the_api(
    make_app: Callable[..., Flask], make_user: MakeUser
) -> None:
    app = make_app(RATE_LIMIT_ENABLED="true", RATE_LIMIT_LOGIN="2/minute")
    reader = PageReader(app, ip_address="192.0.2.77")
    reader.get("/sign-in")

    answers = [reader.post("/sign-in", username="robin", password="wrong-one-1") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [401, 401, 429]


def test_the_console_can_be_disabled(make_app: Callable[..., Flask]) -> None:
    app = make_app(CONSOLE_ENABLED="false")

    assert app.test_client().get("/console/sign-in").status_code == 404
    assert "console" not in JsonClient(app).get("/").get_json()


def test_pages_report_that_sessions_cannot_be_read(
    make_app: Callable[..., Flask],
    make_user: MakeUser,
    private_server: Callable[[type[RedisServer]], RedisServer],
) -> None:
    server = private_server(RedisServer)
    app = make_app(REDIS_URL=server.url)
    robin = make_user("robin")
    reader = PageReader(app)
    reader.sign_in(robin)
    server.stop()

    answer = reader.get("/profile")

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert "Browser sessions are temporarily unavailable. Try again." in words(answer)
    login = {"username": robin.username, "password": robin.password}
    assert JsonClient(app).post("/api/v1/auth/login", json=login).status_code == 200


def test_every_page_has_the_headers_that_guard_it(sign_in: SignIn) -> None:
    headers = sign_in(roles=("admin",)).get("/profile").headers

    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Frame-Options"] == "DENY"
    assert "Cookie" in headers["Vary"]


def test_the_api_ignores_cookies(sign_in: SignIn) -> None:
    browser = sign_in(roles=("admin",))

    answer = browser.browser.get("/api/v1/users/")

    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers


def test_signing_up_makes_an_account_and_refuses_at_the_field(
    reader: PageReader, make_user: MakeUser
) -> None:
    make_user("robin")
    reader.get("/sign-up")
    new = {"email": "ada@example.com", "password": "granite-otter-57-teapot"}

    taken = reader.post("/sign-up", username="robin", **new)
    weak = reader.post("/sign-up", username="ada", email="ada@example.com", password="password1")
    made = reader.post("/sign-up", username="ada", first_name="", **new)

    assert taken.status_code == 409 and "taken" in words(taken)
    assert weak.status_code == 422 and 'id="password-error"' in weak.text
    assert made.location == "/console/sign-in"
    answer = reader.post("/sign-in", username="ada", password="granite-otter-57-teapot")
    assert answer.status_code == 303


def test_a_registration_with_an_address_in_use_looks_like_any_other(
    make_app: Callable[..., Flask], make_user: MakeUser
) -> None:
    make_user("robin")
    app = make_app(FEATURE_EMAIL_VERIFICATION="true")
    reader = PageReader(app)
    reader.get("/sign-up")
    password = "granite-otter-57-teapot"
    ada = {"username": "ada", "password": password}

    taken = reader.post("/sign-up", **{**ada, "username": "bea"}, email="robin@example.com")
    made = reader.post("/sign-up", **ada, email="ada@example.com")
    assert (taken.status_code, words(taken)) == (made.status_code, words(made))
    assert "Check your mail" in words(made)
    reader.get("/sign-in")
    assert reader.post("/sign-in", **ada).status_code == 403

    reader.get("/verify-email")
    confirmed = reader.post("/verify-email", token=Mailbox(app).token())
    assert "Your e-mail address was confirmed." in words(reader.follow(confirmed))
    assert reader.post("/sign-in", **ada).status_code == 303


def test_signing_up_is_closed_where_registration_is(make_app: Callable[..., Flask]) -> None:
    reader = PageReader(make_app(FEATURE_USER_REGISTRATION="false"))

    assert reader.get("/sign-up").status_code == 403
    assert "Sign up" not in words(reader.get("/sign-in"))
