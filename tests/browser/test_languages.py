"""The console in German, and times in the zone of the profile or the browser."""

from collections.abc import Iterator

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from tests.browser.conftest import Site
from tests.browser.test_console import AXE, CHECK, STANDARDS, add_user, show, sign_in
from tests.support.browser import Browser

OPEN_PAGES = ("forgot-password", "sign-up", "verify-email", "set-password", "no-such-page")
LINKS_ARE_CUT_OFF = """
const rows = [...document.querySelectorAll(".tabs, .sidebar .navbar-nav")]
return rows.some(row => row.scrollWidth > row.clientWidth)
"""
OWN_PAGES = ("profile", "email", "password", "sessions", "my-data", "dashboard", "roles")


@pytest.fixture
def browser_in_tokyo(browser: Browser) -> Iterator[Browser]:
    """Return a browser on a computer in Tokyo."""
    browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Tokyo"})
    yield browser
    browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": ""})


def page_as_sent(browser: Browser, site: Site, path: str) -> str:
    """Return a page as the service sends it, before a script changes it."""
    script = "const done = arguments[1]; fetch(arguments[0]).then(r => r.text()).then(done)"
    return str(browser.execute_async_script(script, f"{site.url}/console/{path}"))


def choose(browser: Browser, *, language: str, zone: str) -> None:
    Select(browser.find("#locale")).select_by_value(language)
    browser.find("#timezone").send_keys(Keys.CONTROL, "a")
    browser.find("#timezone").send_keys(zone or Keys.DELETE)
    browser.find("#timezone").submit()


def faults_of_page(browser: Browser, name: str) -> list[str]:
    """Return what axe finds in both color schemes and two widths, and what is too wide."""
    browser.execute_script(AXE.read_text("utf-8"))
    faults: list[str] = []
    for scheme in ("light", "dark"):
        for width in (1280, 360):
            show(browser, scheme=scheme, width=width)
            faults += browser.execute_async_script(CHECK, STANDARDS)
            wide = "return document.documentElement.scrollWidth > window.innerWidth"
            if browser.execute_script(wide):
                faults.append(f"{name} is wider than {width}")
            if browser.execute_script(LINKS_ARE_CUT_OFF):
                faults.append(f"tabs or links of {name} are cut off at {width}")
            browser.screenshot(f"de-{name}-{scheme}-{width}")
    return faults


@pytest.mark.thorough
def test_times_are_in_the_zone_of_the_browser_without_one_in_the_profile(
    browser_in_tokyo: Browser, site: Site
) -> None:
    browser = browser_in_tokyo
    sign_in(browser, site)
    browser.get(site.url + "/console/profile")

    browser.expect(".zone", "Times in Asia/Tokyo.")
    assert "data-zone-name>Asia/Tokyo<" in page_as_sent(browser, site, "profile")


@pytest.mark.thorough
def test_a_user_chooses_german_and_a_time_zone(browser_in_tokyo: Browser, site: Site) -> None:
    browser = browser_in_tokyo
    sign_in(browser, site)
    browser.get(site.url + "/console/profile")

    choose(browser, language="de", zone="Europe/Berlin")

    browser.expect(".zone", "Zeiten in Europe/Berlin.")
    browser.expect(".note", "Ihr Profil wurde gespeichert.")
    assert (browser.find("time").get_attribute("title") or "").endswith(" UTC")
    faults = []
    for path in OWN_PAGES:
        browser.get(f"{site.url}/console/{path}")
        browser.find("html[lang=de] h1")
        faults += faults_of_page(browser, path)
    assert faults == []

    browser.get(site.url + "/console/profile")
    choose(browser, language="", zone="")
    browser.expect(".zone", "Times in Asia/Tokyo.")


@pytest.mark.thorough
def test_the_pages_of_a_user_and_of_a_role_are_in_german(browser: Browser, site: Site) -> None:
    add_user(site, "zoe")
    sign_in(browser, site)
    browser.get(site.url + "/console/profile")
    choose(browser, language="de", zone="Europe/Berlin")
    browser.expect(".note", "Ihr Profil wurde gespeichert.")
    browser.get(site.url + "/console/users?search=zoe")
    browser.follow("zoe")
    browser.expect_exactly("h1", "zoe")
    user = browser.current_url
    faults = []
    for path in ("", "/security", "/roles", "/activity", "/edit", "/suspend", "/delete"):
        browser.get(user + path)
        browser.find("html[lang=de] h1")
        faults += faults_of_page(browser, f"user{path.replace('/', '-')}")
    for path in ("users/new", "roles/moderator", "roles/new"):
        browser.get(f"{site.url}/console/{path}")
        browser.find("html[lang=de] h1")
        faults += faults_of_page(browser, path.replace("/", "-"))

    assert faults == []


@pytest.mark.thorough
@pytest.mark.browser(expects=["status of 404"])
def test_pages_without_a_session_are_in_the_language_of_the_browser(
    browser: Browser, site: Site
) -> None:
    headers = {"headers": {"Accept-Language": "de-AT,de;q=0.9"}}
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setExtraHTTPHeaders", headers)
    faults = []
    try:
        for path in OPEN_PAGES:
            browser.get(f"{site.url}/console/{path}")
            browser.find("html[lang=de] h1")
            faults += faults_of_page(browser, path)
    finally:
        browser.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {}})

    assert faults == []
