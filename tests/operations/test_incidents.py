"""Incidents: the commands of the guide have the documented effect."""

import http.cookiejar
import time
import urllib.parse
import urllib.request
from html import unescape

import jwt
import pytest

from tests.operations.stage import Stage
from tests.support.gunicorn import add_administrator
from tests.support.pages import CSRF
from tests.support.service_clients import PASSWORD, ask, log_in

OTHER_PEPPER = "another-pepper-after-the-change-6Wq8Zn2Xc5"
NEW_SECRET_KEY = "a-new-secret-after-the-change-7Gs2Lp9Qx4"
NEW_ENCRYPTION_KEY = "another-encryption-key-8Kd02mNq5vXz7Tb1"


@pytest.mark.slow
def test_a_stolen_signing_key_is_worth_nothing_two_seconds_later(stage: Stage) -> None:
    stage.environment["JWT_ALGORITHM"] = "ES256"
    assert stage.service.flask("keys", "generate").returncode == 0
    stage.service.start()
    add_administrator(stage.service, PASSWORD)
    token = log_in(stage.service.base_url, "admin").access_token
    stolen = jwt.get_unverified_header(token)["kid"]
    accepted = [
        ask(stage.service.base_url, "GET", "/api/v1/auth/me", token=token)[0] for _ in range(10)
    ]

    stage.run("A stolen signing key", KID=stolen)
    time.sleep(2)

    answers = [
        ask(stage.service.base_url, "GET", "/api/v1/auth/me", token=token) for _ in range(10)
    ]
    assert accepted == [200] * 10
    assert {(status, body["code"]) for status, body in answers} == {(401, "token_invalid")}
    assert me(stage, log_in(stage.service.base_url, "admin").access_token)[0] == 200


def test_a_leaked_api_key_is_rejected_at_the_next_request(stage: Stage) -> None:
    stage.service.start()
    add_administrator(stage.service, PASSWORD)
    root = log_in(stage.service.base_url, "admin").access_token
    robot = {"name": "robot", "roles": ["moderator"]}
    accounts = "/api/v1/service-accounts/"
    account = ask(stage.service.base_url, "POST", accounts, token=root, body=robot)[1]
    keys = f"{accounts}{account['id']}/api-keys/"
    key = ask(stage.service.base_url, "POST", keys, token=root, body={"name": "production"})[1]
    before = [
        ask(stage.service.base_url, "GET", "/api/v1/users/", token=key["key"]) for _ in range(10)
    ]

    stage.run("A leaked API key", KEY_ID=key["id"])

    after = [
        ask(stage.service.base_url, "GET", "/api/v1/users/", token=key["key"]) for _ in range(10)
    ]
    assert {status for status, _ in before} == {200}
    assert {(status, body["code"]) for status, body in after} == {(401, "token_revoked")}


@pytest.mark.thorough
def test_everybody_is_out(stage: Stage) -> None:
    stage.service.start()
    add_administrator(stage.service, PASSWORD)
    tokens = [log_in(stage.service.base_url, "admin").access_token for _ in range(3)]
    browser = _sign_in(stage)
    assert {me(stage, token)[0] for token in tokens} == {200}
    assert _page(stage, browser).endswith("/console/sessions")

    output = stage.run("Ending every session")

    assert "4 sessions have ended." in output
    assert {me(stage, token) for token in tokens} == {(401, "token_revoked")}
    assert "/sign-in" in _page(stage, browser)
    assert me(stage, log_in(stage.service.base_url, "admin").access_token)[0] == 200


@pytest.mark.slow
def test_a_changed_secret_ends_cookies_and_the_command_the_rest(stage: Stage) -> None:
    stage.service.start()
    add_administrator(stage.service, PASSWORD)
    token = log_in(stage.service.base_url, "admin").access_token
    browser = _sign_in(stage)

    stage.restart(SECRET_KEY=NEW_SECRET_KEY)
    page = _page(stage, browser)
    before = me(stage, token)
    stage.run("A changed SECRET_KEY")

    assert "/sign-in" in page
    assert before == (200, None)
    assert me(stage, token) == (401, "token_revoked")


def me(stage: Stage, token: str) -> tuple[int, str | None]:
    """Return status and code of who asks for their own account."""
    status, body = ask(stage.service.base_url, "GET", "/api/v1/auth/me", token=token)
    return status, body.get("code")


def _page(stage: Stage, browser: urllib.request.OpenerDirector) -> str:
    """Return where a browser ends up that opens a page of the console."""
    with browser.open(stage.service.base_url + "/console/sessions") as answer:
        return str(answer.url)


def _sign_in(stage: Stage) -> urllib.request.OpenerDirector:
    """Sign in to the console, and return the browser that keeps the cookie."""
    browser = urllib.request.build_opener(
        urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    )
    address = stage.service.base_url + "/console/sign-in"
    with browser.open(address) as form:
        found = CSRF.search(form.read().decode())
    assert found
    fields = {"csrf_token": unescape(found[1]), "username": "admin", "password": PASSWORD}
    with browser.open(address, urllib.parse.urlencode(fields).encode()) as answer:
        assert answer.status == 200
        assert "/sign-in" not in answer.url
    return browser


@pytest.mark.slow
def test_a_wrong_pepper_is_noticed_and_set_right(stage: Stage) -> None:
    right = stage.environment["PASSWORD_PEPPER"]
    stage.service.start()
    add_administrator(stage.service, PASSWORD)
    stage.restart(PASSWORD_PEPPER=OTHER_PEPPER)
    ready, body = ask(stage.service.base_url, "GET", "/api/v1/health/ready")
    credentials = {"username": "admin", "password": PASSWORD}
    answers = [
        ask(stage.service.base_url, "POST", "/api/v1/auth/login", credentials)[0] for _ in range(7)
    ]
    assert (ready, body["checks"]["password_pepper"]) == (503, "unknown")
    assert answers == [503] * 7

    stage.restart(PASSWORD_PEPPER=right)
    stage.run("A wrong PASSWORD_PEPPER")

    assert ask(stage.service.base_url, "GET", "/api/v1/health/ready")[0] == 200
    assert me(stage, log_in(stage.service.base_url, "admin").access_token)[0] == 200


@pytest.mark.slow
def test_a_seal_key_that_is_found_again_verifies(stage: Stage) -> None:
    former = _sealed_and_then_changed(stage)
    stage.restart(ENCRYPTION_KEY_PREVIOUS=former)

    output = stage.run("A lost seal key")

    assert "The audit log verifies." in output


@pytest.mark.slow
def test_a_lost_seal_key_is_given_up_on_the_record(stage: Stage) -> None:
    _sealed_and_then_changed(stage)

    output = stage.run("A lost seal key", 2, REASON="The machine with the key burnt down")

    assert "UTC: The machine with the key burnt down" in output
    assert "The audit log verifies." in output


def _sealed_and_then_changed(stage: Stage) -> str:
    """Seal some rows, change the key they were sealed with and return the former one."""
    former = stage.environment["ENCRYPTION_KEY"]
    stage.service.start()
    add_administrator(stage.service, PASSWORD)
    assert stage.service.flask("audit", "seal").returncode == 0
    stage.restart(ENCRYPTION_KEY=NEW_ENCRYPTION_KEY)
    refused = stage.service.flask("audit", "verify")
    assert refused.returncode == 1
    assert "sealed with a key that is not here" in refused.stdout
    assert stage.service.flask("doctor").returncode != 0
    return former
