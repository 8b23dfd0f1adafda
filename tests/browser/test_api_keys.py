"""API keys in a browser: a new key is copied with one click, and shown only once."""

from typing import Any

import pytest

from tests.browser.conftest import Site
from tests.browser.test_console import sign_in
from tests.support.browser import Browser
from tests.support.service_clients import RecordingClient
from userapi.machines.key_text import parse_key


def clipboard(browser: Browser, site: Site) -> str:
    """Return the text that the page has copied."""
    browser.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"origin": site.url, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]},
    )
    text: Any = browser.execute_async_script(
        "const done = arguments[0]; navigator.clipboard.readText().then(done, (e) => done(`${e}`));"
    )
    return str(text)


@pytest.mark.thorough
@pytest.mark.parametrize("owner", ["own", "service"])
def test_a_new_key_is_copied_and_shown_only_once(browser: Browser, site: Site, owner: str) -> None:
    sign_in(browser, site)
    own_page = site.url + "/console/api-keys"
    if owner == "own":
        browser.get(own_page)
    else:
        browser.get(site.url + "/console/service-accounts/new")
        browser.find("#name").send_keys("render-farm")
        browser.press("Create the service account")
    browser.click("details:not([open]) > summary:has(h2)")
    browser.find("#name").send_keys("ci")
    browser.press("Create the key")
    shown = browser.find("#new-key").get_attribute("value") or ""

    browser.click("#new-key ~ * button[data-copy]")
    browser.find("button.copied")

    assert parse_key(shown) is not None
    assert clipboard(browser, site) == shown
    used = RecordingClient(site.url, token=shown).once("GET", "/api/v1/auth/verify")
    assert used.status == 200
    browser.get(browser.current_url.removesuffix("/api-keys") if owner == "service" else own_page)
    browser.find("td code")
    assert shown not in browser.page_source
    assert shown[-4:] in browser.read("table")
