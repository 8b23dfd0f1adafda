"""Swagger UI and ReDoc, used with nothing but a browser."""

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
    with urllib.request.urlopen(site.url + "/openapi.json", timeout=60) as answer:
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
    shown = browser.find(f".opblock-{method} .opblock-summary-path[data-path='{path}']")
    block = shown.find_element("xpath", "ancestor::*[contains(@class, 'opblock ')][1]")
    browser.execute_script("arguments[0].scrollIntoView({block: 'start'})", block)
    shown.click()
    return f"#{block.get_attribute('id')}"


def execute(browser: Browser, block: str) -> tuple[str, str]:
    """Press Execute; return status and body of the answer, as soon as both are complete."""
    click(browser, browser.find(f"{block} .execute"))
    answer = f"{block} .live-responses-table .response"

    def answered(browser: Browser) -> tuple[str, str] | None:
        status = browser.read(f"{answer} .response-col_status")
        body = browser.read(f"{answer} .highlight-code code")
        return (status.split()[0], body) if status and _is_json(body) else None

    return browser.wait(answered, "the answer")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


def click(browser: Browser, element: WebElement) -> None:
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def type_over(browser: Browser, element: WebElement, text: str) -> None:
    click(browser, element)
    element.send_keys(Keys.CONTROL, "a")
    # As if it were pasted: typed one by one, the characters of a token take seconds.
    browser.execute_cdp_cmd("Input.insertText", {"text": text})


@pytest.mark.thorough
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
    browser.click(".modal-ux .btn.authorize")
    browser.click(".modal-ux .btn-done")
    browser.wait(lambda b: not b.find_all(".modal-ux"), "the end of the dialog")
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


@pytest.mark.thorough
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


@pytest.mark.thorough
@pytest.mark.browser(expects=["status of 401"])
def test_a_refused_sign_in_says_why_and_authorizes_nothing(browser: Browser, site: Site) -> None:
    browser.get(site.url + "/docs")

    sign_in(browser, site.username, "not-the-password-1")
    browser.expect(".modal-ux [role=alert]", "password")
    browser.screenshot("swagger-sign-in-refused")

    assert "Authorized" not in browser.read(".modal-ux")
    assert browser.execute_script("return localStorage.length") == 0


@pytest.mark.thorough
@pytest.mark.browser(expects=["status of 401"])
def test_without_authorizing_the_answer_says_what_is_missing(browser: Browser, site: Site) -> None:
    browser.get(site.url + "/docs")

    status, answer = execute(browser, open_operation(browser, "get", "/api/v1/users/"))

    assert status == "401"
    assert json.loads(answer)["code"] == "authentication_required"


@pytest.mark.thorough
def test_swagger_ui_shows_an_example_of_each_refusal(browser: Browser, site: Site) -> None:
    browser.get(site.url + "/docs")
    login = open_operation(browser, "post", "/api/v1/auth/login")

    refused = f"{login} tr.response[data-code='401']"
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", browser.find(refused))

    browser.expect(refused, '"code": "invalid_credentials"')


@pytest.mark.thorough
def test_swagger_ui_shows_every_operation(
    browser: Browser, site: Site, document: dict[str, Any]
) -> None:
    browser.get(site.url + "/docs")
    expected = summaries(document)

    shown = browser.read_all(".opblock-summary-description", count=len(expected))

    assert sorted(shown) == expected
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
        "service_accounts",
        "service_keys",
        "own_keys",
        "user_keys",
    ]


@pytest.mark.thorough
def test_redoc_shows_every_operation(
    browser: Browser, site: Site, document: dict[str, Any]
) -> None:
    browser.get(site.url + "/redoc")
    expected = summaries(document)

    headings = browser.read_all("[id*='operation/'] h2, [id*='/paths/'] h2", count=len(expected))

    assert sorted(re.sub(r"\s+", " ", text).strip() for text in headings) == expected


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
