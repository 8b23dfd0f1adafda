"""Pages follow the language and the time zone of the profile, otherwise those of the browser."""

import re
from datetime import UTC, datetime

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.console.conftest import SignIn
from tests.support.pages import PageReader, words
from tests.support.users import MakeUser
from userapi.clock import ManualClock

NOON = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)


def time_of(answer: TestResponse) -> str:
    """Return the first time that the page shows."""
    found = re.search(r"<time [^>]*>([^<]+)</time>", answer.text)
    assert found is not None
    return " ".join(found[1].split())


def test_a_profile_without_preferences_leaves_the_choice_to_the_browser(
    make_user: MakeUser, clock: ManualClock, sign_in: SignIn
) -> None:
    clock.set(NOON)
    reader = sign_in(make_user("robin"))
    reader.browser.set_cookie("browser_zone", "America/New_York")

    answer = reader.get("/profile", headers={"Accept-Language": "en-GB"})

    assert time_of(answer) == "1 Jul 2026, 08:00"


@pytest.mark.parametrize("zone", ["Nowhere/Atlantis", "../../etc/passwd", "Europe", "x" * 3000])
def test_without_a_known_zone_times_are_in_utc(
    make_user: MakeUser, clock: ManualClock, sign_in: SignIn, zone: str
) -> None:
    clock.set(NOON)
    reader = sign_in(make_user("robin"))
    reader.browser.set_cookie("browser_zone", zone)

    answer = reader.get("/profile")

    assert time_of(answer) == "Jul 1, 2026, 12:00 PM UTC"


def test_days_of_filters_are_days_of_the_viewer(
    app: Flask, clock: ManualClock, make_user: MakeUser, sign_in: SignIn
) -> None:
    """In Berlin, 23:30 in UTC is the next day."""
    clock.set(datetime(2026, 7, 1, 23, 30, tzinfo=UTC))
    boss = sign_in(make_user("boss", roles=["superadmin"], locale="en", timezone="Europe/Berlin"))
    newcomer = make_user("newcomer")

    first = boss.get("/users?search=newcomer&created_after=2026-07-01&created_before=2026-07-01")
    second = boss.get("/users?search=newcomer&created_after=2026-07-02&created_before=2026-07-02")

    assert newcomer.id not in first.text
    assert newcomer.id in second.text


@pytest.fixture
def german(reader: PageReader) -> PageReader:
    """Return a visitor whose browser prefers German."""
    reader.browser.environ_base["HTTP_ACCEPT_LANGUAGE"] = "de"
    return reader


def test_the_limit_in_an_error_stays_in_its_translation(german: PageReader) -> None:
    german.get("/sign-up")

    answer = german.post(
        "/sign-up", username="robin", email="robin@example.com", password="ab1-kestrel"[:6]
    )

    assert "Muss mindestens 8 Zeichen lang sein." in words(answer)


def test_messages_after_a_form_are_translated(german: PageReader) -> None:
    german.get("/verify-email")

    answer = german.post("/verify-email", token="T" * 43)

    assert answer.status_code == 400
    assert "Dieser Link gilt nicht mehr. Fordern Sie einen neuen an." in words(answer)


def test_the_api_answers_in_english(app: Flask) -> None:
    client = app.test_client()

    answer = client.get("/api/v1/users/me", headers={"Accept-Language": "de"})

    assert answer.json is not None
    assert answer.json["title"] == "Authentication is required."
