"""Errors of pages are pages, never bare problem documents."""

from collections.abc import Callable

from flask import Flask
from redis import Redis

from tests.console.conftest import SignIn
from tests.support.deployments import Deployment
from tests.support.pages import PageReader, words
from tests.support.proxy import proxy_to, url_through
from tests.support.servers import RedisServer
from tests.support.users import LogIn, MakeUser

NAVIGATION = '<nav class="main"'


def test_a_page_that_is_not_there_leads_who_is_signed_in_to_all_others(
    reader: PageReader, sign_in: SignIn
) -> None:
    stranger, admin = reader.get("/nowhere"), sign_in(roles=("admin",)).get("/nowhere")

    assert (stranger.status_code, admin.status_code) == (404, 404)
    assert "Page not found" in words(stranger) and NAVIGATION not in stranger.text
    assert "Page not found" in words(admin) and NAVIGATION in admin.text


def test_a_page_that_one_may_not_see_names_the_permission(sign_in: SignIn) -> None:
    answer = sign_in(roles=("moderator",)).get("/audit")

    assert answer.status_code == 403 and NAVIGATION in answer.text
    assert "audit:read" in words(answer)


def test_a_rate_limited_page_says_when_to_retry(make_app: Callable[..., Flask]) -> None:
    app = make_app(RATE_LIMIT_ENABLED="true", RATE_LIMIT_DEFAULT="2/minute")
    reader = PageReader(app, ip_address="192.0.2.78")

    answer = [reader.get("/sign-in") for _ in range(3)][-1]

    assert (answer.status_code, answer.mimetype) == (429, "text/html")
    wait = answer.headers["Retry-After"]
    assert f"Try again in {wait} second" in words(answer)


def test_pages_report_an_outage_of_the_database(
    make_app: Callable[..., Flask], deployment: Deployment, make_user: MakeUser
) -> None:
    url = deployment.database.url
    with proxy_to(url) as proxy:
        app = make_app(DATABASE_URL=url_through(proxy, url))
        reader = PageReader(app)
        reader.sign_in(make_user("robin", roles=["admin"]))
        proxy.refuse()

        listed, signing_in = reader.get("/users"), PageReader(app).get("/sign-in")

        assert (listed.status_code, listed.mimetype) == (503, "text/html")
        assert f"Try again in {listed.headers['Retry-After']} seconds" in words(listed)
        assert signing_in.status_code == 200
        proxy.pass_on()
        assert reader.get("/users").status_code == 200


def test_pages_report_that_redis_rejects_writes(
    make_app: Callable[..., Flask],
    private_server: Callable[[type[RedisServer]], RedisServer],
    make_user: MakeUser,
) -> None:
    server = private_server(RedisServer)
    reader = PageReader(make_app(REDIS_URL=server.url))
    robin = make_user("robin")
    reader.get("/sign-in")
    with Redis.from_url(server.url) as redis:
        redis.config_set("maxmemory", "1")

    shown = PageReader(reader.browser.application).get("/sign-in")
    answer = reader.post("/sign-in", username="robin", password=robin.password)

    # Redis stores nothing about visitors.
    assert shown.status_code == 200
    assert (answer.status_code, answer.mimetype) == (503, "text/html")
    assert "Location" not in answer.headers
    assert "Try again in 2 seconds." in words(answer)


def test_an_error_of_a_filter_without_a_field_is_shown(sign_in: SignIn) -> None:
    answer = sign_in(roles=("admin",)).get("/users?page=100000&sort=shoe_size")

    assert answer.status_code == 422
    assert "sort:" in words(answer) and "Nothing was saved" not in words(answer)


def test_a_session_ended_elsewhere_is_explained(
    sign_in: SignIn, make_user: MakeUser, log_in: LogIn
) -> None:
    robin = make_user("robin")
    browser, api = sign_in(robin), log_in(robin)
    api.delete("/api/v1/auth/sessions")

    led = browser.get("/sessions")

    assert led.location == "/console/sign-in?onward=/console/sessions"
    assert "Your session has ended." in words(browser.follow(led))


def test_only_files_named_by_their_content_are_cached_forever(reader: PageReader) -> None:
    sheet = reader.get("/sign-in").text.split('rel="stylesheet" href="/console')[1].split('"')[0]

    lifetimes = []
    for path in (sheet, "/static/console.css?v=0", "/static/none.css?v=0"):
        with reader.get(path) as answer:
            lifetimes.append(answer.headers["Cache-Control"])

    assert lifetimes == ["public, max-age=31536000, immutable", "no-cache", "no-cache"]


def test_what_is_wrong_with_a_field_that_the_form_lacks_is_listed(sign_in: SignIn) -> None:
    """The page said that fields were marked, but showed the error nowhere."""
    reader = sign_in(roles=("admin",))
    reader.get("/users/new")

    page = reader.post(
        "/users/new", username="ada", email="ada@example.com", timezone="Middle/Earth"
    )

    assert page.status_code == 422
    assert "Nothing was saved. Time zone:" in words(page)


def test_errors_with_a_field_are_not_listed_again(sign_in: SignIn) -> None:
    reader = sign_in(roles=("admin",))
    reader.get("/users/new")

    page = reader.post("/users/new", username="a", email="ada@example.com")

    assert "<ul>" not in page.text.partition('role="alert"')[2].partition("</div>")[0]
    assert 'id="username-error"' in page.text
