"""Parsers of the look of mails."""

import re
from urllib.parse import urlsplit


def color(raw: str) -> str:
    """Parse a colour as six hexadecimal digits, such as #1f5fbf."""
    if not re.fullmatch(r"#[0-9A-Fa-f]{6}", raw, re.ASCII):
        raise ValueError("must be a color such as #1f5fbf")
    return raw.lower()


def image_url(raw: str) -> str:
    """Parse the address of an image. Mail programs load images through https alone."""
    try:
        parts = urlsplit(raw)
        is_valid = parts.scheme == "https" and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_valid = False
    if not is_valid or not re.fullmatch(r"[!-~]{1,500}", raw, re.ASCII):
        raise ValueError("must be an address such as https://www.example.com/logo.png")
    return raw
