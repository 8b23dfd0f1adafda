"""Rules for the fields of a profile that need a library to judge."""

import re
import zoneinfo
from functools import lru_cache

import phonenumbers
from babel import Locale, UnknownLocaleError

NATIONAL_NUMBER = re.compile(r"[0-9(][0-9 ()./-]{3,23}[0-9]", re.ASCII)


@lru_cache(maxsize=1)
def _timezones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def is_timezone(name: str) -> bool:
    """Tell whether the IANA time zone database has this name."""
    return name in _timezones()


@lru_cache(maxsize=1024)
def is_locale(tag: str) -> bool:
    """Tell whether CLDR has this language tag, written as de, de-CH or de_CH (BCP 47)."""
    try:
        Locale.parse(tag.replace("-", "_"))
    except (UnknownLocaleError, ValueError, TypeError):
        return False
    return True


def is_phone_number(text: str) -> bool:
    """Tell whether this is a possible number: international with a + (E.164), or national."""
    if not text.startswith("+"):
        return NATIONAL_NUMBER.fullmatch(text) is not None
    try:
        number = phonenumbers.parse(text, None)
    except phonenumbers.NumberParseException:
        return False
    return phonenumbers.is_possible_number(number)
