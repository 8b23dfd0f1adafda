"""How long the pages of the console take where there are many users."""

import http.cookiejar
import re
import statistics
import time
import urllib.parse
import urllib.request

ROUNDS = 30
PAGES = {
    "dashboard": "/console/dashboard",
    "users": "/console/users",
    "users, last page": "/console/users?end=yes",
    "users, all selected": "/console/users?selected=all&sort=username",
    "users, search": "/console/users?search=martin",
    "users, suspended": "/console/users?status=suspended",
    "one user": "",  # The first of the list.
    "roles": "/console/roles",
    "audit": "/console/audit",
    "audit, log-ins": "/console/audit?action=auth.login",
    "audit, last page": "/console/audit?end=yes",
    "audit, about admin": "/console/audit?about=admin",
    "profile": "/console/profile",
    "sessions": "/console/sessions",
}


def page_milliseconds(base_url: str, username: str, password: str) -> dict[str, float]:
    """Return the median time of each page, from request to the last byte, for one administrator."""
    cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    browser = urllib.request.build_opener(cookies)

    def get(path: str) -> str:
        with browser.open(base_url + path, timeout=30) as answer:
            return str(answer.read().decode())

    found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', get("/console/sign-in"))
    if found is None:
        raise AssertionError("the page to sign in has no CSRF token")
    form = {"csrf_token": found[1], "username": username, "password": password}
    request = urllib.request.Request(
        base_url + "/console/sign-in",
        data=urllib.parse.urlencode(form).encode(),
        headers={"Origin": base_url},
    )
    with browser.open(request, timeout=30) as answer:
        if "sign-in" in answer.url:
            raise AssertionError("the administrator could not sign in")
    user = re.search(r'href="(/console/users/[0-9a-f-]{36})"', get("/console/users"))
    if user is None:
        raise AssertionError("the list of users links to none")
    medians = {}
    for name, path in PAGES.items():
        seconds = []
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            get(path or user[1])
            seconds.append(time.perf_counter() - begun)
        medians[name] = statistics.median(seconds) * 1000
    return medians
