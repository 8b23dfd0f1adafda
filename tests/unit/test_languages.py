"""Language tags, time zones, and how a reader's language writes times and numbers."""

from datetime import UTC, date, datetime

import pytest
from babel import Locale

from userapi.languages import Reader, locale_of, reader_of, zone_of

MOMENT = datetime(2026, 11, 28, 14, 5, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("tag", "locale"),
    [
        ("de", "de"),
        ("de-CH", "de_CH"),
        ("DE_ch", "de_CH"),
        ("de-Latn-AT", "de_AT"),
        ("de-CH-1996-u-co-phonebk", "de_CH"),
        ("en-GB", "en_GB"),
        ("de-ZZ", "de"),
    ],
)
def test_a_language_tag_selects_the_catalogue_and_the_region(tag: str, locale: str) -> None:
    assert str(locale_of(tag)) == locale


@pytest.mark.parametrize("tag", ["fr", "deu", "gsw-CH", "x-de", "", "*", None])
def test_a_language_without_a_catalogue_has_no_locale(tag: str | None) -> None:
    assert locale_of(tag) is None


def test_the_default_is_english_in_utc() -> None:
    reader = reader_of("fr-FR", None)

    assert (reader.language_tag, reader.zone_name) == ("en", "UTC")


@pytest.mark.parametrize(
    "name", ["Nowhere/Atlantis", "../etc/passwd", "/etc/passwd", "Europe", "E" * 5000, ""]
)
def test_an_unknown_time_zone_is_utc(name: str) -> None:
    assert zone_of(name) is UTC


@pytest.mark.parametrize(
    ("tag", "zone", "text"),
    [
        ("en", None, "November 28, 2026, 2:05\u202fPM"),
        ("en-GB", "Europe/London", "28 November 2026, 14:05"),
        ("de-DE", "Europe/Berlin", "28. November 2026, 15:05"),
        ("de", "Asia/Tokyo", "28. November 2026, 23:05"),
    ],
)
def test_times_follow_language_and_zone(tag: str, zone: str | None, text: str) -> None:
    assert reader_of(tag, zone).moment(MOMENT) == text


@pytest.mark.parametrize("language", ["fr", "nn", "pt_BR"])
def test_times_of_languages_to_come_have_no_signs_of_patterns(language: str) -> None:
    text = Reader(Locale.parse(language), UTC).moment(MOMENT)

    assert "2026" in text and "14:05" in text
    assert not set(text) & set("'{}")


def test_an_exact_time_has_seconds_and_the_name_of_its_zone() -> None:
    moment = MOMENT.replace(second=9)

    exact = reader_of("de", "Europe/Berlin").exact_moment(moment)

    assert exact == "28.11.2026, 15:05:09 Europe/Berlin"


@pytest.mark.parametrize(
    ("seconds", "english", "german"),
    [
        (59.9, None, None),
        (-5, None, None),
        (60, "1 minute ago", "vor 1 Minute"),
        (3599, "59 minutes ago", "vor 59 Minuten"),
        (86_399, "23 hours ago", "vor 23 Stunden"),
        (10 * 86_400, "10 days ago", "vor 10 Tagen"),
    ],
)
def test_ages_are_whole_units_of_the_language(
    seconds: float, english: str | None, german: str | None
) -> None:
    assert reader_of("en", None).ago(seconds) == english
    assert reader_of("de", None).ago(seconds) == german


def test_dates_and_numbers_follow_the_language() -> None:
    german, swiss = reader_of("de", None), reader_of("de-CH", None)

    assert german.day(date(2026, 3, 1)) == "1. März 2026"
    assert german.number(1234567) == "1.234.567"
    assert swiss.number(1234567) == "1’234’567"
