"""Which characters count as blanks, and which never reach a terminal."""

import pytest

from userapi.characters import is_blank, printable, without_blanks_around, without_controls

INVISIBLE = [
    pytest.param(text, id=name)
    for name, text in {
        "blank": " ",
        "tab": "\t",
        "no-break space": "\u00a0",
        "ideographic space": "\u3000",
        "zero-width space": "\u200b",
        "zero-width joiner": "\u200d",
        "word joiner": "\u2060",
        "soft hyphen": "\u00ad",
        "byte order mark": "\ufeff",
        "Hangul filler": "\u3164",
        "half-width Hangul filler": "\uffa0",
        "Hangul Choseong filler": "\u115f",
        "empty Braille": "\u2800",
        "grapheme joiner": "\u034f",
        "right-to-left mark": "\u200f",
        "variation selector": "\ufe0f",
        "tag": "\U000e0041",
        "several": " \u200b\u3164\u00ad",
    }.items()
]


@pytest.mark.parametrize("text", INVISIBLE)
def test_invisible_text_is_blank(text: str) -> None:
    assert is_blank(text)
    assert without_blanks_around(f"{text}ada{text}") == "ada"


@pytest.mark.parametrize("text", ["a", "é", "李", "נ", "❤️", "👩\u200d🚀", "‌x", "-", "o\u0301"])
def test_what_can_be_seen_is_not_blank(text: str) -> None:
    assert not is_blank(text)


def test_blanks_inside_of_a_text_stay() -> None:
    assert without_blanks_around("\u00a0Ada  Lovelace\u200b\n") == "Ada  Lovelace"


def test_controls_are_taken_out() -> None:
    assert without_controls("a\x9b31mb\x85c\x1b[2Jd\x7fé") == "a31mbc[2Jdé"


@pytest.mark.parametrize("code", [0, 7, 10, 27, 127, 0x85, 0x9B, 0x9F, 0x202E, 0x2066, 0x2028])
def test_what_steers_a_terminal_is_not_printable(code: int) -> None:
    assert printable(f"a{chr(code)}b") == "a?b"


def test_other_scripts_and_emoji_are_printed() -> None:
    assert printable("Łukasz 李 עדה 👩\u200d🚀") == "Łukasz 李 עדה 👩\u200d🚀"
