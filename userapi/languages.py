"""The languages of texts, and how times and numbers are written for a reader.

`translations/` has a catalogue for each language beside English, the language of the source. The
console reads it through Flask-Babel. Mails are rendered outside of requests and load it here.
"""

import re
import zoneinfo
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from babel import Locale, UnknownLocaleError
from babel.dates import (
    format_date,
    format_datetime,
    format_skeleton,
    format_time,
    format_timedelta,
    get_datetime_format,
)
from babel.numbers import format_decimal
from babel.support import NullTranslations, Translations
from babel.units import format_unit

Length = Literal["long", "medium"]
Unit = Literal["day", "hour", "minute"]

TRANSLATIONS = Path(__file__).parent / "translations"
DOMAIN = "messages"
SOURCE_LANGUAGE = "en"
LANGUAGES = (SOURCE_LANGUAGE, *sorted(p.parent.name for p in TRANSLATIONS.glob("*/LC_MESSAGES")))

# Units of durations, in seconds.
UNITS: tuple[tuple[Unit, int], ...] = (("day", 86_400), ("hour", 3600), ("minute", 60))
# Babel uses a unit with a smaller count only if it is the smallest unit.
NO_LARGER_UNIT = 10**9

# Files in the directory of the database that are not time zones.
NO_TIME_ZONES = frozenset({"Factory", "localtime", "posixrules"})
NO_TIME_ZONE_FOLDERS = ("posix/", "right/")

# The subtags of a language tag (RFC 5646 §2.1) that decide its catalogue and formats.
_TAG = re.compile(
    r"(?P<language>[a-z]{2,3})(?:[-_][a-z]{4})?"
    r"(?:[-_](?P<territory>[a-z]{2}|[0-9]{3}))?(?![a-z0-9])",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Reader:
    """The language and the time zone of the person who reads a text."""

    locale: Locale
    zone: tzinfo

    @property
    def catalogue(self) -> str:
        """Return the name of the catalogue: de, or pt_BR for a region with its own."""
        name = str(self.locale)
        return name if name in LANGUAGES else self.locale.language

    @property
    def language_tag(self) -> str:
        """Return the language of texts as HTML and mails name it (BCP 47)."""
        return self.catalogue.replace("_", "-")

    @property
    def zone_name(self) -> str:
        """Return the IANA name of the time zone."""
        return str(self.zone)

    def moment(self, value: datetime, length: Length = "long") -> str:
        """Return date and time to the minute, without the time zone.

        `length` is `long` (28 November 2026, 15:05) or `medium` (28 Nov 2026, 15:05).
        """
        local = value.astimezone(self.zone)
        pattern = str(get_datetime_format(length, locale=self.locale))
        time_of_day = format_time(local, "short", locale=self.locale)
        # Quotes surround words in a pattern: {1} 'at' {0}.
        pattern = pattern.replace("'", "")
        return pattern.replace("{0}", time_of_day).replace("{1}", self.day(local.date(), length))

    def exact_moment(self, value: datetime) -> str:
        """Return date and time to the second, with the time zone."""
        local = value.astimezone(self.zone)
        return f"{format_datetime(local, 'medium', locale=self.locale)} {self.zone_name}"

    def day(self, value: date, length: Length = "long") -> str:
        """Return a date."""
        return format_date(value, length, locale=self.locale)

    def short_day(self, value: date) -> str:
        """Return month and day, short enough for charts."""
        return format_skeleton("MMMd", value, locale=self.locale)

    def duration(self, seconds: float) -> str:
        """Return a duration in the largest unit of which it has at least two."""
        for unit, length in UNITS:
            if seconds >= 2 * length:
                return format_unit(int(seconds // length), f"duration-{unit}", locale=self.locale)
        return format_unit(round(seconds), "duration-second", locale=self.locale)

    def ago(self, seconds: float) -> str | None:
        """Return how long ago it was in days, hours or minutes; None for less than a minute."""
        for unit, length in UNITS:
            if seconds >= length:
                return format_timedelta(
                    -timedelta(seconds=seconds // length * length),
                    granularity=unit,
                    threshold=NO_LARGER_UNIT,
                    add_direction=True,
                    locale=self.locale,
                )
        return None

    def number(self, value: int) -> str:
        """Return a number with the separators of the language."""
        return format_decimal(value, locale=self.locale)


def reader_of(tag: str | None, zone: str | None) -> Reader:
    """Return the reader with this language tag and time zone; otherwise English and UTC."""
    return Reader(locale_of(tag) or Locale(SOURCE_LANGUAGE), zone_of(zone))


@lru_cache(maxsize=1024)
def locale_of(tag: str | None) -> Locale | None:
    """Return the locale for a language tag (BCP 47), or None if it has no catalogue.

    The region decides formats, not texts: de-CH reads the catalogue `de`.
    """
    match = _TAG.match(tag or "")
    if match is None:
        return None
    language, territory = match["language"].lower(), (match["territory"] or "").upper()
    if language not in LANGUAGES and f"{language}_{territory}" not in LANGUAGES:
        return None
    try:
        return Locale(language, territory=territory or None)
    except UnknownLocaleError:
        return Locale(language)


@lru_cache(maxsize=1)
def time_zones() -> frozenset[str]:
    """Return the names in the IANA time zone database."""
    return frozenset(
        name
        for name in zoneinfo.available_timezones() - NO_TIME_ZONES
        if not name.startswith(NO_TIME_ZONE_FOLDERS)
    )


def zone_of(name: str | None) -> tzinfo:
    """Return the time zone with this name; UTC for None and for a name that does not exist."""
    return ZoneInfo(name) if name and name in time_zones() else UTC


@lru_cache
def translations_of(catalogue: str) -> NullTranslations:
    """Return a catalogue; that of English returns each text unchanged."""
    return Translations.load(TRANSLATIONS, [catalogue], DOMAIN)
