"""Takes the screenshots of the console in the README: `python -m tests.support.screenshot`."""

import tempfile
from pathlib import Path

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.support.browser import Browser
from tests.support.gunicorn import REPOSITORY, GunicornService

FOLDER = REPOSITORY / "docs" / "images"
PASSWORD = "violet-harbour-93-lantern"
ENVIRONMENT = {
    "ENVIRONMENT": "testing",
    "PASSWORD_HASH_ROUNDS": "4",
    "RATE_LIMIT_ENABLED": "false",
}
ADMINISTRATOR = ("users", "create-admin", "--username", "admin", "--email", "admin@example.com")
SCREEN = {"width": 1200, "height": 860, "deviceScaleFactor": 1, "mobile": False}


def main() -> None:
    """Fill a service with users, sign in, and take the screenshots."""
    with GunicornService(ENVIRONMENT) as service, tempfile.TemporaryDirectory() as scratch:
        service.flask(*ADMINISTRATOR, "--password-stdin", stdin=PASSWORD + "\n").check_returncode()
        service.flask("seed", "--users", "400", "--fixed").check_returncode()
        service.flask("users", "stats", "--recount").check_returncode()
        browser = Browser(Path(scratch))
        try:
            _take(browser, service.base_url + "/console/")
        finally:
            browser.quit()


def _take(browser: Browser, console: str) -> None:
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", SCREEN)
    browser.get(console + "sign-in")
    browser.find("#username").send_keys("admin")
    browser.find("#password").send_keys(PASSWORD + Keys.ENTER)
    browser.find(".who")
    browser.get(console + "dashboard")
    _save(browser, "console", scheme="light")
    browser.get(console + "users")
    browser.find("td.row-menu summary").click()
    _save(browser, "console-users", scheme="light")
    browser.get(console + "users?sort=username&role=moderator")
    browser.find_elements(By.CSS_SELECTOR, "tbody tr")[0].find_element(
        By.CSS_SELECTOR, "a[href*='/console/users/']"
    ).click()
    browser.follow("Roles and permissions")
    browser.find("table")
    _save(browser, "console-user", scheme="dark")


def _save(browser: Browser, name: str, *, scheme: str) -> None:
    # With motion, colours would change gradually.
    features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
    media = {"features": [{"name": name, "value": value} for name, value in features.items()]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.find("h1")
    FOLDER.mkdir(exist_ok=True)
    browser.save_screenshot(str(FOLDER / f"{name}.png"))


if __name__ == "__main__":
    main()
