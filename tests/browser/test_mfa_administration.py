"""Second factors for administrators: enforcement, statistics, the filter, and the reset."""

from collections.abc import Iterator

import pyotp
import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from tests.browser.conftest import PASSWORD, LocalSite, Site
from tests.browser.test_second_factors import (
    NEW_PASSWORD,
    add_user,
    offences_of_axe,
    sign_out,
    type_password,
)
from tests.support.browser import Browser
from tests.support.gunicorn import GunicornService, add_administrator
from tests.support.service_clients import RecordingClient

pytestmark = pytest.mark.usefixtures("authenticator")
AUTH = "/api/v1/auth"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Return a service where moderators, and who inherits from them, need a second factor."""
    environment = {
        "ENVIRONMENT": "testing",
        "PASSWORD_HASH_ROUNDS": "4",
        "RATE_LIMIT_ENABLED": "false",
        "MFA_REQUIRED_ROLES": "moderator",
    }
    with GunicornService(environment) as service:
        add_administrator(service, PASSWORD)
        yield LocalSite(service)


def add_app_of(site: Site, name: str) -> None:
    """Add an authenticator app of a user."""
    client = RecordingClient(site.service.base_url)
    body = {"username": name, "password": NEW_PASSWORD}
    client.token = client.once("POST", f"{AUTH}/login", body).body["access_token"]
    begun = client.once("POST", f"{AUTH}/mfa/totp", {"name": "Lost phone"}).body
    code = {"code": pyotp.TOTP(begun["secret"]).now()}
    confirmed = client.once("POST", f"{AUTH}/mfa/totp/{begun['id']}/confirm", code)
    assert confirmed.status == 200, confirmed.body


def tile(browser: Browser, label: str) -> str:
    """Return the figure of a tile of the dashboard."""
    texts = [element.text.split("\n") for element in browser.find_all(".tile")]
    return next(text[0] for text in texts if text[-1] == label)


@pytest.mark.thorough
def test_an_administrator_adds_the_demanded_factor_and_resets_those_of_a_user(
    browser: Browser, site: Site
) -> None:
    for name in ("ida", "jon", "kim"):
        add_user(site, name)
    assert site.service.command("users", "set-role", "kim", "moderator").exit_code == 0
    add_app_of(site, "ida")

    # The role of the administrator inherits the demand: every page leads to the own factors.
    browser.get(f"{site.url}/console/sign-in")
    browser.find("#username").send_keys(site.username)
    browser.find("#password").send_keys(site.password + Keys.ENTER)
    browser.expect("main", "Your role requires a second factor.")
    findings = offences_of_axe(browser)
    browser.screenshot("enforced")
    browser.get(f"{site.url}/console/users")
    browser.expect("main", "Your role requires a second factor.")
    led_to = browser.current_url
    browser.press("Add a passkey")
    assert len(browser.read_all(".codes code", count=10)) == 10
    browser.follow("I have saved them")

    browser.get(f"{site.url}/console/dashboard")
    browser.expect_exactly("h1", "Dashboard")
    figures = [
        tile(browser, "with a second factor (50%)"),
        tile(browser, "without a second factor that their role requires"),
    ]
    findings += offences_of_axe(browser)
    browser.screenshot("dashboard-with-factors")

    browser.get(f"{site.url}/console/users")
    browser.click("details.more summary")
    Select(browser.find("#mfa_enabled")).select_by_visible_text("on")
    browser.press("Filter")
    browser.expect("#results", "2 users")
    listed = browser.read("#results")
    findings += offences_of_axe(browser)
    browser.screenshot("users-with-factors")

    browser.follow("ida")
    browser.follow("Security")
    browser.expect("table", "Lost phone")
    findings += offences_of_axe(browser)
    browser.screenshot("factors-of-a-user")
    browser.click("[aria-label='More actions']")
    browser.follow("Reset two-step sign-in …")
    browser.expect("main h2", "Remove all second factors of ida?")
    findings += offences_of_axe(browser)
    browser.screenshot("reset-question")
    browser.press("Reset two-step sign-in")
    browser.expect("main, .toasts", "")
    browser.get(browser.current_url.partition("?")[0])
    browser.follow("Security")
    browser.expect("main", "No second factor")

    # Otherwise the autofill signs in before the password is typed.
    browser.set_user_verified(False)
    sign_out(browser)
    type_password(browser, site, "ida")
    browser.expect_exactly("h1", "Profile")
    assert led_to == f"{site.url}/console/security"
    assert figures == ["2", "1"]
    assert "ida" in listed and "jon" not in listed
    assert findings == []
