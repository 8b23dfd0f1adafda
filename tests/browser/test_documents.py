"""Swagger UI and ReDoc, as somebody uses them who has nothing but a browser."""

from tests.browser.conftest import Site
from tests.support.browser import Browser


def test_both_documents_open(browser: Browser, site: Site) -> None:
    browser.get(site.url + "/docs")
    assert browser.find(".opblock-summary").is_displayed()

    browser.get(site.url + "/redoc")
    assert browser.find("[data-section-id]").is_displayed()


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
