"""Journeys through the console, by a person with a browser. No page breaks a rule of axe."""

import re
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.policy import default as default_policy
from pathlib import Path
from secrets import token_hex

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.expected_conditions import staleness_of
from selenium.webdriver.support.ui import Select

from tests.browser.conftest import Site
from tests.support.browser import Browser
from tests.support.mailbox import plain_text

NEW_PASSWORD = "granite-otter-57-teapot"
AXE = Path(__file__).parent / "vendored" / "axe.min.js"
STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
CHECK = """
const done = arguments[arguments.length - 1];
axe.run(document, {runOnly: arguments[0]}).then(found =>
  done(found.violations.map(v => v.id + ": " + v.nodes.map(n => n.html).join(" | "))));
"""


def sign_in(browser: Browser, site: Site, username: str = "", password: str = "") -> None:
    browser.get(site.url + "/console/")
    browser.find("#username").send_keys(username or site.username)
    browser.find("#password").send_keys((password or site.password) + Keys.ENTER)
    browser.find(".who")


def add_user(site: Site, name: str) -> None:
    file = site.service.directory / f"{name}.csv"
    file.write_text(f"username,email,password\n{name},{name}@example.com,{NEW_PASSWORD}\n")
    made = site.service.command("users", "import", str(file))
    assert made.exit_code == 0, made.output


def test_an_invited_user_sets_a_password_and_signs_in(browser: Browser, site: Site) -> None:
    sign_in(browser, site)
    browser.get(site.url + "/console/users/new")
    browser.find("#username").send_keys("ada")
    browser.find("#email").send_keys("ada@example.com")
    browser.press("Create the user")
    browser.expect(".note", "ada was invited by mail.")

    link = _link_in_mail(browser, site, "ada@example.com")
    browser.delete_all_cookies()
    browser.get(link)
    # The token came from the link, and is not left behind in it.
    browser.wait(lambda b: "#" not in b.current_url, "an address without the token")
    assert not browser.find_element(By.ID, "token").is_displayed()
    browser.find("#new_password").send_keys("password1")
    browser.expect("#strength", "not accepted")
    browser.find("#new_password").send_keys(Keys.CONTROL, "a")
    browser.find("#new_password").send_keys(NEW_PASSWORD)
    browser.press("Set the password")
    browser.expect(".note", "Your password was set.")
    browser.find("#username").send_keys("ada")
    browser.find("#password").send_keys(NEW_PASSWORD + Keys.ENTER)

    browser.expect_exactly("h1", "Profile")


def test_a_user_is_found_while_typing_and_suspended_and_their_session_dies(
    browser: Browser, site: Site, second_browser: Browser
) -> None:
    add_user(site, "robin")
    sign_in(second_browser, site, "robin", NEW_PASSWORD)
    sign_in(browser, site)
    browser.follow("Users")
    browser.find("#search")
    browser.find("body").send_keys("/")
    browser.switch_to.active_element.send_keys("rob")
    browser.wait(lambda b: len(b.find_all("tbody tr")) == 1, "one row")
    browser.wait(lambda b: "search=rob" in b.current_url, "the search in the address")
    # The links next to the rows arrive together with them.
    browser.wait(
        lambda b: "search=rob" in str(_link(b, "Download as CSV").get_attribute("href")),
        "the search in the link to the file",
    )
    browser.click("[data-tick-all]")
    browser.expect_exactly("[data-ticked]", "(1)")

    browser.follow("robin")
    browser.follow("Suspend")
    browser.find("#reason").send_keys("trial")
    browser.press("Suspend")
    browser.expect(".note", "The user was suspended.")
    second_browser.get(site.url + "/console/profile")

    second_browser.expect_exactly("h1", "Sign in")


@pytest.mark.thorough
def test_a_role_is_created_and_assigned_to_many_and_audited(browser: Browser, site: Site) -> None:
    for name in ("bea", "cleo"):
        add_user(site, name)
    sign_in(browser, site)
    browser.get(site.url + "/console/roles/new")
    browser.find("#name").send_keys("media-editor")
    browser.click("input[name=parents][value=user]")
    browser.find("#others").send_keys("media:upload")
    browser.press("Create the role")
    browser.expect(".facts", "media:upload")

    browser.get(site.url + "/console/users?sort=username")
    for name in ("bea", "cleo"):
        browser.click(f"input[aria-label='Select {name}']")
    browser.press("Assign a role …")
    browser.expect("section", "This changes 2 users")
    Select(browser.find("#role")).select_by_visible_text("media-editor")
    browser.press("Assign a role")
    browser.expect(".note", "2 of 2 users were changed.")

    browser.get(site.url + "/console/audit")
    Select(browser.find("#action")).select_by_visible_text("role.created")
    browser.press("Filter")
    browser.wait(lambda _: len(browser.find_all("tbody tr")) == 1, "one row")
    browser.expect("tbody tr", "media-editor")
    browser.click("tbody summary")
    browser.expect("tbody dl", "media:upload")


@pytest.mark.thorough
def test_nothing_of_a_session_is_left_behind_by_signing_out(browser: Browser, site: Site) -> None:
    sign_in(browser, site)
    browser.get(site.url + "/console/users")
    browser.click(".who summary")
    browser.click(".who form[action$=sign-out] button")
    browser.expect_exactly("h1", "Sign in")

    browser.back()

    # The browser may show the former page for a moment, until the server has answered.
    browser.expect_exactly("h1", "Sign in")


@pytest.mark.thorough
@pytest.mark.browser(expects=["status of 409"])
def test_a_double_click_sends_a_form_once(browser: Browser, site: Site) -> None:
    sign_in(browser, site)
    browser.get(site.url + "/console/users/new")
    browser.find("#username").send_keys("dora")
    browser.find("#email").send_keys("dora@example.com")

    browser.execute_script(
        "const b = document.querySelector('main form .btn-primary'); b.click(); b.click()"
    )

    browser.expect(".note", "dora was invited by mail.")


PAGES = (
    "dashboard",
    "users",
    "users/new",
    "users/import",
    "roles",
    "roles/new",
    "roles/admin",
    "audit",
    "profile",
    "email",
    "password",
    "sessions",
    "my-data",
    # Lists without a row, with a faulty filter, and pages that are not there.
    "users?search=nobody-has-this",
    "users?created_after=soon",
    "audit?since=2099-01-01",
    "audit?actor_id=nobody-has-this",
    "users?selected=all",
    "users/bulk/jobs",
    "users/imports",
    "service-accounts?keys=expiring",
    "nowhere",
)
OPEN_PAGES = ("sign-in", "sign-up", "forgot-password", "set-password", "verify-email", "nowhere")


@pytest.fixture(scope="module")
def long_name(site: Site) -> str:
    """Return the name of a user with the longest one that can be."""
    name = "hubert.blaine.wolfeschlegelsteinhausenbergerdorff-senior-the-3rd"
    add_user(site, name)
    return name


@pytest.mark.thorough
@pytest.mark.browser(expects=["status of 404", "status of 422"])
@pytest.mark.parametrize(
    "views",
    [
        [("dark", 360), ("light", 1280)],
        # Each scheme and each width is checked above.
        pytest.param([("light", 360), ("dark", 1280)], marks=pytest.mark.slow),
    ],
    ids=lambda views: "-".join(f"{scheme}-{width}" for scheme, width in views),
)
def test_axe_finds_nothing_and_nothing_is_wider_than_the_window(
    browser: Browser, site: Site, long_name: str, views: list[tuple[str, int]]
) -> None:
    found: dict[str, list[str]] = {}

    def check(name: str) -> None:
        browser.find("h1")
        browser.execute_script(AXE.read_text("utf-8"))
        for scheme, width in views:
            show(browser, scheme=scheme, width=width)
            faults = browser.execute_async_script(CHECK, STANDARDS)
            overflow = "return document.documentElement.scrollWidth - window.innerWidth"
            if browser.execute_script(overflow) > 0:
                faults.append("wider than the window")
            if faults:
                view = f"{re.sub('[^a-z-]', '-', name)}-{scheme}-{width}"
                browser.screenshot(view)
                found[view] = faults

    def check_at(path: str) -> None:
        browser.get(f"{site.url}/console/{path}")
        check(path)

    for path in OPEN_PAGES:
        check_at(path)
    sign_in(browser, site)
    for path in PAGES:
        check_at(path)
    check_what_comes_after_a_form(browser, site, long_name, check)

    assert found == {}


def check_what_comes_after_a_form(
    browser: Browser, site: Site, long_name: str, check: Callable[[str], None]
) -> None:
    def send(text: str) -> None:
        form = browser.find("main")
        browser.press(text)
        browser.wait(staleness_of(form), "the next page")

    browser.get(site.url + "/console/password")
    browser.find("#new_password").send_keys("abc")
    browser.expect("#strength", "not accepted")
    check("password that is too weak")
    browser.get(site.url + "/console/profile")
    browser.find("#timezone").send_keys("Moon/Base")
    send("Save")
    check("profile that is refused")
    browser.get(site.url + "/console/users/import")
    file = site.service.directory / "people.csv"
    # Each view imports a user of its own.
    name = f"zoe-{token_hex(3)}"
    file.write_text(f"username,email\n{name},{name}@example.com\nbea,not-an-address\n")
    browser.find("#file").send_keys(str(file))
    send("Check the file")
    # The worker continues, and the page shows the progress without a reload.
    shown = "return document.querySelector('#progress').innerText"
    browser.wait(lambda b: "2 of 2 rows" in b.execute_script(shown), "the end of the check")
    browser.expect("#progress", "Import 1 row")
    check("check of a file")
    send("Import 1 row")
    browser.wait(lambda b: "1 were created" in b.execute_script(shown), "the end of the import")
    browser.expect("#progress", "Finished")
    check("import by the worker")
    browser.get(site.url + f"/console/users?search={long_name}")
    browser.click("input[name=user_ids]")
    check("users with one ticked")
    send("Unlock …")
    check("question about many")
    send("Unlock: 1 user")
    check("results of many")
    results = browser.find("main")
    browser.click("tbody a")
    browser.wait(staleness_of(results), "the user")
    check("user")
    for tab in ("Security", "Roles and permissions", "Activity", "Edit", "Suspend"):
        browser.follow(tab)
        browser.wait(lambda b, tab=tab: tab in b.title, tab)  # type: ignore[misc]
        check(f"user {tab}")
    browser.get(browser.current_url.replace("suspend", "delete"))
    check("user Delete")
    browser.get(browser.current_url.replace("delete", "reset-password"))
    check("user Password")
    browser.get(site.url + "/console/audit")
    browser.click("tbody summary")
    check("row of the audit log")


@pytest.fixture
def second_browser(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Browser]:
    """Return the browser of another person."""
    other = Browser(tmp_path_factory.mktemp("second-browser"))
    yield other
    other.quit()


def show(browser: Browser, *, scheme: str, width: int) -> None:
    """Show pages in a colour scheme and on a screen of a width, from now on."""
    # With motion, colours would change gradually.
    features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
    media = {"features": [{"name": name, "value": value} for name, value in features.items()]}
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


def _link(browser: Browser, text: str) -> WebElement:
    return browser.find_element(By.LINK_TEXT, text)


def _link_in_mail(browser: Browser, site: Site, recipient: str) -> str:
    folder = Path(site.service.environment["INSTANCE_DIR"]) / "mail"

    def link(_browser: Browser) -> str | None:
        for path in sorted(folder.glob("*.eml"), reverse=True):
            mail = message_from_bytes(path.read_bytes(), policy=default_policy)
            found = re.search(r"/console/set-password#token=\S+", plain_text(mail))
            if mail["To"] == recipient and found:
                return site.url + found[0]
        return None

    return browser.wait(link, f"a mail to {recipient}")
