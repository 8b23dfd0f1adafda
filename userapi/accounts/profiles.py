"""Rules for profile fields that need a library: time zones, language tags, phone numbers."""

import re
from functools import lru_cache

import phonenumbers
from babel import Locale, UnknownLocaleError

from userapi.languages import time_zones

NATIONAL_NUMBER = re.compile(r"[0-9(][0-9 ()./-]{3,23}[0-9]", re.ASCII)


# A language tag (RFC 5646 §2.1): language, script and region are looked up in CLDR; of variants,
# extensions and private use only the syntax is checked. CLDR writes `_` in place of `-`.
LANGUAGE_TAG = re.compile(
    r"(?P<language>[a-z]{2,3}|[a-z]{5,8})"
    r"(?P<script>[-_][a-z]{4})?(?P<region>[-_](?:[a-z]{2}|[0-9]{3}))?"
    r"(?P<variants>(?:[-_](?:[a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*)"
    r"(?P<extensions>(?:[-_][0-9a-wyz](?:[-_][a-z0-9]{2,8})+)*)"
    r"(?:[-_]x(?:[-_][a-z0-9]{1,8})+)?",
    re.ASCII | re.IGNORECASE,
)


def is_timezone(name: str) -> bool:
    """Return whether the IANA time zone database has this name."""
    return name in time_zones()


@lru_cache(maxsize=1024)
def is_locale(tag: str) -> bool:
    """Return whether this is a language tag (BCP 47) of a language in CLDR: de, de-CH or de_CH.

    Names of POSIX locales, such as de_CH.UTF-8 and de@euro, are not.
    """
    match = LANGUAGE_TAG.fullmatch(tag)
    if match is None or _repeats(_subtags(match["variants"])):
        return False
    if _repeats([part for part in _subtags(match["extensions"]) if len(part) == 1]):
        return False
    known = match["language"] + (match["script"] or "") + (match["region"] or "")
    try:
        Locale.parse(known.replace("-", "_"))
    except (UnknownLocaleError, ValueError, TypeError):
        return False
    return True


def _subtags(text: str) -> list[str]:
    return [part for part in re.split("[-_]", text.lower()) if part]


def _repeats(parts: list[str]) -> bool:
    return len(set(parts)) != len(parts)


def is_phone_number(text: str) -> bool:
    """Return whether this is a possible number: international with a + (E.164), or national."""
    if not text.startswith("+"):
        return NATIONAL_NUMBER.fullmatch(text) is not None
    try:
        number = phonenumbers.parse(text, None)
    except phonenumbers.NumberParseException:
        return False
    return phonenumbers.is_possible_number(number)
