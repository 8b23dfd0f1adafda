"""Anonymous visitors: the console stores their data only in their cookie."""

import io
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from flask import Flask

from tests.support.pages import PageReader, words
from tests.support.users import MakeUser

SOMEBODY = "01890000-0000-7000-8000-000000000000"
FORM = "application/x-www-form-urlencoded"
ONE_SECOND = timedelta(seconds=1)
PAGES = ("/sign-in", "/sign-up", "/forgot-password", "/set-password", "/verify-email", "/nothing")
FORMS = ("/sign-in", "/sign-up", "/forgot-password", "/set-password", "/sign-out", "/email")


@pytest.mark.thorough
def test_a_thousand_anonymous_requests_leave_nothing_in_redis(
    make_app: Callable[..., Flask], redis_url: str
) -> None:
    app = make_app(RATE_LIMIT_ENABLED="true", RATE_LIMIT_DEFAULT="1000000/minute")
    store = redis.Redis.from_url(redis_url)
    before = {key for key in store.keys() if b":rate:" not in key}
    client = app.test_client(use_cookies=False)

    for number in range(500):
        client.get(f"/console{PAGES[number % len(PAGES)]}")
        client.post(
            f"/console{FORMS[number % len(FORMS)]}",
            data={"username": "robin"},
            headers={"Cookie": f"console=made-up-{number}; console-visitor=made-up"},
        )

    assert {key for key in store.keys() if b":rate:" not in key} == before
    # One counter for each limit, not for each request.
    assert len(store.keys()) - len(before) < 10


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_anonymous_requests_leave_no_file(app: Flask) -> None:
    folder: Path = app.extensions["userapi"].settings.instance_dir / "console"
    client = app.test_client(use_cookies=False)
    before = sorted(folder.iterdir())

    for number in range(60):
        client.get(f"/console{PAGES[number % len(PAGES)]}")
        client.post(f"/console{FORMS[number % len(FORMS)]}", data={"username": "robin"})

    assert sorted(folder.iterdir()) == before


def test_a_form_without_a_token_of_its_own_visitor_is_refused(
    app: Flask, make_user: MakeUser
) -> None:
    robin = make_user("robin")
    mine, theirs = PageReader(app), PageReader(app)
    mine.get("/sign-in")
    theirs.get("/sign-in")
    form = {"username": robin.username, "password": robin.password}

    foreign = mine.post("/sign-in", **form, csrf_token=theirs.token)
    without = mine.post("/sign-in", **form, csrf_token="")

    for refused in (foreign, without):
        assert refused.location == "/console/sign-in"
        assert mine.get("/profile").location == "/console/sign-in?onward=/console/profile"
    assert "Nothing was changed" in words(mine.follow(refused))


def test_a_modified_visitor_cookie_is_ignored(app: Flask) -> None:
    reader = PageReader(app)
    reader.get("/sign-in")
    cookie = reader.browser.get_cookie("console-visitor")
    assert cookie is not None
    reader.browser.set_cookie("console-visitor", cookie.value[:-2] + "xx")

    refused = reader.post("/sign-in", username="robin", password="x")

    assert refused.status_code == 303
    assert "Nothing was changed" in words(reader.follow(refused))


def test_signing_in_and_out_leaves_no_session_in_the_store(
    app: Flask, make_user: MakeUser, redis_url: str
) -> None:
    store = redis.Redis.from_url(redis_url)
    reader = PageReader(app)

    reader.sign_in(make_user("robin"))
    signed_in = store.keys("browser:*")
    reader.get("/profile")
    answer = reader.post("/sign-out")

    assert len(signed_in) == 1
    assert store.keys("browser:*") == []
    assert reader.cookie is None
    assert "You are signed out." in words(reader.follow(answer))
    assert reader.browser.get_cookie("console-visitor") is not None


def test_a_visitors_cookie_is_replaced_by_a_sign_in(app: Flask, make_user: MakeUser) -> None:
    reader = PageReader(app)
    reader.get("/sign-in")
    assert reader.browser.get_cookie("console-visitor") is not None

    reader.sign_in(make_user("robin"))

    assert reader.browser.get_cookie("console-visitor") is None
    assert reader.get("/profile").status_code == 200


def test_a_visitors_cookie_ages(
    app: Flask, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    robin = make_user("robin")
    reader = PageReader(app)
    reader.get("/sign-in")
    monkeypatch.setattr("userapi.console.cookies.VISITOR_LIFETIME", -1 * ONE_SECOND)

    refused = reader.post("/sign-in", username=robin.username, password=robin.password)

    assert refused.location == "/console/sign-in"


def test_messages_for_a_visitor_do_not_pile_up(app: Flask) -> None:
    reader = PageReader(app)

    for _ in range(50):
        reader.post("/sign-in", username="robin", password="x")

    cookie = reader.browser.get_cookie("console-visitor")
    assert cookie is not None and len(cookie.value) < 2000


@pytest.mark.parametrize("role", ["user", "admin"])
def test_every_form_needs_a_token_and_is_read_after_the_authentication(
    app: Flask, make_user: MakeUser, role: str
) -> None:
    reader = PageReader(app)
    reader.sign_in(make_user("robin", roles=(role,)))
    guarded = {
        re.sub("<uuid:[a-z_]+>", SOMEBODY, rule.rule): _access(app, rule.endpoint)
        for rule in app.url_map.iter_rules()
        if rule.endpoint.startswith("console.") and "POST" in (rule.methods or ())
    }
    assert len(guarded) > 15

    for path, access in guarded.items():
        reader.token = ""
        answer = reader.post(path.removeprefix("/console"))
        assert answer.status_code in (303, 403), path
        if answer.status_code == 303:
            assert "Nothing was changed" in words(reader.follow(answer)), path

        if access != "public":
            body = UnreadBody()
            stranger = app.test_client(use_cookies=False)
            form = {"wsgi.input": body, "CONTENT_LENGTH": "9", "CONTENT_TYPE": FORM}
            asked = stranger.post(path, environ_overrides=form)
            assert (asked.status_code, body.was_read) == (303, False), path


def test_every_form_is_limited_to_64_kib_and_must_be_complete(
    app: Flask, make_user: MakeUser
) -> None:
    reader = PageReader(app)
    reader.sign_in(make_user("boss", roles=("superadmin",)))
    pages = {
        re.sub("<uuid:[a-z_]+>", SOMEBODY, rule.rule)
        for rule in app.url_map.iter_rules()
        if rule.endpoint.startswith("console.") and "POST" in (rule.methods or ())
    } - {"/console/users/import"}
    multipart = b'--b\r\nContent-Disposition: form-data; name="a"; filename="f"\r\n\r\n'
    chunked = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}

    for path in pages:
        for content_type, begin in ((FORM, b"a="), ("multipart/form-data; boundary=b", multipart)):
            body = io.BytesIO(begin + b"x" * 70_000)
            sent = reader.browser.post(
                path, input_stream=body, content_type=content_type, environ_overrides=chunked
            )
            assert sent.status_code == 413, path
        cut = {"CONTENT_LENGTH": "999", "wsgi.input_terminated": True}
        for content_type in (FORM, "text/plain"):  # A script sends the token in a header.
            body = io.BytesIO(f"csrf_token={reader.token}".encode())
            broken = reader.browser.post(
                path,
                headers={"X-CSRFToken": reader.token, "Content-Type": content_type},
                environ_overrides={"wsgi.input": body, **cut},
            )
            assert broken.status_code == 400, path


def _access(app: Flask, endpoint: str) -> str:
    return str(vars(app.view_functions[endpoint])["access"])


class UnreadBody(io.RawIOBase):
    """A body that records whether it is read."""

    was_read = False

    def readable(self) -> bool:
        """Return True: the body can be read."""
        return True

    def readinto(self, _buffer: object) -> int:
        """Record the call and return the end of the body."""
        self.was_read = True
        return 0
