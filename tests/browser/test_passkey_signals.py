"""Deleted passkeys disappear from the browser's list (WebAuthn Level 3 §5.1.10).

The browser's own methods run and judge the details; the script only notes what they were called
with and how they answered.
"""

import json
from collections.abc import Iterator
from typing import Any

import pyotp
import pytest
from selenium.webdriver.common.keys import Keys

from tests.browser.conftest import Site
from tests.browser.test_second_factors import add_user, sign_out, site, type_password
from tests.support.browser import Browser

__all__ = ["site"]

pytestmark = pytest.mark.usefixtures("authenticator")
NOTE = """
for (const name of ["signalAllAcceptedCredentials", "signalUnknownCredential"]) {
  const own = PublicKeyCredential[name];
  if (!own) continue;
  PublicKeyCredential[name] = (details) => {
    const answer = own.call(PublicKeyCredential, details);
    const note = (outcome) => {
      const before = JSON.parse(sessionStorage.getItem("signals") ?? "[]");
      sessionStorage.setItem("signals", JSON.stringify([...before, [name, details, outcome]]));
    };
    answer.then(() => note("accepted"), (error) => note(String(error)));
    return answer;
  };
}
"""


@pytest.fixture(autouse=True)
def noted(browser: Browser) -> Iterator[None]:
    """Note the signals of every page that the browser opens."""
    script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": NOTE})
    yield
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def signals(browser: Browser, count: int) -> list[tuple[str, dict[str, Any], str]]:
    """Return the signals so far, as soon as there are so many."""

    def read(browser: Browser) -> list[Any] | None:
        text = browser.execute_script("return sessionStorage.getItem('signals')")
        found = json.loads(text or "[]")
        return found if len(found) >= count else None

    return [(name, details, outcome) for name, details, outcome in browser.wait(read, "a signal")]


def ids(browser: Browser) -> list[str]:
    """Return the ids of the passkeys that the authenticator has."""
    return [credential.id.rstrip("=") for credential in browser.get_credentials()]


def sign_in_and_add_a_passkey(browser: Browser, site: Site, name: str) -> str:
    """Return the id of the passkey."""
    add_user(site, name)
    type_password(browser, site, name)
    browser.expect_exactly("h1", "Profile")
    browser.get(f"{site.url}/console/security")
    browser.press("Add a passkey")
    browser.follow("I have saved them")
    browser.expect("table", "Passkey")
    [credential_id] = ids(browser)
    return credential_id


@pytest.mark.thorough
def test_after_a_removal_the_browser_learns_which_passkeys_are_left(
    browser: Browser, site: Site
) -> None:
    credential_id = sign_in_and_add_a_passkey(browser, site, "gus")
    browser.find("#name").send_keys("Phone")
    browser.press("Add an authenticator app")
    secret = browser.find("[data-copy]").get_attribute("data-copy")
    browser.find("#code").send_keys(pyotp.TOTP(secret or "").now() + Keys.ENTER)
    browser.expect("table", "Phone")
    browser.click("button[aria-label='Remove Phone']")
    browser.switch_to.alert.accept()
    [(method, left, outcome)] = signals(browser, 1)
    kept = ids(browser)
    browser.get(f"{site.url}/console/security")
    once = len(signals(browser, 1))
    browser.click("button[aria-label^='Remove Passkey']")
    browser.switch_to.alert.accept()
    browser.expect(".note", "The factor was removed.")
    *_, (_, none_left, last_outcome) = signals(browser, 2)
    browser.wait(lambda browser: not ids(browser), "the end of the passkey in the browser")

    assert (method, outcome) == ("signalAllAcceptedCredentials", "accepted")
    assert left["rpId"] == "localhost"
    assert left["allAcceptedCredentialIds"] == [credential_id]
    assert kept == [credential_id]
    assert once == 1
    assert (none_left["allAcceptedCredentialIds"], last_outcome) == ([], "accepted")
    assert none_left["userId"] == left["userId"]


@pytest.mark.thorough
@pytest.mark.browser(expects=["status of 401"])
def test_a_passkey_that_no_account_has_is_signalled_as_unknown_and_no_other(
    browser: Browser, site: Site
) -> None:
    credential_id = sign_in_and_add_a_passkey(browser, site, "hal")
    browser.set_user_verified(False)
    sign_out(browser)
    browser.press("Sign in with a passkey")
    browser.expect("[data-passkey-error]", "")
    refused = browser.execute_script("return sessionStorage.getItem('signals')")
    reset = site.service.command("users", "reset-mfa", "hal")
    browser.set_user_verified(True)
    browser.press("Sign in with a passkey")
    [(method, details, outcome)] = signals(browser, 1)
    browser.wait(lambda browser: not ids(browser), "the end of the passkey in the browser")

    assert reset.exit_code == 0, reset.output
    assert refused is None
    assert (method, outcome) == ("signalUnknownCredential", "accepted")
    assert details == {"rpId": "localhost", "credentialId": credential_id}
