"""The form of API keys, checked without a request.

`<prefix><p|s>_` + 22 + 43 + 6 characters in base 62: id, secret, CRC-32 of all before it.
"""

import re
import zlib
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

_FORM = re.compile(
    r"(?P<prefix>[a-z][a-z0-9]{1,9})(?P<kind>[ps])_"
    r"(?P<id>[0-9A-Za-z]{22})[0-9A-Za-z]{43}(?P<checksum>[0-9A-Za-z]{6})",
    re.ASCII,
)
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}
_CHECKSUM_LENGTH = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """The kind of owner and the id in an API key, without the secret."""

    kind: Literal["personal", "service"]
    key_id: str
    prefix: str


def parse_key(text: str) -> KeyInfo | None:
    """Return the parts of an API key, or None for any other text.

    This checks the form only: the service decides whether the key is valid.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    identifier, checksum = _number(found["id"]), _number(found["checksum"])
    if checksum != zlib.crc32(text[:-_CHECKSUM_LENGTH].encode()) or identifier >> 128:
        return None
    return KeyInfo(
        kind="personal" if found["kind"] == "p" else "service",
        key_id=str(UUID(int=identifier)),
        prefix=found["prefix"],
    )


def looks_like_key(text: str) -> bool:
    """Return whether the text has the form of a key, with any checksum."""
    return _FORM.fullmatch(text) is not None


def _number(digits: str) -> int:
    value = 0
    for digit in digits:
        value = value * 62 + _VALUES[digit]
    return value
