"""Takes a picture of every mail in Chromium: `python -m tests.support.mail_pictures FOLDER`.

In each language, at the width of a desktop and of a phone, in the light and the dark color scheme.
"""

import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

from tests.support.browser import Browser
from userapi.languages import LANGUAGES, reader_of
from userapi.mail.design import MailDesign
from userapi.mail.messages import Messages
from userapi.mail.models import MailKind

WIDTHS = {"desktop": 800, "phone": 360}
SCHEMES = ("light", "dark")
DATA = {
    "username": "ada.lovelace",
    "token": "T" * 43,
    "link": "https://id.example.com/console/set-password#token=" + "T" * 43,
    "until": "2026-11-28T14:05:00Z",
    "factor": "Phone of Ada",
    "left": 3,
}


def main(folder: Path) -> None:
    """Write the pictures into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    messages = Messages(
        service_name="User Management Service",
        base_url="https://id.example.com",
        design=MailDesign(),
    )
    with tempfile.TemporaryDirectory() as scratch:
        browser = Browser(Path(scratch))
        try:
            for language in LANGUAGES:
                reader = reader_of(language, "Europe/Berlin")
                for kind in MailKind:
                    message = messages.write(
                        kind, recipient="ada@example.com", reader=reader, data=DATA
                    )
                    _photograph(browser, message.html, folder, f"{kind}-{language}")
        finally:
            browser.quit()


def _photograph(browser: Browser, html: str, folder: Path, name: str) -> None:
    browser.get("data:text/html;charset=utf-8," + quote(html))
    for device, width in WIDTHS.items():
        for scheme in SCHEMES:
            feature = {"name": "prefers-color-scheme", "value": scheme}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
            for height in (100, None):
                height = height or browser.execute_script("return document.body.scrollHeight")
                screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
                browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
            browser.save_screenshot(str(folder / f"{name}-{device}-{scheme}.png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
