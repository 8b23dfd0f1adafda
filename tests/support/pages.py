"""A browser without scripts: keeps cookies, reads pages, sends their forms."""

import re
from html import unescape
from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

from tests.support.users import MadeUser

CSRF = re.compile(r'name="csrf_token" value="([^"]+)"')


class PageReader:
    """Looks at pages of the console, as one browser."""

    def __init__(self, app: Flask, *, ip_address: str = "127.0.0.1") -> None:
        self.browser = app.test_client()
        self.browser.environ_base["REMOTE_ADDR"] = ip_address
        self.token = ""

    def get(self, path: str, **options: Any) -> TestResponse:
        """Open a page under /console, without following redirects."""
        return self._seen(self.browser.get(f"/console{path}", **options))

    def post(self, path: str, **fields: Any) -> TestResponse:
        """Send a form to a page under /console, with the token of the page seen last."""
        data = {"csrf_token": self.token, **fields}
        return self._seen(self.browser.post(f"/console{path}", data=data))

    def follow(self, answer: TestResponse) -> TestResponse:
        """Follow redirects until a page is shown."""
        while answer.status_code in (302, 303):
            answer = self._seen(self.browser.get(answer.location))
        return answer

    def sign_in(self, user: MadeUser, **fields: Any) -> TestResponse:
        """Sign in by the form."""
        self.get("/sign-in")
        answer = self.post(
            "/sign-in", **{"username": user.username, "password": user.password, **fields}
        )
        self.get("/sign-in" if answer.status_code != 303 else "/profile")
        return answer

    @property
    def cookie(self) -> str | None:
        """Return the value of the session cookie."""
        cookie = self.browser.get_cookie("console") or self.browser.get_cookie("__Host-console")
        return cookie.value if cookie else None

    def _seen(self, answer: TestResponse) -> TestResponse:
        found = CSRF.search(answer.text) if answer.mimetype == "text/html" else None
        if found:
            self.token = unescape(found[1])
        return answer


def words(answer: TestResponse) -> str:
    """Return the text of a page as people read it."""
    text = re.sub(r"<(script|style|title)\b.*?</\1>", " ", answer.text, flags=re.DOTALL)
    plain = " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).split())
    return plain.replace(" ,", ",")
