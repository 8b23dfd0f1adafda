"""The pages of roles in a browser: their picture on a desk and on a phone."""

import pytest

from tests.browser.conftest import Site
from tests.browser.test_console import show, sign_in
from tests.support.browser import Browser

SIZES = """
const card = document.querySelector(".card:has(svg.picture)").getBoundingClientRect();
const picture = document.querySelector("svg.picture").getBoundingClientRect();
const frame = document.querySelector(".scroll:has(svg.picture)");
frame.scrollLeft = 9999;
return {
  card: card.width,
  picture: picture.width,
  panned: frame.scrollLeft,
  page: document.documentElement.scrollWidth - window.innerWidth,
};
"""


@pytest.mark.thorough
def test_the_picture_of_roles_fills_its_card_and_pans_on_a_phone(
    browser: Browser, site: Site
) -> None:
    sign_in(browser, site)
    for name in ("writers", "editors", "auditors", "trainees", "translators"):
        browser.get(site.url + "/console/roles/new")
        browser.find("#name").send_keys(name)
        browser.click("input[name=parents][value=user]")
        browser.press("Create the role")
        browser.expect_exactly("h1", name)
    browser.get(site.url + "/console/roles")
    show(browser, scheme="light", width=1280)
    browser.screenshot("roles-desk")
    desk = browser.execute_script(SIZES)
    show(browser, scheme="dark", width=390)
    browser.screenshot("roles-phone")

    phone = browser.execute_script(SIZES)

    assert desk["picture"] > 0.85 * desk["card"]
    assert desk["panned"] == 0
    # Names stay legible on a phone: the picture keeps its size, and its frame is panned.
    assert phone["picture"] > phone["card"]
    assert phone["panned"] > 0
    assert phone["page"] <= 0


LINES = """
const range = document.createRange();
return Array.from(document.querySelectorAll("td.of-parents"), (cell) => {
  range.selectNodeContents(cell);
  return new Set(Array.from(range.getClientRects(), (box) => Math.round(box.top))).size;
});
"""


@pytest.mark.thorough
def test_names_of_roles_are_not_broken_within_a_word(browser: Browser, site: Site) -> None:
    """In German the column of `moderator` was so narrow that its last letters had a new line."""
    sign_in(browser, site)
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {"Accept-Language": "de"}})
    show(browser, scheme="light", width=1280)
    browser.get(site.url + "/console/roles")
    browser.expect_exactly("h1", "Rollen")

    lines = browser.execute_script(LINES)

    browser.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {}})
    assert len(lines) >= 4
    assert set(lines) == {1}
