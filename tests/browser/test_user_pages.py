"""The pages of one user in a browser: questions, undo, and the same without scripts."""

from collections.abc import Iterator

import pytest
from selenium.webdriver.common.by import By

from tests.browser.conftest import Site
from tests.browser.test_api_keys import clipboard
from tests.browser.test_console import add_user, sign_in
from tests.support.browser import Browser


@pytest.mark.thorough
def test_a_role_is_given_after_a_question_and_taken_back_by_the_message(
    browser: Browser, site: Site
) -> None:
    add_user(site, "finn")
    sign_in(browser, site)
    open_user(browser, site, "finn")
    browser.follow("Roles and permissions")
    browser.click("input[value=moderator]")
    browser.press("Save the roles")

    browser.expect("main h2", "Give finn more permissions?")
    browser.expect(".permissions", "users:suspend")
    browser.press("Give the roles")
    browser.expect(".toasts", "The roles were saved.")
    assert browser.find("input[value=moderator]").is_selected()
    browser.press("Undo")

    browser.wait(lambda b: not b.find("input[value=moderator]").is_selected(), "the former roles")


@pytest.mark.thorough
@pytest.mark.browser(expects=["status of 422"])
def test_a_long_text_of_metadata_is_corrected_where_it_was_typed(
    browser: Browser, site: Site
) -> None:
    add_user(site, "gwen")
    sign_in(browser, site)
    open_user(browser, site, "gwen")
    browser.follow("Edit")
    field = browser.find("#metadata")
    field.clear()
    field.send_keys('{"team": "vision",')
    browser.press("Save")
    browser.expect("#metadata-error", "Invalid JSON at line 1")
    assert browser.find("#metadata").get_attribute("value") == '{"team": "vision",'

    browser.find("#metadata").send_keys(' "level": 3}')
    browser.press("Save")

    browser.expect(".json", '"level": 3')


@pytest.mark.thorough
def test_the_address_and_the_id_of_a_user_are_copied(browser: Browser, site: Site) -> None:
    add_user(site, "ivy")
    sign_in(browser, site)
    browser.get(f"{site.url}/console/users?search=ivy")
    browser.click("td .copy")
    browser.find("td .copied")
    in_the_list = clipboard(browser, site)
    open_user(browser, site, "ivy")

    browser.click("dd code + .copy")
    browser.find("dd .copied")

    assert in_the_list == "ivy@example.com"
    assert clipboard(browser, site) == browser.current_url.rpartition("/")[2]


@pytest.fixture
def without_scripts(browser: Browser) -> Iterator[Browser]:
    """Return the browser of a person who has disabled scripts."""
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    yield browser
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.thorough
@pytest.mark.browser(expects=["status of 422"])
def test_everything_about_a_user_works_without_scripts(
    without_scripts: Browser, site: Site
) -> None:
    browser = without_scripts
    add_user(site, "hugo")
    browser.get(site.url + "/console/sign-in")
    assert not browser.find_element(By.CSS_SELECTOR, "[data-reveal]").is_displayed()
    browser.find("#username").send_keys(site.username)
    browser.find("#password").send_keys(site.password)
    browser.click("main .btn-primary")
    browser.click(".who summary")
    browser.click("button[name=theme][value=dark]")
    browser.find("html[data-bs-theme=dark]")

    open_user(browser, site, "hugo")
    browser.follow("Suspend")
    browser.find("#reason").send_keys("trial")
    browser.press("Suspend")
    message = browser.find(".toasts .note")
    assert "Every session has ended." in message.text
    # Nothing can close a message here, so it does not cover the page.
    assert browser.find(".toasts").value_of_css_property("position") == "static"
    browser.press("Undo")
    browser.expect(".toasts .note", "The user was activated.")

    browser.click(".menu summary")
    browser.follow("Delete …")
    browser.find("#confirmed_name").send_keys("hug")
    browser.press("Delete hugo")
    browser.expect(".note", "Nothing was deleted.")
    browser.find("#confirmed_name").send_keys("hugo")
    browser.press("Delete hugo")
    browser.expect(".toasts .note", "hugo was deleted.")


def open_user(browser: Browser, site: Site, name: str) -> None:
    browser.get(f"{site.url}/console/users?search={name}")
    browser.follow(name)
    browser.expect_exactly("h1", name)
