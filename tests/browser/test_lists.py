"""Journeys through lists: pages, selection of all that match, keys, saved filters, imports."""

import json
import urllib.request
from collections.abc import Callable

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from tests.browser.conftest import Site
from tests.browser.test_console import AXE, CHECK, NEW_PASSWORD, STANDARDS, add_user, show, sign_in
from tests.support.browser import Browser

VIEWS = [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)]
Look = Callable[[str], None]
# The names and addresses that are not shown in full.
CUT = """
return Array.from(document.querySelectorAll("tbody .one-line"))
  .filter((line) => line.scrollWidth > line.clientWidth).map((line) => line.textContent);
"""
# How far the text of each cell of the first row is from the left edge of the cell.
COLUMNS = """
return Array.from(document.querySelectorAll("tbody tr:first-child td[data-label]"), (cell) => {
  const text = cell.querySelector("time, .badge, .address, .person, span") || cell.firstChild;
  const range = document.createRange();
  range.selectNodeContents(text);
  return range.getBoundingClientRect().left - cell.getBoundingClientRect().left;
});
"""


@pytest.fixture(scope="module")
def crowd(site: Site) -> None:
    """Add 60 users."""
    file = site.service.directory / "crowd.csv"
    rows = [f"crowd-{n:02},crowd-{n:02}@example.com,Ada,Lovelace" for n in range(60)]
    file.write_text("\n".join(["username,email,first_name,last_name", *rows]))
    made = site.service.command("users", "import", str(file))
    assert made.exit_code == 0, made.output


@pytest.fixture
def look(browser: Browser) -> Look:
    """Return a function that checks a page with axe in both schemes and two widths."""

    def look(name: str) -> None:
        browser.execute_script(AXE.read_text("utf-8"))
        faults: dict[str, list[str]] = {}
        for scheme, width in VIEWS:
            show(browser, scheme=scheme, width=width)
            found = browser.execute_async_script(CHECK, STANDARDS)
            overflow = "return document.documentElement.scrollWidth - window.innerWidth"
            if browser.execute_script(overflow) > 0:
                found.append("wider than the window")
            browser.screenshot(f"{name}-{scheme}-{width}")
            if found:
                faults[f"{scheme}-{width}"] = found
        show(browser, scheme="light", width=1280)
        assert faults == {}

    return look


@pytest.mark.thorough
def test_a_list_is_walked_to_its_end_and_the_way_back_keeps_it(
    browser: Browser, site: Site, crowd: None, look: Look
) -> None:
    sign_in(browser, site)
    browser.get(site.url + "/console/users?search=crowd-&sort=username")
    browser.expect(".list-head", "60 users")
    look("lists-users")
    browser.follow("Next")
    browser.expect(".pager", "Rows 26–50")
    browser.follow("Last")
    browser.expect(".pager", "Rows 36–60")
    browser.expect("tbody", "crowd-59")

    browser.follow("crowd-59")
    browser.expect("h1", "crowd-59")
    browser.find_element(By.CSS_SELECTOR, ".breadcrumb a").click()

    browser.expect(".pager", "Rows 36–60")
    browser.expect("tbody", "crowd-59")


@pytest.mark.thorough
def test_the_menu_of_a_row_suspends_and_leads_back_to_the_list(
    browser: Browser, site: Site, crowd: None, look: Look
) -> None:
    sign_in(browser, site)
    browser.get(site.url + "/console/users?search=crowd-00")
    browser.click("td.row-menu summary")
    look("lists-row-menu")

    browser.follow("Suspend …")
    browser.expect("h2", "Suspend crowd-00?")
    browser.press("Suspend")
    browser.expect("tbody", "suspended")
    assert browser.current_url.endswith("?search=crowd-00")

    browser.click("td.row-menu summary")
    browser.press("Activate")
    browser.expect("tbody", "active")
    assert browser.current_url.endswith("?search=crowd-00")


@pytest.mark.thorough
def test_buttons_are_disabled_while_nothing_is_selected(
    browser: Browser, site: Site, crowd: None
) -> None:
    sign_in(browser, site)
    browser.get(site.url + "/console/users?search=crowd-")

    def enabled(_browser: Browser) -> set[bool]:
        return {button.is_enabled() for button in browser.find_all("button[name=action]")}

    browser.wait(lambda b: enabled(b) == {False}, "disabled buttons")
    browser.click("input[name=user_ids]")
    browser.wait(lambda b: enabled(b) == {True}, "enabled buttons")
    browser.click("input[name=user_ids]")
    browser.wait(lambda b: enabled(b) == {False}, "disabled buttons again")
    browser.click("[data-tick-all]")
    browser.wait(lambda b: enabled(b) == {True}, "enabled buttons for all of the page")


@pytest.mark.thorough
def test_all_that_match_are_suspended_by_a_job(
    browser: Browser, site: Site, crowd: None, look: Look
) -> None:
    sign_in(browser, site)
    browser.get(site.url + "/console/users?search=crowd-&sort=username")
    browser.follow("Select all 60 that match")
    browser.expect(".bulk", "All 60 users that match are selected")
    look("lists-selected")
    browser.follow("Next")
    browser.expect(".bulk", "All 60 users that match are selected")
    browser.press("Suspend …")
    browser.expect("section", "This changes 60 users, which match your filters")
    browser.find("#reason").send_keys("trial")
    look("lists-question")
    browser.press("Suspend: 60 users")

    browser.expect("#progress", "60 of 60 users are processed. 60 were changed")
    browser.expect("#progress", "done")
    look("lists-job")
    browser.get(site.url + "/console/users?search=crowd-&status=suspended")
    browser.expect(".list-head", "60 users")


def test_keys_open_the_search_and_the_list_of_keys(browser: Browser, site: Site) -> None:
    sign_in(browser, site)
    browser.get(site.url + "/console/users")

    browser.find_element(By.TAG_NAME, "body").send_keys("?")
    browser.wait(lambda b: b.find_element(By.TAG_NAME, "dialog").is_displayed(), "the list of keys")
    browser.screenshot("lists-keys")
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    browser.wait(lambda b: not b.find_element(By.TAG_NAME, "dialog").is_displayed(), "no dialog")
    browser.find_element(By.TAG_NAME, "body").send_keys("/")

    browser.wait(lambda b: b.switch_to.active_element.get_attribute("id") == "search", "the focus")


def test_rows_keep_their_labels_on_a_phone_and_addresses_one_line_on_a_desk(
    browser: Browser, site: Site
) -> None:
    """Addresses of 23 letters were broken beside empty columns.

    In a window of 1024 pixels, three letters of each name were left.
    """
    add_user(site, "anna.miller")
    sign_in(browser, site)
    browser.get(site.url + "/console/users?search=anna.miller")
    show(browser, scheme="light", width=1280)
    desk = browser.find(".address .one-line").size["height"]
    line = browser.find("td time").size["height"]
    show(browser, scheme="light", width=1024)
    cut = browser.execute_script(CUT)
    show(browser, scheme="light", width=390)

    offsets = browser.execute_script(COLUMNS)

    assert cut == []
    assert desk < 1.5 * line
    assert min(offsets) > 80


def test_keys_work_on_pages_that_are_no_lists(browser: Browser, site: Site) -> None:
    """`?` did nothing there, and `/` led nowhere."""
    sign_in(browser, site)
    browser.get(site.url + "/console/dashboard")
    browser.find_element(By.TAG_NAME, "body").send_keys("?")
    browser.expect("dialog", "Search for a user")
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    browser.wait(lambda b: not b.find_element(By.TAG_NAME, "dialog").is_displayed(), "no dialog")
    browser.click(".who summary")
    browser.click(".who [data-keys]")
    browser.expect("dialog", "Show this list")
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    browser.wait(lambda b: not b.find_element(By.TAG_NAME, "dialog").is_displayed(), "no dialog")

    browser.find_element(By.TAG_NAME, "body").send_keys("/")

    browser.expect_exactly("h1", "Users")
    browser.wait(lambda b: b.switch_to.active_element.get_attribute("id") == "search", "the focus")


@pytest.mark.thorough
def test_filters_are_saved_and_columns_chosen(
    browser: Browser, site: Site, crowd: None, look: Look
) -> None:
    sign_in(browser, site)
    browser.get(site.url + "/console/users?search=crowd-1")
    browser.find_element(By.XPATH, "//summary[starts-with(normalize-space(), 'Saved')]").click()
    browser.find("#filter-name").send_keys("Tens")
    look("lists-saved-filters")
    browser.press("Save")
    browser.expect(".note", "The filter “Tens” was saved.")

    browser.get(site.url + "/console/users")
    browser.find_element(By.XPATH, "//summary[normalize-space()='View']").click()
    browser.click("input[name=columns][value=email]")
    look("lists-view")
    browser.press("Apply")
    browser.wait(lambda b: "E-mail" not in b.find("thead").text, "no column of addresses")
    browser.find_element(By.XPATH, "//summary[starts-with(normalize-space(), 'Saved')]").click()
    browser.follow("Tens")

    browser.expect(".list-head", "10 users")


@pytest.mark.thorough
def test_a_file_is_checked_and_its_valid_rows_are_imported(
    browser: Browser, site: Site, look: Look
) -> None:
    sign_in(browser, site)
    browser.get(site.url + "/console/users/import")
    look("lists-import")
    file = site.service.directory / "checked.csv"
    rows = [f"new-{n:02},new-{n:02}@example.com,Grace" for n in range(12)]
    file.write_text("\n".join(["username,email,first_name", *rows, "bad,not-an-address,=1+1"]))
    browser.find("#file").send_keys(str(file))
    browser.press("Check the file")
    browser.expect("#progress", "12 would be created, 1 would be refused")
    browser.expect("#progress", "Import these 12 rows")
    browser.expect("table", "not-an-address")
    look("lists-check")

    browser.press("Import these 12 rows")

    browser.expect("#progress", "12 were created, 1 were refused")
    look("lists-imported")
    browser.follow("Import users")
    browser.follow("Show all")
    browser.expect("tbody", "import")
    look("lists-imports")


@pytest.mark.thorough
def test_the_audit_log_is_sentences_with_trails(
    browser: Browser, site: Site, crowd: None, look: Look
) -> None:
    sign_in(browser, site)
    browser.get(site.url + "/console/audit")
    browser.get(site.url + "/console/audit")
    browser.expect(".list-head", "your own reads are hidden")
    browser.expect("tbody", "logged in")
    look("lists-audit")
    browser.follow("Show them")
    browser.expect("tbody", "read the audit log")
    browser.follow("everything in this session")
    browser.expect(".list-head", "1 row, newest first")
    browser.click("tbody summary")
    look("lists-session-trail")


@pytest.mark.thorough
def test_sessions_are_found_by_their_device_and_columns_chosen(
    browser: Browser, site: Site, look: Look
) -> None:
    add_user(site, "rosa")
    for system in ("X11; Linux x86_64", "Windows NT 10.0; Win64; x64"):
        program = f"Mozilla/5.0 ({system}; rv:128.0) Gecko/20100101 Firefox/128.0"
        login = urllib.request.Request(
            site.url + "/api/v1/auth/login",
            data=json.dumps({"username": "rosa", "password": NEW_PASSWORD}).encode(),
            headers={"Content-Type": "application/json", "User-Agent": program},
        )
        with urllib.request.urlopen(login, timeout=60) as answer:
            assert answer.status == 200
    sign_in(browser, site)
    browser.get(site.url + "/console/users?search=rosa")
    browser.follow("rosa")
    browser.follow("Security")

    Select(browser.find("#device")).select_by_visible_text("Firefox on Linux")
    browser.press("Filter")
    browser.expect(".list-head", "1 live session")
    browser.find_element(By.XPATH, "//summary[normalize-space()='View']").click()
    browser.click("input[name=columns][value=user_agent]")
    look("lists-sessions")
    browser.press("Apply")
    browser.expect(".list-head", "1 live session")
    browser.expect("td[data-label='User agent']", "X11; Linux x86_64")
    browser.get(site.url + "/console/sessions")

    browser.find("td[data-label='User agent']")
    look("lists-own-sessions")
