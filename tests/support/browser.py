"""Chromium without a window, which notes what a page does that it should not."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeVar, cast
from urllib.parse import urlsplit

from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.support.guardian import guardian
from tests.support.programs import CHROMEDRIVER, CHROMIUM

Answer = TypeVar("Answer")

GONE = "does not belong to the document"
PATIENCE_SECONDS = 60.0
# Schemes of content that a page creates, and of the empty pages of the browser.
LOCAL_SCHEMES = {"about", "blob", "chrome", "chrome-extension", "data", "devtools"}


class Browser(Chrome):
    """A selenium driver with a profile of its own, that reaches nothing but this machine."""

    def __init__(self, directory: Path) -> None:
        self.screenshots = directory / "screenshots"
        self.screenshots.mkdir(parents=True, exist_ok=True)
        options = Options()
        options.binary_location = str(CHROMIUM.require())
        for argument in (
            "--headless=new",
            # Tests run as root in a container, which Chromium's sandbox does not.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--no-proxy-server",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
            "--window-size=1280,1000",
            "--lang=en",
            f"--user-data-dir={directory / 'profile'}",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        super().__init__(options=options, service=Service(str(CHROMEDRIVER.require())))
        guardian.watch(self.service.process.pid, ended_by=signal.SIGKILL)
        self.set_page_load_timeout(PATIENCE_SECONDS)

    def quit(self) -> None:
        """End the browser and its driver."""
        pid = self.service.process.pid
        super().quit()
        guardian.release(pid)

    def find(self, css: str) -> WebElement:
        """Return the first visible element of a selector, as soon as there is one."""
        return self.wait(lambda browser: _visible(browser.find_elements(By.CSS_SELECTOR, css)), css)

    def click(self, css: str) -> None:
        """Click the first visible element of a selector, as soon as there is one."""
        self._click(By.CSS_SELECTOR, css)

    def follow(self, text: str) -> None:
        """Click the link with this text, as soon as there is one."""
        self._click(By.LINK_TEXT, text)

    def press(self, text: str) -> None:
        """Click the button in `main` with this text, as soon as there is one."""
        self._click(By.XPATH, f"//main//button[normalize-space()='{text}']")

    def _click(self, by: str, selector: str) -> None:
        def click(browser: Self) -> bool:
            element = _visible(browser.find_elements(by, selector))
            if element is None:
                return False
            element.click()
            return True

        self.wait(click, selector)

    def read(self, css: str) -> str:
        """Return the text of the first visible element of a selector, which may still change."""

        def text(browser: Self) -> tuple[str] | None:
            element = _visible(browser.find_elements(By.CSS_SELECTOR, css))
            return None if element is None else (element.text,)

        return self.wait(text, css)[0]

    def read_all(self, css: str, *, count: int) -> list[str]:
        """Return the texts of all elements of a selector, as soon as there are so many."""

        def texts(browser: Self) -> list[str] | None:
            found = [element.text for element in browser.find_elements(By.CSS_SELECTOR, css)]
            return found if len(found) >= count else None

        return self.wait(texts, f"{count} × {css}")

    def expect(self, css: str, text: str) -> None:
        """Wait until the first visible element of a selector contains the text."""
        self.wait(lambda browser: text in browser.read(css), f"{text!r} in {css}")

    def expect_exactly(self, css: str, text: str) -> None:
        """Wait until the first visible element of a selector contains this text and no other."""
        self.wait(lambda browser: browser.read(css) == text, f"{text!r} as {css}")

    def find_all(self, css: str) -> list[WebElement]:
        """Return every element of a selector that is there now."""
        return self.find_elements(By.CSS_SELECTOR, css)

    def wait(self, question: Callable[[Self], Answer | None], what: str = "") -> Answer:
        """Call `question` until its result is true, and return it. Raises TimeoutException."""

        def ask(browser: Self) -> Answer | None:
            try:
                return question(browser)
            except WebDriverException as exc:
                # ChromeDriver's other way to say that an element is stale.
                if GONE in (exc.msg or ""):
                    return None
                raise

        # An element of a page that was replaced is stale: the next call finds the new one.
        waiting = WebDriverWait(
            self,
            PATIENCE_SECONDS,
            poll_frequency=0.05,
            ignored_exceptions=[StaleElementReferenceException],
        )
        return cast(Answer, waiting.until(ask, f"not there: {what}"))

    def screenshot(self, name: str) -> Path:
        """Keep what can be seen now, in the run's directory."""
        path = self.screenshots / f"{name}.png"
        self.save_screenshot(str(path))
        return path

    def offences(self, site: str, *, expected: tuple[str, ...] = ()) -> list[str]:
        """Return errors in the console and requests to others than `site`, since the last time.

        A violation of the content security policy is an error in the console.
        """
        errors = [
            entry["message"]
            for entry in self._log("browser")
            if entry["level"] == "SEVERE" and not any(text in entry["message"] for text in expected)
        ]
        messages = [json.loads(entry["message"]) for entry in self._log("performance")]
        requested = [
            message["message"]["params"]["request"]["url"]
            for message in messages
            if message["message"]["method"] == "Network.requestWillBeSent"
        ]
        return errors + [f"asked for {url}" for url in requested if not _is_of(site, url)]

    def _log(self, kind: str) -> list[dict[str, str]]:
        entries: list[dict[str, str]] = self.get_log(kind)  # type: ignore[no-untyped-call]
        return entries


def _visible(elements: list[WebElement]) -> WebElement | None:
    return next((element for element in elements if element.is_displayed()), None)


def _is_of(site: str, url: str) -> bool:
    return urlsplit(url).scheme in LOCAL_SCHEMES or f"{url}/".startswith(f"{site}/")
