"""Blank, invisible and control characters.

Text that is copied and pasted often contains blanks around it, invisible characters make names
unreadable, and control characters change the state of the terminal that prints them.
"""

import re
import unicodedata

# Invisible in spite of their category: fillers of Hangul, the empty Braille pattern, the grapheme
# joiner, inherent vowels of Khmer, variation selectors (Unicode `Default_Ignorable_Code_Point`).
_INVISIBLE = frozenset(
    map(
        chr,
        [
            *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2065, 0x2800, 0x3164, 0xFFA0),
            *range(0x180B, 0x1810),
            *range(0xFE00, 0xFE10),
            *range(0xFFF0, 0xFFF9),
            *range(0xE0000, 0xE1000),
        ],
    )
)
# Separators of every kind, format characters (zero-width, soft hyphen, byte order mark).
_BLANK_CATEGORIES = frozenset({"Cf", "Zl", "Zp", "Zs"})
_BLANK_CONTROLS = "\t\n\v\f\r\x85"

# C0, DEL and C1.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")
# Control characters, line separators, characters that change the direction of writing, and
# surrogates, which cannot be encoded in UTF-8.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e"
    "\u2066-\u2069\ud800-\udfff\ufeff]"
)


def is_blank(text: str) -> bool:
    """Return whether a text is empty or contains only blanks and invisible characters."""
    return all(map(_is_invisible, text))


def without_blanks_around(text: str) -> str:
    """Return the text without leading and trailing blanks and invisible characters."""
    begin, end = 0, len(text)
    while begin < end and _is_invisible(text[begin]):
        begin += 1
    while end > begin and _is_invisible(text[end - 1]):
        end -= 1
    return text[begin:end]


def has_controls(text: str) -> bool:
    """Return whether a text contains control characters (C0, DEL, C1)."""
    return _CONTROLS.search(text) is not None


def without_controls(text: str) -> str:
    """Return the text without control characters (C0, DEL, C1)."""
    return _CONTROLS.sub("", text)


def printable(text: str) -> str:
    """Return the text with a question mark for each character that could affect a terminal."""
    return _UNPRINTABLE.sub("?", text)


def escaped(text: str) -> str:
    """Return the text with a `\\u` escape for each character that could affect a terminal."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _is_invisible(character: str) -> bool:
    return (
        unicodedata.category(character) in _BLANK_CATEGORIES
        or character in _BLANK_CONTROLS
        or character in _INVISIBLE
    )
