"""What the design of the console does in a browser: colours, menus, messages, passwords."""

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browser.conftest import Site
from tests.browser.test_console import AXE, CHECK, STANDARDS, show, sign_in
from tests.support.browser import Browser


def brightness(browser: Browser) -> float:
    """Return the brightness of the page, from 0 to 255."""
    browser.execute_script("document.body.style.transition = 'none'")
    shown = browser.execute_script(
        "const c = document.createElement('canvas').getContext('2d');"
        "c.fillStyle = getComputedStyle(document.body).backgroundColor; c.fillRect(0, 0, 1, 1);"
        "return Array.from(c.getImageData(0, 0, 1, 1).data).slice(0, 3)"
    )
    return float(sum(shown) / 3)


@pytest.mark.thorough
def test_the_colours_follow_the_browser_until_others_are_chosen_in_the_menu(
    browser: Browser, site: Site
) -> None:
    show(browser, scheme="dark", width=1280)
    sign_in(browser, site)
    assert brightness(browser) < 60

    browser.click(".who summary")
    browser.click("button[name=theme][value=light]")
    browser.find("html[data-bs-theme=light]")
    assert brightness(browser) > 200

    show(browser, scheme="light", width=1280)
    browser.click(".who summary")
    browser.click("button[name=theme][value=dark]")
    browser.find("html[data-bs-theme=dark]")
    assert brightness(browser) < 60


@pytest.mark.thorough
@pytest.mark.parametrize(("theme", "scheme"), [("dark", "light"), ("light", "dark")])
def test_axe_finds_nothing_in_the_chosen_colours(
    browser: Browser, site: Site, theme: str, scheme: str
) -> None:
    """The colours of the browser have rules of their own, which other tests check."""
    show(browser, scheme=scheme, width=1280)
    sign_in(browser, site)
    browser.click(".who summary")
    browser.click(f"button[name=theme][value={theme}]")
    browser.find(f"html[data-bs-theme={theme}]")
    found = {}

    for path in ("dashboard", "roles/new", "roles/admin", "users", "password", "my-data"):
        browser.get(f"{site.url}/console/{path}")
        browser.find("h1")
        browser.execute_script(AXE.read_text("utf-8"))
        if faults := browser.execute_async_script(CHECK, STANDARDS):
            found[path] = faults

    assert found == {}


def test_the_menu_closes_with_escape_and_by_a_click_elsewhere(browser: Browser, site: Site) -> None:
    sign_in(browser, site)
    summary = browser.find(".who summary")
    summary.click()
    menu = browser.find(".who .dropdown-menu")

    summary.send_keys(Keys.ESCAPE)
    browser.wait(lambda _: not menu.is_displayed(), "a closed menu")
    assert browser.switch_to.active_element == summary
    summary.click()
    browser.find("h1").click()

    browser.wait(lambda _: not menu.is_displayed(), "a closed menu")


def test_a_message_can_be_closed(browser: Browser, site: Site) -> None:
    sign_in(browser, site)
    browser.click(".who summary")
    browser.click(".who form[action$=sign-out] button")
    browser.expect(".note", "You are signed out.")

    browser.click(".note .btn-close")

    browser.wait(lambda b: not b.find_all(".note"), "no message")


def test_a_typed_password_can_be_shown_and_is_sent_as_a_password(
    browser: Browser, site: Site
) -> None:
    browser.get(site.url + "/console/sign-in")
    assert browser.switch_to.active_element.get_attribute("id") == "username"
    browser.find("#username").send_keys(site.username)
    field = browser.find_element(By.ID, "password")
    field.send_keys(site.password)

    browser.click("[data-reveal=password]")
    assert field.get_attribute("type") == "text"
    assert browser.find("[data-reveal=password]").get_attribute("aria-pressed") == "true"
    browser.click("main .btn-primary")

    browser.expect_exactly("h1", "Dashboard")
