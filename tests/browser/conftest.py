"""A browser and the service as it is shipped. A fault of a page fails its test.

    def test_the_console_greets(browser: Browser, site: Site) -> None:
        browser.get(site.url + "/console/")
        browser.expect_exactly("h1", "Sign in")

Errors in the console, violations of the content security policy and requests to another host fail
every test that uses `browser`. One that expects a refusal says so:
`@pytest.mark.browser(expects=["status of 401"])`.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from selenium.webdriver.common.virtual_authenticator import (
    Protocol,
    Transport,
    VirtualAuthenticatorOptions,
)

from tests.support.browser import Browser
from tests.support.gunicorn import GunicornService, add_administrator
from tests.support.programs import ProgramMissing, is_ci

ADMINISTRATOR = "admin"
PASSWORD = "violet-harbour-93-lantern"


@dataclass(frozen=True, slots=True)
class Site:
    """A running service and who administers it."""

    service: GunicornService
    username: str = ADMINISTRATOR
    password: str = PASSWORD

    @property
    def url(self) -> str:
        """The URL that paths are appended to."""
        return self.service.base_url


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.browser)


@dataclass(frozen=True, slots=True)
class LocalSite(Site):
    """The service at localhost: browsers know no passkeys of an address."""

    @property
    def url(self) -> str:
        """The URL that paths are appended to."""
        return f"http://localhost:{self.service.port}"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Return the service on SQLite, with an administrator."""
    environment = {
        "ENVIRONMENT": "testing",
        "PASSWORD_HASH_ROUNDS": "4",
        "RATE_LIMIT_ENABLED": "false",
    }
    with GunicornService(environment) as service:
        add_administrator(service, PASSWORD, username=ADMINISTRATOR)
        yield Site(service)


@pytest.fixture(scope="module")
def _browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    directory = tmp_path_factory.mktemp("browser")
    try:
        browser = Browser(directory)
    except ProgramMissing as exc:
        if is_ci():
            raise
        pytest.skip(str(exc))
    yield browser
    browser.quit()
    shutil.rmtree(directory / "profile", ignore_errors=True)


@pytest.fixture
def browser(_browser: Browser, site: Site, request: pytest.FixtureRequest) -> Iterator[Browser]:
    """Return a selenium driver without cookies or storage; its tests fail for what pages do."""
    _browser.get("about:blank")
    _browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    _browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    _browser.execute_cdp_cmd(
        "Storage.clearDataForOrigin", {"origin": site.url, "storageTypes": "all"}
    )
    _browser.offences(site.url)
    yield _browser
    _browser.screenshot(request.node.name)
    marker = request.node.get_closest_marker("browser")
    expected = tuple(marker.kwargs.get("expects", ())) if marker else ()
    assert _browser.offences(site.url, expected=expected) == []


@pytest.fixture
def authenticator(browser: Browser) -> Iterator[None]:
    """Give the browser an authenticator that verifies its user."""
    browser.add_virtual_authenticator(
        VirtualAuthenticatorOptions(
            protocol=Protocol.CTAP2,
            transport=Transport.INTERNAL,
            has_resident_key=True,
            has_user_verification=True,
            is_user_verified=True,
        )
    )
    yield
    browser.remove_virtual_authenticator()
