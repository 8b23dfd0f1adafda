"""Second factors in a browser: apps by their QR code, recovery codes, and passkeys."""

import io
from collections.abc import Iterator
from pathlib import Path

import pyotp
import pytest
import zxingcpp
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browser.conftest import LocalSite, Site
from tests.browser.test_console import AXE, CHECK, STANDARDS
from tests.support.browser import Browser
from tests.support.gunicorn import GunicornService

pytestmark = pytest.mark.usefixtures("authenticator")
NEW_PASSWORD = "granite-otter-57-teapot"
SIZES = [(1280, 900), (390, 844)]
SCHEMES = ["light", "dark"]
LINES = "return Array.from(arguments[0].getClientRects(), box => box.top)"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Return the service at its default address."""
    environment = {
        "ENVIRONMENT": "testing",
        "PASSWORD_HASH_ROUNDS": "4",
        "RATE_LIMIT_ENABLED": "false",
        "LOCKOUT_THRESHOLD": "1000",
    }
    with GunicornService(environment) as service:
        yield LocalSite(service)


def add_user(site: Site, name: str) -> None:
    file = site.service.directory / f"{name}.csv"
    file.write_text(f"username,email,password\n{name},{name}@example.com,{NEW_PASSWORD}\n")
    made = site.service.command("users", "import", str(file))
    assert made.exit_code == 0, made.output


def type_password(browser: Browser, site: Site, name: str) -> None:
    browser.get(f"{site.url}/console/sign-in")
    browser.find("#username").send_keys(name)
    browser.find("#password").send_keys(NEW_PASSWORD + Keys.ENTER)


def leave(browser: Browser) -> None:
    browser.click(".who summary")
    browser.click(".who form[action$='sign-out'] button")


def sign_out(browser: Browser) -> None:
    leave(browser)
    browser.expect_exactly("h1", "Sign in")


def set_scheme(browser: Browser, scheme: str) -> None:
    """Show pages in a colour scheme from now on."""
    # With motion, colours would change gradually, and axe would measure those in between.
    features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
    media = {"features": [{"name": name, "value": value} for name, value in features.items()]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def offences_of_axe(browser: Browser) -> list[str]:
    """Return what axe finds on the page in both schemes and two widths."""
    found = []
    for width, height in SIZES:
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        for scheme in SCHEMES:
            set_scheme(browser, scheme)
            browser.execute_script(Path(AXE).read_text())
            found += browser.execute_async_script(CHECK, STANDARDS)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    return found


def scanned(browser: Browser) -> list[str]:
    """Return the texts of the QR codes that a camera sees on the page, in each scheme."""
    texts = []
    browser.execute_script("document.querySelector('.qr').scrollIntoView({block: 'center'})")
    for scheme in SCHEMES:
        set_scheme(browser, scheme)
        picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("L")
        texts += [code.text for code in zxingcpp.read_barcodes(picture)]
    return texts


@pytest.mark.thorough
def test_a_lost_app_is_replaced_by_a_passkey_with_a_recovery_code(
    browser: Browser, site: Site
) -> None:
    add_user(site, "ada")
    type_password(browser, site, "ada")
    browser.expect_exactly("h1", "Profile")
    browser.follow("Security")
    findings = offences_of_axe(browser)
    browser.screenshot("security-before")
    browser.find("#name").send_keys("Phone")
    browser.press("Add an authenticator app")
    browser.find(".qr svg")
    findings += offences_of_axe(browser)
    light, dark = scanned(browser)
    secret = pyotp.parse_uri(light)
    assert isinstance(secret, pyotp.TOTP)
    browser.find("#code").send_keys(secret.now() + Keys.ENTER)
    codes = browser.read_all(".codes code", count=10)
    findings += offences_of_axe(browser)
    browser.screenshot("recovery-codes")
    browser.follow("I have saved them")
    browser.expect("table", "Phone")
    findings += offences_of_axe(browser)
    sign_out(browser)

    type_password(browser, site, "ada")
    browser.expect_exactly("h1", "Second step")
    findings += offences_of_axe(browser)
    browser.screenshot("second-step")
    browser.find("#code").send_keys(codes[0] + Keys.ENTER)
    browser.expect(".note", "9 are left")
    browser.get(f"{site.url}/console/security")
    browser.find("#passkey-name").send_keys("Laptop")
    browser.press("Add a passkey")
    browser.expect(".note", "The passkey was added.")
    browser.click("button[aria-label='Remove Phone']")
    browser.switch_to.alert.accept()
    browser.expect(".note", "The factor was removed.")
    leave(browser)
    # The autofill of the browser: a virtual authenticator chooses the passkey by itself.
    browser.expect_exactly("h1", "Profile")

    assert light == dark
    assert light.startswith("otpauth://totp/")
    assert findings == []


@pytest.mark.thorough
def test_recovery_codes_are_saved_as_a_file_and_printed(
    browser: Browser, site: Site, tmp_path: Path
) -> None:
    add_user(site, "cal")
    type_password(browser, site, "cal")
    browser.expect_exactly("h1", "Profile")
    browser.get(f"{site.url}/console/security")
    browser.press("Add a passkey")
    codes = browser.read_all(".codes code", count=10)
    saving = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", saving)
    browser.execute_script("window.print = () => { document.title = 'printed'; }")

    browser.follow("Download")
    browser.press("Print")

    file = tmp_path / "recovery-codes.txt"
    browser.wait(lambda _: file.exists(), "the file")
    # A sheet or a file of codes says what they open.
    assert file.read_text().splitlines() == ["User Management Service, cal", "", *codes]
    browser.wait(lambda browser: browser.title == "printed", "the dialog of the printer")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    browser.screenshot("recovery-codes-printed")
    printed = browser.find_element(By.TAG_NAME, "body").text
    assert "For cal at User Management Service, created on " in printed
    assert "Times in" not in printed and "Your second factor was added" not in printed


@pytest.mark.thorough
def test_recovery_codes_do_not_break_on_a_phone(browser: Browser, site: Site) -> None:
    """Each code went over two lines, at one of its hyphens."""
    add_user(site, "dan")
    type_password(browser, site, "dan")
    browser.expect_exactly("h1", "Profile")
    browser.get(f"{site.url}/console/security")
    browser.press("Add a passkey")
    assert len(browser.read_all(".codes code", count=10)) == 10
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": False},
    )

    boxes = [len(browser.execute_script(LINES, code)) for code in browser.find_all(".codes code")]

    assert boxes == [1] * 10


@pytest.mark.thorough
def test_a_passkey_is_the_second_step_and_confirms(browser: Browser, site: Site) -> None:
    add_user(site, "bea")
    type_password(browser, site, "bea")
    browser.expect_exactly("h1", "Profile")
    browser.get(f"{site.url}/console/security")
    browser.press("Add a passkey")
    assert len(browser.read_all(".codes code", count=10)) == 10
    browser.follow("I have saved them")
    # Otherwise the autofill signs in before the password is typed.
    browser.set_user_verified(False)
    sign_out(browser)
    type_password(browser, site, "bea")
    browser.expect_exactly("h1", "Second step")
    browser.set_user_verified(True)
    browser.press("Use a passkey")
    browser.expect_exactly("h1", "Profile")
    browser.get(f"{site.url}/console/confirm?onward=/console/security")
    findings = offences_of_axe(browser)
    browser.screenshot("confirm")
    browser.press("Use a passkey")

    browser.expect_exactly("h1", "Security")
    browser.set_user_verified(False)
    sign_out(browser)
    browser.set_user_verified(True)
    browser.press("Sign in with a passkey")
    browser.expect_exactly("h1", "Profile")
    assert findings == []


@pytest.mark.thorough
def test_an_address_gives_way_to_a_link_to_localhost(browser: Browser, site: Site) -> None:
    browser.get(f"{site.service.base_url}/console/sign-in?onward=/console/sessions")

    link = browser.find("[data-passkey-elsewhere] a")

    assert link.text == site.url
    assert link.get_attribute("href") == f"{site.url}/console/sign-in?onward=/console/sessions"
    assert not browser.find_element("css selector", "[data-passkey]").is_displayed()
    assert offences_of_axe(browser) == []
    assert browser.offences(site.service.base_url) == []
