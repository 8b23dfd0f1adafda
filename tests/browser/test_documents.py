"""Swagger UI and ReDoc, as somebody uses them who has nothing but a browser."""

import json
import re
import urllib.request
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.browser.conftest import Site
from tests.support.browser import Browser

METHODS = ("get", "post", "put", "patch", "delete")


@pytest.fixture(scope="module")
def document(site: Site) -> dict[str, Any]:
    with urllib.request.urlopen(site.url + "/openapi.json", timeout=10) as answer:
        document: dict[str, Any] = json.loads(answer.read())
    return document


def summaries(document: dict[str, Any]) -> list[str]:
    return sorted(
        operation["summary"]
        for item in document["paths"].values()
        for method, operation in item.items()
        if method in METHODS
    )


def open_operation(browser: Browser, method: str, path: str) -> str:
    """Unfold an operation; return the selector of its block."""
    browser.find(".opblock-summary-path")
    for block in browser.find_all(f".opblock-{method}"):
        shown = block.find_element("css selector", ".opblock-summary-path")
        if shown.get_attribute("data-path") == path:
            browser.execute_script("arguments[0].scrollIntoView({block: 'start'})", block)
            shown.click()
            return f"#{block.get_attribute('id')}"
    raise AssertionError(f"{method} {path} is not shown")


def execute(browser: Browser, block: str) -> tuple[str, str]:
    """Press Execute; return status and body of the answer."""
    click(browser, browser.find(f"{block} .execute"))
    answer = f"{block} .live-responses-table .response"
    status = browser.find(f"{answer} .response-col_status").text
    return status.split()[0], browser.find(f"{answer} .highlight-code code").text


def click(browser: Browser, element: WebElement) -> None:
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def type_over(browser: Browser, element: WebElement, text: str) -> None:
    click(browser, element)
    element.send_keys(Keys.CONTROL, "a")
    # As if it were pasted: typed one by one, the characters of a token take seconds.
    browser.execute_cdp_cmd("Input.insertText", {"text": text})


def test_one_logs_in_authorizes_and_lists_users_in_swagger_ui(browser: Browser, site: Site) -> None:
    browser.get(site.url + "/docs")
    login = open_operation(browser, "post", "/api/v1/auth/login")
    credentials = json.dumps({"username": site.username, "password": site.password})
    type_over(browser, browser.find(f"{login} textarea.body-param__text"), credentials)
    status, answer = execute(browser, login)
    assert status == "200", answer
    browser.screenshot("swagger-logged-in")
    token = json.loads(answer)["access_token"]

    click(browser, browser.find(".btn.authorize"))
    type_over(browser, browser.find("#auth-bearer-value"), token)
    browser.screenshot("swagger-authorize")
    browser.find(".modal-ux .btn.authorize").click()
    browser.find(".modal-ux .btn-done").click()
    users = open_operation(browser, "get", "/api/v1/users/")
    status, answer = execute(browser, users)
    browser.screenshot("swagger-users")

    assert status == "200"
    assert [user["username"] for user in json.loads(answer)["items"]] == [site.username]


def sign_in(browser: Browser, username: str, password: str) -> None:
    """Sign in by the keyboard, as the dialog opens."""
    click(browser, browser.find(".btn.authorize"))
    name = browser.find("#sign-in-username")
    browser.wait(lambda b: b.switch_to.active_element == name, "the focus on the user name")
    name.send_keys(username)
    browser.find("#sign-in-password").send_keys(password, Keys.ENTER)


def test_one_signs_in_inside_authorize_and_stays_signed_in(browser: Browser, site: Site) -> None:
    browser.get(site.url + "/docs")
    sign_in(browser, site.username, site.password)
    browser.wait(lambda b: not b.find_elements("css selector", ".modal-ux"), "the dialog's end")
    first = execute(browser, open_operation(browser, "get", "/api/v1/auth/me"))

    browser.get(site.url + "/docs")
    again = execute(browser, open_operation(browser, "get", "/api/v1/auth/me"))
    browser.screenshot("swagger-signed-in")

    for status, answer in (first, again):
        assert status == "200"
        assert json.loads(answer)["username"] == site.username
    click(browser, browser.find(".btn.authorize"))
    browser.expect(".modal-ux", "Authorized")
    assert not browser.find_elements("css selector", "#sign-in-username")


@pytest.mark.browser(expects=["status of 401"])
def test_a_refused_sign_in_says_why_and_authorizes_nothing(browser: Browser, site: Site) -> None:
    browser.get(site.url + "/docs")

    sign_in(browser, site.username, "not-the-password-1")
    told = browser.find(".modal-ux [role=alert]").text
    browser.screenshot("swagger-sign-in-refused")

    assert "password" in told
    assert "Authorized" not in browser.find(".modal-ux").text
    assert browser.execute_script("return localStorage.length") == 0


@pytest.mark.browser(expects=["status of 401"])
def test_without_authorizing_the_answer_says_what_is_missing(browser: Browser, site: Site) -> None:
    browser.get(site.url + "/docs")

    status, answer = execute(browser, open_operation(browser, "get", "/api/v1/users/"))

    assert status == "401"
    assert json.loads(answer)["code"] == "authentication_required"


def test_swagger_ui_shows_an_example_of_each_refusal(browser: Browser, site: Site) -> None:
    browser.get(site.url + "/docs")
    login = open_operation(browser, "post", "/api/v1/auth/login")

    refused = browser.find(f"{login} tr.response[data-code='401']")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", refused)

    assert '"code": "invalid_credentials"' in refused.text


def test_swagger_ui_shows_every_operation(
    browser: Browser, site: Site, document: dict[str, Any]
) -> None:
    browser.get(site.url + "/docs")
    browser.find(".opblock-summary-description")

    shown = sorted(e.text for e in browser.find_all(".opblock-summary-description"))

    assert shown == summaries(document)
    assert [e.get_attribute("data-tag") for e in browser.find_all(".opblock-tag")] == [
        "auth",
        "users",
        "transfers",
        "activity",
        "statistics",
        "roles",
        "audit",
        "health",
        "wellknown",
    ]


def test_redoc_shows_every_operation(
    browser: Browser, site: Site, document: dict[str, Any]
) -> None:
    browser.get(site.url + "/redoc")
    browser.find("[data-section-id^='tag/health']")

    headings = [e.text for e in browser.find_all("[id*='operation/'] h2, [id*='/paths/'] h2")]

    assert sorted(re.sub(r"\s+", " ", text).strip() for text in headings) == summaries(document)


def test_what_a_page_should_not_do_is_noticed(browser: Browser, site: Site) -> None:
    browser.get(site.url + "/docs")
    browser.execute_script("fetch('http://elsewhere.invalid/').catch(() => {})")
    browser.execute_script("document.body.append(Object.assign(new Image(), {src: '/nothing'}))")
    found: list[str] = []

    def both_are_noticed(browser: Browser) -> bool:
        found.extend(browser.offences(site.url))
        told = "\n".join(found)
        return "Content Security Policy" in told and "status of 404" in told

    assert browser.wait(both_are_noticed)
