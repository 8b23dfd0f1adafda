"""Takes the screenshot of the console in the README: `python -m tests.support.screenshot`."""

import tempfile
from pathlib import Path

from selenium.webdriver.common.keys import Keys

from tests.support.browser import Browser
from tests.support.gunicorn import REPOSITORY, GunicornService

PICTURE = REPOSITORY / "docs" / "images" / "console.png"
PASSWORD = "violet-harbour-93-lantern"
ENVIRONMENT = {
    "ENVIRONMENT": "testing",
    "PASSWORD_HASH_ROUNDS": "4",
    "RATE_LIMIT_ENABLED": "false",
}
ADMINISTRATOR = ("users", "create-admin", "--username", "admin", "--email", "admin@example.com")


def main() -> None:
    """Fill a service with users, sign in, and take the screenshot."""
    with GunicornService(ENVIRONMENT) as service, tempfile.TemporaryDirectory() as scratch:
        service.flask(*ADMINISTRATOR, "--password-stdin", stdin=PASSWORD + "\n").check_returncode()
        service.flask("seed", "--users", "400", "--fixed").check_returncode()
        service.flask("users", "stats", "--recount").check_returncode()
        browser = Browser(Path(scratch))
        try:
            screen = {"width": 1200, "height": 860, "deviceScaleFactor": 1, "mobile": False}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
            browser.get(service.base_url + "/console/sign-in")
            browser.find("#username").send_keys("admin")
            browser.find("#password").send_keys(PASSWORD + Keys.ENTER)
            browser.find(".who")
            browser.get(service.base_url + "/console/dashboard")
            browser.find("h1")
            PICTURE.parent.mkdir(exist_ok=True)
            browser.save_screenshot(str(PICTURE))
        finally:
            browser.quit()


if __name__ == "__main__":
    main()
