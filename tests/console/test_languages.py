"""Pages follow the language and the time zone of the profile, otherwise those of the browser."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO

import pytest
from flask import Flask
from sqlalchemy import text
from werkzeug.test import TestResponse

from tests.console.conftest import SignIn
from tests.support.client import JsonClient
from tests.support.mailbox import Mailbox
from tests.support.pages import PageReader, words
from tests.support.users import MadeUser, MakeUser
from userapi.clock import ManualClock
from userapi.infrastructure.database import db

MakeApp = Callable[..., Flask]
NEWCOMER = {
    "username": "newcomer",
    "email": "newcomer@example.com",
    "password": "granite-otter-57-teapot",
}
NOON = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)


def language_of(answer: TestResponse) -> str:
    found = re.search(r'<html lang="([^"]+)"', answer.text)
    assert found is not None
    return found[1]


def time_of(answer: TestResponse) -> str:
    """Return the first time that the page shows."""
    found = re.search(r"<time [^>]*>([^<]+)</time>", answer.text)
    assert found is not None
    return " ".join(found[1].split())


@pytest.fixture
def ada(make_user: MakeUser, clock: ManualClock) -> MadeUser:
    """Return a German user in Berlin, created at noon in UTC."""
    clock.set(NOON)
    return make_user("ada", locale="de-DE", timezone="Europe/Berlin")


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("de", "de"),
        ("de-CH,en;q=0.8", "de"),
        ("fr,de;q=0.5,en;q=0.4", "de"),
        ("fr", "en"),
        ("de;q=0,en;q=0.1", "en"),
        ("*", "en"),
        ("-- de;;q=x", "en"),
    ],
)
def test_visitors_get_the_language_of_their_browser(
    reader: PageReader, accepted: str, language: str
) -> None:
    answer = reader.get("/forgot-password", headers={"Accept-Language": accepted})

    assert language_of(answer) == language
    assert ("Passwort vergessen" in words(answer)) == (language == "de")


def test_the_profile_decides_before_the_browser(ada: MadeUser, sign_in: SignIn) -> None:
    ada_reader = sign_in(ada)

    answer = ada_reader.get("/profile", headers={"Accept-Language": "en"})

    assert language_of(answer) == "de"
    assert time_of(answer) == "01.07.2026, 14:00"
    assert "Zeiten in Europe/Berlin" in words(answer)


def test_a_profile_without_preferences_leaves_the_choice_to_the_browser(
    make_user: MakeUser, clock: ManualClock, sign_in: SignIn
) -> None:
    clock.set(NOON)
    reader = sign_in(make_user("robin"))
    reader.browser.set_cookie("browser_zone", "America/New_York")

    answer = reader.get("/profile", headers={"Accept-Language": "en-GB"})

    assert time_of(answer) == "1 Jul 2026, 08:00"
    assert "Times in America/New_York" in words(answer)


@pytest.mark.parametrize("zone", ["Nowhere/Atlantis", "../../etc/passwd", "Europe", "x" * 3000])
def test_without_a_known_zone_times_are_in_utc(
    make_user: MakeUser, clock: ManualClock, sign_in: SignIn, zone: str
) -> None:
    clock.set(NOON)
    reader = sign_in(make_user("robin"))
    reader.browser.set_cookie("browser_zone", zone)

    answer = reader.get("/profile")

    assert time_of(answer) == "Jul 1, 2026, 12:00 PM UTC"
    assert "Times in UTC" in words(answer)


def test_a_new_language_and_zone_apply_to_the_next_page(ada: MadeUser, sign_in: SignIn) -> None:
    reader = sign_in(ada)
    version = re.search(r"version=(\d+)", reader.get("/profile").text)
    assert version is not None

    answer = reader.follow(
        reader.post(
            f"/profile?version={version[1]}", locale="en-GB", timezone="Asia/Tokyo", first_name="A"
        )
    )

    assert language_of(answer) == "en"
    assert "Your profile was saved." in words(answer)
    assert time_of(answer) == "1 Jul 2026, 21:00"


def test_a_lock_does_not_change_the_language(app: Flask, ada: MadeUser, sign_in: SignIn) -> None:
    """The profile of a locked user is not stored with the session."""
    reader = sign_in(ada)
    for _ in range(5):
        log_in = {"username": "ada", "password": "wrong-password-12"}
        JsonClient(app).post("/api/v1/auth/login", json=log_in)

    assert language_of(reader.get("/profile")) == "de"


def test_the_profile_offers_the_languages_and_the_time_zones(
    ada: MadeUser, sign_in: SignIn
) -> None:
    page = sign_in(ada).get("/profile").text

    assert '<option value="de-DE" selected>Deutsch (Deutschland)</option>' in page
    assert '<option value="en">English</option>' in page
    assert '<option value="America/New_York">' in page


def test_the_language_of_a_user_is_named_in_that_of_the_viewer(
    make_user: MakeUser, sign_in: SignIn
) -> None:
    """The page showed tags such as `fr-CA`."""
    boss = sign_in(make_user("boss", roles=["admin"], locale="de"))
    canadian = make_user("ann", locale="fr-CA")

    assert "Sprache Französisch (Kanada)" in words(boss.get(f"/users/{canadian.id}"))


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


def test_ages_and_exact_times_of_lists_are_those_of_the_viewer(
    clock: ManualClock, make_user: MakeUser, sign_in: SignIn
) -> None:
    clock.set(NOON)
    boss = sign_in(make_user("boss", roles=["admin"], locale="de", timezone="Europe/Berlin"))
    clock.advance(minutes=5)

    page = boss.get("/users").text

    assert 'title="01.07.2026, 14:00:00 Europe/Berlin">vor 5 Minuten</time>' in page


@pytest.fixture
def german(reader: PageReader) -> PageReader:
    """Return a visitor whose browser prefers German."""
    reader.browser.environ_base["HTTP_ACCEPT_LANGUAGE"] = "de"
    return reader


def test_the_errors_of_a_form_are_translated(german: PageReader) -> None:
    german.get("/sign-up")

    answer = german.post("/sign-up", username="", email="robin@example.com", password="ab1")

    assert "Dieses Feld ist nötig." in words(answer)
    assert "Korrigieren Sie die markierten Felder." in words(answer)


def test_the_limit_in_an_error_stays_in_its_translation(german: PageReader) -> None:
    german.get("/sign-up")

    answer = german.post(
        "/sign-up", username="robin", email="robin@example.com", password="ab1-kestrel"[:6]
    )

    assert "Muss mindestens 8 Zeichen lang sein." in words(answer)


@pytest.mark.parametrize(
    ("username", "email", "expected"),
    [
        ("a", "robin@example.com", "3 bis 64 Zeichen aus a-z, 0-9"),
        ("robin", "robin", "Eine E-Mail-Adresse enthält ein @-Zeichen."),
        ("robin", "robin@b", "Der Teil nach dem @-Zeichen ist ungültig. Er sollte einen Punkt"),
        ("robin", "@example.com", "Vor dem @-Zeichen fehlt etwas."),
        ("robin", "robin@", "Nach dem @-Zeichen fehlt etwas."),
        ("robin", "r..n@example.com", "nicht zwei Punkte hintereinander"),
        ("robin", ".r@example.com", "Eine E-Mail-Adresse kann nicht mit einem Punkt beginnen."),
        ("robin", "r.@example.com", "Direkt vor dem @-Zeichen kann kein Punkt stehen."),
        ("robin", "r@.example.com", "Direkt nach dem @-Zeichen kann kein Punkt stehen."),
        ("robin", "r@example.com.", "kann nicht mit einem Punkt enden."),
        ("robin", "r(n@example.com", "Vor dem @-Zeichen stehen ungültige Zeichen: '('."),
        ("robin", "r@exa(mple.com", "Nach dem @-Zeichen stehen ungültige Zeichen: '('."),
        ("robin", f"r@{'a.b' * 90}.com", "Der Teil nach dem @-Zeichen ist zu lang (21 "),
        ("robin", f"r@{'a' * 64}.com", "Nach dem @-Zeichen stehen zu viele Zeichen ohne Punkt (1 "),
    ],
)
def test_what_is_wrong_with_a_name_or_an_address_is_translated(
    german: PageReader, username: str, email: str, expected: str
) -> None:
    """Messages of the library that checks addresses, and those with values, were English."""
    german.get("/sign-up")

    answer = german.post("/sign-up", username=username, email=email, password="granite-otter-57-t")

    assert answer.status_code == 422
    assert expected in words(answer)


def test_refusals_with_values_are_translated(make_user: MakeUser, sign_in: SignIn) -> None:
    """The names and numbers that a refusal contains had kept it in English."""
    boss = sign_in(make_user("boss", roles=["superadmin"], locale="de"))
    robin = make_user("robin")
    path = f"/users/{robin.id}"
    boss.get(f"{path}/edit")
    file = (BytesIO(b"name,email\nada,ada@example.com\n"), "people.csv")

    metadata = boss.post(path, username="robin", email=robin.email, metadata='{"a":\n oops}')
    until = boss.post(f"{path}/suspend", until="2001-01-01T00:00")
    columns = boss.post("/users/import", file=file)
    nothing = boss.post("/users/import")
    role = boss.post("/roles/new", name="A b")
    log = boss.get("/audit?actor_id=nobody")
    user = sign_in(make_user("visitor", locale="de")).get("/users")

    assert "Ungültiges JSON in Zeile 2, Spalte 2." in words(metadata)
    assert "Muss in der Zukunft liegen." in words(until)
    assert "Spalte 1, 'name', ist unbekannt. Bekannte Spalten: username, email" in words(columns)
    assert "Die Spalte username fehlt." in words(columns)
    assert "Wählen Sie zuerst eine Datei." in words(nothing)
    assert "2 bis 64 Zeichen aus a-z, 0-9" in words(role)
    assert "Akteur: Kein Konto hat diesen Namen oder diese Id." in words(log)
    assert "Dafür ist die Berechtigung users:read nötig." in words(user)


def test_problem_pages_are_translated(german: PageReader) -> None:
    answer = german.get("/no-such-page")

    assert answer.status_code == 404
    assert "Fehler 404 Seite nicht gefunden" in words(answer)
    assert "Zur Startseite" in words(answer)


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


def test_the_end_of_a_suspension_is_in_the_zone_of_the_administrator(
    app: Flask, make_user: MakeUser, sign_in: SignIn
) -> None:
    robin = make_user("robin")
    boss = sign_in(make_user("boss", roles=["superadmin"], locale="en-GB", timezone="Asia/Tokyo"))
    form = boss.get(f"/users/{robin.id}/suspend")

    boss.post(f"/users/{robin.id}/suspend", reason="trial", until="2099-01-31T12:00")

    assert "Until (Asia/Tokyo)" in words(form)
    page = boss.get(f"/users/{robin.id}")
    assert "31 Jan 2099, 12:00" in words(page)
    assert 'datetime="2099-01-31T03:00:00+00:00"' in page.text


@pytest.mark.parametrize("until", ["tomorrow", "0001-01-01T00:00", "2099-01-31T12:00+99:00"])
def test_an_end_of_a_suspension_that_is_no_time_is_refused(
    make_user: MakeUser, sign_in: SignIn, until: str
) -> None:
    robin = make_user("robin")
    boss = sign_in(make_user("boss", roles=["superadmin"], timezone="Asia/Tokyo"))
    boss.get(f"/users/{robin.id}/suspend")

    answer = boss.post(f"/users/{robin.id}/suspend", until=until)

    assert answer.status_code == 422


def test_a_user_who_signs_up_gets_mails_in_the_language_of_the_browser(make_app: MakeApp) -> None:
    app = make_app(FEATURE_EMAIL_VERIFICATION="true")
    reader = PageReader(app)
    reader.browser.environ_base["HTTP_ACCEPT_LANGUAGE"] = "fr,de-AT;q=0.8,en;q=0.5"
    reader.browser.set_cookie("browser_zone", "Europe/Vienna")
    reader.get("/sign-up")

    answer = reader.post("/sign-up", **NEWCOMER)

    assert answer.status_code == 200, answer.text
    (mail,) = Mailbox(app).deliver()
    assert mail["Subject"] == "Bestätigen Sie Ihre E-Mail-Adresse"
    assert profile_of(app, "newcomer") == ("de-AT", "Europe/Vienna")


def test_preferences_of_the_browser_that_are_unknown_do_not_prevent_signing_up(
    app: Flask, reader: PageReader
) -> None:
    reader.browser.environ_base["HTTP_ACCEPT_LANGUAGE"] = "de-ZZ,tlh"
    reader.browser.set_cookie("browser_zone", "../../etc/passwd")
    reader.get("/sign-up")

    answer = reader.post("/sign-up", **NEWCOMER)

    assert answer.status_code == 303, answer.text
    assert profile_of(app, "newcomer") == ("de", None)


def profile_of(app: Flask, username: str) -> tuple[str | None, str | None]:
    query = text("SELECT locale, timezone FROM users WHERE username = :username")
    with app.app_context(), db.engine.connect() as connection:
        row = connection.execute(query, {"username": username}).one()
    return row.locale, row.timezone


def test_lists_bulk_changes_and_imports_are_translated(
    make_user: MakeUser, sign_in: SignIn
) -> None:
    own = make_user("boss", roles=["admin"], locale="de")
    boss = sign_in(own)
    robin, rob = make_user("robin"), make_user("rob")

    users = words(boss.get("/users?search=rob"))
    question = boss.post("/users/bulk", action="suspend", user_ids=[robin.id, rob.id])
    result = boss.post("/users/bulk/run", action="suspend", user_ids=[robin.id, own.id])
    log = words(boss.get("/audit?action=user.suspended"))

    assert "2 Konten" in users and "Gespeicherte Filter" in users and "Zweiter Faktor" in users
    assert "Das ändert 2 Konten" in words(question)
    assert "1 von 2 Konten wurden geändert" in words(result)
    assert "nicht geändert ist Ihr eigenes Konto" in words(result)
    boss.post(f"/users/{robin.id}/activate", reason="suspension undone")
    undone = words(boss.get("/audit?action=user.activated"))
    assert "boss aktivierte robin: Sperre zurückgenommen" in undone
    assert "boss sperrte robin" in log and "die neuesten zuerst" in log
    assert "Datei prüfen" in words(boss.get("/users/import"))
