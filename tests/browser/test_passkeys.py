"""Passkeys of a real browser: Chromium reads the options, and the service its responses."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.conftest import PASSWORD, LocalSite, Site
from tests.support.browser import Browser
from tests.support.gunicorn import GunicornService, add_administrator
from tests.support.passkeys import ADD, SIGN_IN, STEP_UP

CREATE = """
const [options, done] = arguments;
const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options);
navigator.credentials.create({ publicKey })
  .then((created) => done(created.toJSON()), (error) => done({ error: String(error) }));
"""
GET = """
const [options, done] = arguments;
const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options);
navigator.credentials.get({ publicKey })
  .then((used) => done(used.toJSON()), (error) => done({ error: String(error) }));
"""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Return the service at its default address, with an administrator."""
    environment = {
        "ENVIRONMENT": "testing",
        "PASSWORD_HASH_ROUNDS": "4",
        "RATE_LIMIT_ENABLED": "false",
    }
    with GunicornService(environment) as service:
        add_administrator(service, PASSWORD)
        yield LocalSite(service)


def post(site: Site, path: str, body: object, token: str = "") -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(
        site.service.base_url + path, data=json.dumps(body).encode(), headers=headers
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as exc:
        return exc.code, json.loads(exc.read())


def options(site: Site, path: str, token: str = "") -> Any:
    return post(site, f"{path}/options", {}, token)[1]["public_key"]


@pytest.mark.usefixtures("authenticator")
def test_chromium_adds_a_passkey_and_signs_in_with_it(browser: Browser, site: Site) -> None:
    who = {"username": site.username, "password": site.password}
    token = post(site, "/api/v1/auth/login", who)[1]["access_token"]
    # The page that signs in would use the passkey by itself as soon as there is one.
    browser.get(f"{site.url}/console/forgot-password")

    created = browser.execute_async_script(CREATE, options(site, ADD, token))
    status, added = post(site, ADD, {"credential": created}, token)
    again = browser.execute_async_script(CREATE, options(site, ADD, added["access_token"]))
    signed_in = []
    for _ in range(2):
        used = browser.execute_async_script(GET, options(site, SIGN_IN))
        signed_in.append(post(site, SIGN_IN, {"credential": used}))
    token = signed_in[-1][1]["access_token"]
    used = browser.execute_async_script(GET, options(site, STEP_UP, token))
    stepped_up, _ = post(site, STEP_UP, {"credential": used}, token)

    assert (status, added["factor"]["type"]) == (201, "passkey")
    assert added["factor"]["transports"] == ["internal"]
    # The browser knows by `excludeCredentials` that the authenticator has a passkey already.
    assert "InvalidStateError" in again["error"]
    assert [answer[0] for answer in signed_in] == [200, 200]
    assert signed_in[0][1]["user"]["username"] == site.username
    assert stepped_up == 200
