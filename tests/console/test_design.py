"""The design of the pages: the colour scheme, icons, and the first page after the sign-in."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from redis import Redis

import userapi.console
from tests.console.conftest import SignIn
from tests.support.pages import PageReader
from tests.support.servers import RedisServer
from tests.support.users import MakeUser

CONSOLE = Path(userapi.console.__file__).parent


def scheme(page: str) -> str:
    found = re.search(r'<html lang="en" data-bs-theme="([a-z]+)"', page)
    assert found
    return found[1]


def test_the_first_field_of_a_form_before_the_sign_in_has_the_focus(reader: PageReader) -> None:
    for path, field in (
        ("sign-in", "username"),
        ("sign-up", "username"),
        ("forgot-password", "email"),
    ):
        page = reader.get(f"/{path}").text
        assert re.findall(r'<input[^>]+name="([a-z_]+)"[^>]+autofocus', page) == [field], path


def test_pages_have_an_icon_and_titles_with_the_name_of_their_object(
    sign_in: SignIn, make_user: MakeUser
) -> None:
    boss, robin = sign_in(roles=("superadmin",)), make_user("robin")
    pages = [f"/users/{robin.id}", f"/users/{robin.id}/security", "/roles/admin", "/dashboard"]

    texts = [boss.get(path).text for path in pages]

    assert [re.findall("<title>(.*?)</title>", text)[0] for text in texts] == [
        "robin · Overview · User Management Service",
        "robin · Security · User Management Service",
        "admin · Roles · User Management Service",
        "Dashboard · User Management Service",
    ]
    icons = {icon for text in texts for icon in re.findall('<link rel="icon" href="([^"]+)"', text)}
    assert len(icons) == 1
    with boss.browser.get(icons.pop()) as icon:
        assert (icon.status_code, icon.mimetype) == (200, "image/svg+xml")


def test_the_colour_scheme_is_that_of_the_browser_until_one_is_chosen(sign_in: SignIn) -> None:
    browser = sign_in()
    assert scheme(browser.get("/profile").text) == "system"

    chosen = browser.post("/theme", theme="dark", onward="/console/sessions?x=1")

    assert (chosen.status_code, chosen.location) == (303, "/console/sessions?x=1")
    page = browser.get("/sessions").text
    assert scheme(page) == "dark"
    assert re.search(r'value="dark" aria-pressed="true"', page)
    browser.post("/theme", theme="system")
    assert scheme(browser.get("/sessions").text) == "system"


def test_the_colour_scheme_stays_after_signing_out(sign_in: SignIn) -> None:
    browser = sign_in()
    browser.post("/theme", theme="light")

    browser.post("/sign-out")

    assert scheme(browser.get("/sign-in").text) == "light"


@pytest.mark.parametrize("onward", ["//evil.example/", "https://evil.example/console/", ""])
def test_choosing_a_colour_scheme_never_leads_to_another_host(
    reader: PageReader, onward: str
) -> None:
    reader.get("/sign-in")

    answer = reader.post("/theme", theme="dark", onward=onward)

    assert (answer.status_code, answer.location) == (303, "/console/")


def test_an_unknown_colour_scheme_is_rejected_and_one_in_a_cookie_is_ignored(
    reader: PageReader,
) -> None:
    reader.get("/sign-in")
    assert reader.post("/theme", theme='"><script>').status_code == 422

    reader.browser.set_cookie("console-theme", '"><script>')

    assert scheme(reader.get("/sign-in").text) == "system"


def test_the_file_of_icons_holds_the_icons_in_use_and_no_other() -> None:
    """`python scripts/vendor_tabler.py` writes the file."""
    drawn = re.findall(r'<symbol id="([a-z0-9-]+)"', (CONSOLE / "static/icons.svg").read_text())
    templates = CONSOLE.joinpath("templates").rglob("*.html")
    used = {
        name
        for path in templates
        for name in re.findall(r'\bicon(?:\(|=)"([a-z0-9-]+)"', path.read_text("utf-8"))
    }

    assert drawn == sorted(used)


@pytest.mark.parametrize(
    ("permissions", "first_page"),
    [
        ([], "profile"),
        (["audit:read"], "audit"),
        (["audit:read", "roles:read"], "roles"),
        (["roles:read", "users:read"], "users"),
        (["*"], "dashboard"),
    ],
)
def test_the_first_page_is_one_that_the_user_may_see(
    app: Flask, sign_in: SignIn, make_user: MakeUser, permissions: list[str], first_page: str
) -> None:
    boss = sign_in(roles=("superadmin",))
    boss.post("/roles/new", name="reader", permissions=permissions)
    reader = PageReader(app)
    reader.sign_in(make_user("robin", roles=("reader",)))

    answer = reader.get("/")

    assert answer.location == f"/console/{first_page}"
    assert reader.follow(answer).status_code == 200


def test_initials_are_those_of_the_name_and_of_a_single_word_its_first_letter(
    sign_in: SignIn, make_user: MakeUser
) -> None:
    browser = sign_in(make_user("ada.lovelace"))

    page = browser.get("/profile").text

    assert re.search(r'class="avatar avatar-sm tint-[0-7]" aria-hidden="true">AL<', page)


def test_static_files_are_the_same_for_everyone_and_read_no_session(
    make_app: Callable[..., Flask],
    private_server: Callable[[type[RedisServer]], RedisServer],
    make_user: MakeUser,
) -> None:
    """Each file of a page cost a read in Redis, and browsers cached it for one cookie only."""
    server = private_server(RedisServer)
    browser = PageReader(make_app(REDIS_URL=server.url))
    page = browser.get("/sign-in").text
    sheet = re.search(r'href="/console(/static/tabler.min.css[^"]+)"', page)
    assert sheet
    asked = browser.get(sheet[1])
    asked.close()
    browser.sign_in(make_user("robin"))

    with Redis.from_url(server.url) as store:
        before = reads(store)
        answer = browser.get(sheet[1])
        answer.close()
        after = reads(store)

    assert (asked.status_code, answer.status_code) == (200, 200)
    assert "Vary" not in asked.headers and "Set-Cookie" not in asked.headers
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert after == before > 0


def reads(store: Redis) -> int:
    """Return how often a value was read."""
    calls: int = store.info("commandstats")["cmdstat_get"]["calls"]
    return calls
